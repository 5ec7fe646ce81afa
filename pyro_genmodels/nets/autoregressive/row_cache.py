"""Masked convolutions evaluated along a raster scan: what incremental evaluations are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias, cast

import torch
from torch import Tensor, nn

from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d, MaskedRowConv2d, group_bounds

MaskedConv: TypeAlias = "MaskedConv2d | MaskedRowConv2d"


class PixelRow:
    """The row of pixels that a convolution reads, and is written in turn.

    A pixel's window holds what is read before it, and its own features. Each image's row lies in
    one piece, so that a window is a view of it.

    Args:
        layer: The convolution.
        batch_size: Number of images.
        width: Number of pixels in a row.
        before: Number of features before a pixel's own.
        step: How far apart the pixels lie; by default one behind the other.
        after: Number of features behind the last pixel.

    Attributes:
        row: The row, ``(batch, features)``.
        pixels: The pixels' features, ``(width, batch, channels)``.
        stops: How much of a window each colour sees.
        windows: What each colour of each pixel sees.
        targets: Where each colour of each pixel is written.
    """

    def __init__(
        self,
        layer: MaskedConv,
        batch_size: int,
        width: int,
        *,
        before: int,
        step: int | None = None,
        after: int = 0,
    ) -> None:
        size, groups = layer.weight.shape[1], layer.num_groups
        step = size if step is None else step
        self.row = layer.weight.new_zeros(batch_size, before + width * step + after)
        strides = (step, self.row.stride(0), 1)
        self.pixels = self.row.as_strided((width, batch_size, size), strides, before)
        ins = group_bounds(size, groups)
        self.stops = [before + end for end in (ins[1:] if layer.kind == "B" else ins[:-1])]
        starts = range(0, width * step, step)
        self.windows = [[self.row[:, a : a + stop] for stop in self.stops] for a in starts]
        self.targets = [group_views(pixel, groups) for pixel in self.pixels]


class RowCache:
    r"""A masked convolution evaluated along a raster scan, with memory for a few rows of input.

    The taps above the centre row see finished rows only, so their sum is made for a whole row in
    one product. What is left for a sub-pixel is one product with the pixels to its left.

    Args:
        layer: The convolution; its weight is masked and laid out once, here.
        batch_size: Number of images.
        width: Number of pixels in a row.
    """

    def __init__(self, layer: MaskedConv2d, batch_size: int, width: int) -> None:
        weight, half, size = layer.masked_weight, layer.kernel_size // 2, layer.in_channels
        self._half, self._bias = half, layer.bias
        self._upper = weight[:, :, :half].permute(2, 3, 1, 0).reshape(-1, layer.out_channels)
        lower = weight[:, :, half, : half + 1].permute(2, 1, 0).reshape(-1, layer.out_channels)
        row = PixelRow(layer, batch_size, width, before=half * size, after=half * size)
        self._row, self.pixels = row.row, row.pixels
        self.inputs, self.targets = row.windows, row.targets
        self._above = weight.new_zeros(batch_size, half, self._row.shape[1])
        self._windows = self._above.as_strided(
            (batch_size, width, half, layer.kernel_size * size),
            (self._above.stride(0), size, self._row.shape[1], 1),
        )
        self.base = weight.new_zeros(batch_size, width, layer.out_channels)
        self.bases = [group_views(base, layer.num_groups) for base in self.base.unbind(1)]
        outs = group_bounds(layer.out_channels, layer.num_groups)
        self.weights = colour_weights(lower, row.stops, outs)

    def start_row(self, bias: Float[Tensor, "columns images out"] | None = None) -> None:
        """Move down a row; ``bias`` stands in for the layer's own, of each pixel or one for all."""
        self.base.copy_(self._bias if bias is None else bias.transpose(0, 1))
        if self._half == 0:
            return
        # Through a copy: the source and the target of the move overlap.
        self._above[:, :-1] = self._above[:, 1:].clone()
        self._above[:, -1] = self._row
        batch, width, out = self.base.shape
        windows = self._windows.reshape(batch * width, -1)
        self.base.view(batch * width, out).addmm_(windows, self._upper)

    def evaluate(self, column: int, colour: int, *, out: Tensor) -> Tensor:
        """Write a sub-pixel's output ``(batch, features)``, and return it."""
        above, seen = self.bases[column][colour], self.inputs[column][colour]
        return torch.addmm(above, seen, self.weights[colour], out=out)


def row_biases(
    bias: Float[Tensor, " out"],
    weight: Float[Tensor, "F out"] | None,
    features: Float[Tensor, "batch F height width"] | None,
) -> Iterator[Float[Tensor, "columns images out"]]:
    """Yield for each row a bias and what a context adds to it.

    Sizes are 1 where columns, or images, are all alike.

    Args:
        bias: The bias.
        weight: Weight of the context's features; ``None`` for no context.
        features: Features of the context, for each pixel, or one for all.
    """
    if weight is None or features is None:
        return itertools.repeat(bias.expand(1, 1, -1))
    rows = features.permute(2, 3, 0, 1).contiguous()
    sums = (
        torch.addmm(bias, row.flatten(0, 1), weight).unflatten(0, row.shape[:2]) for row in rows
    )
    return itertools.repeat(next(sums)) if len(rows) == 1 else sums


def group_views(x: Tensor, num_groups: int) -> list[Tensor]:
    """Return the features of each colour."""
    bounds = group_bounds(x.shape[1], num_groups)
    return [x[:, a:b] for a, b in itertools.pairwise(bounds)]


def matrix(layer: MaskedConv | nn.Conv2d) -> Float[Tensor, "in out"]:
    """Return what a 1x1 layer multiplies features by."""
    weight = layer.weight if isinstance(layer, nn.Conv2d) else layer.masked_weight
    return weight[:, :, 0, 0].t()


def part_order(bounds: Sequence[int], parts: int) -> Tensor:
    """Return the columns of so many parts, such as gates, colour by colour.

    Example:
        >>> part_order([0, 1, 3], 2)
        tensor([0, 3, 1, 2, 4, 5])
    """
    columns = torch.arange(parts * bounds[-1]).view(parts, -1)
    return torch.cat([columns[:, a:b].flatten() for a, b in itertools.pairwise(bounds)])


def colour_weights(
    weight: Tensor, stops: Sequence[int], outs: Sequence[int], parts: int = 1
) -> list[Tensor]:
    """Return for each colour the rows and columns of a weight that its products read."""
    return [
        weight[:stop, parts * a : parts * b].contiguous()
        for stop, (a, b) in zip(stops, itertools.pairwise(outs), strict=True)
    ]


def colour_products(
    conv: MaskedConv, x: Tensor, *, scale: float = 1.0
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for each colour what a 1x1 layer sees of ``x``, its weight and its bias.

    Args:
        conv: The layer; without a bias, zeros stand in for it.
        x: Features of a pixel, ``(batch, channels)``.
        scale: Factor of the weight.
    """
    weight, groups = matrix(conv) * scale, conv.num_groups
    bias = weight.new_zeros(weight.shape[1]) if conv.bias is None else conv.bias
    stops = group_bounds(x.shape[1], groups)[1:]
    outs = group_bounds(weight.shape[1], groups)
    weights = colour_weights(weight, stops, outs)
    biases = [bias[a:b] for a, b in itertools.pairwise(outs)]
    return [(x[:, :s], w, b) for s, w, b in zip(stops, weights, biases, strict=True)]


def skip_products(
    convs: Sequence[MaskedConv], x: Tensor, sums: Tensor, *, scale: float = 1.0
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Return for each colour the factors, the bias and the target of the sum of all layers' skips.

    Args:
        convs: The layers' 1x1 convolutions.
        x: Their inputs, ``(batch, layers, channels)``.
        sums: Where the sum goes.
        scale: Factor of the weights.
    """
    per_layer = [
        colour_products(conv, y, scale=scale) for conv, y in zip(convs, x.unbind(1), strict=True)
    ]
    colours = zip(zip(*per_layer, strict=True), group_views(sums, convs[0].num_groups), strict=True)
    return [
        (
            x[..., : parts[0][0].shape[1]],
            torch.cat([weight for _, weight, _ in parts]),
            torch.stack([bias for _, _, bias in parts]).sum(0),
            target,
        )
        for parts, target in colours
    ]


class PixelLayer:
    """A masked 1x1 layer at one pixel, evaluated colour by colour.

    Args:
        conv: The layer; its weight is masked and laid out once, here.
        x: Its input ``(batch, channels)``, filled colour by colour.
        outputs: Where each colour's output goes.
        scale: Factor of the weight.
    """

    def __init__(
        self, conv: MaskedConv, x: Tensor, outputs: Sequence[Tensor], *, scale: float = 1.0
    ) -> None:
        self._products = colour_products(conv, x, scale=scale)
        self._outputs = outputs

    def step(self, colour: int) -> Tensor:
        """Write a colour's output, and return it."""
        seen, weight, bias = self._products[colour]
        return torch.addmm(bias, seen, weight, out=self._outputs[colour])


class OutputEvaluation:
    """The 1x1 layers at the end, at one sub-pixel after another."""

    def __init__(self, outputs: Iterable[nn.Module], residual: Tensor) -> None:
        layers = [cast(MaskedConv2d, layer) for layer in outputs]
        groups = layers[0].num_groups
        self._residual = group_views(residual, groups)
        actives = [residual.new_empty(len(residual), layer.in_channels) for layer in layers]
        self._first = group_views(actives[0], groups)
        logits = residual.new_empty(len(residual), layers[-1].out_channels // groups)
        targets = [*(group_views(x, groups) for x in actives[1:]), [logits] * groups]
        *self._hidden, self._last = map(PixelLayer, layers, actives, targets)

    def step(self, colour: int) -> Tensor:
        """Return a colour's logits."""
        torch.clamp_min(self._residual[colour], 0, out=self._first[colour])
        for layer in self._hidden:
            layer.step(colour).relu_()
        return self._last.step(colour)
