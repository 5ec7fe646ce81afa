"""Paths of hidden states: the most probable one, and draws."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyro_genmodels._typing import Float, Int, Tensor
from pyro_genmodels.distributions.hidden_markov.chain import chain_of
from pyro_genmodels.distributions.hidden_markov.log_space import at
from pyro_genmodels.distributions.hidden_markov.partition import log_filtered


@torch.no_grad()
def most_probable_path(
    initial: Float[Tensor, "*batch_initial K"],
    transition: Float[Tensor, "*batch_steps K K"],
    emission_logs: Float[Tensor, "*batch_frames T K"],
    *,
    time_varying: bool = False,
) -> tuple[Int[Tensor, "*batch T"], Float[Tensor, "*batch"]]:
    """Return the path of the largest probability, by Viterbi's algorithm, and its logarithm.

    Arguments and errors are those of :func:`.log_partition`. Of equal paths it is the one whose
    last state is least, then the one before it, and so on.

    Example:
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> seen = torch.tensor([[0.0, -9.0], [0.0, 0.5], [0.0, 0.5]])
        >>> most_probable_path(torch.zeros(2), stay, seen)[0]
        tensor([0, 0, 0])
    """
    chain = chain_of(initial, transition, emission_logs, time_varying)
    frames = chain.emissions.unbind()
    # Sums of a state with those before it lie next to each other.
    turned = chain.transitions.transpose(-1, -2).contiguous()
    best, origins = chain.initial + frames[0], []
    for t in range(1, len(frames)):
        best, origin = (best.unsqueeze(-2) + at(turned, t - 1)).max(-1)
        best = best + frames[t]
        origins.append(origin)
    nats, state = best.max(-1, keepdim=True)
    path = [state]
    for origin in reversed(origins):
        path.append(origin.gather(-1, path[-1]))
    return chain.batched(torch.cat(path[::-1], -1)), chain.batched(nats.squeeze(-1))


@torch.no_grad()
def draw_paths(
    initial: Float[Tensor, "*batch_initial K"],
    transition: Float[Tensor, "*batch_steps K K"],
    emission_logs: Float[Tensor, "*batch_frames T K"],
    sample_shape: Sequence[int] = (),
    *,
    time_varying: bool = False,
) -> Int[Tensor, "*shape T"]:
    """Draw paths from their probabilities given the frames: filter forwards, draw backwards.

    Arguments and errors are those of :func:`.log_partition`. Where no path is possible, the draws
    are of no meaning.

    Returns:
        States of shape ``(*sample_shape, *batch, T)``.

    Example:
        >>> seen = torch.tensor([[0.0, -torch.inf], [-torch.inf, 0.0]])
        >>> draw_paths(torch.zeros(2), torch.zeros(2, 2), seen, (3,))
        tensor([[0, 1],
                [0, 1],
                [0, 1]])
    """
    chain = chain_of(initial, transition, emission_logs, time_varying)
    filtered = log_filtered(chain)
    draws = torch.Size(sample_shape).numel()
    state = draw_states(filtered[-1].expand(draws, -1, -1))
    path = [state]
    for t in reversed(range(len(filtered) - 1)):
        into = at(chain.transitions, t).transpose(-1, -2)
        state = draw_states(filtered[t] + _rows_of(into, state))
        path.append(state)
    return torch.stack(path[::-1], -1).reshape(*sample_shape, *chain.batch_shape, -1)


def draw_chain(
    initial: Float[Tensor, "N K"], transitions: Float[Tensor, "B S K K"], draws: int, frames: int
) -> Int[Tensor, "draws N T"]:
    """Draw paths before any frame is seen."""
    state = draw_states(initial.expand(draws, -1, -1))
    path = [state]
    for t in range(frames - 1):
        state = draw_states(_rows_of(at(transitions, t), state))
        path.append(state)
    return torch.stack(path, -1)


def draw_states(logits: Float[Tensor, "*shape K"]) -> Int[Tensor, "*shape"]:
    """Draw a state each from logits, never an impossible one unless all are.

    The first of exponential clocks that run at the rates of the probabilities.
    """
    rates = (logits - logits.amax(-1, keepdim=True)).exp()
    return (rates / torch.empty_like(rates).exponential_()).argmax(-1)


def _rows_of(matrices: Tensor, state: Int[Tensor, "draws N"]) -> Float[Tensor, "draws N K"]:
    """Return the row of each state, of a matrix for all sequences or of one each."""
    if matrices.shape[0] == 1:
        return matrices[0][state]
    return matrices[torch.arange(len(matrices), device=state.device), state]
