"""Hidden Markov models as distributions over sequences of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch.distributions import Distribution, constraints, transform_to

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._typing import Float, Int, Num, Tensor
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.distributions.hidden_markov.chain import chain_of
from pyro_genmodels.distributions.hidden_markov.partition import (
    expected_counts,
    log_filtered,
    log_partition,
    posterior_marginals,
)
from pyro_genmodels.distributions.hidden_markov.paths import (
    draw_chain,
    draw_paths,
    most_probable_path,
)
from pyro_genmodels.distributions.mixtures.components import (
    BatchedComponents,
    Components,
    as_components,
)


class HiddenMarkov(TorchDistribution):
    r"""Sequences whose frames are emitted by the hidden states of a Markov chain.

    .. math::
        p(x_{1:T}) = \sum_{s_{1:T}} p(s_1) \prod_{t=2}^T p(s_t \mid s_{t-1})
        \prod_{t=1}^T p(x_t \mid s_t)

    The initial distribution is that of the first state that emits, as in textbooks and hmmlearn.
    Pyro's ``DiscreteHMM`` has a state before it, which emits nothing.

    Log-probabilities are exact at any spread of the emissions' and differentiable in all
    parameters. Batch shapes of all arguments broadcast.

    Args:
        initial_logits: Logits of the first state, ``(*batch, K)``; minus infinity is impossible.
        transition_logits: Logits of the next state in each row, ``(*batch, K, K)``, or
            ``(*batch, T - 1, K, K)`` if they vary.
        emissions: What the states emit: a distribution with batch shape ``(*batch, K)``, or
            :class:`Components` with K labels. If they vary, a time dimension T comes last in the
            batch shape of the components, before the K of a distribution.
        duration: Number of frames T.
        mask: Which frames are observed, ``(*batch, T)``; all by default. The others count for
            nothing, whatever they hold. A sequence that ends early is one whose last frames are
            masked.
        time_varying_transitions: Whether transitions have a time dimension.
        time_varying_emissions: Whether emissions have one.
        validate_args: Whether values are checked.

    Raises:
        ValueError: If shapes do not fit, or from some state no state can follow.

    Example:
        >>> import pyro.distributions as dist
        >>> stay = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).log()
        >>> noise = dist.Normal(torch.tensor([-1.0, 1.0]), 0.5)
        >>> series = HiddenMarkov(torch.zeros(2), stay, noise, duration=50)
        >>> x = series.sample((3,))
        >>> x.shape, series.log_prob(x).shape, series.marginals(x).shape
        (torch.Size([3, 50]), torch.Size([3]), torch.Size([3, 50, 2]))
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012  (torch's own protocol)

    @integers_checked
    def __init__(
        self,
        initial_logits: Tensor,
        transition_logits: Tensor,
        emissions: Distribution | Components,
        *,
        duration: int,
        mask: Tensor | None = None,
        time_varying_transitions: bool = False,
        time_varying_emissions: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        check(duration > 0, "duration", "be positive", duration)
        self.components = as_components(emissions)
        self.duration, self.num_states = duration, self.components.num_components
        self.time_varying_transitions = time_varying_transitions
        self.time_varying_emissions = time_varying_emissions
        self._check_shapes(initial_logits, transition_logits, mask)
        self.initial_logits = initial_logits.log_softmax(-1)
        self.transition_logits = transition_logits.log_softmax(-1)
        self.frame_mask = mask
        batch_shape = torch.broadcast_shapes(
            initial_logits.shape[:-1],
            transition_logits.shape[: -3 if time_varying_transitions else -2],
            self.components.batch_shape[: -1 if time_varying_emissions else None],
            () if mask is None else mask.shape[:-1],
        )
        event_shape = torch.Size((duration, *self.components.event_shape))
        super().__init__(batch_shape, event_shape, validate_args=validate_args)
        if self._validate_args:
            for name in ("initial_logits", "transition_logits"):
                lost = int(getattr(self, name).isnan().any(-1).sum())
                check(lost == 0, name, "be no NaN, with a state in each row", f"{lost} other rows")

    def _check_shapes(self, initial: Tensor, transition: Tensor, mask: Tensor | None) -> None:
        states, frames = self.num_states, self.duration
        fits = initial.dim() > 0 and initial.shape[-1] == states
        rule = f"have trailing shape ({states},), as there are emissions"
        check(fits, "initial_logits", rule, f"shape {tuple(initial.shape)}")
        trailing: tuple[int, ...] = (states, states)
        if self.time_varying_transitions:
            trailing = (frames - 1, *trailing)
        fits = transition.dim() >= len(trailing)
        fits = fits and tuple(transition.shape[-len(trailing) :]) == trailing
        rule = f"have trailing shape {trailing}"
        check(fits, "transition_logits", rule, f"shape {tuple(transition.shape)}")
        if self.time_varying_emissions:
            shape = tuple(self.components.batch_shape)
            rule = f"have {frames} frames last in their batch shape"
            check(shape[-1:] == (frames,), "emissions", rule, f"batch shape {shape}")
        if mask is not None:
            fits = mask.dtype == torch.bool and mask.shape[-1:] == (frames,)
            rule = f"be boolean with trailing shape ({frames},)"
            check(fits, "mask", rule, f"{mask.dtype} of shape {tuple(mask.shape)}")

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the frames, where they are observed."""
        return constraints.independent(self.components.support, 1)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> HiddenMarkov:
        """Return the same distribution with another batch shape."""
        return expanded(self, batch_shape, _instance)

    def log_prob(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch"]:
        """Return the log-probability of sequences; minus infinity where no path emits them.

        Args:
            value: Sequences ``(*batch, T, *frame)``.
        """
        factors = self._factors(value)
        nats = log_partition(*factors, time_varying=self.time_varying_transitions)
        return nats.expand(torch.broadcast_shapes(nats.shape, self.batch_shape))

    def marginals(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch T K"]:
        """Return the probability of each state at each frame given the sequence (smoothing).

        Neither these nor other probabilities of states have gradients; zeros where no path emits
        the sequence.
        """
        factors = self._factors(value)
        return posterior_marginals(*factors, time_varying=self.time_varying_transitions)

    def filter(self, value: Num[Tensor, "*batch_event"]) -> Float[Tensor, "*batch T K"]:
        """Return the probability of each state at each frame given the frames up to it."""
        chain = chain_of(*self._factors(value), self.time_varying_transitions)
        return chain.batched(log_filtered(chain).exp().transpose(0, 1))

    def expected_transitions(
        self, value: Num[Tensor, "*batch_event"]
    ) -> Float[Tensor, "*batch K K"]:
        """Return the expected number of transitions from row to column given the sequence."""
        factors = self._factors(value)
        return expected_counts(*factors, time_varying=self.time_varying_transitions)

    def viterbi(
        self, value: Num[Tensor, "*batch_event"]
    ) -> tuple[Int[Tensor, "*batch T"], Float[Tensor, "*batch"]]:
        """Return the most probable path given the sequence, and its joint log-probability.

        Of equal paths it is the one whose last state is least, then the one before it, and so on.
        """
        factors = self._factors(value)
        return most_probable_path(*factors, time_varying=self.time_varying_transitions)

    def sample_states(
        self, value: Num[Tensor, "*batch_event"], sample_shape: Sequence[int] = ()
    ) -> Int[Tensor, "*shape T"]:
        """Draw paths given the sequence, exactly.

        Returns:
            States ``(*sample_shape, *batch, T)``.
        """
        factors = self._factors(value)
        return draw_paths(*factors, sample_shape, time_varying=self.time_varying_transitions)

    @integers_checked
    def forecast(self, value: Num[Tensor, "*batch_event"], num_steps: int) -> HiddenMarkov:
        """Return the distribution of the next frames given the sequence.

        Args:
            value: Sequences ``(*batch, T, *frame)``.
            num_steps: Number of frames that follow.

        Raises:
            ValueError: If transitions or emissions vary: those to come are not known.
        """
        for name in ("time_varying_transitions", "time_varying_emissions"):
            check(not getattr(self, name), name, "be False, to forecast", True)
        last = self.filter(value)[..., -1, :]
        following = (last.unsqueeze(-2) @ self.transition_logits.detach().exp().to(last)).squeeze(
            -2
        )
        return HiddenMarkov(
            following.log(),
            self.transition_logits,
            self.components,
            duration=num_steps,
            validate_args=self._validate_args,
        )

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Num[Tensor, "*shape_event"]:
        """Draw sequences: the states first, then one emission for each frame."""
        draws, shape = torch.Size(sample_shape), self._extended_shape(torch.Size(sample_shape))
        batch = shape[: len(shape) - len(self.event_shape)]
        sizes = (*self.batch_shape, self.duration, self.num_states)
        blank = self.initial_logits.new_zeros(()).expand(sizes)
        factors = self.initial_logits, self.transition_logits
        chain = chain_of(*factors, blank, self.time_varying_transitions)
        states = draw_chain(chain.initial, chain.transitions, draws.numel(), self.duration)
        states = states.reshape(*batch, self.duration)
        if self.time_varying_emissions or not self.components.batch_shape:
            return self.components.sample(states)
        return self.components.sample(states.movedim(-1, 0)).movedim(0, len(batch))

    def _factors(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logarithms of the factors of all paths, of observed frames."""
        if self._validate_args:
            self._check_event(value)
        mask, rank = self.frame_mask, len(self.event_shape) - 1
        if mask is not None:
            shape = torch.broadcast_shapes(mask.shape, value.shape[: value.dim() - rank])
            value = value.expand(*shape, *value.shape[value.dim() - rank :])
            seen = mask.reshape(*mask.shape, *[1] * rank)
            value = torch.where(seen, value, self._inside(value))
        value = self._frames_first(value)
        if self._validate_args:
            self._check_frames(value)
        logs = self.components.log_probs(value)
        if self._moves_frames:
            logs = logs.movedim(0, -2)
        if mask is not None:
            logs = torch.where(mask.unsqueeze(-1), logs, torch.zeros_like(logs))
        return self.initial_logits, self.transition_logits, logs

    @property
    def _moves_frames(self) -> bool:
        """Whether frames come before the batch shape of components that are the same for all."""
        return not self.time_varying_emissions and len(self.components.batch_shape) > 0

    def _frames_first(self, value: Tensor) -> Tensor:
        if not self._moves_frames:
            return value
        frame = self.event_shape[1:]
        batch = tuple(value.shape[: value.dim() - len(self.event_shape)])
        batch = (1,) * (len(self.components.batch_shape) - len(batch)) + batch
        return value.reshape(*batch, self.duration, *frame).movedim(len(batch), 0)

    def _inside(self, like: Tensor) -> Tensor:
        """Return a value that has a density; frames that are masked get it for finite gradients."""
        support = self.components.support
        if support.is_discrete:
            lower = getattr(support, "lower_bound", 0)
            return torch.as_tensor(lower, device=like.device).amin().to(like)
        try:
            return transform_to(support)(like.new_zeros(like.shape))
        except (NotImplementedError, RuntimeError):  # no map to this support
            return like.new_zeros(())

    def _check_event(self, value: Tensor) -> None:
        shape, event = tuple(value.shape), tuple(self.event_shape)
        fits = len(shape) >= len(event) and shape[len(shape) - len(event) :] == event
        check(fits, "value", f"have trailing shape {event}", f"shape {shape}")
        batch = torch.Size(shape[: len(shape) - len(event)])
        try:
            torch.broadcast_shapes(batch, self.batch_shape)
        except RuntimeError:
            rule = f"broadcast with batch shape {tuple(self.batch_shape)}"
            check(False, "value", rule, f"batch shape {tuple(batch)}")

    def _check_frames(self, frames: Tensor) -> None:
        if isinstance(self.components, BatchedComponents):
            frames = frames.unsqueeze(-len(self.event_shape))
        support = self.components.support
        inside = support.check(frames)
        check(bool(inside.all()), "value", f"lie in the support {support}", "values outside")
