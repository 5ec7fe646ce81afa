"""The contract of every model: a model/guide pair that Pyro's inference takes as it is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import pyro
import torch
from pyro import poutine
from pyro.poutine.util import is_validation_enabled
from torch import nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._changes import in_functorch
from pyro_genmodels._checks import (
    check,
    check_event_shape,
    check_not_traced,
    integers_checked,
)
from pyro_genmodels._configuration import Configured
from pyro_genmodels._modules import evaluating, first_tensor
from pyro_genmodels._typing import EventShape, Float, Num, ScaleName, Tensor
from pyro_genmodels.models.base.arguments import CheckedArguments
from pyro_genmodels.models.base.kl import unit_kl
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.models.base.mean_field_elbo import MeanFieldELBO
from pyro_genmodels.models.base.param_registration import RegisteredModule
from pyro_genmodels.models.base.plates import log_density, plates
from pyro_genmodels.models.base.random_weights import (
    random_weights,
    run_with_random_weights,
    run_without_random_weights,
)
from pyro_genmodels.models.base.shared_pass import SharedPass
from pyro_genmodels.models.base.standardization import SCALE_RULE, Standardization, in_svi_step
from pyro_genmodels.transforms.interop import is_real

ModelT = TypeVar("ModelT", bound="GenerativeModel")


class GenerativeModel(Configured, RegisteredModule, CheckedArguments, Abstract):
    """A Pyro model and its guide over one kind of data.

    A subclass writes :meth:`generate` (latent sites and the observed site ``"x"``) and, if it has
    latent variables, :meth:`infer` (the same latent sites from the posterior). The base adds what
    is easy to get silently wrong: registration under an instance-unique name, plates over the
    batch, input checks and dtype, scaling of latent sites on both sides, the slot for work shared
    between guide and model, the units of the data, and sampling and bounds.

    ``model`` and ``guide`` are what Pyro's inference takes;
    :class:`~pyro_genmodels.models.ELBOLoss` is the same objective as a module for plain
    optimizers and trainers.

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        num_levels: Data are the integers ``0 .. num_levels - 1``; ``None`` for continuous data.
        num_classes: The context is a label below this number.
        context_shape: The context is a vector ``(D,)`` or a feature map ``(C, H, W)``.
        beta: Weight of the latent terms in the training objective.
        warmup_steps: Training evaluations of the guide over which that weight rises linearly.

    Raises:
        ValueError: If a size is impossible or both kinds of context are given.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Arguments of :func:`pyro_genmodels.training.fit` that suit this family."""

    make_elbo: ClassVar[Callable[..., Any]] = MeanFieldELBO
    """Makes the estimator that suits this family, given ``max_plate_nesting=``."""

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None = None,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
        beta: float = 1.0,
        warmup_steps: int = 0,
    ) -> None:
        super().__init__()
        self.event_shape = check_event_shape(event_shape)
        whole = num_levels is None or (num_levels == int(num_levels) and num_levels >= 2)
        check(whole, "num_levels", "be a whole number of at least 2", num_levels)
        check(num_classes is None or num_classes >= 1, "num_classes", "be positive", num_classes)
        both = num_classes is not None and context_shape is not None
        check(not both, "context_shape", "be None when num_classes is given", context_shape)
        self.num_levels, self.num_classes = num_levels, num_classes
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        self.latent_scale = LatentScale(beta, warmup_steps=warmup_steps)
        self.shared_pass = SharedPass()
        self.standardization = Standardization(self.event_shape)
        self.is_bounding = False
        self._first_parameters: dict[str, Tensor] | None = None

    @abstractmethod
    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Sample the latent sites, inside ``with self.latent_scale():``, and observe ``"x"``.

        Runs inside the data plates, on standardised data if :meth:`standardize` was called; the
        base gives site ``"x"`` the data's units. Returns the value of site ``"x"``.
        """

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Sample the latent sites from the posterior; nothing in a model without latents.

        As :meth:`generate`, on standardised data if :meth:`standardize` was called.
        """

    @property
    def has_latents(self) -> bool:
        """Whether there is anything to infer; if not, every bound is the exact log-likelihood."""
        return type(self).infer is not GenerativeModel.infer

    @property
    def standardization_scale(self) -> ScaleName | None:
        """Which scales :meth:`standardize` sets: ``"per_dimension"``, or one that is ``"shared"``.

        ``None`` of data that have a scale of their own: levels, or a bounded range. Where the
        support of site ``"x"`` is bounded, :meth:`standardize` finds that by itself.
        """
        return "per_dimension" if self.num_levels is None else None

    def standardize(self: ModelT, data: Any) -> ModelT:
        r"""Let the networks see :math:`(x - m) / s`, with mean and deviation of training data.

        All else stays in the units of the data: what the model takes, draws and returns, and its
        nats, which have the log-determinant. So a model trains alike whatever units its data come
        in. Call it once before training; :func:`pyro_genmodels.training.fit` does. Later calls
        change nothing, since trained weights belong to the first shift and scale, which are saved
        with them. Weights that were trained without are in the units of the data for good.

        There is a scale for each element of a vector and for each channel of an image; one for all
        where the model's noise is the same in all directions (``FactorAnalysis(noise="shared")``,
        ``GaussianLikelihood(scale="shared")`` or a fixed scale, which then is in units of it).
        Data with levels or in a bounded range are left as they are, and so are contexts.

        Args:
            data: Training data ``(*batch, *event)``; or a ``Dataset``, or batches such as a
                ``DataLoader``'s, of ``x`` or ``(x, ...)``. Each rank of a distributed run gives its
                share, and all get the same.

        Returns:
            The model.

        Raises:
            ValueError: If the data do not fit, are not finite, or a column of them is constant; or
                if the model :attr:`is_trained` without.

        Example:
            >>> from pyro_genmodels.models import VAE
            >>> x = 1e6 + 1000 * torch.randn(500, 3)
            >>> vae = VAE((3,), latent_dim=2).standardize(x)
            >>> vae.sample(500).mean().round(decimals=-4)
            tensor(1000000.)
        """
        if not self.standardization.is_set:
            kind = self._scale_of_data()
            if kind is not None:
                self._check_untrained()
                self.standardization.set_from(data, kind)
                self.shared_pass.clear()
        return self

    @property
    def is_trained(self) -> bool:
        """Whether the parameters come from data, in whose units they then are.

        That is if they were loaded, fitted in closed form, or have changed since the model first
        ran with gradients enabled, be it by an optimizer or by an initialisation from data.
        Whoever only looks at a loss has trained nothing.
        """
        parts = [part for part in self.modules() if isinstance(part, GenerativeModel)]
        return self.standardization.fits_data or any(part._has_changed() for part in parts)

    def _has_changed(self) -> bool:
        first, now = self._first_parameters, _some_of(self)
        return first is not None and not all(
            torch.equal(value, now[name]) for name, value in first.items() if name in now
        )

    def remember_parameters(self) -> None:
        """Remember what the parameters were before the first gradient, for :attr:`is_trained`."""
        if self._first_parameters is None and torch.is_grad_enabled():
            looks = not in_functorch() and not torch.jit.is_tracing()  # type: ignore[attr-defined]
            for part in self.modules() if looks else ():
                if isinstance(part, GenerativeModel) and part._first_parameters is None:
                    part._first_parameters = _some_of(part)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        names = [prefix + name for name, _ in self.named_parameters()]
        loaded = [name in state_dict for name in names]
        units = self.standardization
        if any(loaded):
            units.take_as_fitted()
        # A part of the weights says nothing of the scale that it lacks.
        if any(loaded) and all(loaded) and f"{prefix}standardization.shift" not in state_dict:
            units.unset()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def check_columns(self, data: Any) -> None:
        """Raise ``ValueError`` if :meth:`standardize` would, given these data.

        Args:
            data: As there.
        """
        if not self.standardization.is_set:
            kind = self._scale_of_data()
            if kind is not None:
                self._check_untrained()
                self.standardization.moments(data, kind)

    def _scale_of_data(self) -> ScaleName | None:
        """Return :attr:`standardization_scale`, or ``None`` if site ``"x"`` has a bounded support.

        A caller's likelihood or model need not say so by itself.
        """
        kind = self.standardization_scale
        return None if kind is None or not is_real(self._support()) else kind

    def _check_untrained(self) -> None:
        rule = "be standardised before its parameters are trained, fitted or loaded"
        check(not self.is_trained, "model", rule, f"a trained {type(self).__name__}")

    @torch.no_grad()
    def _support(self) -> Any:
        """Return the support of site ``"x"``, of one run aside that leaves no trace."""
        origin = first_tensor(self)
        x = origin.new_zeros(1, *self.event_shape)  # observed: not all models can be drawn from
        context = None
        if self.num_classes is not None:
            context = origin.new_zeros(1, dtype=torch.long)
        elif self.context_shape is not None:
            context = origin.new_zeros(1, *self.context_shape)
        devices = [origin.device] if origin.is_cuda else []
        with evaluating(self), self._aside(), torch.random.fork_rng(devices):
            site: Any = poutine.trace(self._run).get_trace(x, context, (1,)).nodes["x"]["fn"]
        self.shared_pass.clear()
        try:
            return site.support
        except (AttributeError, NotImplementedError):
            return None

    def optional_keys(self) -> set[str]:
        """Return the keys that a state dict of the model may have or not, as the model may."""
        return {
            f"{prefix}.{name}"
            for prefix, part in self.named_modules(remove_duplicate=False)
            if isinstance(part, Standardization)
            for name in part.keys
        }

    @property
    def can_be_traced(self) -> bool:
        """Whether ``torch.jit.trace``, as in Pyro's compiled estimators, leaves it what it is."""
        return True

    def _check_estimator(self) -> None:
        if not self.can_be_traced:
            check_not_traced()

    def model(
        self,
        x: Num[Tensor, "*batch_event"] | None = None,
        context: Tensor | None = None,
        *,
        observations: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Run the generative program; with ``x`` observed, without it drawn.

        Args:
            x: Data ``(*batch, *event)``. Each batch dimension is a plate: ``data`` is the last.
            context: Labels ``(*batch)`` or features ``(*batch, *context_shape)``, if conditional.
            observations: Not used; Pyro's ``ReweightedWakeSleep`` gives it to both programs.

        Returns:
            The value of site ``"x"``.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        self._check_estimator()
        self.register_with_pyro()
        self.remember_parameters()
        seen, context, batch = self._checked(x, context, self._take_seen)
        self._check_first_batch(x)
        return self._run(seen, context, batch, x)

    def guide(
        self,
        x: Num[Tensor, "*batch_event"] | None = None,
        context: Tensor | None = None,
        *,
        observations: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Run the approximate posterior of the latent sites given ``x``.

        Args:
            x: Data ``(*batch, *event)``, needed; optional only to share ``model``'s signature.
            context: As in :meth:`model`.
            observations: What Pyro's ``ReweightedWakeSleep`` has drawn from the model, by site, to
                condition on in the place of ``x``.

        Raises:
            ValueError: If ``x`` is missing, or does not fit.
        """
        self._check_estimator()
        self.register_with_pyro()
        self.remember_parameters()
        if observations:
            x = observations["x"]
        checked, context, batch = self._checked(x, context, self._see)
        self._check_first_batch(x)
        check(checked is not None, "x", "be given to the guide, which conditions on it", None)
        assert checked is not None  # narrows the type for the checker
        if self.training and torch.is_grad_enabled() and not self.is_bounding:
            self.latent_scale.advance()
        if not self.has_latents:
            return  # Predictive does not know of a plate without sites
        run_without_random_weights(self, partial(self._infer_in_plates, checked, context, batch))

    @torch.no_grad()
    @integers_checked
    def sample(
        self, num_samples: int = 1, context: Tensor | None = None
    ) -> Float[Tensor, "num_samples *batch_event"]:
        """Draw data from the model, in eval mode.

        Args:
            num_samples: Number of draws (for each context).
            context: Labels or features ``(*batch, ...)``, if the model is conditional.

        Returns:
            Data ``(num_samples, *batch, *event)``.

        Raises:
            ValueError: If ``num_samples`` is not positive or the context does not fit.
        """
        check(num_samples >= 1, "num_samples", "be at least 1", num_samples)
        _, context, batch = self._checked(None, context)
        with evaluating(self), self._aside():
            return self._run(None, context, (num_samples, *batch))

    @torch.no_grad()
    def reconstruct(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None = None
    ) -> Float[Tensor, "*batch_event"]:
        """Encode data and decode them again: the likelihood's mean given one posterior draw.

        Of a likelihood without a mean in closed form, an autoregressive one, it is a draw.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.

        Returns:
            Expected data ``(*batch, *event)``, in the units of ``x``.

        Raises:
            ValueError: If the model has no latent variables, or ``x`` does not fit.
        """
        checked, context, batch = self._checked_alone(x, context)
        with evaluating(self), self._aside():
            encoded = poutine.trace(self.guide).get_trace(checked, context)
            name = type(self).__name__
            check(self.has_latents, "model", "have latent variables to reconstruct from", name)
            program = poutine.trace(poutine.replay(self._run, trace=encoded))
            site = program.get_trace(None, context, batch).nodes["x"]
        likelihood: Any = site["fn"]
        try:
            mean: Tensor = likelihood.mean
        except NotImplementedError:
            mean = likelihood.sample()
        return mean.expand(*batch, *self.event_shape)

    @integers_checked
    def log_weights(
        self,
        x: Num[Tensor, "*batch_event"],
        context: Tensor | None = None,
        *,
        num_particles: int = 1,
    ) -> Float[Tensor, "num_particles *batch"]:
        r"""Return :math:`\log p(x, z_k) - \log q(z_k \mid x)` for draws from the guide.

        Their mean over particles estimates the ELBO, their log-mean-exp the importance-weighted
        bound; both at beta = 1 whatever the training objective, without auxiliary losses. In a
        model without latents they are :math:`\log p(x)` itself. Differentiable.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
            num_particles: Draws :math:`z_k` for each data point.

        Returns:
            Log-weights in nats per example.

        References:
            Burda et al. (2016), Importance Weighted Autoencoders, eq. 8.
        """
        check(num_particles >= 1, "num_particles", "be at least 1", num_particles)
        weights = random_weights(self)
        if weights and num_particles > 1:  # networks do not take a batch of weights
            ones = [self.log_weights(x, context, num_particles=1) for _ in range(num_particles)]
            return torch.cat(ones)
        encoded, joint = self.particle_traces(x, context, num_particles=num_particles)
        if weights:  # drawn from their prior, so their densities cancel
            for name in [n for n in joint.stochastic_nodes if n not in encoded.nodes]:
                joint.remove_node(name)
        batch = x.shape[: x.dim() - len(self.event_shape)]
        # Expanded last: what an empty guide's sum is made of lies on the CPU.
        return (log_density(joint) - log_density(encoded)).expand(num_particles, *batch)

    def particle_traces(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None, *, num_particles: int
    ) -> tuple[Any, Any]:
        """Return the traces of guide and model that :meth:`log_weights` compares.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
            num_particles: Draws for each data point.
        """
        checked, context, batch = self._checked_alone(x, context)
        with self._aside(), self.bounding():
            # A plate of one would give random weights dimensions that their network does not take.
            one = num_particles == 1 and bool(random_weights(self))
            particles = pyro.plate("particles", num_particles, dim=-1 - len(batch))
            guide = self.guide if one else particles(self.guide)
            encoded = poutine.trace(guide).get_trace(checked, context)
            program = self.model if one or not self.has_latents else particles(self.model)
            decoded = poutine.trace(poutine.replay(program, trace=encoded))
            return encoded, decoded.get_trace(checked, context)

    @torch.no_grad()
    def rates(
        self, x: Num[Tensor, "*batch_event"], context: Tensor | None = None
    ) -> dict[str, Float[Tensor, "..."]]:
        """Return what each latent site carries: its KL divergence from its prior, in nats.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.

        Returns:
            For each site ``(*batch, units)``, one column where the site has no independent units;
            given one draw of the sites before it. Nothing in a model without latents.
        """
        checked, context, _ = self._checked_alone(x, context)
        with evaluating(self), self._aside(), self.bounding():
            encoded = poutine.trace(self.guide).get_trace(checked, context)
            decoded = poutine.trace(poutine.replay(self.model, trace=encoded))
            sites = decoded.get_trace(checked, context).nodes
        latents: dict[str, Any] = {n: encoded.nodes[n] for n in encoded.stochastic_nodes}
        return {
            name: unit_kl(site["fn"], sites[name]["fn"], site["value"])
            for name, site in latents.items()
            if name in sites
        }

    def beside_elbo(self) -> list[str]:
        """Name what the training objective has beside the ELBO at beta one; nothing, if it is that.

        None of it is left where a bound is trained in the place of the model's own objective.
        """
        scale = self.latent_scale
        beta = [] if scale.beta == 1 else [f"beta {scale.beta:g}"]
        return beta + ([f"warmup_steps {scale.warmup_steps}"] if scale.warmup_steps else [])

    def check_first_batch(self, x: Num[Tensor, "*batch_event"]) -> None:
        """Raise ``ValueError`` if this is the first batch of a training, and far from scale 1.

        :class:`ELBOLoss` and ``SVI`` call it, who know no training set. Nothing is checked where
        Pyro's validation is off, or of a model whose weights were loaded.

        Args:
            x: Data ``(*batch, *event)``.
        """
        waits = self.standardization.awaits_batch and is_validation_enabled()
        if not waits or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return
        x, kind = self._checked_data(x), self.standardization_scale
        problem = None if kind is None else self.standardization.problem_with(x, kind)
        if problem is not None and self._scale_of_data() is not None:
            check(False, "x", SCALE_RULE, problem)
        self.standardization.awaits_batch = False

    def _check_first_batch(self, x: Tensor | None) -> None:
        if self.standardization.awaits_batch and x is not None and in_svi_step():
            self.check_first_batch(x)

    def _generate(
        self, seen: Tensor | None, context: Tensor | None, x: Tensor | None = None
    ) -> Tensor:
        """Run :meth:`generate` on what it sees of the data ``x``, with ``"x"`` in their units."""
        with self.standardization.observing(x, self.dtype):
            return self.generate(seen, context)

    def _see(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self.shared_pass.cast(x, dtype, self.standardization.standardized)

    def _take_seen(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self.shared_pass.take_cast(x, dtype, self.standardization.standardized)

    @contextmanager
    def bounding(self) -> Iterator[None]:
        """Run as a true bound, for Pyro's own estimators, importance sampling or NUTS.

        Latent terms have weight one, no warm-up step is counted, auxiliary losses stay out.
        """
        before, self.is_bounding = self.is_bounding, True
        try:
            with self.latent_scale.off():
                yield
        finally:
            self.is_bounding = before

    def _run(
        self,
        seen: Tensor | None,
        context: Tensor | None,
        batch: tuple[int, ...],
        x: Tensor | None = None,
    ) -> Tensor:
        """Run the generative program in plates over the batch, with one draw of random weights."""
        program = partial(self._generate_in_plates, seen, context, batch, x)
        result: Tensor = run_with_random_weights(self, program)
        return result

    def _generate_in_plates(
        self,
        seen: Tensor | None,
        context: Tensor | None,
        batch: tuple[int, ...],
        x: Tensor | None,
    ) -> Tensor:
        with plates(batch):
            return self._generate(seen, context, x)

    def _infer_in_plates(self, x: Tensor, context: Tensor | None, batch: tuple[int, ...]) -> None:
        with plates(batch):
            self.infer(x, context)

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """Run sites that are no part of the program around this call, if there is one."""
        self.take_loaded_values()
        with self.unregistered(), poutine.block():
            yield

    def buffers_to_save(self) -> list[str]:
        """Names in the state dict that are not parameters, and that matter.

        The count of steps matters only to a warm-up.
        """
        names = super().buffers_to_save()
        without = [] if self.latent_scale.warmup_steps else ["latent_scale.step"]
        return [name for name in names if name not in without]


def _some_of(module: nn.Module) -> dict[str, Tensor]:
    """Return up to about a hundred elements of each parameter, the same on any device."""
    return {
        name: parameter.detach().flatten()[:: 1 + parameter.numel() // 100].float().cpu().clone()
        for name, parameter in module.named_parameters()
        if parameter.device.type != "meta"
    }
