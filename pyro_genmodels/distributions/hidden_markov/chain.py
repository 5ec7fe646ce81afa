"""What functions of a hidden Markov model take: logarithms of factors, broadcast and flattened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Int, Num, Tensor


@dataclass(frozen=True)
class Chain:
    """Logarithms of the factors of N sequences of T frames with K states.

    Attributes:
        initial: Of the first state.
        transitions: From row to column, ``(1 or N, 1 or T - 1, K, K)``: one matrix for all
            sequences or one each, one for all frames or one each.
        emissions: Of the frames given each state; time comes first, as recursions take it.
        batch_shape: Batch shape of the sequences, of N elements.
    """

    initial: Float[Tensor, "N K"]
    transitions: Float[Tensor, "B S K K"]
    emissions: Float[Tensor, "T N K"]
    batch_shape: Sequence[int]

    @property
    def logs(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three factors."""
        return self.initial, self.transitions, self.emissions

    def batched(self, by_sequence: Num[Tensor, "N *rest"]) -> Num[Tensor, "*batch_rest"]:
        """Give results of each sequence the batch shape."""
        if len(self.batch_shape) == 1:
            return by_sequence
        return by_sequence.reshape((*self.batch_shape, *by_sequence.shape[1:]))


def chain_of(
    initial: Tensor, transition: Tensor, emission_logs: Tensor, time_varying: bool
) -> Chain:
    """Return the flattened factors, which are differentiable functions of what is given.

    Raises:
        ValueError: If shapes do not fit.
    """
    frames, states = _sizes(emission_logs)
    rule = f"have {states} states, as `emission_logs`"
    check(initial.shape[-1:] == (states,), "initial", rule, f"shape {tuple(initial.shape)}")
    square = transition.dim() >= 2 and transition.shape[-2:] == (states, states)
    check(square, "transition", rule, f"shape {tuple(transition.shape)}")
    if not time_varying:
        transition = transition.unsqueeze(-3)
    else:
        steps = transition.shape[-3] if transition.dim() > 2 else 0
        rule = f"have {frames - 1} matrices, between the {frames} frames"
        check(steps == frames - 1, "transition", rule, f"shape {tuple(transition.shape)}")
    dtype = torch.float32  # at least
    for logs in (initial, transition, emission_logs):
        dtype = torch.promote_types(dtype, logs.dtype)
    shapes = initial.shape[:-1], transition.shape[:-3], emission_logs.shape[:-2]
    some = {shape for shape in shapes if shape}  # broadcasting takes as long as ten steps do
    batch_shape = some.pop() if len(some) == 1 else torch.broadcast_shapes(*some)
    initial = _flat(initial, batch_shape, (states,))
    emissions = _flat(emission_logs, batch_shape, (frames, states))
    shared = math.prod(transition.shape[:-3]) == 1
    transitions = _flat(transition, (1,) if shared else batch_shape, transition.shape[-3:])
    by_frame = emissions.to(dtype).transpose(0, 1)
    return Chain(initial.to(dtype), transitions.to(dtype), by_frame, batch_shape)


def _flat(logs: Tensor, batch_shape: tuple[int, ...], sizes: tuple[int, ...]) -> Tensor:
    """Return one row for each sequence, without views that change nothing: autograd walks them."""
    if logs.shape == (*batch_shape, *sizes) and len(batch_shape) == 1:
        return logs
    if math.prod(logs.shape[: -len(sizes)]) == math.prod(batch_shape):
        return logs.reshape(-1, *sizes)
    return logs.expand(*batch_shape, *sizes).reshape(-1, *sizes)


def _sizes(emission_logs: Tensor) -> tuple[int, int]:
    fits = emission_logs.dim() >= 2 and emission_logs.shape[-2] > 0 and emission_logs.shape[-1] > 0
    rule = "have the shape (*batch, T, K)"
    check(fits, "emission_logs", rule, f"shape {tuple(emission_logs.shape)}")
    return emission_logs.shape[-2], emission_logs.shape[-1]


def taken(
    logs: tuple[Tensor, Tensor, Tensor], rows: Int[Tensor, " n"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the factors of some of the sequences."""
    initial, transitions, emissions = logs
    if transitions.shape[0] > 1:
        transitions = transitions[rows]
    return initial[rows], transitions, emissions[:, rows]
