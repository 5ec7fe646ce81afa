"""Masked convolutions evaluated along a raster scan: what incremental evaluations are made of."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d, MaskedRowConv2d, group_bounds


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
        self._half, self._width, self._bias = half, width, layer.bias
        self._upper = weight[:, :, :half].permute(2, 3, 1, 0).reshape(-1, layer.out_channels)
        lower = weight[:, :, half, : half + 1].permute(2, 1, 0).reshape(-1, layer.out_channels)
        # Each image's row lies in one piece, so that a window of pixels is a view of it.
        self._row = weight.new_zeros(batch_size, (width + 2 * half) * size)
        self._above = weight.new_zeros(batch_size, half, (width + 2 * half) * size)
        self._windows = self._above.as_strided(
            (batch_size, width, half, layer.kernel_size * size),
            (self._above.stride(0), size, (width + 2 * half) * size, 1),
        )
        self.base = weight.new_zeros(batch_size, width, layer.out_channels)
        ins = group_bounds(size, layer.num_groups)
        outs = group_bounds(layer.out_channels, layer.num_groups)
        seen = ins[1:] if layer.kind == "B" else ins[:-1]
        stop = [half * size + end for end in seen]
        colours = range(layer.num_groups)
        self.weights = [lower[: stop[c], outs[c] : outs[c + 1]].contiguous() for c in colours]
        self.inputs = [
            [self._row[:, j * size : j * size + stop[c]] for c in colours] for j in range(width)
        ]
        self.bases = [
            [self.base[:, j, outs[c] : outs[c + 1]] for c in colours] for j in range(width)
        ]
        at = [(j + half) * size for j in range(width)]
        self.targets = [[self._row[:, a + ins[c] : a + ins[c + 1]] for c in colours] for a in at]

    def start_row(self, extra: Tensor | None = None) -> None:
        """Move down a row; ``extra`` (batch, width or 1, out) is added to its outputs."""
        self.base.copy_(self._bias if extra is None else extra + self._bias)
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


def group_views(x: Tensor, num_groups: int) -> list[Tensor]:
    """Return the features of each colour."""
    bounds = group_bounds(x.shape[1], num_groups)
    return [x[:, a:b] for a, b in itertools.pairwise(bounds)]


def dense_groups(layer: MaskedConv2d, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return for each colour what a 1x1 layer sees of ``x``, its weight and its bias."""
    weight = layer.masked_weight[:, :, 0, 0].t()
    ins = group_bounds(layer.in_channels, layer.num_groups)
    outs = group_bounds(layer.out_channels, layer.num_groups)
    return [
        (x[:, : ins[c + 1]], weight[: ins[c + 1], a:b].contiguous(), layer.bias[a:b])
        for c, (a, b) in enumerate(itertools.pairwise(outs))
    ]


class OutputEvaluation:
    """The 1x1 layers at the end, at one sub-pixel after another."""

    def __init__(self, outputs: Iterable[nn.Module], residual: Tensor) -> None:
        layers = [cast(MaskedConv2d, layer) for layer in outputs]
        groups = layers[0].num_groups
        self._residual = group_views(residual, groups)
        actives = [residual.new_empty(len(residual), layer.in_channels) for layer in layers]
        self._first = group_views(actives[0], groups)
        self._logits = residual.new_empty(len(residual), layers[-1].out_channels // groups)
        self._steps = []
        for layer, x, y in zip(layers, actives, [*actives[1:], None], strict=True):
            targets = [self._logits] * groups if y is None else group_views(y, groups)
            self._steps.append(list(zip(dense_groups(layer, x), targets, strict=True)))

    def step(self, c: int) -> Tensor:
        """Return the logits for colour ``c``."""
        torch.clamp_min(self._residual[c], 0, out=self._first[c])
        *hidden, last = self._steps
        for step in hidden:
            (x, weight, bias), target = step[c]
            torch.addmm(bias, x, weight, out=target).relu_()
        (x, weight, bias), target = last[c]
        return torch.addmm(bias, x, weight, out=target)


def colour_products(
    conv: MaskedRowConv2d, gated: Tensor, *, doubled: bool = True
) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Return for each colour what a 1x1 layer sees of gated features, its weight and its bias.

    Gated features are ``doubled``, but for those that went through a layer of their own.
    """
    size, groups = gated.shape[1], conv.num_groups
    stops = group_bounds(size, groups)[1:]
    outs = group_bounds(conv.weight.shape[0], groups)
    weight = conv.masked_weight[:, :, 0, 0].t()
    weights = colour_weights(0.5 * weight if doubled else weight, stops, outs)
    biases = [None] * groups if conv.bias is None else group_views(conv.bias[None], groups)
    return [(gated[:, :s], w, b) for s, w, b in zip(stops, weights, biases, strict=True)]


def colour_weights(
    weight: Tensor, stops: Sequence[int], outs: Sequence[int], parts: int = 1
) -> list[Tensor]:
    """Return for each colour the rows and columns of a weight that its products read."""
    return [
        weight[:stop, parts * a : parts * b].contiguous()
        for stop, (a, b) in zip(stops, itertools.pairwise(outs), strict=True)
    ]
