"""A hidden Markov model of any exact class-conditional model: the label is the hidden state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import pyro
import torch
from torch import nn

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._modules import evaluating
from pyro_genmodels._typing import Float, GivenContext, Int, Num, ScaleName, Tensor
from pyro_genmodels.distributions import HiddenMarkov
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.em.loop import run_em
from pyro_genmodels.models.em.result import EMResult
from pyro_genmodels.models.markov.chain import Chain
from pyro_genmodels.models.markov.emissions import Emissions, Frames
from pyro_genmodels.models.markov.frames import FrameRows
from pyro_genmodels.models.markov.topology import (
    Initial,
    Topology,
    allowed_transitions,
    check_topology,
    possible_starts,
    starts_first,
)
from pyro_genmodels.nets.layers import DerivedBuffers

_STICKINESS = 2.0  # of initial transition logits: a state is likelier to stay than to change


class HiddenMarkovModel(GenerativeModel, DerivedBuffers):
    r"""Sequences of frames whose distribution depends on a hidden state, a Markov chain.

    .. math:: p(x) = \sum_{s} p(s_1)\, p(x_1 \mid s_1) \prod_{t=2}^T p(s_t \mid s_{t-1})\,
        p(x_t \mid s_t)

    Any exact class-conditional model gives :math:`p(x_t \mid s_t)`, its label being the state:
    tables and Gaussians (the classical hidden Markov models), mixtures, flows of continuous data,
    autoregressive networks over images. The states are summed out exactly, so the likelihood is
    exact and there is nothing to infer in a guide. :meth:`fit_em` is Baum-Welch, for emissions with
    an M-step in closed form; others train by :class:`ELBOLoss` or
    :func:`pyro_genmodels.training.fit`.

    A model of one number, of event shape ``(1,)``, makes sequences ``(T,)``. Features that the
    conditional model takes next to its label are features of the whole sequence.

    Args:
        conditional: The model of one frame given the state; its ``num_classes`` is the number K of
            states.
        duration: Number T of frames.
        topology: Which state may follow which: ``"full"``, any; ``"left_to_right"``, itself or one
            of a higher index; ``"banded"``, itself or a neighbour; or K rows of K Booleans, a row
            for each state that is left. Other transitions have probability zero for good.
        initial: Distribution of the first state: ``"learned"``, ``"uniform"``, or always the
            ``"first"``; ``"auto"`` is ``"first"`` with a left-to-right topology, else
            ``"learned"``.
        autoregressive: Whether a frame also depends on the frame before it, which is zero before
            the first. The conditional model must take features of the frame's shape.
        missing: Whether frames may be missing, NaN in all their elements: those at the end of
            sequences that are shorter than others, and any others unless ``autoregressive``. Single
            elements of a frame may be missing if the conditional model has ``missing=True``, which
            is also the default here.
        chunk_size: Number of states under which frames are scored at once; all by default. Memory
            grows with it.

    Attributes:
        num_states: Number K of states.
        initial_logits: Logits of the first state, ``(K,)``.
        transition_logits: Logits of the next state, ``(K, K)``, before those of transitions that
            the topology excludes become minus infinity.

    Raises:
        ValueError: If the conditional model takes no label or has no distribution in closed form; a
            size is not positive; or with this topology a state cannot be left or reached.

    References:
        Rabiner (1989), A tutorial on hidden Markov models and selected applications in speech
        recognition.

    Example:
        >>> from pyro_genmodels.models import AutoregressiveModel
        >>> from pyro_genmodels.nets import MADENet
        >>> frame = AutoregressiveModel(MADENet((3,), 2, hidden=(8,), num_classes=4))
        >>> model = HiddenMarkovModel(frame, duration=10)
        >>> x = model.sample(2)
        >>> x.shape, model.log_prob(x).shape, model.posterior(x).shape
        (torch.Size([2, 10, 3]), torch.Size([2]), torch.Size([2, 10, 4]))
    """

    event_ranks: ClassVar[tuple[int, ...]] = (1, 2, 4)
    imputes: ClassVar[bool] = True

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 2e-2, "batch_size": 64, "max_epochs": 60, "ema_decay": 0.99}
    )

    initial_logits: Tensor
    allowed: Tensor
    starts: Tensor

    def __init__(
        self,
        conditional: GenerativeModel,
        *,
        duration: int,
        topology: Topology = "full",
        initial: Initial = "auto",
        autoregressive: bool = False,
        missing: bool | None = None,
        chunk_size: int | None = None,
    ) -> None:
        name = type(conditional).__name__
        states = conditional.num_classes
        check(states is not None, "conditional", "be conditional on labels, the states", name)
        check_positive(duration=duration)
        check(chunk_size is None or chunk_size >= 1, "chunk_size", "be positive", chunk_size)
        self._check_emits(conditional, autoregressive)
        frames = Frames(conditional, missing=conditional.missing if missing is None else missing)
        super().__init__(
            (duration, *frames.shape),
            num_levels=conditional.num_levels,
            context_shape=None if autoregressive else conditional.context_shape,
        )
        self.conditional, self.frames = conditional, frames
        self.duration, self.num_states = duration, states or 1
        self.autoregressive, self.chunk_size = autoregressive, chunk_size
        self.topology, self.initial = topology, initial
        self.standardization = conditional.standardization
        kept = partial(allowed_transitions, topology, self.num_states)
        self.register_derived("allowed", kept)
        starts = partial(possible_starts, initial, topology, self.num_states)
        self.register_derived("starts", starts)
        with torch.device("cpu"):  # also of a model that is made on the meta device
            check_topology(kept(), starts(), duration)
        dtype = conditional.dtype
        if initial == "uniform" or starts_first(initial, topology):
            self.register_derived("initial_logits", partial(torch.zeros, self.num_states))
        else:
            self.initial_logits = nn.Parameter(torch.zeros(self.num_states, dtype=dtype))
        sticky = _STICKINESS * torch.eye(self.num_states, dtype=dtype)
        # Not equal for all states, which emissions that do not differ yet would leave equal.
        sticky += 0.1 * torch.randn(self.num_states, self.num_states, dtype=dtype)
        self.transition_logits = nn.Parameter(sticky)

    @staticmethod
    def _check_emits(conditional: GenerativeModel, autoregressive: bool) -> None:
        exact = conditional.bound_kind == "exact"
        rule = "have a distribution over data in closed form"
        check(exact, "conditional", rule, f"{type(conditional).__name__}, which gives bounds")
        if autoregressive:
            rule = "take features of a frame's shape next to its label, to be autoregressive"
            fits = conditional.context_shape == conditional.event_shape
            check(fits, "conditional", rule, f"context_shape {conditional.context_shape}")

    # What the conditional model settles

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype in which the model computes."""
        return self.conditional.dtype

    @property
    def missing(self) -> bool:
        """Whether frames, or elements of them, may be missing."""
        return self.frames.missing if "frames" in self.__dict__ else False

    @missing.setter
    def missing(self, missing: bool) -> None:
        self.frames.missing = missing

    @property
    def standardization_scale(self) -> ScaleName | None:
        """That of the conditional model: a scale for each element of a frame, or one."""
        return self.conditional.standardization_scale

    @property
    def standardized_columns(self) -> Sequence[int] | None:
        """Those of the conditional model."""
        return self.conditional.standardized_columns

    @property
    def can_be_traced(self) -> bool:
        """No: which way the sum over states takes depends on the data."""
        return False

    @property
    def display_name(self) -> str:
        """The conditional model's, with what is made of it."""
        return f"hidden Markov model of {self.conditional.display_name}"

    def beside_elbo(self) -> list[str]:
        """Name what the conditional model's objective has beside the log-likelihood."""
        return self.conditional.beside_elbo()

    def undecayed_parameters(self) -> list[str]:
        """Name also the logits of the chain, which decay would draw to uniform transitions."""
        own = [name for name, _ in self.named_parameters(recurse=False)]
        return super().undecayed_parameters() + own

    @contextmanager
    def bounding(self) -> Iterator[None]:
        """Run as a true bound, the conditional model too."""
        with super().bounding(), self.conditional.bounding():
            yield

    def check_values(self, argument: str, x: Tensor) -> None:
        """Raise ``ValueError`` unless frames have values that the conditional model takes.

        Args:
            argument: What an error calls them.
            x: Data ``(*batch, T, *frame)``.
        """
        frames = self.frames.of(x)
        if self.missing and x.is_floating_point():
            self.check_missing(argument, x)
            frames = frames[~self.frames.absent(x)]
            if not self.conditional.missing:
                rule = (
                    "be missing in whole frames, of a conditional model that was not made with "
                    "missing=True"
                )
                partly = int(frames.isnan().flatten(1).any(-1).sum())
                check(partly == 0, argument, rule, f"{partly} frames with NaN in some elements")
        self.conditional.check_values(argument, frames)

    def check_missing(self, argument: str, x: Tensor) -> None:
        """Raise ``ValueError`` if a frame is missing on which a later one depends.

        Args:
            argument: What the error calls the data.
            x: The data, NaN where an element is missing.
        """
        if self.autoregressive:
            gap = self.frames.incomplete(x)
            ended = gap.cumsum(-1) > 0
            wrong = int((ended & ~gap).any(-1).sum())
            rule = "be missing at the end alone, since a frame depends on the one before it"
            check(wrong == 0, argument, rule, f"{wrong} sequences with a gap")

    def standardize(self, data: Any) -> HiddenMarkovModel:
        """Set shift and scale from all frames: see :meth:`GenerativeModel.standardize`.

        Args:
            data: As there.
        """
        return super().standardize(FrameRows(data, self.frames, self.event_shape))

    def check_columns(self, data: Any) -> None:
        """Raise ``ValueError`` if :meth:`standardize` would, given these data.

        Args:
            data: As there.
        """
        super().check_columns(FrameRows(data, self.frames, self.event_shape))

    # The distribution

    def initial_log_probs(self) -> Float[Tensor, " K"]:
        """Return the log-probability of each first state; minus infinity if it is excluded."""
        logits = self.initial_logits.to(self.dtype)
        return logits.masked_fill(~self.starts, -torch.inf).log_softmax(-1)

    def transition_log_probs(self) -> Float[Tensor, "K K"]:
        """Return the log-probability of each next state, a column, given the one before, a row."""
        return self.transition_logits.masked_fill(~self.allowed, -torch.inf).log_softmax(-1)

    def distribution(self, context: GivenContext = None) -> HiddenMarkov:
        """Return the distribution over sequences, the states summed out.

        Args:
            context: Features ``(*batch, *context_shape)``, if the conditional model takes them.

        Raises:
            ValueError: If the context does not fit, or a network's weights are random.
        """
        return self._distribution(self._checked_exact(context))

    def _distribution(
        self, context: Tensor | None, *, validate_args: bool | None = None
    ) -> HiddenMarkov:
        self.remember_parameters()
        batch = torch.Size()
        if context is not None:
            batch = context.shape[: context.dim() - len(self.context_shape or ())]
        return HiddenMarkov(
            self.initial_log_probs(),
            self.transition_log_probs(),
            self._emissions(batch, context, self.duration),
            duration=self.duration,
            time_varying_emissions=True,
            validate_args=validate_args,
        )

    def _emissions(
        self,
        batch: torch.Size,
        context: Tensor | None,
        duration: int,
        before: Tensor | None = None,
    ) -> Emissions:
        if self.autoregressive and before is None:
            before = self.transition_logits.new_zeros(self.frames.shape)
        return Emissions(
            self.conditional,
            self.frames,
            torch.Size([*batch, duration]),
            context=context,
            before=before,
            chunk_size=self.chunk_size,
        )

    def _law_of(self, x: Tensor, context: Tensor | None) -> tuple[HiddenMarkov, Tensor]:
        """Return the distribution, and checked data to ask it about."""
        checked, context, _ = self._checked_alone(x, context)
        assert checked is not None  # narrows the type for the checker
        return self._distribution(context, validate_args=False), checked

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Observe or draw site ``"x"``."""
        # What is observed was checked on entry to the model, what is drawn needs no check.
        return pyro.sample("x", self._distribution(context, validate_args=False), obs=x)

    def _generate(
        self, seen: Tensor | None, context: Tensor | None, x: Tensor | None = None
    ) -> Tensor:
        # The conditional model's distributions are in the data's units already.
        return self.generate(seen if x is None else x.to(self._dtype_of(x)), context)

    def _dtype_of(self, x: Tensor) -> torch.dtype:
        # Data far from zero keep their digits until the shift is subtracted.
        return x.dtype if self.standardization.is_set else self.dtype

    def log_prob(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the exact log-probability of sequences, in nats, the states summed out.

        Args:
            x: Sequences ``(*batch, T, *frame)``, NaN where a frame is missing.
            context: Features ``(*batch, *context_shape)``, if the conditional model takes them.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        law, x = self._law_of(x, context)
        nats: Tensor = law.log_prob(x)
        return nats

    # Expectation-maximisation

    @property
    def fits_by_em(self) -> bool:
        """Whether :meth:`fit_em` fits the model, as it does the conditional one."""
        plain = self.context_shape is None and not self.autoregressive
        has_family = type(self.conditional).em_family is not GenerativeModel.em_family
        return plain and has_family

    @torch.no_grad()
    @integers_checked
    def fit_em(
        self,
        x: Num[Tensor, "*batch_event"],
        *,
        weights: Float[Tensor, "*batch"] | None = None,
        num_starts: int = 5,
        tol: float = 1e-7,
        max_iterations: int = 1000,
        priors: Any = "default",
        concentration: float = 1.0,
        seed: int = 0,
    ) -> EMResult:
        r"""Fit the chain and the emissions by expectation-maximisation, Baum-Welch.

        All sequences are taken at once, in float64. Of several starts the one with the highest
        likelihood (with priors: likelihood times prior) is kept.

        Args:
            x: Sequences ``(*batch, T, *frame)``, NaN where a frame, or an element of it, is missing
                and the model takes that.
            weights: Weight of each sequence, ``(*batch,)``; 2 is as if it came twice.
            num_starts: Number of random starts; with 0 the fit goes on from the model's parameters.
            tol: What a converged fit may leave to gain, in nats per frame.
            max_iterations: Most iterations of one start.
            priors: Priors of the emissions, such as a :class:`GaussianPriors`; ``None`` for maximum
                likelihood; or a mapping of options of the conditional model's ``em_family``. By
                default those of the conditional model.
            concentration: Concentration :math:`\alpha` of a symmetric Dirichlet prior of the first
                state and of each row of transitions: :math:`\alpha - 1` pseudo-counts. 1 for none.
            seed: Seed of the starts. The global generator is not used.

        Returns:
            What was reached, and how.

        Raises:
            ValueError: If the emissions have no M-step in closed form, depend on features or on the
                frame before; or ``x`` does not fit.
        """
        rule = "have emissions of the state alone, not of features or the frame before"
        plain = self.context_shape is None and not self.autoregressive
        check(plain, "model", rule, type(self).__name__)
        check(concentration >= 1, "concentration", "be at least 1", concentration)
        self._checked_data(x)
        sequences = x.reshape(-1, *self.event_shape).double()
        check(len(sequences) > 0, "x", "hold at least one sequence", "none")
        present = ~self.frames.absent(sequences)
        if weights is not None:
            weights = self._checked_weights(weights, x).double()
        structure = Chain(
            present,
            self.starts,
            self.allowed,
            learns_initial=isinstance(self.initial_logits, nn.Parameter),
            weights=weights,
            concentration=concentration,
            read=self._probabilities,
            write=self._set_probabilities,
        )
        of_rows = None if weights is None else weights.unsqueeze(-1).expand(present.shape)[present]
        rows = self.frames.of(sequences)[present]
        given = priors if isinstance(priors, Mapping) else {"priors": priors}
        given = {} if priors == "default" else given
        family = self.conditional.em_family(rows, weights=of_rows, **given)
        if num_starts and not self.is_trained:
            self.standardize(sequences)  # so that the model's own dtype holds what is fitted
        options: dict[str, Any] = {"tol": tol, "max_iterations": max_iterations, "seed": seed}
        result = run_em(family, structure, num_starts=num_starts, weights=of_rows, **options)
        self.standardization.take_as_fitted()
        return result

    def _checked_weights(self, weights: Tensor, x: Tensor) -> Tensor:
        batch = x.shape[: x.dim() - len(self.event_shape)]
        rule = f"have the data's batch shape {tuple(batch)}"
        check(weights.shape == batch, "weights", rule, f"shape {tuple(weights.shape)}")
        least = float(weights.min()) if weights.numel() else 0.0
        fits = bool(weights.isfinite().all()) and least >= 0
        check(fits, "weights", "be finite and not negative", f"at least {least}")
        return weights.reshape(-1)

    def _probabilities(self) -> tuple[Tensor, Tensor]:
        return self.initial_log_probs().exp(), self.transition_log_probs().exp()

    def _set_probabilities(self, initial: Tensor, transition: Tensor) -> None:
        # Of a zero a logarithm that is finite, as optimizers need it.
        tiny = torch.finfo(self.dtype).tiny
        if isinstance(self.initial_logits, nn.Parameter):
            self.initial_logits.copy_(initial.clamp_min(tiny).log())
        self.transition_logits.copy_(transition.clamp_min(tiny).log())

    # The states

    def posterior(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch T K"]:
        """Return the probability of each state at each step, given the whole sequence.

        Args:
            x: Sequences ``(*batch, T, *frame)``.
            context: As for :meth:`log_prob`.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        law, x = self._law_of(x, context)
        return law.marginals(x)

    def filter(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch T K"]:
        """Return the probability of each state at each step, given the sequence up to that step.

        Args:
            x: Sequences ``(*batch, T, *frame)``.
            context: As for :meth:`log_prob`.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        law, x = self._law_of(x, context)
        return law.filter(x)

    @torch.no_grad()
    def most_probable_states(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None = None
    ) -> Int[Tensor, "*batch T"]:
        """Return the most probable sequence of states given each sequence, Viterbi's path.

        Args:
            x: Sequences ``(*batch, T, *frame)``.
            context: As for :meth:`log_prob`.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        law, x = self._law_of(x, context)
        states: Tensor = law.viterbi(x)[0]
        return states

    @torch.no_grad()
    @integers_checked
    def sample_states(
        self,
        x: Num[Tensor, "*batch_event"],
        context: Tensor | None = None,
        *,
        num_samples: int = 1,
    ) -> Int[Tensor, "num_samples *batch T"]:
        """Draw sequences of states from their exact posterior given each sequence.

        Args:
            x: Sequences ``(*batch, T, *frame)``.
            context: As for :meth:`log_prob`.
            num_samples: Number of draws for each.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit, or ``num_samples`` is not positive.
        """
        check(num_samples >= 1, "num_samples", "be at least 1", num_samples)
        law, x = self._law_of(x, context)
        states: Tensor = law.sample_states(x, (num_samples,))
        return states

    # Frames that are not there

    @torch.no_grad()
    @integers_checked
    def impute(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
        *,
        num_samples: int = 1,
    ) -> Num[Tensor, "num_samples *batch_event"]:
        """Draw missing frames, and missing elements, given what was observed, which stays.

        Exactly: the states from their posterior, then the frames given them.

        Args:
            x: Sequences ``(*batch, T, *frame)``, NaN where an element is missing.
            context: As for :meth:`log_prob`.
            num_samples: Number of draws for each.

        Returns:
            Whole sequences ``(num_samples, *batch, T, *frame)``.

        Raises:
            ValueError: If the model was not made with ``missing=True``, or ``x`` does not fit.
        """
        check(self.missing, "model", "be made with missing=True to impute", type(self).__name__)
        with evaluating(self):
            checked, own, batch = self._checked_alone(x, context)
            states = self.sample_states(x, own, num_samples=num_samples)
            given = None if own is None else self._context_for(own, batch)
            emissions = self._emissions(torch.Size(batch), given, self.duration)
            return emissions.completed(states, checked).to(x.dtype)

    @torch.no_grad()
    @integers_checked
    def forecast(
        self,
        x: Num[Tensor, "*batch_event"],
        num_steps: int = 1,
        num_samples: int = 1,
        context: Tensor | None = None,
    ) -> Num[Tensor, "num_samples *batch num_steps *frame"]:
        """Draw the frames that follow sequences.

        Exactly: the last state from its posterior, the states after it from the chain, and the
        frames given them.

        Args:
            x: Sequences ``(*batch, T, *frame)``.
            num_steps: Number of frames to draw.
            num_samples: Number of draws for each sequence.
            context: As for :meth:`log_prob`.

        Returns:
            Frames ``(num_samples, *batch, num_steps, *frame)``.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit, or a number is not positive.
        """
        check_positive(num_steps=num_steps, num_samples=num_samples)
        with evaluating(self):
            states = self.sample_states(x, context, num_samples=num_samples)
            checked, context, batch = self._checked_alone(x, context)
            given = None if context is None else self._context_for(context, batch)
            shape, before = torch.Size(batch), None
            if self.autoregressive:
                whole = self._emissions(shape, given, self.duration).completed(states, checked)
                before = whole.select(-1 - len(self.frames.shape), -1)
            transition = self.transition_log_probs().exp()
            later, last = [], states[..., -1]
            for _ in range(num_steps):
                last = torch.distributions.Categorical(transition[last]).sample()
                later.append(last)
            emissions = self._emissions(shape, given, num_steps, before)
            return emissions.sample(torch.stack(later, -1))

    def _context_for(self, context: Tensor, batch: Sequence[int]) -> Tensor:
        return context.expand(*batch, *(self.context_shape or ()))
