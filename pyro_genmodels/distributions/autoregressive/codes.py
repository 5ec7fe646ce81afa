"""Distributions over maps of codes: what a vector-quantised model draws its codes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.distributions.autoregressive.base import SoftmaxAutoregressive
from pyro_genmodels.nets import AutoregressiveNet, CodeHierarchyNet
from pyro_genmodels.nets.autoregressive import LevelInput


class VQPrior(SoftmaxAutoregressive):
    r"""Distribution over one map of codes, one softmax over codes a place.

    .. math:: p(c \mid y) = \prod_t \mathrm{softmax}(f(c_{<t}, y))_{c_t}

    over the places in raster order, the parts of a composite quantiser's code one after another.
    Draws are ``int64``, as indices are. A network with attention, such as
    :class:`~pyro_genmodels.nets.PixelSNAILNet`, is the paper's choice for a top map; for sequences
    of codes there is :class:`~pyro_genmodels.nets.WaveNetNet`.

    Args:
        net: Network over maps ``(h, w)``, ``(parts, h, w)`` or sequences ``(T,)``, which looks
            each code up: its number says nothing.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's. For a finer map of a hierarchy, what a
            :class:`~pyro_genmodels.nets.CodeConditioner` makes of the maps above.
        missing: Whether NaN stands for a code that was not observed; those must be the last ones.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network takes codes for quantities, or the context is not what it was
            declared to take.

    References:
        van den Oord et al. (2017), Neural discrete representation learning, section 3.3.
        https://arxiv.org/abs/1711.00937

    Example:
        >>> from pyro_genmodels.nets import PixelSNAILNet
        >>> net = PixelSNAILNet((4, 4), 512, embedding_size=8, num_blocks=1, num_classes=10)
        >>> prior = VQPrior(net, torch.arange(10))
        >>> codes = prior.sample((2,))
        >>> codes.shape, codes.dtype, prior.log_prob(codes).shape
        (torch.Size([2, 10, 4, 4]), torch.int64, torch.Size([2, 10]))
    """

    def __init__(
        self,
        net: AutoregressiveNet,
        context: Num[Tensor, ...] | None = None,
        *,
        missing: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        check_looks_up(net)
        super().__init__(net, context, missing=missing, validate_args=validate_args)

    @property
    def sample_dtype(self) -> torch.dtype:
        """That of indices."""
        return torch.int64


class HierarchicalVQPrior(SoftmaxAutoregressive):
    r"""Joint distribution over maps of codes, each finer one given those above.

    .. math:: p(c \mid y) = p(c_0 \mid y) \prod_i p(c_i \mid c_{<i}, y)

    The event is a vector: the maps' codes in the order of generation, the top first, so that one
    site, one data set or one file holds them all. :meth:`split` gives the maps, :meth:`join` the
    vector, and :meth:`map_prior` one map's factor, for programs with a site for each.

    Args:
        net: The maps' networks, and what conditions each on the maps above.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, or the context is not what it takes.

    References:
        Razavi et al. (2019), Generating diverse high-fidelity images with VQ-VAE-2, section 3.2.
        https://arxiv.org/abs/1906.00446

    Example:
        >>> from pyro_genmodels.nets import CodeConditioner, GatedPixelCNNNet, PixelSNAILNet
        >>> top = PixelSNAILNet((2, 2), 8, embedding_size=4, num_blocks=1)
        >>> below = CodeConditioner([(2, 2)], 8, (4, 4), features=6)
        >>> bottom = GatedPixelCNNNet((4, 4), 8, embedding_size=4, context_shape=(6, 4, 4))
        >>> prior = HierarchicalVQPrior(CodeHierarchyNet([top, bottom], [None, below]))
        >>> codes = prior.sample((3,))
        >>> codes.shape, [tuple(each.shape) for each in prior.split(codes)]
        (torch.Size([3, 20]), [(3, 2, 2), (3, 4, 4)])
        >>> prior.map_prior(1, prior.split(codes)[:1]).batch_shape
        torch.Size([3])
    """

    net: CodeHierarchyNet
    network = CodeHierarchyNet

    def split(self, value: Num[Tensor, "*batch elements"]) -> list[Num[Tensor, ...]]:
        """Return the maps of an event, from the top, each ``(*batch, *map_shape)``."""
        return self.net.split(value)

    def join(self, maps: Sequence[Num[Tensor, ...]]) -> Num[Tensor, "*batch elements"]:
        """Lay maps side by side as an event."""
        return self.net.join(maps)

    def map_prior(self, index: int, above: Sequence[Num[Tensor, ...]] = ()) -> VQPrior:
        """Return the law of one map given those above."""
        context: Float[Tensor, ...] | None = self.net.map_context(index, above, self.context)
        net: Any = self.net.maps[index]
        return VQPrior(net, context, validate_args=self._validate_args)


def check_looks_up(net: AutoregressiveNet) -> None:
    """Raise ``ValueError`` if a network takes codes for quantities."""
    inputs = getattr(net, "levels", None)
    numbers = isinstance(inputs, LevelInput) and inputs.embed is None
    check(not numbers, "net", "look codes up: give it an `embedding_size`", "codes as numbers")
