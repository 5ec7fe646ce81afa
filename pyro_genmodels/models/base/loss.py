"""The training objective as a module: for plain optimizers, Lightning and DDP."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import pyro
import torch
from pyro.infer import (
    ELBO,
    Importance,
    RenyiELBO,
    ReweightedWakeSleep,
    TraceTailAdaptive_ELBO,
    TraceTMC_ELBO,
)
from pyro.poutine.messenger import Messenger
from torch import nn

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._typing import Float, GivenContext, Num, Tensor
from pyro_genmodels.distributions import observed_part
from pyro_genmodels.models.base.dreg import doubly_reparameterized_bound
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.base.random_weights import random_weights

# Estimators that take exponentials of what each example's ELBO is estimated by, or its ranks.
_NEED_WEIGHTS = (RenyiELBO, ReweightedWakeSleep, TraceTailAdaptive_ELBO, TraceTMC_ELBO)


def weighing_estimator() -> str | None:
    """Return the class of what runs the program around this call, if it takes importance weights.

    Pyro does not show programs who runs them, so the calls under way are looked through for one.
    """
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, (*_NEED_WEIGHTS, Importance)):
            return type(caller).__name__
        frame = frame.f_back
    return None


class NonFiniteELBOError(FloatingPointError):
    """The loss is NaN or infinite; the message names the first site whose term is."""


class ELBOLoss(nn.Module):
    """Negative ELBO of a model, in nats per example, that owns the model's parameters.

    It leaves Pyro's param store alone, so it works with any optimizer, gradient clipping, mixed
    precision and DistributedDataParallel. The first call runs with Pyro's validation on, later
    calls without it; a loss that is not finite is always traced back to its site.

    Args:
        model: The model to train.
        make_elbo: Called with ``max_plate_nesting=``; the model's own by default, mostly
            ``TraceMeanField_ELBO``, which uses the analytic KL where there is one, without its
            needless operations. An estimator
            stores what it guesses of its model, so each loss makes its own.
        num_particles: Draws from the guide that each evaluation averages over.
        importance: Train the importance-weighted bound (IWAE) instead of the ELBO: the logarithm of
            the mean weight of ``num_particles`` draws. It is an objective at beta one, without
            warm-up and auxiliary losses; ``make_elbo`` is not asked.
        doubly_reparameterized: Take that bound's gradient without the terms whose mean is zero, of
            which the posterior's own gradient has ever more with ``num_particles``. For models with
            one reparameterized latent site. With one particle it is "sticking the landing".
        validate: Run every call (``True``), no call (``False``), or the first (``None``) with
            validation.

    Raises:
        ValueError: If the model has no trainable parameter, or an objective of its own that
            importance weighting would leave out.
        NonFiniteELBOError: When called, if the loss is NaN or infinite.

    References:
        Burda et al. (2016), Importance weighted autoencoders, eq. 8 and 14. Tucker et al. (2019),
        Doubly reparameterized gradient estimators for Monte Carlo objectives.
        https://arxiv.org/abs/1810.04152

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> loss = ELBOLoss(VAE((4,), latent_dim=2))
        >>> optimizer = torch.optim.Adam(loss.parameters())
        >>> loss(torch.randn(8, 4)).backward()
        >>> optimizer.step()
    """

    @integers_checked
    def __init__(
        self,
        model: GenerativeModel,
        make_elbo: Callable[..., ELBO] | None = None,
        *,
        num_particles: int = 1,
        importance: bool = False,
        doubly_reparameterized: bool = False,
        validate: bool | None = None,
    ) -> None:
        super().__init__()
        trainable = any(p.requires_grad for p in model.parameters())
        check(trainable, "model", "have a trainable parameter", type(model).__name__)
        names = ", ".join(random_weights(model))
        rule = "have no random weights (PyroSample): train those by SVI, with a guide of yours"
        check(not names, "model", rule, names)
        check_positive(num_particles=num_particles)
        beside = ", ".join(model.beside_elbo()) if importance else ""
        rule = "have beta 1 and no warm-up or other terms beside the ELBO, with importance=True"
        check(not beside, "model", rule, beside)
        rule = "be False without importance=True"
        check(importance or not doubly_reparameterized, "doubly_reparameterized", rule, True)
        if importance and model.weights_are_costly:
            whole = f"a whole chain ({', '.join(model.bound_notes())}) per example and particle"
            name = type(model).__name__
            cost = f"importance weights of {name} take {whole}, where the ELBO takes one step"
            warnings.warn(f"{cost}; their gradient evaluates it again", stacklevel=3)
        model.take_loaded_values()
        self.model = model
        self.num_particles, self.importance = num_particles, importance
        self.doubly_reparameterized = doubly_reparameterized
        self.make_elbo, self.validate = make_elbo or type(model).make_elbo, validate
        self._elbos: dict[int, Any] = {}
        self._validated = False

    def forward(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> Float[Tensor, ""]:
        """Return the loss in nats per example.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the model is conditional.
        """
        batch_dim = x.dim() - len(self.model.event_shape)
        num_examples = math.prod(x.shape[:batch_dim])
        check(num_examples > 0, "x", "hold at least one example", f"shape {tuple(x.shape)}")
        context = self.model.joined_context(context)
        if context is not None:
            self.model.check_context_batch(context, tuple(x.shape[:batch_dim]))
        if self._validates():
            self.model.check_first_batch(x)
        random_state = _random_state(x)
        loss = self._evaluate(x, context, batch_dim, validate=self._validates())
        if not math.isfinite(loss.item()):
            raise NonFiniteELBOError(self._diagnose(x, context, batch_dim, random_state))
        self._validated = True
        return loss / num_examples

    def bound(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> Float[Tensor, "*batch"]:
        """Estimate what training is to raise, of each example and at beta one: a bound in nats.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels or features, if the model is conditional.
        """
        if not self.importance:
            return self.model.bound_estimate(x, context)
        weights = self.model.log_weights(x, context, num_particles=self.num_particles)
        return weights.logsumexp(0) - math.log(self.num_particles)

    def _evaluate(
        self, x: Tensor, context: Tensor | None, batch_dim: int, *, validate: bool
    ) -> Tensor:
        model = self.model
        with model.unregistered(), nullcontext() if validate else pyro.validation_enabled(False):
            if self.importance and self.doubly_reparameterized:
                return -doubly_reparameterized_bound(
                    model, x, context, num_particles=self.num_particles
                ).sum()
            if self.importance:
                return -self.bound(x, context).sum()
            elbo = self._elbo(batch_dim)
            loss: Tensor = elbo.differentiable_loss(model.model, model.guide, x, context)
        return loss

    def _diagnose(
        self, x: Tensor, context: Tensor | None, batch_dim: int, random_state: list[Tensor]
    ) -> str:
        """Evaluate once more, with the same draws, and name the first site that is to blame."""
        particles = self.num_particles
        # Afterwards, so that a step which goes well pays for no record of its sites.
        with torch.random.fork_rng(), torch.no_grad(), _SiteRecord() as sites:
            _set_random_state(x, random_state)
            if self.importance:
                # Its sites are hidden from the handlers around it.
                with pyro.validation_enabled(False):
                    sites.take(self.model.particle_traces(x, context, num_particles=particles))
            else:
                # Not its differentiable loss, which TraceEnum_ELBO refuses without gradients.
                with self.model.unregistered(), pyro.validation_enabled(False):
                    self._elbo(batch_dim).loss(self.model.model, self.model.guide, x, context)
        # NaN is nothing to blame where it stands for what was not observed.
        seen = observed_part(x)[0] if self.model.missing else x
        return sites.diagnose(x=seen, context=context)

    def unreached_parameters(self) -> list[str]:
        """Name the trainable parameters that the last backward pass gave no gradient."""
        named = self.model.named_parameters()
        return [name for name, p in named if p.requires_grad and p.grad is None]

    def _validates(self) -> bool:
        return not self._validated if self.validate is None else self.validate

    def _elbo(self, batch_dim: int) -> Any:
        if batch_dim not in self._elbos:
            # Given, not guessed: a guess runs model and guide once more, batch norm included.
            options: dict[str, Any] = {"max_plate_nesting": batch_dim}
            if self.num_particles > 1:
                options |= {"num_particles": self.num_particles, "vectorize_particles": True}
            elbo = self.make_elbo(**options)
            fits = hasattr(elbo, "differentiable_loss")
            check(fits, "make_elbo", "make an ELBO with a differentiable_loss", type(elbo).__name__)
            self._elbos[batch_dim] = elbo
        elbo = self._elbos[batch_dim]
        # At each call, as the model may have been bounding at the first.
        estimates = self.model.trains_on_estimates and not self.model.is_bounding
        rule = "make an ELBO: each example's is an estimate here, not an importance weight"
        allowed = not estimates or not isinstance(elbo, _NEED_WEIGHTS)
        check(allowed, "make_elbo", rule, type(elbo).__name__)
        return elbo


def _random_state(x: Tensor) -> list[Tensor]:
    on_device = [torch.cuda.get_rng_state(x.device)] if x.is_cuda else []
    return [torch.get_rng_state(), *on_device]


def _set_random_state(x: Tensor, state: list[Tensor]) -> None:
    torch.set_rng_state(state[0])
    for device_state in state[1:]:
        torch.cuda.set_rng_state(device_state, x.device)


class _SiteRecord(Messenger):
    """Remembers each site of an ELBO evaluation, to find the one whose term is not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.sites: list[tuple[str, Any, Any]] = []

    def _pyro_post_sample(self, msg: Any) -> None:
        self.sites.append((msg["name"], msg["fn"], msg["value"]))

    def take(self, traces: Iterable[Any]) -> None:
        """Take the sites of traces."""
        nodes = [node for trace in traces for node in trace.nodes.values()]
        samples = [node for node in nodes if node["type"] == "sample"]
        self.sites += [(site["name"], site["fn"], site["value"]) for site in samples]

    def diagnose(self, **arguments: Tensor | None) -> str:
        for name, given in arguments.items():
            if given is not None and not bool(torch.isfinite(given).all()):
                count = int((~torch.isfinite(given)).sum())
                return f"`{name}` must be finite; got {count} NaN or infinite elements."
        for name, distribution, value in self.sites:
            try:
                term = distribution.log_prob(value)
            except ValueError:  # of a distribution that validates: NaN lies in no support
                term = torch.full((1,), math.nan)
            bad = ~torch.isfinite(term)
            if bool(bad.any()):
                kind = "NaN" if bool(term.isnan().any()) else str(term[bad][0].item())
                law = type(getattr(distribution, "base_dist", distribution)).__name__
                return (
                    f"the log-density of site '{name}' ({law}) must be finite; "
                    f"got {kind} in {int(bad.sum())} of {term.numel()} terms."
                )
        return "the loss must be finite; every site's term is, so their sum overflowed."
