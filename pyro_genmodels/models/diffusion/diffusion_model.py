"""Diffusion models: a chain of ever noisier data, and a network that leads back."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, MutableMapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pyro
import torch
import torch.nn.functional as F
from pyro.ops.provenance import detach_provenance
from pyro.poutine.util import is_validation_enabled
from torch.utils.weak import WeakIdKeyDictionary

from pyro_genmodels._batching import over_event
from pyro_genmodels._checks import (
    check,
    check_choice,
    check_positive,
    check_trailing,
    integers_checked,
)
from pyro_genmodels._modules import evaluating
from pyro_genmodels._typing import EventShape, Float, GivenContext, Num, ScaleName, Tensor
from pyro_genmodels.distributions import (
    ForwardDiffusion,
    ReverseDiffusion,
    check_grid,
    draw_log_ratio,
    step_between,
    step_divergence,
)
from pyro_genmodels.models.base.loss import weighing_estimator
from pyro_genmodels.models.base.plates import replayed_value
from pyro_genmodels.models.base.random_weights import random_weights, run_with_random_weights
from pyro_genmodels.models.diffusion.arguments import (
    Denoising,
    DenoisingNetwork,
    DiffusionObjective,
    LevelEncoding,
)
from pyro_genmodels.models.diffusion.chain_end import ChainEnd
from pyro_genmodels.models.diffusion.encoding import ChainData
from pyro_genmodels.models.diffusion.estimator import DataEstimator
from pyro_genmodels.models.diffusion.level_sampler import StepSampler
from pyro_genmodels.models.diffusion.samplers.ancestral import Ancestral
from pyro_genmodels.models.diffusion.samplers.base import Sampler
from pyro_genmodels.models.diffusion.samplers.choice import chosen
from pyro_genmodels.models.diffusion.samplers.guidance import ClassifierGuidance
from pyro_genmodels.models.diffusion.sampling import SampledDiffusion
from pyro_genmodels.nets import (
    Cosine,
    Geometric,
    LinearBeta,
    LinearLogSNR,
    NoiseSchedule,
    signal_and_noise,
)

_SCHEDULES: Mapping[str, type[NoiseSchedule]] = MappingProxyType(
    {
        "linear_log_snr": LinearLogSNR,
        "cosine": Cosine,
        "linear_beta": LinearBeta,
        "geometric": Geometric,
    }
)
# Of continuous data, whose finest structure nobody knows: the ends are learned.
_FIRST, _LAST = -10.0, 5.0
# States that a guide in training has drawn alone. By them the model knows the form that it follows;
# a slot for one guide's run would forget the first of two runs in a program.
_drawn_alone: MutableMapping[Tensor, None] = WeakIdKeyDictionary()
# Of chains drawn for a picture while training goes on.
_PREVIEW_STEPS = 32
# Of a chain that is looked at.
_SHOWN_STATES = 9


class DiffusionModel(SampledDiffusion):
    r"""A chain from noise to data, whose bound on the likelihood is the training objective.

    .. math:: z_T \sim N(0, I), \quad z_{t-1} \sim q(z_{t-1} \mid z_t, x = \hat x(z_t)), \quad
        x \sim p(x \mid z_0); \qquad q(z_t \mid x) = N(\alpha_t x, \sigma_t^2)

    The whole chain is one site, ``"z"``, of event shape ``(T + 1, *values)``. Its posterior adds
    noise and has no parameters but the schedule's. Discrete data have an exact decoder, continuous
    data a Gaussian one.

    In training with gradients the *guide* evaluates the network at one noise level per example, an
    unbiased estimate of the ELBO of all ``num_steps`` steps; site ``"z"`` then holds :math:`z_0`
    alone, masked on both sides, and one factor the rest. The model follows such a guide, and runs
    the whole chain everywhere else: without data, under an own guide, ``condition``, ``Predictive``
    or an AutoGuide, in training mode too. The exponential of an estimate is not a weight, so
    ``RenyiELBO`` and the like raise unless inside :meth:`bounding`. :meth:`log_weights` scores
    whole chains.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of discrete data; ``None`` for continuous data.
        num_steps: Number T of steps, of the chain that is trained, scored and drawn from.
        network: Kind and sizes of the network, a :class:`DenoisingNetwork`.
        schedule: Noise levels over time: a :class:`~pyro_genmodels.nets.NoiseSchedule` or the name
            of one. By default linear in log SNR with ends that are learned, by the bound. Another
            objective says nothing of the ends and fixes them, of a schedule of yours in a copy.
        denoising: What the network predicts, and its steps' variance: a :class:`Denoising`, or its
            ``prediction`` alone.
        objective: A :class:`DiffusionObjective`, or its ``kind`` alone.
        encoding: What the chain sees of levels: a :class:`LevelEncoding`, or its ``kind`` alone.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.

    Raises:
        ValueError: If an argument is out of range, or the prediction does not fit the data.

    References:
        Sohl-Dickstein et al. (2015), Deep unsupervised learning using nonequilibrium
        thermodynamics. Ho et al. (2020), Denoising diffusion probabilistic models.
        https://arxiv.org/abs/2006.11239. Kingma et al. (2021), Variational diffusion models.
        https://arxiv.org/abs/2107.00630

    Example:
        >>> network = DenoisingNetwork(channels=8, num_blocks=1)
        >>> model = DiffusionModel((1, 8, 8), num_levels=17, num_steps=4, network=network)
        >>> model.sample(2).shape, model.log_weights(torch.zeros(3, 1, 8, 8)).shape
        (torch.Size([2, 1, 8, 8]), torch.Size([1, 3]))
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "optimizer": "adamw",
            "weight_decay": 1e-2,
            "learning_rate": 1.5e-3,
            "warmup_steps": 50,
            "schedule": "cosine",
            "batch_size": 32,
            "max_epochs": 145,
            "ema_decay": 0.995,
        }
    )

    default_particles: ClassVar[int] = 8

    weights_are_costly: ClassVar[bool] = True

    trains_on_estimates: ClassVar[bool] = True

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None = None,
        num_steps: int = 256,
        network: DenoisingNetwork | None = None,
        schedule: Literal["auto", "linear_log_snr", "cosine", "linear_beta", "geometric"]
        | NoiseSchedule = "auto",
        denoising: Literal["auto", "noise", "data", "velocity", "levels"] | Denoising = "auto",
        objective: Literal["bound", "simple", "hybrid", "flow_matching"]
        | DiffusionObjective = "bound",
        encoding: Literal["levels", "bits", "learned"] | LevelEncoding = "levels",
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        denoising, objective = Denoising.of(denoising), DiffusionObjective.of(objective)
        encoding, network = LevelEncoding.of(encoding), DenoisingNetwork.of(network)
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        super().__init__(event_shape, num_levels=num_levels, **context)
        check_positive(num_steps=num_steps)
        rule = "be 'levels' without num_levels"
        check(num_levels is not None or encoding.kind == "levels", "encoding", rule, encoding.kind)
        if denoising.variance == "learned":
            trained = objective.kind in ("bound", "hybrid")
            rule = "be 'bound' or 'hybrid' with a learned variance, which others do not train"
            check(trained, "objective", rule, objective.kind)
            rule = "be False with a learned variance, which infinitely many steps do not train"
            check(not objective.continuous, "continuous", rule, True)
        is_conditional = num_classes is not None or context_shape is not None
        dropped = objective.context_dropout
        rule = "be 0 without a context"
        check(is_conditional or not dropped, "context_dropout", rule, dropped)
        self.num_steps, self.objective, self.variance = num_steps, objective, denoising.variance
        self.null_context = dropped > 0
        data = ChainData(self.event_shape, num_levels, encoding)
        if self.null_context:
            context["null_context"] = True
        self.estimator = DataEstimator(
            data,
            _schedule(schedule, data, is_learned=objective.kind == "bound"),
            denoising,
            network,
            self_conditioning=encoding.self_conditioning,
            **context,
        )
        self.step_sampler = StepSampler(num_steps, adaptive=objective.importance_sampling)

    @property
    def data(self) -> ChainData:
        """What the chain sees of data."""
        return self.estimator.data

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise levels over time."""
        return self.estimator.schedule

    @property
    def default_chunk_size(self) -> int:
        """Eight data points with the default particles.

        The network's batches are as large as those of more, since they hold steps in the place of
        data, and a bar moves more often.
        """
        return 64

    @property
    def standardization_scale(self) -> ScaleName | None:
        """One for each element of a vector, and one for all of an image."""
        if self.num_levels is not None:
            return None
        return "per_dimension" if self._rank == 1 else "shared"

    @property
    def can_be_traced(self) -> bool:
        """Whether nothing but the network runs; training moves the means that steps go by."""
        return not self.training

    @property
    def preview_options(self) -> Mapping[str, Any]:
        """A chain of few steps."""
        return {"num_steps": _PREVIEW_STEPS} if self.num_steps > _PREVIEW_STEPS else {}

    def bound_notes(self, num_steps: int | None = None) -> list[str]:
        """Return the number of steps, and the model's own if another one is scored."""
        if num_steps in (None, self.num_steps):
            return [f"{self.num_steps} steps"]
        return [f"{num_steps} steps instead of {self.num_steps}"]

    def levels(self, num_steps: int | None = None) -> Float[Tensor, " levels"]:
        """Return the chain's noise levels, rising.

        Args:
            num_steps: Number of steps; the model's own by default.

        Raises:
            ValueError: If ``num_steps`` is not positive, or the schedule's levels do not rise.
        """
        levels = self.schedule.grid(self.num_steps if num_steps is None else num_steps)
        if is_validation_enabled():
            check_grid(levels)
        return levels

    def reverse(
        self, context: GivenContext = None, *, num_steps: int | None = None
    ) -> ReverseDiffusion:
        """Return the distribution over whole chains, from noise to data.

        Args:
            context: Labels or features, if the model is conditional.
            num_steps: Number of steps; another one than the model's own is another model.

        Raises:
            ValueError: If ``num_steps`` is not positive, or the context does not fit.
        """
        _, context, _ = self._checked(None, context)
        return self._reverse(context, num_steps)

    def _reverse(self, context: Tensor | None, num_steps: int | None = None) -> ReverseDiffusion:
        batch: tuple[int, ...] = ()
        if context is not None:
            batch = tuple(context.shape[: context.dim() - (self.context_event_dim or 0)])
        # A backward pass that evaluates again would draw other weights.
        denoise = self.estimator.__call__ if random_weights(self) else self.estimator
        return ReverseDiffusion(
            denoise,
            self.levels(num_steps),
            self.data.shape,
            batch,
            context=context,
            variance=self.variance,
        )

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Add noise: a whole chain, or in training with gradients one level for each example."""
        values = self.data(x)
        if not self._takes_one_level:
            with self.latent_scale():
                pyro.sample("z", ForwardDiffusion(values, self.levels(), event_dim=self._rank))
            return
        estimator = weighing_estimator()
        rule = "be an ELBO, or run inside model.bounding(): a training step's term is not a weight"
        check(estimator is None, "loss", rule, estimator)
        least = ForwardDiffusion(values, self.levels()[:1], event_dim=self._rank)
        z = pyro.sample("z", least.mask(False))
        _drawn_alone[detach_provenance(z)] = None
        batch = z.shape[: z.dim() - self._rank - 1]
        nats = self._prior_divergence(values) + self._one_level(values, context, batch)
        # In a guide a factor's sign turns: this one lowers the ELBO.
        pyro.factor("diffusion", nats, has_rsample=True)

    @property
    def _takes_one_level(self) -> bool:
        taken = self.training and torch.is_grad_enabled() and not self.is_bounding
        # Random weights belong to the model, and a guide must not draw them.
        return taken and not random_weights(self)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw a chain from noise to data, and the data given its last state."""
        chain: Any = self._reverse(context)
        if self._follows(replayed_value("z")):
            chain = ChainEnd(chain).mask(False)
        with self.latent_scale():
            z = pyro.sample("z", chain)
        return pyro.sample("x", self._decoder(z.select(-1 - self._rank, 0)), obs=x)

    def _follows(self, z: Tensor | None) -> bool:
        """Whether a guide in training has drawn the state that site ``"z"`` is about to take."""
        # TraceGraph_ELBO wraps some values; both sides must see the tensor underneath.
        return z is not None and detach_provenance(z) in _drawn_alone

    def _decoder(self, z: Tensor) -> Any:
        return self.data.decoder(z, self.schedule.ends[0])

    def decode(self, z: Float[Tensor, "*batch_values"]) -> Any:
        """Return the distribution over data given the chain's least noised state.

        Args:
            z: That state, ``(*batch, *values)``.

        Raises:
            ValueError: If ``z`` does not fit.
        """
        check_trailing("z", z, self.data.shape)
        return self.standardization.in_data_units(self._decoder(z), self.dtype)

    def _prior_divergence(self, values: Tensor) -> Float[Tensor, "*batch"]:
        """Return the KL divergence of the noisiest state from pure noise, in nats."""
        last = self.schedule.ends[1]
        alpha, _ = signal_and_noise(last)
        log_variance = F.logsigmoid(last)
        spread = (alpha * values).square() + (log_variance.expm1() - log_variance)
        return 0.5 * spread.flatten(spread.dim() - self._rank).sum(-1)

    def _one_level(
        self, values: Tensor, context: Tensor | None, batch: Sequence[int]
    ) -> Float[Tensor, "*batch"]:
        """Return an unbiased estimate of all steps' terms, from one step for each example."""
        drawn = self.step_sampler.draw(batch)
        keep = None
        if self.null_context and context is not None:
            keep = torch.rand(batch, device=values.device) >= self.objective.context_dropout
        if self.objective.continuous:
            terms = self._continuous_terms(values, context, drawn.place, keep)
        else:
            terms = self._step_terms(values, context, drawn.step, keep)
        if any(p.requires_grad for p in self.parameters()):  # a frozen model stays as it is
            self.step_sampler.learn(drawn, terms)
        return drawn.weight.to(terms) * terms

    def _step_terms(
        self, values: Tensor, context: Tensor | None, index: Tensor, keep: Tensor | None = None
    ) -> Float[Tensor, "*batch"]:
        """Return the training objective's term of one step for each example, in nats."""
        grid = self.levels()
        low, high = grid[index - 1], grid[index]
        found = self.estimator(self._noised(values, high), high, context, keep)
        step = step_between(low, high, self._rank)
        error = values - found.x
        kind, share = self.variance, found.variance_share
        objective = self.objective.kind
        if objective == "bound" or self.is_bounding:
            return step_divergence(step, error, self._rank, kind, share)
        if objective == "flow_matching":
            return (0.5 * high).exp() * step_divergence(step, error, self._rank)
        squares = error.square().flatten(error.dim() - self._rank).sum(-1)
        simple = (-high).exp() * squares / self.num_steps
        if objective == "simple":
            return simple
        bound = step_divergence(step, error.detach(), self._rank, kind, share)
        return simple + self.objective.bound_weight * bound

    def _continuous_terms(
        self, values: Tensor, context: Tensor | None, time: Tensor, keep: Tensor | None
    ) -> Float[Tensor, "*batch"]:
        """Return the objective's density over time, of as much of it as a step takes."""
        time = time.to(self.schedule.dtype).requires_grad_()
        level = self.schedule(time)
        (speed,) = torch.autograd.grad(level.sum(), time, create_graph=True)
        found = self.estimator(self._noised(values, level), level, context, keep)
        error = values - found.x
        noise = (-level).exp() * error.square().flatten(error.dim() - self._rank).sum(-1)
        noise, bound = noise / self.num_steps, 0.5 * speed * noise / self.num_steps
        objective = self.objective.kind
        if objective == "bound":
            return bound
        if objective == "flow_matching":
            return (0.5 * level).exp() * bound
        # As of steps, of which the bound's share trains the variance alone.
        return noise + (
            self.objective.bound_weight * bound.detach() if objective == "hybrid" else 0
        )

    def bound_estimate(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> Float[Tensor, "*batch"]:
        """Return an unbiased estimate of each example's ELBO from two of the chain's steps.

        At the price of two evaluations of the network, where :meth:`log_weights` takes one for each
        step. The draws follow the seed alone: under the same seed the same data meet the same noise
        levels and the same noise.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
        """
        checked, context, batch = self._checked_alone(x, context)
        with torch.no_grad(), self._aside(), self.bounding():
            values = self._values(checked)
            number = 2
            shape = torch.Size((number, *batch))
            at = torch.rand(()) + torch.arange(shape.numel()) / shape.numel()
            index = (at % 1 * self.num_steps).long().clamp_max(self.num_steps - 1) + 1
            index = index.reshape(shape).to(values.device)
            evaluate = partial(self._step_terms, values, context, index)
            terms = run_with_random_weights(self, evaluate)
            steps = self.num_steps * terms.mean(0)
            z = self._noised(values, self.schedule.ends[0].expand(batch))
            decoded = self.decode(z).log_prob(x)
            return decoded - self._prior_divergence(values) - steps

    @integers_checked
    def log_weights(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
        *,
        num_particles: int = 1,
        num_steps: int | None = None,
    ) -> Float[Tensor, "num_particles *batch"]:
        r"""Return :math:`\log p(x, z_k) - \log q(z_k \mid x)` for whole chains.

        Chains are drawn and scored part by part. Without gradients memory does not grow with the
        number of steps; with them one state per step is kept, and the network is evaluated again.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
            num_particles: Chains for each data point.
            num_steps: Steps of the chain, by default the model's own; others score another model,
                which ``sample(num_steps=...)`` draws from.

        Returns:
            Log-weights in nats per example.

        Raises:
            ValueError: If a number is not positive, or ``x`` or ``context`` does not fit.
        """
        check_positive(num_particles=num_particles)
        if num_particles > 1 and random_weights(self):  # each chain has its own
            options: dict[str, Any] = {"num_particles": 1, "num_steps": num_steps}
            ones = [self.log_weights(x, context, **options) for _ in range(num_particles)]
            return torch.cat(ones)
        checked, context, batch = self._checked_alone(x, context)
        with self._aside(), self.bounding():
            values = self._values(checked).expand(num_particles, *batch, *self.data.shape)
            chain = self._reverse(context, num_steps)
            first, ratio = run_with_random_weights(self, partial(draw_log_ratio, values, chain))
            scores = self.decode(first).log_prob(x)
            return (ratio + scores).to(scores.dtype)

    @torch.no_grad()
    def rates(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return the KL divergence of every step, in nats: what each adds to the bound.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.

        Returns:
            For site ``"z"`` ``(*batch, T + 1)``: the steps from less noise to more, and what the
            noisiest state still tells of the data.
        """
        checked, context, batch = self._checked_alone(x, context)
        with evaluating(self), self._aside(), self.bounding():
            values = self._values(checked)
            parts = self._reverse(context).parts(math.prod(batch))
            indices = [self._steps(part, batch) for part in parts]
            terms = run_with_random_weights(
                self, lambda: [self._step_terms(values, context, each) for each in indices]
            )
            steps = torch.cat(terms).movedim(0, -1)
            return {"z": torch.cat([steps, self._prior_divergence(values).unsqueeze(-1)], -1)}

    def _steps(self, part: slice, batch: Sequence[int]) -> Tensor:
        device = self.schedule.device
        index = torch.arange(part.start + 1, part.stop + 1, device=device)
        return over_event(index, len(batch)).expand(-1, *batch)

    @torch.no_grad()
    @integers_checked
    def trajectory(
        self,
        num_samples: int = 1,
        context: GivenContext = None,
        *,
        num_states: int | None = None,
        sampler: str | Sampler = "ancestral",
        num_steps: int | None = None,
        guidance: float | ClassifierGuidance = 1.0,
    ) -> tuple[Float[Tensor, "num_states num_samples *batch_values"], Float[Tensor, " num_states"]]:
        """Draw chains, and return some of their states from noise to data, to look at.

        :func:`plotting.save_trajectory <pyro_genmodels.plotting.save_trajectory>` draws them.

        Args:
            num_samples: Number of chains (for each context).
            context: Labels or features ``(*batch, ...)``, if the model is conditional.
            num_states: Number of states, evenly spaced among the steps, with both ends; by default
                9, or all of a shorter chain.
            sampler: As in :meth:`sample`.
            num_steps: As in :meth:`sample`.
            guidance: As in :meth:`sample`.

        Returns:
            States ``(num_states, num_samples, *batch, *values)`` and their noise levels, falling.

        Raises:
            ValueError: If a number is impossible or the context does not fit.

        Example:
            >>> network = DenoisingNetwork(channels=8, num_blocks=1)
            >>> model = DiffusionModel((1, 8, 8), num_levels=17, num_steps=4, network=network)
            >>> states, levels = model.trajectory(2, num_states=3)
            >>> states.shape, bool(levels[0] > levels[-1])
            (torch.Size([3, 2, 1, 8, 8]), True)
        """
        check_positive(num_samples=num_samples)
        _, context, batch = self._checked(None, context)
        chain, way = self._chain(context, sampler, num_steps, guidance)
        most = len(chain.levels)
        num_states = min(_SHOWN_STATES, most) if num_states is None else num_states
        check(2 <= num_states <= most, "num_states", f"lie from 2 to {most}", num_states)
        index = torch.linspace(0, most - 1, num_states).round().long().tolist()
        with evaluating(self), self._aside():
            z = self._noise(chain, (num_samples, *batch))
            states = enumerate(itertools.chain([z], way.walk(chain, z)))
            return torch.stack([z for i, z in states if i in index]), chain.levels.flip(0)[index]

    def sampling_differences(self, **options: Any) -> list[str]:
        """Name the sampler, the number of steps and the guidance, if they are not the model's own.

        Args:
            **options: Further arguments of :meth:`sample`.
        """
        found = super().sampling_differences(**options)
        sampler = options.get("sampler", "ancestral")
        own = chosen(sampler) == Ancestral()
        found += [] if own else [f"sampler {sampler}"]
        num_steps, guidance = options.get("num_steps"), options.get("guidance", 1.0)
        found += [] if num_steps in (None, self.num_steps) else [f"{num_steps} steps"]
        strength = f" {guidance:g}" if isinstance(guidance, float | int) else ""
        return found + ([] if guidance == 1 else [f"guidance{strength}"])

    def report(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> dict[str, Float[Tensor, "*batch"]]:
        """Return what both ends of the chain cost, in nats per example.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.

        Returns:
            ``"decoder"``, the data given the least noised state, and ``"last state"``, what the
            noisiest still tells of them.
        """
        checked, _, batch = self._checked_alone(x, context)
        with self._aside():
            values = self._values(checked)
            z = self._noised(values, self.schedule.ends[0].expand(batch))
            decoder = -self.decode(z).log_prob(x)
            return {"decoder": decoder, "last state": self._prior_divergence(values)}

    def beside_elbo(self) -> list[str]:
        """Name also what the objective has that the bound has not."""
        passes = ["self-conditioning"] if self.estimator.self_conditioning else []
        return super().beside_elbo() + self.objective.names + passes


def _schedule(schedule: str | NoiseSchedule, data: ChainData, *, is_learned: bool) -> NoiseSchedule:
    """Return a schedule, whose parameters are fixed unless the objective says something of them."""
    if isinstance(schedule, NoiseSchedule):
        learns = any(p.requires_grad for p in schedule.parameters())
        # A copy is fixed in its place, which may serve another model.
        fixes = learns and not is_learned
        return copy.deepcopy(schedule).requires_grad_(False) if fixes else schedule
    check_choice("schedule", schedule, ("auto", *_SCHEDULES))
    if schedule not in ("auto", "linear_log_snr"):
        return _SCHEDULES[schedule]()
    nearest = data.least_distance
    # Noise of a third of half the distance between two levels, which the decoder tells apart.
    first = _FIRST if nearest is None else 2 * math.log(nearest / 6)
    return LinearLogSNR(first, _LAST, learnable=is_learned)
