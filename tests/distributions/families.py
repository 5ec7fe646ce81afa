"""One small distribution of each autoregressive network, of any event shape and context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from pyro_genmodels import distributions, nets
from pyro_genmodels.distributions import AutoregressiveDistribution
from pyro_genmodels.nets import AutoregressiveNet
from pyro_genmodels.testing import randomize_parameters

Shape = tuple[int, ...]

# A key is a distribution's name, with a variant after a slash. The options stand beside event
# shape, levels and context: sizes small enough for tests, where the network's own are not.
NETWORKS: dict[str, tuple[Callable[..., AutoregressiveNet], dict[str, Any]]] = {
    "CharRNN": (nets.CharRNNNet, {"hidden_features": 8}),
    "GatedPixelCNN": (nets.GatedPixelCNNNet, {"hidden_channels": 6, "num_layers": 2}),
    "MADE": (nets.MADENet, {"hidden": (16,), "order": "random", "num_masks": 2}),
    "NGram": (nets.NGramNet, {"order": 3, "hidden": (8,)}),
    "PixelCNN": (nets.PixelCNNNet, {"hidden_channels": 8, "num_blocks": 2}),
    "PixelCNNPlusPlus": (
        nets.PixelCNNPlusPlusNet,
        {"hidden_channels": 4, "num_resnets": 1, "num_scales": 1, "num_mixtures": 2},
    ),
    "PixelRNN/diagonal": (nets.PixelRNNNet, {"hidden_channels": 6, "num_layers": 1}),
    "PixelRNN/row": (nets.PixelRNNNet, {"hidden_channels": 6, "num_layers": 1, "layer": "row"}),
    "PixelSNAIL": (nets.PixelSNAILNet, {"hidden_channels": 8, "num_blocks": 1}),
    "VQPrior": (nets.PixelSNAILNet, {"hidden_channels": 8, "num_blocks": 1, "embedding_size": 3}),
    "WaveNet": (nets.WaveNetNet, {"channels": 6, "num_blocks": 1, "layers_per_block": 3}),
}
# The general one, and those of two maps or scales, which ``tests/cases`` holds to the same laws at
# shapes of their own.
ELSEWHERE = {"AutoregressiveDistribution", "HierarchicalVQPrior", "MultiScalePixelRNN"}


def without_sizes() -> dict[str, tuple[Callable[..., AutoregressiveNet], dict[str, Any]]]:
    """The distributions whose network is small as it is."""
    sized = {name.partition("/")[0] for name in NETWORKS}
    names = sorted(set(distributions.__all__) - sized - ELSEWHERE)
    found = {name: getattr(distributions, name) for name in names}
    return {
        name: (law.network, {})
        for name, law in found.items()
        if issubclass(law, AutoregressiveDistribution)
    }


NETWORKS |= without_sizes()
CONTEXTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "label": {"num_classes": 3},
    "vector": {"context_shape": (2,)},
}


def make(
    name: str,
    event_shape: Shape,
    num_levels: int,
    *,
    batch: Shape = (),
    dtype: torch.dtype = torch.float64,
    scale: float = 1.0,
    **options: Any,
) -> AutoregressiveDistribution:
    """Return the distribution at random parameters, and random contexts if it takes any."""
    make_net, sizes = NETWORKS[name]
    net = make_net(event_shape, num_levels, **{**sizes, **options})
    randomize_parameters(net.to(dtype), scale)
    net.eval()
    law = getattr(distributions, name.partition("/")[0])
    if net.num_classes is not None:
        return law(net, torch.randint(net.num_classes, batch))
    if net.context_shape is not None:
        return law(net, torch.randn(*batch, *net.context_shape, dtype=dtype))
    return law(net)
