"""The recurrence of an LSTM along a wavefront, forth and back, written out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels.nets.layers.precision import full_precision
from pyro_genmodels.nets.pixelrnn.wavefront import Step, Wavefront


class Recurrence(torch.autograd.Function):
    """The recurrence, written out with its gradient.

    Autograd would add up the weights' gradient step by step, and keep every intermediate result;
    here it is one product over all pixels at the end, of the states as they were read.
    """

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        weight: Tensor,
        places: Tensor,
        inverse: Tensor,
        wavefront: Wavefront,
    ) -> Tensor:
        """Return the states."""
        batch, size = gates.shape[1], weight.shape[2]
        packed = gates.new_empty(len(places), gates.shape[0], batch, size)
        for way, part in enumerate(gates.split(size, -1)):
            torch.index_select(part, 0, places[way], out=packed[way])
        run = _Run(wavefront, packed, weight)
        run.forward()
        ctx.save_for_backward(run.gates, run.cells, run.read, weight, places, inverse)
        ctx.wavefront, ctx.batch = wavefront, batch
        return _gathered(run.states.unflatten(1, packed.shape[1:3]), inverse)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_states: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the gates and of the weight."""
        gates, cells, read, weight, places, inverse = ctx.saved_tensors
        # Not by -1, of which a batch without images would leave the meaning open.
        size = len(ctx.wavefront.pixels), ctx.batch
        run = _Run(ctx.wavefront, gates.unflatten(1, size), weight, cells, read)
        with full_precision(gates):
            packed = run.backward(_gathered(of_states, places).flatten(1, 2))
            of_weight = torch.bmm(read.transpose(1, 2), packed)
        of_gates = gates.new_empty(*size, packed.shape[0] * packed.shape[2])
        for way, part in enumerate(of_gates.split(packed.shape[2], -1)):
            torch.index_select(packed[way].unflatten(0, size), 0, inverse[way], out=part)
        return of_gates, of_weight, None, None, None


def _gathered(x: Tensor, places: Tensor) -> Tensor:
    """Return each way's pixels at some places."""
    chosen = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    for way, one in enumerate(x):
        torch.index_select(one, 0, places[way], out=chosen[way])
    return chosen


class _Run:
    """One pass over packed pixels, forth or back; ``batch`` rows of memory a pixel."""

    def __init__(
        self,
        wavefront: Wavefront,
        gates: Tensor,
        weight: Tensor,
        cells: Tensor | None = None,
        read: Tensor | None = None,
    ) -> None:
        self.wavefront, self.weight, self.batch = wavefront, weight, gates.shape[2]
        self.gates = gates.flatten(1, 2)
        self.hidden = self.gates.shape[2] // 4
        size = (*self.gates.shape[:2], self.hidden)
        self.cells = gates.new_empty(size) if cells is None else cells
        self.read = gates.new_empty(*size[:2], weight.shape[1]) if read is None else read

    def rows(self, pixels: slice) -> slice:
        return slice(pixels.start * self.batch, pixels.stop * self.batch)

    def part(self, index: int) -> slice:
        return slice(index * self.hidden, (index + 1) * self.hidden)

    def memory_rows(self, step: Step) -> Iterator[tuple[slice, slice]]:
        """Yield the rows that hand their memory on, and those that take it."""
        for tap in step.taps:
            if tap.index == self.wavefront.memory:
                yield self.rows(tap.source), self.rows(tap.target)

    def forward(self) -> None:
        """Fill the states, and turn the gates' arguments into the gates."""
        self.states = torch.empty_like(self.cells)
        scratch, sigmoids = torch.empty_like(self.cells), slice(3 * self.hidden)
        for step in self.wavefront.steps:
            now = self.rows(step.pixels)
            self._read_states(step, now)
            gates, cell = self.gates[:, now], self.cells[:, now]
            gates[..., sigmoids].sigmoid_()
            o, _, i, g = gates.split(self.hidden, -1)
            torch.mul(i, g.tanh_(), out=cell)
            for source, target in self.memory_rows(step):
                forget = self.gates[:, target, self.part(1)]
                self.cells[:, target].addcmul_(forget, self.cells[:, source])
            torch.mul(o, torch.tanh(cell, out=scratch[:, now]), out=self.states[:, now])

    def _read_states(self, step: Step, now: slice) -> None:
        self.read[:, now].zero_()
        for tap in step.taps:
            states = self.states[:, self.rows(tap.source)]
            self.read[:, self.rows(tap.target), self.part(tap.index)] = states
        if step.taps:
            # One way after another: a batched product of strided parts would copy them.
            for gates, read, weight in zip(
                self.gates[:, now], self.read[:, now], self.weight, strict=True
            ):
                torch.addmm(gates, read, weight, out=gates)

    def backward(self, of_states: Tensor) -> Tensor:
        """Return the gradient of the gates' arguments; ``of_states`` is written to."""
        of_cells, scratch = torch.zeros_like(self.cells), torch.empty_like(self.cells)
        of_gates, sigmoids = torch.empty_like(self.gates), slice(3 * self.hidden)
        back = self.weight.transpose(1, 2).contiguous()
        for step in reversed(self.wavefront.steps):
            now = self.rows(step.pixels)
            gates, into, of_cell, of_state = (
                x[:, now] for x in (self.gates, of_gates, of_cells, of_states)
            )
            o, _, i, g = gates.split(self.hidden, -1)
            into_o, into_f, into_i, into_g = into.split(self.hidden, -1)
            active = torch.tanh(self.cells[:, now], out=scratch[:, now])
            torch.mul(of_state, active, out=into_o)
            of_state.mul_(o)
            of_cell.add_(of_state).addcmul_(of_state.mul_(active), active, value=-1)
            torch.mul(of_cell, g, out=into_i)
            torch.mul(of_cell, i, out=into_g)
            into_f.zero_()
            for source, target in self.memory_rows(step):
                of_target, forget = of_cells[:, target], self.part(1)
                torch.mul(of_target, self.cells[:, source], out=of_gates[:, target, forget])
                torch.mul(of_target, self.gates[:, target, forget], out=of_cells[:, source])
            s, y = into[..., sigmoids], gates[..., sigmoids]
            torch.ops.aten.sigmoid_backward.grad_input(s, y, grad_input=s)
            torch.ops.aten.tanh_backward.grad_input(into_g, g, grad_input=into_g)
            self._into_states(step, into, back, of_states)
        return of_gates

    def _into_states(self, step: Step, into: Tensor, back: Tensor, of_states: Tensor) -> None:
        if not step.taps:
            return
        of_read = back.new_empty(*into.shape[:2], back.shape[2])
        for one, weight, out in zip(into, back, of_read, strict=True):
            torch.mm(one, weight, out=out)
        first = step.pixels.start * self.batch
        for tap in step.taps:
            target = self.rows(tap.target)
            part = of_read[:, target.start - first : target.stop - first, self.part(tap.index)]
            of_states[:, self.rows(tap.source)].add_(part)
