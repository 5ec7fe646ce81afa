"""Sums over all paths of hidden states, and probabilities of states given the frames.

Logarithms of factors come in, of any scale: of the first state ``(*batch, K)``, of transitions from
row to column ``(*batch, K, K)``, or ``(*batch, T - 1, K, K)`` with ``time_varying=True``, of the
frames given each state ``(*batch, T, K)``. Minus infinity is impossible. Batch shapes broadcast.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.hidden_markov import log_space, scaled
from pyro_genmodels.distributions.hidden_markov.blocks import block_vectors
from pyro_genmodels.distributions.hidden_markov.chain import Chain, chain_of, taken
from pyro_genmodels.distributions.hidden_markov.log_space import log_sum
from pyro_genmodels.distributions.hidden_markov.scan import scan_vectors

Logs = tuple[Tensor, Tensor, Tensor]


def log_partition(
    initial: Float[Tensor, "*batch_initial K"],
    transition: Float[Tensor, "*batch_steps K K"],
    emission_logs: Float[Tensor, "*batch_frames T K"],
    *,
    time_varying: bool = False,
) -> Float[Tensor, "*batch"]:
    """Return the logarithm of the sum over all paths of the products of their factors.

    Its gradients are the probabilities of the states given the frames, and the expected numbers of
    transitions. Sums run over probabilities scaled at each frame; sequences that lose something to
    underflow are summed again in log space, so that factors may differ by any number of nats.
    Gradients of gradients are taken in log space.

    Args:
        initial: Logarithms of the factors of the first state.
        transition: Of transitions, from row to column.
        emission_logs: Of the frames given each state.
        time_varying: Whether ``transition`` has one matrix for each pair of successive frames.

    Returns:
        Nats, minus infinity where no path is possible; gradients are zero there.

    Raises:
        ValueError: If shapes do not fit.

    Example:
        >>> stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
        >>> frames = torch.zeros(5, 2, requires_grad=True)
        >>> log_z = log_partition(torch.tensor([0.5, 0.5]).log(), stay, frames)
        >>> log_z.backward()
        >>> abs(float(log_z.detach())) < 1e-6, frames.grad[0].tolist()
        (True, [0.5, 0.5])
    """
    chain = chain_of(initial, transition, emission_logs, time_varying)
    nats: Tensor = _LogPartition.apply(*chain.logs)[0]
    return chain.batched(nats)


def posterior_marginals(
    initial: Float[Tensor, "*batch_initial K"],
    transition: Float[Tensor, "*batch_steps K K"],
    emission_logs: Float[Tensor, "*batch_frames T K"],
    *,
    time_varying: bool = False,
) -> Float[Tensor, "*batch T K"]:
    """Return the probability of each state at each frame given all frames, without gradients.

    Arguments and errors are those of :func:`log_partition`. Zeros where no path is possible.

    Example:
        >>> stay = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
        >>> seen = torch.tensor([[0.0, -torch.inf], [0.0, 0.0]])  # the first state is known
        >>> posterior_marginals(torch.zeros(2), stay, seen)[1]
        tensor([0.9000, 0.1000])
    """
    chain = chain_of(initial, transition, emission_logs, time_varying)
    marginals, _ = posterior_of(chain)
    return chain.batched(marginals.transpose(0, 1))


def expected_counts(
    initial: Float[Tensor, "*batch_initial K"],
    transition: Float[Tensor, "*batch_steps K K"],
    emission_logs: Float[Tensor, "*batch_frames T K"],
    *,
    time_varying: bool = False,
) -> Float[Tensor, "*batch K K"]:
    """Return the expected number of transitions of each kind given the frames, without gradients.

    Arguments and errors are those of :func:`log_partition`. Zeros where no path is possible.
    """
    chain = chain_of(initial, transition, emission_logs, time_varying)
    _, counts = posterior_of(chain)
    return chain.batched(counts)


@torch.no_grad()
def posterior_of(chain: Chain) -> tuple[Float[Tensor, "T N K"], Float[Tensor, "N K K"]]:
    """Return marginals, and expected transitions of each sequence."""
    with _unrounded(chain.initial):
        _, *saved = _forward(*chain.logs)
        marginals, pairs, rows = _posterior(chain.logs, *saved)
        counts = pairs.by_sequence()
        if len(rows):
            _, of_steps = _log_posterior(taken(chain.logs, rows))
            counts[rows] = sum(of_steps, torch.zeros_like(counts[rows]))
    return marginals, counts


@torch.no_grad()
def log_filtered(chain: Chain) -> Float[Tensor, "T N K"]:
    """Return the log-probability of each state given the frames so far."""
    with _unrounded(chain.initial):
        _, states, _, _, exact = _forward(*chain.logs)
        result = states.log()
        rows = _rows(~exact)
        if len(rows):
            forward = _log_forward(taken(chain.logs, rows))
            total = log_sum(forward, -1).unsqueeze(-1)
            forward = forward - torch.where(total.isinf(), torch.zeros_like(total), total)
            result[:, rows] = forward.to(result)
    return result


def algorithm_for(logs: Logs, *, log: bool = False) -> Literal["loop", "blocks", "scan"]:
    """Return which algorithm takes least time.

    The loop does N T K^2 operations in T steps. The others do N T K^3, blocks in 3 sqrt(T) steps
    and the scan in 2 log2(T), which on a CPU are many small products.
    """
    # Forward and backward, float64, milliseconds of one thread (least of 12):
    #   N, T, K       loop   blocks   scan
    #   1, 1000, 5    15.2   4.0      3.8
    #   1, 1000, 32   16.8   14.3     25.4
    #   8, 200, 5     4.5    3.5      4.5
    #   32, 100, 20   5.6    14.6     33.1
    #   256, 20, 3    1.8    3.5      4.5
    transitions, (frames, number, states) = logs[1], logs[2].shape
    work = number * states**3  # for each frame
    if frames <= 32 or work > (4000 if log else 40000 if number == 1 else 8000):
        return "loop"
    constant = transitions.shape[0] == transitions.shape[1] == 1
    on_cpu = logs[2].device.type == "cpu"
    return "blocks" if constant and on_cpu and not log else "scan"


class _LogPartition(torch.autograd.Function):
    """The log-partition function; the other results are for the gradient."""

    @staticmethod
    def forward(initial: Tensor, transitions: Tensor, emissions: Tensor) -> tuple[Tensor, ...]:
        with _unrounded(initial):
            return _forward(initial, transitions, emissions)

    # Torch asks for it at each call, which takes as long as thirty steps do.
    forward.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]

    @staticmethod
    def setup_context(ctx: Any, inputs: Logs, output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.save_for_backward(*inputs, *output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, nats: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        *logs, states, totals, weights, exact = ctx.saved_tensors
        if nats is None:
            return None, None, None
        with _unrounded(nats):
            if torch.is_grad_enabled():  # of a gradient of this gradient, or of torch.func
                return _gradients_in_log_space(tuple(logs), nats)
            marginals, pairs, rows = _posterior(tuple(logs), states, totals, weights, exact)
            marginals.mul_(nats[:, None])
            steps = _step_gradient(tuple(logs), pairs, rows, nats)
            return marginals[0], steps if ctx.needs_input_grad[1] else None, marginals

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Tensor) -> tuple[Any, Any]:
        return _over_batch(info.batch_size, in_dims, *inputs), (0, 0, 0, 0, 0)


def _unrounded(tensor: Tensor) -> AbstractContextManager[None]:
    """Turn autocast off, if it is on: that takes longer than to ask."""
    device = tensor.device.type
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def _forward(initial: Tensor, transitions: Tensor, emissions: Tensor) -> tuple[Tensor, ...]:
    """Return log-partitions, what a pass finds with its factors, and where these are exact."""
    logs = (initial, transitions, emissions)
    factors = scaled.factors_of(*logs)
    positive = bool(scaled.is_positive(factors.transitions))
    algorithm = algorithm_for(logs)
    # Products of transitions lose what should be kept, unnoticed, if some are impossible.
    if positive and algorithm != "loop":
        filtered = scaled.forward_parallel(factors, VECTORS[algorithm])
    else:
        filtered = scaled.forward_loop(factors)
    exact = scaled.is_exact(logs, filtered, positive=positive)
    nats = filtered.totals.log().sum((0, 2)) + factors.log_scale
    rows = _rows(~exact)
    if len(rows):
        nats[rows] = log_sum(_log_forward(taken(logs, rows))[-1], -1).to(nats)
        filtered.states[:, rows], filtered.totals[:, rows] = 0.0, 1.0
    return nats, filtered.states, filtered.totals, factors.emissions, exact


VECTORS = {"blocks": block_vectors, "scan": scan_vectors}


def _rows(chosen: Tensor) -> Tensor:
    return chosen.nonzero().squeeze(-1)


class _Pairs:
    """Probabilities of successive states, at frames and sequences that are not yet summed over."""

    def __init__(self, transitions: Tensor, states: Tensor, after: Tensor) -> None:
        self.transitions, self.before, self.after = transitions, states[:-1], after[1:]

    def by_sequence(self) -> Float[Tensor, "N K K"]:
        """Sum over frames."""
        if self.transitions.shape[1] == 1:
            return self._over_frames(self.before) * self.transitions[:, 0]
        return self._by_frame(self.before).sum(1)

    def _over_frames(self, before: Tensor) -> Float[Tensor, "N K K"]:
        return before.permute(1, 2, 0) @ self.after.transpose(0, 1)

    def _by_frame(self, before: Tensor) -> Float[Tensor, "N S K K"]:
        before, after = before.transpose(0, 1), self.after.transpose(0, 1)
        return before.unsqueeze(-1) * self.transitions * after.unsqueeze(-2)

    def gradient(self, nats: Float[Tensor, " N"]) -> Float[Tensor, "B S K K"]:
        """Sum over what shares its transitions, with weights of sequences."""
        before = nats[:, None] * self.before
        shared, constant = (size == 1 for size in self.transitions.shape[:2])
        if shared and constant:
            both = before.flatten(0, 1).T @ self.after.flatten(0, 1)
            return both * self.transitions
        if constant:
            return self._over_frames(before).unsqueeze(1) * self.transitions
        frames = self._by_frame(before)
        return frames.sum(0, keepdim=True) if shared else frames


def _posterior(
    logs: Logs, states: Tensor, totals: Tensor, weights: Tensor, exact: Tensor
) -> tuple[Tensor, _Pairs, Tensor]:
    """Return marginals, pairs (zeros for what is not exact), and what is not exact."""
    transitions = scaled.scaled_to_one(logs[1], (-2, -1))[0]
    positive = bool(scaled.is_positive(transitions))
    gains = scaled.gains_of(weights, states, totals, positive=positive)
    algorithm = algorithm_for(logs)
    if positive and algorithm != "loop":
        changes = scaled.backward_parallel(transitions, gains, VECTORS[algorithm])
    else:
        changes = scaled.backward_loop(transitions, gains)
    after = gains.mul_(changes)
    marginals = changes.mul_(states)
    rows = _rows(~exact)
    if len(rows):
        marginals[:, rows] = _log_posterior(taken(logs, rows))[0]
    return marginals, _Pairs(transitions, states, after), rows


def _step_gradient(logs: Logs, pairs: _Pairs, rows: Tensor, nats: Tensor) -> Tensor:
    gradient = pairs.gradient(nats)
    if len(rows):
        some = _summed(_log_posterior(taken(logs, rows))[1], nats[rows], logs[1])
        if logs[1].shape[0] == 1:
            gradient = gradient + some
        else:
            gradient[rows] = some
    return gradient


def _log_forward(logs: Logs) -> Tensor:
    initial, transitions, emissions = (x.double() for x in logs)
    scan = algorithm_for(logs, log=True) == "scan"
    return log_space.log_forward(initial, transitions, emissions, scan=scan)


def _log_posterior(logs: Logs) -> tuple[Tensor, list[Tensor]]:
    """Return marginals and pairs.

    In float64: where factors differ by thousands of nats, sums over all frames have lost the
    decimals that tell states apart in float32.
    """
    initial, transitions, emissions = (x.double() for x in logs)
    scan = algorithm_for(logs, log=True) == "scan"
    marginals, of_steps = log_space.log_posterior(initial, transitions, emissions, scan=scan)
    return marginals.to(logs[2]), [pairs.to(logs[2]) for pairs in of_steps]


def _gradients_in_log_space(logs: Logs, nats: Tensor) -> tuple[Tensor, ...]:
    marginals, of_steps = _log_posterior(logs)
    marginals = marginals * nats[:, None]
    return marginals[0], _summed(of_steps, nats, logs[1]), marginals


def _summed(of_steps: list[Tensor], nats: Tensor, transitions: Tensor) -> Tensor:
    """Sum pairs over what shares its transitions, with weights of sequences."""
    if not of_steps:
        return torch.zeros_like(transitions)
    pairs = torch.stack(of_steps, 1) * nats[:, None, None, None]
    if transitions.shape[1] == 1:
        pairs = pairs.sum(1, keepdim=True)
    return pairs.sum(0, keepdim=True) if transitions.shape[0] == 1 else pairs


def _over_batch(size: int, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Evaluate a batch of what the function takes as more sequences."""
    initial, transitions, emissions = (
        x.unsqueeze(0) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(inputs, in_dims, strict=True)
    )
    number = emissions.shape[2]
    if transitions.shape[:2].numel() > 1:
        transitions = transitions.expand(size, number, *transitions.shape[2:])
    nats, *saved, exact = _LogPartition.apply(
        initial.expand(size, -1, -1).flatten(0, 1),
        transitions.flatten(0, 1),
        emissions.expand(size, -1, -1, -1).transpose(0, 1).flatten(1, 2),
    )
    split = (size, number)
    by_frame = (x.unflatten(1, split).movedim(1, 0) for x in saved)
    return nats.unflatten(0, split), *by_frame, exact.unflatten(0, split)
