"""Learned priors over maps of codes: the second stage of VQ-VAE and VQ-VAE-2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyro.poutine.util import is_validation_enabled

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._typing import Tensor
from pyro_genmodels.distributions import VQPrior
from pyro_genmodels.distributions.autoregressive import check_looks_up
from pyro_genmodels.models.autoregressive.autoregressive_model import AutoregressiveModel
from pyro_genmodels.models.vqvae.base import VectorQuantizedModel
from pyro_genmodels.models.vqvae.code_priors import CodePrior
from pyro_genmodels.nets import (
    AutoregressiveNet,
    CodeConditioner,
    CodeHierarchyNet,
    GatedPixelCNNNet,
    PixelSNAILNet,
    WaveNetNet,
)
from pyro_genmodels.nets.layers import check_finite_context


class LearnedPrior(CodePrior):
    """Prior that owns an autoregressive network, and what conditions it on the maps above.

    Trained on the codes of encoded data, :func:`pyro_genmodels.training.fit_prior` or by hand,
    then assigned to ``vqvae.prior`` or an entry of ``vqvae2.priors``: the ELBO improves by exactly
    what the codes' log-probability did. A network without a context serves a conditional model
    too, all of whose contexts then have one prior.

    Args:
        net: Network over the map.
        conditioner: For a map below others, what brings those above (and the model's context) to
            the network's context.

    Raises:
        ValueError: If the network takes codes for quantities, or not the conditioner's features.

    Example:
        >>> from pyro_genmodels.models import VQVAE
        >>> vqvae = VQVAE((1, 8, 8), num_levels=17, codebook=32)
        >>> vqvae.prior = LearnedPrior(PixelSNAILNet((2, 2), 32, embedding_size=8))
        >>> vqvae.sample(3).shape
        torch.Size([3, 1, 8, 8])
    """

    kind = "learned"

    def __init__(self, net: AutoregressiveNet, conditioner: CodeConditioner | None = None) -> None:
        check_looks_up(net)
        super().__init__(net.event_shape, net.num_levels)
        self.net, self.conditioner = net, conditioner
        if conditioner is not None:
            rule = "take no labels beside a conditioner, which takes them"
            check(net.num_classes is None, "net", rule, net.num_classes)
            wanted = tuple(conditioner.features_shape)
            given = None if net.context_shape is None else tuple(net.context_shape)
            check(wanted == given, "net", f"take the conditioner's features, {wanted}", given)

    def forward(self, above: Sequence[Tensor] = (), context: Tensor | None = None) -> Any:
        """Return the distribution over the map."""
        if is_validation_enabled():
            check_finite_context(context)
        part = self.net if self.conditioner is None else self.conditioner
        context = None if part.context.event_dim is None else context
        if self.conditioner is not None:
            context = self.conditioner(above, context)
        # What is observed are a quantiser's codes, what is drawn needs no check.
        return VQPrior(self.net, context, validate_args=False)


@integers_checked
def learned_priors(
    model: VectorQuantizedModel,
    *,
    hidden_channels: int = 64,
    num_blocks: int = 2,
    num_layers: int | None = None,
    kernel_size: int = 5,
    layer_kernel_size: int = 3,
    residual_channels: int | Sequence[int] | None = None,
    num_output_layers: int = 0,
    num_heads: int = 4,
    embedding_size: int = 32,
    conditioning_blocks: int = 3,
    dropout: float = 0.1,
) -> list[LearnedPrior]:
    """Make untrained priors that fit a model: attention at the top, the maps above below it.

    Every map's network has gated layers; the top's has causal attention behind each block of them,
    the others see the codes above through residual conditioning blocks. Over a sequence of codes,
    one a position, there is a WaveNet. A conditional model's context enters all. Of a lower map's
    own codes each sees as far as the kernels reach, by default 6 rows and columns; what lies
    further it sees through the maps above.

    Args:
        model: The model; it is left as it is.
        hidden_channels: Features of each network.
        num_blocks: Blocks of gated layers, at the top of maps each with attention.
        num_layers: Gated layers of a block: two by default; over a sequence, where each is dilated
            twice as much as the one before, as many as span it, ten at most.
        kernel_size: Size of the first layer's kernel. A WaveNet's have two.
        layer_kernel_size: Size of the other layers' kernels.
        residual_channels: Features of a rectified layer inside each residual connection, for all
            maps alike or from the top; by default connections are linear, but for those of
            conditioning blocks, which have ``hidden_channels``.
        num_output_layers: Residual 1x1 layers at the end of the top's network.
        num_heads: Attention heads.
        embedding_size: Size of a code's vector.
        conditioning_blocks: Residual blocks through which a map sees those above.
        dropout: Share of features dropped in training: codes of thousands of images are soon
            learned by heart.

    Returns:
        A prior for each map, from the top.

    Raises:
        ValueError: If a size is impossible, or of what a network over sequences has not; if a
            sequence has several codes a position.

    References:
        Razavi et al. (2019), Generating diverse high-fidelity images with VQ-VAE-2, appendix A
        (512 features and 20 layers for maps of 32x32 and more).
        https://arxiv.org/abs/1906.00446
    """
    context: dict[str, Any] = {
        "num_classes": model.num_classes,
        "context_shape": model.context_shape,
    }
    priors = model.code_priors
    inner = _for_each_map(residual_channels, len(priors))
    if model.map_rank == 1:
        check(inner == [None], "residual_channels", "be None for sequences", residual_channels)
        sizes: dict[str, Any] = {"num_blocks": num_blocks, "layers_per_block": num_layers}
        sizes |= {"channels": hidden_channels, "skip_channels": hidden_channels}
        return [_wavenet(priors[0], dropout=dropout, **sizes, **context)]
    num_layers = 2 if num_layers is None else num_layers
    shared: dict[str, Any] = {
        "hidden_channels": hidden_channels,
        "kernel_size": kernel_size,
        "layer_kernel_size": layer_kernel_size,
        "embedding_size": embedding_size,
        "dropout": dropout,
    }
    blocks: dict[str, Any] = {
        "num_blocks": num_blocks,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "residual_channels": inner[0],
        "num_output_layers": num_output_layers,
    }
    first = priors[0]
    top = PixelSNAILNet(first.code_shape, first.num_codes, **blocks, **shared, **context)
    made = [LearnedPrior(top)]
    conditioning: dict[str, Any] = {"num_blocks": conditioning_blocks, "features": hidden_channels}
    conditioning |= {"embedding_size": embedding_size} | context
    shared["num_layers"] = num_blocks * num_layers
    for i in range(1, len(priors)):
        conditioning["residual_channels"] = inner[i] or hidden_channels
        shared["residual_channels"] = inner[i]
        made.append(_below(priors[:i], priors[i], conditioning, shared))
    return made


def _for_each_map(
    residual_channels: int | Sequence[int] | None, number: int
) -> list[int] | list[None]:
    if residual_channels is None:
        return [None] * number
    if isinstance(residual_channels, int):
        return [residual_channels] * number
    rule = f"be one number, or one for each of {number} maps"
    check(len(residual_channels) == number, "residual_channels", rule, list(residual_channels))
    return list(residual_channels)


def _wavenet(law: CodePrior, *, layers_per_block: int | None, **options: Any) -> LearnedPrior:
    """Make the prior of a sequence of codes, of which a block sees all, or 1024."""
    shape = tuple(law.code_shape)
    # Code by code, a WaveNet would have one embedding for all codebooks, and not know whose turn it
    # is; a network over maps would take the codebooks for the rows of an image.
    rule = "have one code a position to get a WaveNet: for several assign an own CodePrior over "
    check(len(shape) == 1, "model", f"{rule}maps {shape}", f"codes of shape {shape}")
    layers = layers_per_block or max(1, min(10, (shape[0] - 1).bit_length()))
    net = WaveNetNet(law.code_shape, law.num_codes, layers_per_block=layers, **options)
    return LearnedPrior(net)


def _below(
    above: Sequence[CodePrior],
    law: CodePrior,
    conditioning: dict[str, Any],
    options: dict[str, Any],
) -> LearnedPrior:
    """Make the prior of a map that sees those above it."""
    shapes, codes = [each.code_shape for each in above], [each.num_codes for each in above]
    conditioner = CodeConditioner(shapes, codes, law.code_shape[-2:], **conditioning)
    features = conditioner.features_shape
    net = GatedPixelCNNNet(law.code_shape, law.num_codes, context_shape=features, **options)
    return LearnedPrior(net, conditioner)


def code_model(priors: Sequence[LearnedPrior]) -> AutoregressiveModel:
    """Return the model of all maps' codes, side by side in one vector, that trains these priors.

    It has the very networks of the priors: training one trains the other.

    Args:
        priors: A prior for each map, from the top.

    Returns:
        A model whose data are ``model.net.join(maps)``.
    """
    net = CodeHierarchyNet([p.net for p in priors], [p.conditioner for p in priors])
    return AutoregressiveModel(net)
