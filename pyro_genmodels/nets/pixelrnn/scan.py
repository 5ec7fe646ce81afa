"""An LSTM along a wavefront over an image, several ways at once."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from pyro_genmodels._batching import padded
from pyro_genmodels._typing import Float, Int
from pyro_genmodels.nets.layers.derived_buffers import DerivedBuffers
from pyro_genmodels.nets.layers.precision import full_precision
from pyro_genmodels.nets.pixelrnn.autograd import Recurrence
from pyro_genmodels.nets.pixelrnn.wavefront import Pixel, Step, Wavefront


class LSTMScan(DerivedBuffers):
    r"""Runs an LSTM along a wavefront, in several ways at once.

    .. math:: [o, f, i, g] = [\sigma, \sigma, \sigma, \tanh](a + W h'), \qquad
        c = f \odot c' + i \odot g, \qquad h = o \odot \tanh c

    with :math:`a` the input's share, :math:`h'` the states read, and :math:`c'` the memory handed
    on; zeros outside the image.

    Args:
        wavefront: The steps.
        width: Number of pixels in a row.
        mirrored: For each way, whether it runs over the image mirrored from left to right.
    """

    places: Tensor
    inverse: Tensor

    def __init__(self, wavefront: Wavefront, width: int, mirrored: tuple[bool, ...]) -> None:
        super().__init__()
        self.wavefront = wavefront
        way = (wavefront.pixels, width, mirrored)
        self.register_derived("places", partial(_places, *way))
        self.register_derived("inverse", partial(_ranks, *way))

    def forward(
        self,
        gates: Float[Tensor, "pixels batch gates"],
        weight: Float[Tensor, "ways read gates_of_one_way"],
    ) -> Float[Tensor, "ways pixels batch hidden"]:
        """Return the states, pixels in raster order.

        Args:
            gates: The input's share of the four gates, one way after another.
            weight: Each way's weights of the states read, neighbour after neighbour.
        """
        if torch._C._are_functorch_transforms_active():  # they know no rule for ours
            return self.step_by_step(gates, weight)
        kind = torch.promote_types(gates.dtype, weight.dtype)
        with full_precision(gates):
            given = (gates.to(kind), weight.to(kind), self.places, self.inverse, self.wavefront)
            states: Tensor = Recurrence.apply(*given)
        return states

    def step_by_step(self, gates: Tensor, weight: Tensor) -> Tensor:
        """Do the same by differentiable operations only: slower, but plain."""
        ways = enumerate(gates.chunk(len(weight), -1))
        packed = torch.stack([x[self.places[way]] for way, x in ways])
        cell = state = packed[:, :0, :, : packed.shape[-1] // 4]
        states, start = [], 0
        for step in self.wavefront.steps:
            read = [self._read(step, state, tap, start) for tap in range(self.wavefront.num_taps)]
            memory = self._read(step, cell, self.wavefront.memory, start)
            gate = packed[:, step.pixels] + torch.cat(read, -1) @ weight[:, None]
            o, f, i, g = gate.chunk(4, -1)
            cell = f.sigmoid() * memory + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
            states.append(state)
            start = step.pixels.start
        whole = torch.cat(states, 1)
        return torch.stack([x[self.inverse[way]] for way, x in enumerate(whole)])

    def _read(self, step: Step, values: Tensor, index: int, start: int) -> Tensor:
        """Return what a step's pixels read of one neighbour, zeros where there is none."""
        for tap in step.taps:
            if tap.index == index:
                source = values[:, tap.source.start - start : tap.source.stop - start]
                above = tap.target.start - step.pixels.start
                return padded(source, (0, 0, 0, 0, above, step.pixels.stop - tap.target.stop))
        size = step.pixels.stop - step.pixels.start
        return values.new_zeros(len(values), size, *values.shape[2:])


def _places(
    pixels: tuple[Pixel, ...], width: int, mirrored: tuple[bool, ...]
) -> Int[Tensor, "ways pixels"]:
    """Return where each packed pixel lies in the image, for each way."""
    ways = [
        [i * width + (width - 1 - j if mirror else j) for i, j in pixels] for mirror in mirrored
    ]
    return torch.tensor(ways)


def _ranks(
    pixels: tuple[Pixel, ...], width: int, mirrored: tuple[bool, ...]
) -> Int[Tensor, "ways pixels"]:
    """Return where each of the image's pixels is packed."""
    return _places(pixels, width, mirrored).argsort(1)
