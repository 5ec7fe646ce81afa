"""An image generated in two scales: a small one, then the rest of the large one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_event_shape
from pyro_genmodels._typing import EventShape, Float, Int, Num
from pyro_genmodels.nets.autoregressive.base import AutoregressiveNet, IncrementalEvaluation


class MultiScaleNet(AutoregressiveNet):
    r"""Two networks over one image: every s-th pixel first, then the others given those.

    .. math:: p(x) = p_{small}(x_{small}) \; p_{large}(x_{rest} \mid x_{small})

    The small image's pixels are pixels of the large one. So they come first in the order of
    generation, and the large network's law counts at the others only: that sums to one, and the
    likelihood is exact. The small image is brought to the large one's size by a transposed
    convolution with as many features as the large network's context has channels, and given to the
    large network as that context; its pixels are also part of what that network sees of the past.
    The paper does not say how pixels that both networks know are counted, nor what the enlarged
    image passes through; here a ReLU, and whatever the large network does with a context.

    Where generation begins from a given small image (``given``, with ``num_given`` the number of
    its sub-pixels), this is an exact sampler of larger versions of it.

    Args:
        small: Network of the small image, ``(C, ceil(H / s), ceil(W / s))``; conditional if the
            whole is to be.
        large: Network of the image, ``(C, H, W)``, that takes maps as context.
        scale: The paper's :math:`s`: every so many pixels are part of the small image.

    Shape:
        ``(*batch, C, H, W)`` to parameters ``(*batch, C, H, W, num_parameters)``.

    Raises:
        ValueError: If the networks do not fit together.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks, section 3.6.
        https://arxiv.org/abs/1601.06759

    Example:
        >>> from pyro_genmodels.nets import PixelRNNNet
        >>> small = PixelRNNNet((1, 4, 4), 17, hidden_channels=4, num_layers=1)
        >>> large = PixelRNNNet(
        ...     (1, 8, 8), 17, hidden_channels=4, num_layers=1, context_shape=(5, 8, 8)
        ... )
        >>> MultiScaleNet(small, large)(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 1, 8, 8, 17])
    """

    def __init__(
        self, small: AutoregressiveNet, large: AutoregressiveNet, *, scale: int = 2
    ) -> None:
        for name, net in (("small", small), ("large", large)):
            check(isinstance(net, AutoregressiveNet), name, "be an AutoregressiveNet", type(net))
        rule = "take maps as context, without labels"
        maps = large.context_event_dim == 3 and large.num_classes is None
        check(maps, "large", rule, (large.num_classes, large.context_shape))
        sizes = small_shape(large.event_shape, scale)
        found = tuple(small.event_shape)
        check(found == sizes, "small", f"be over {sizes}", found)
        rule = f"have {large.num_levels} levels as `large` has"
        check(small.num_levels == large.num_levels, "small", rule, small.num_levels)
        channels = (large.context_shape or (1,))[0]
        super().__init__(
            large.event_shape,
            large.num_levels,
            context_features=channels,
            num_classes=small.num_classes,
            context_shape=small.context_shape,
        )
        self.small, self.large, self.scale = small, large, scale
        # Each pixel sees the one or two small pixels about it, in each direction.
        sides = zip(large.event_shape[1:], sizes[1:], strict=True)
        rows, columns = (side - 1 - (count - 1) * scale for side, count in sides)
        self.enlarge = nn.ConvTranspose2d(
            sizes[0], channels, 2 * scale - 1, scale, scale - 1, output_padding=(rows, columns)
        )

    @property
    def order(self) -> Int[Tensor, " elements"]:
        """Indices of the flattened event: the small image's, then the others, each in its order."""
        # By sorting, which unlike a selection needs no look at the values.
        key = self.small_indices.numel() + self.large.order.argsort()
        key[self.small_indices] = self.small.order.argsort()
        return key.argsort()

    @property
    def small_indices(self) -> Int[Tensor, " small_elements"]:
        """Indices in the flattened event of the small image's elements."""
        places = torch.arange(self.event_shape.numel(), device=self.device)
        return self.reduced(places.view(self.event_shape)).flatten()

    def reduced(self, x: Tensor) -> Tensor:
        """Return every s-th pixel."""
        return x[..., :: self.scale, :: self.scale]

    def context_features(self, context: Tensor | None) -> Tensor | None:
        """Return the features for both networks, side by side.

        Of a map, the small image's are written into every s-th place.
        """
        own, small = super().context_features(context), self.small.context_features(context)
        if own is None or small is None:
            return None
        if self.context_event_dim == 3:
            larger = small.new_zeros(*small.shape[:-2], *self.event_shape[1:])
            self.reduced(larger).copy_(small)
            small = larger
        return torch.cat([own, small], -self.features_event_dim)

    def split_features(self, features: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return what is added to the enlarged image, and the small network's features."""
        if features is None:
            return None, None
        own, small = features.tensor_split([self.context.features], 1)
        return (own, self.reduced(small)) if features.dim() == 4 else (own[..., None, None], small)

    def enlarged(self, small: Tensor, own: Tensor | None) -> Tensor | None:
        """Return the large network's features of its context."""
        y = self.enlarge(small * (2 / (self.num_levels - 1)) - 1)
        return self.large.context_features((y if own is None else y + own).relu())

    def evaluate(
        self, x: Float[Tensor, "batch ..."], features: Float[Tensor, "batch ..."] | None
    ) -> Float[Tensor, "batch ..."]:
        """Return each element's parameters, from the network that generates it."""
        small = self.reduced(x)
        own, of_small = self.split_features(features)
        parameters = self.large.evaluate(x, self.enlarged(small, own)).clone()
        parameters[..., :: self.scale, :: self.scale, :] = self.small.evaluate(small, of_small)
        return parameters

    def incremental(
        self, batch_size: int, features: Float[Tensor, "batch ..."] | None
    ) -> IncrementalEvaluation:
        """Return an evaluation of the small network, and then of the large one."""
        return MultiScaleEvaluation(self, batch_size, features)


class MultiScaleEvaluation(IncrementalEvaluation):
    """Evaluates the small network, then the large one, which is told the values that it has."""

    def __init__(self, net: MultiScaleNet, batch_size: int, features: Tensor | None) -> None:
        self._net, self._batch = net, batch_size
        self._own, of_small = net.split_features(features)
        self._state = net.small.incremental(batch_size, of_small)
        size = net.small.event_shape.numel()
        self._small = torch.zeros(batch_size, size, dtype=net.dtype, device=net.device)
        self._order: list[int] = net.small.order.tolist()
        self._position = 0
        self._known: Iterator[int | None] | None = None  # once the small image is there

    def parameters(self) -> Float[Tensor, "batch parameters"]:
        """Return the next element's parameters."""
        if self._position == len(self._order):
            self._start_large()
        if self._known is not None:
            self._take_known(self._known)
        return self._state.parameters()

    def append(self, level: Num[Tensor, " batch"]) -> None:
        """Take the next element's value."""
        if self._known is None:
            self._small[:, self._order[self._position]] = level.to(self._small.dtype)
        self._state.append(level)
        self._position += 1

    def _start_large(self) -> None:
        net = self._net
        small = self._small.view(-1, *net.small.event_shape)
        self._state = net.large.incremental(self._batch, net.enlarged(small, self._own))
        place = {index: column for column, index in enumerate(net.small_indices.tolist())}
        self._known = iter([place.get(index) for index in net.large.order.tolist()])

    def _take_known(self, known: Iterator[int | None]) -> None:
        for column in itertools.takewhile(lambda column: column is not None, known):
            self._state.parameters()
            self._state.append(self._small[:, column])


def small_shape(event_shape: EventShape, scale: int) -> tuple[int, ...]:
    """Return the sizes of every ``scale``-th pixel of an image.

    Raises:
        ValueError: If it is no image, or ``scale`` takes nothing away.

    Example:
        >>> small_shape((3, 5, 8), 2)
        (3, 3, 4)
    """
    check(scale >= 2, "scale", "be at least 2", scale)
    channels, *sides = check_event_shape(event_shape, ranks=(3,))
    return (channels, *(-(-side // scale) for side in sides))
