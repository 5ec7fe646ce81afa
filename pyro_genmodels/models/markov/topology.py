"""Which state of a hidden Markov model may follow which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch

from pyro_genmodels._checks import check, check_choice, listed
from pyro_genmodels._typing import Bool, Tensor

Topology: TypeAlias = Literal["full", "left_to_right", "banded"] | Sequence[Sequence[bool | int]]
Initial: TypeAlias = Literal["auto", "learned", "uniform", "first"]

_NAMES = ("full", "left_to_right", "banded")


def allowed_transitions(topology: Any, num_states: int) -> Bool[Tensor, "K K"]:
    """Return which state, a column, may follow which, a row.

    Args:
        topology: ``"full"``: any; ``"left_to_right"``: itself or one of a higher index;
            ``"banded"``: itself or a neighbour; or the K rows themselves.
        num_states: Number of states K.

    Raises:
        ValueError: If it is none of these.

    Example:
        >>> allowed_transitions("banded", 3).int()
        tensor([[1, 1, 0],
                [1, 1, 1],
                [0, 1, 1]], dtype=torch.int32)
    """
    if isinstance(topology, str):
        check_choice("topology", topology, _NAMES)
        whole = torch.ones(num_states, num_states, dtype=torch.bool)
        if topology == "full":
            return whole
        return whole.triu() if topology == "left_to_right" else whole.triu(-1).tril(1)
    # Looked at, so on the CPU, whatever the default device is.
    allowed = torch.as_tensor(topology, device="cpu")
    rule = f"be one of {', '.join(map(repr, _NAMES))} or {num_states} rows of as many Booleans"
    shape = tuple(allowed.shape)
    check(shape == (num_states, num_states), "topology", rule, f"shape {shape}")
    check(bool(((allowed == 0) | (allowed == 1)).all()), "topology", rule, allowed.tolist())
    return allowed.bool().to(torch.get_default_device())


def possible_starts(initial: Any, topology: Any, num_states: int) -> Bool[Tensor, " K"]:
    """Return which states may be a sequence's first.

    Args:
        initial: ``"learned"`` or ``"uniform"``: any; ``"first"``: state 0; ``"auto"``: state 0 of
            a left-to-right topology, else any.
        topology: As for :func:`allowed_transitions`.
        num_states: Number of states K.

    Raises:
        ValueError: If ``initial`` is none of these.
    """
    first = torch.arange(num_states) == 0
    return first if starts_first(initial, topology) else torch.ones_like(first)


def starts_first(initial: Any, topology: Any) -> bool:
    """Return whether every sequence begins in state 0."""
    check_choice("initial", initial, ("auto", "learned", "uniform", "first"))
    left_to_right = isinstance(topology, str) and topology == "left_to_right"
    return initial == "first" or (initial == "auto" and left_to_right)


def check_topology(allowed: Tensor, starts: Tensor, duration: int) -> None:
    """Raise ``ValueError`` that names the states which cannot be left, and those never reached.

    A state that stays as it is for ever, such as the last of a left-to-right topology, is left: to
    itself.

    Args:
        allowed: Which state may follow which.
        starts: Which states may be the first.
        duration: Number of steps, within which each state is to be reached.
    """
    dead = (~allowed.any(-1)).nonzero().flatten().tolist()
    reached = starts
    for _ in range(min(duration, len(starts)) - 1):
        reached = reached | (reached.unsqueeze(-1) & allowed).any(0)
    lost = (~reached).nonzero().flatten().tolist()
    wrong = [f"state {i} with no successor" for i in dead]
    wrong += [f"state {i} not reached within {duration} steps" for i in lost]
    rule = "let every state be left, if only to itself, and be reached from a first one"
    check(not wrong, "topology", rule, listed(wrong))
