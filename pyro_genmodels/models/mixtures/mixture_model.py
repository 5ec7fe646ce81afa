"""A mixture of any exact class-conditional model: the label is the component, and is summed out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO

from pyro_genmodels._checks import check, check_positive, check_trailing, integers_checked
from pyro_genmodels._modules import evaluating
from pyro_genmodels._typing import EventShape, Float, GivenContext, Num, Tensor
from pyro_genmodels.distributions import (
    ComponentOf,
    Mixture,
    posterior_of,
    summed_out,
    without_nan,
)
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.base.loss import weighing_estimator
from pyro_genmodels.models.base.plates import replayed_value
from pyro_genmodels.models.base.shared_pass import note_source
from pyro_genmodels.models.em.loop import run_em
from pyro_genmodels.models.em.model_around import ModelAround
from pyro_genmodels.models.em.model_components import ComponentsOfClass, ModelComponents
from pyro_genmodels.models.em.result import EMResult
from pyro_genmodels.models.em.weights import MixtureWeights
from pyro_genmodels.models.mixtures.component_weights import ComponentWeights, WeightsArgument
from pyro_genmodels.nets.layers import check_finite_context, join_context


class MixtureModel(ModelAround):
    r"""A mixture of any exact class-conditional model, whose label is the component.

    .. math:: p(x) = \sum_{k=1}^K w_k\, p(x \mid k)

    The components are the distributions that ``conditional`` has given each of its labels: of
    Gaussians (the classical mixture), tables, flows of continuous data, autoregressive networks.
    The likelihood is exact, and so is the posterior of the component, which is the guide: site
    ``"component"`` is enumerated in parallel under ``TraceEnum_ELBO``, which :class:`ELBOLoss` uses
    here by default, so that the ELBO is the log-likelihood, in value and in gradient. Without the
    guide, as under NUTS or ``Predictive``, the program has site ``"x"`` alone.

    A label that is known is given as the context, ``model(x, y)``, with -1 where it is not: known
    ones are observed, and bounds are on :math:`\log p(x, y)` there. So a classifier by Bayes' rule
    learns from data of which some have labels; :meth:`posterior` classifies.

    With ``num_groups`` the mixture is class-conditional itself: each label below it has
    components of its own, an equal share of those of ``conditional``. So a mixture is what a
    mixture, or a hidden Markov model, may be made of.

    A model of dequantised levels, a flow or ``GaussianModel(num_levels=...)``, is mixed over the
    continuous values: one dequantisation, which does not see the component, gives them, and the
    bound is the dequantisation's.

    Args:
        conditional: The class-conditional model, exact or dequantised.
        weights: Weights of the components: ``"learned"``, from equal ones on; ``"uniform"``;
            ``"dirichlet"``, learned with a symmetric Dirichlet prior, which training adds to its
            objective; or K probabilities, with ``num_groups`` a row for each label. If there are
            features, learned weights are a small network's of them; or your own network, from
            features to ``(*batch, K)`` logits.
        concentration: Concentration of the Dirichlet prior, 1 or more; 2 adds one example to each
            component.
        num_groups: Make the mixture conditional on a label below this number, by which the number
            of the conditional model's labels must be divisible.
        context_shape: Sizes of features ``(*batch, *context_shape)``, on which the weights depend;
            by default those that the conditional model takes next to its label, if it does.
        hidden: Widths of the hidden layers of the network of features that gives the weights.
        observed_labels: Whether the labels that data come with are those of the components, -1
            where unknown. Then training and evaluation take them; else only who gives them.
        chunk_size: Number of components that are evaluated at once; all by default. Memory grows
            with it, and not with K: for gradients the components are evaluated again.

    Attributes:
        num_components: Number K of components, with ``num_groups`` of each label.
        is_class_conditional: Whether it is conditional on a label itself.

    Raises:
        ValueError: If the conditional model takes no label or has no distribution in closed form,
            or an argument is none of these.

    References:
        Dempster et al. (1977), Maximum likelihood from incomplete data via the EM algorithm.

    Example:
        >>> from pyro_genmodels import models
        >>> parts = models.pixelcnn((1, 8, 8), num_levels=17, hidden_channels=4, num_classes=10)
        >>> model = MixtureModel(parts)
        >>> x = torch.zeros(2, 1, 8, 8)
        >>> model.log_prob(x).shape, model.posterior(x).probs.shape, model.sample(3).shape
        (torch.Size([2]), torch.Size([2, 10]), torch.Size([3, 1, 8, 8]))
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 3e-3, "batch_size": 64, "max_epochs": 60, "ema_decay": 0.99}
    )
    # Where all labels are known there is nothing to enumerate, and nothing to warn of.
    make_elbo: ClassVar[Callable[..., Any]] = staticmethod(
        partial(TraceEnum_ELBO, strict_enumeration_warning=False)
    )

    def __init__(
        self,
        conditional: GenerativeModel,
        *,
        weights: WeightsArgument = "learned",
        concentration: float = 2.0,
        num_groups: int | None = None,
        context_shape: EventShape | None = None,
        hidden: Sequence[int] = (32,),
        observed_labels: bool = False,
        chunk_size: int | None = None,
    ) -> None:
        super().__init__(conditional)
        labels, own = conditional.num_classes or 1, conditional.context_shape
        check(num_groups is None or num_groups >= 1, "num_groups", "be positive", num_groups)
        groups = num_groups or 1
        rule = f"divide the conditional model's number of labels, {labels}"
        check(labels % groups == 0, "num_groups", rule, num_groups)
        self.is_class_conditional = num_groups is not None
        self.num_classes = labels if observed_labels else num_groups
        self.context_shape = own if context_shape is None else torch.Size(context_shape)
        fits = own is None or self.context_shape == own
        check(fits, "context_shape", f"be that of the conditional model, {own}", context_shape)
        rule = "be False with num_groups: components of a group have no labels"
        check(not (observed_labels and num_groups), "observed_labels", rule, True)
        check_positive(chunk_size=labels if chunk_size is None else chunk_size)
        self.num_components: int = labels // groups
        self.observed_labels, self.chunk_size = observed_labels, chunk_size
        self.weights = ComponentWeights(
            weights,
            groups,
            self.num_components,
            context_shape=self.context_shape,
            concentration=concentration,
            hidden=hidden,
        ).to(conditional.dtype)
        self.num_examples: int | None = None
        self._check_exact_conditional()

    @torch.no_grad()
    def _check_exact_conditional(self) -> None:
        """Raise ``ValueError`` unless the conditional model has distributions to be mixed."""
        try:
            _ = self._components(*self._any_context()).support
        except ValueError as error:
            rule = "have a distribution over data in closed form, or be dequantised"
            check(False, "conditional", rule, str(error).rpartition("; got ")[2].rstrip("."))

    def _any_context(self) -> tuple[Tensor | None, Tensor | None]:
        group = torch.zeros((), dtype=torch.long) if self.is_class_conditional else None
        if self.context_shape is None:
            return group, None
        return group, torch.zeros(self.context_shape, dtype=self.dtype)

    # What the model is to others

    @property
    def context_event_dim(self) -> int | None:
        """That of features, 0 of a label that data come with, ``None`` of what needs no context."""
        if self.context_shape is not None:
            return len(self.context_shape)
        return 0 if self.is_class_conditional or self.observed_labels else None

    @property
    def infers_label(self) -> bool:
        """Whether the conditional model's label is summed out, and there is no other."""
        return not self.is_class_conditional

    @property
    def takes_unknown_labels(self) -> bool:
        """Whether labels are those of components."""
        return not self.is_class_conditional

    @property
    def is_dequantized(self) -> bool:
        """Whether the conditional model is."""
        return self.conditional.is_dequantized

    @property
    def bound_kind(self) -> str:
        """The exact log-likelihood, or the dequantisation's bound."""
        return self.conditional.bound_kind if self.is_dequantized else "exact"

    @property
    def default_particles(self) -> int:  # type: ignore[override]
        """Those of the conditional model, which are draws of its dequantisation if there is one."""
        return self.conditional.default_particles

    @property
    def default_chunk_size(self) -> int:
        """Fewer than the conditional model's, by the components that are evaluated at once."""
        at_once = min(self.chunk_size or self.num_components, self.num_components)
        return max(16, self.conditional.default_chunk_size // at_once)

    @property
    def display_name(self) -> str:
        """The conditional model's, with what is made of it."""
        return f"mixture of {self.num_components} {self.conditional.display_name}"

    @property
    def can_be_traced(self) -> bool:
        """No: whether all labels are known depends on the data."""
        return False

    def bound_notes(self, num_steps: int | None = None) -> list[str]:
        """Say where labels are scored with the data."""
        return ["of data and their labels"] if self.observed_labels else []

    def beside_elbo(self) -> list[str]:
        """Name also the prior of the weights."""
        alpha = self.weights.concentration
        own = [] if alpha is None else [f"Dirichlet weights of concentration {alpha:g}"]
        return super().beside_elbo() + own

    def undecayed_parameters(self) -> list[str]:
        """Name also the log-weights, which decay would draw to equal ones."""
        learned = isinstance(self.weights.table, torch.nn.Parameter)
        return super().undecayed_parameters() + (["weights.table"] if learned else [])

    def expect_examples(self, num_examples: int) -> None:
        """Take note of the size of the training set, which shares the prior of the weights.

        Until then each batch is taken for the whole.

        Args:
            num_examples: Number of training examples.
        """
        check_positive(num_examples=num_examples)
        self.num_examples = num_examples
        self.conditional.expect_examples(num_examples)

    def _support(self) -> Any:
        return self.conditional._support()

    # Contexts: a label, known or not, features, or both in one tensor

    def joined_context(self, context: GivenContext) -> Tensor | None:
        """Return a context as one tensor, also a pair of labels, -1 where unknown, and features.

        Args:
            context: A pair ``(labels, features)``, or a context that is one tensor or ``None``.
        """
        if context is None or isinstance(context, Tensor):
            return context
        fits = self.context_shape is not None and len(context) == 2
        rule = "be a pair of labels and features only in a model that takes features"
        check(fits, "context", rule, f"{len(context)} tensors")
        labels, features = context
        check_trailing("context", features, self.context_shape or ())
        self._check_labels(labels)
        return join_context(labels, features, self.context_event_dim)

    def _checked(
        self,
        x: Tensor | None,
        context: GivenContext,
        cast: Callable[[Tensor, torch.dtype], Tensor] = Tensor.to,
    ) -> tuple[Tensor | None, Tensor | None, tuple[int, ...]]:
        context = self.joined_context(context)
        batch: tuple[int, ...] = ()
        needed = self.is_class_conditional or self.context_shape is not None
        rule = "be given to a conditional model"
        check(context is not None or not needed, "context", rule, context)
        if context is not None:
            self._check_context(context)
            batch = tuple(context.shape[: context.dim() - (self.context_event_dim or 0)])
        if x is not None:
            x = cast(self._checked_data(x), self.dtype)
            batch = tuple(x.shape[: x.dim() - len(self.event_shape)])
        return x, context, batch

    def _check_context(self, context: Tensor) -> None:
        shape, rank = self.context_shape, self.context_event_dim or 0
        if shape is None:
            self._check_labels(context)
            return
        joint = (shape[0] + 1, *shape[1:])
        found = tuple(context.shape[context.dim() - rank :])
        shapes = [joint] if self.is_class_conditional else [tuple(shape), joint]
        rule = f"have trailing shape {' or '.join(map(str, shapes))}"
        check(found in shapes, "context", rule, tuple(context.shape))
        self._check_context_values(context)
        if found == joint:
            self._check_labels(_first(context, rank), "begin with")

    def _check_context_values(self, context: Tensor | None) -> None:
        if context is not None and context.is_floating_point():
            super()._check_context_values(context)

    def _check_labels(self, labels: Tensor, verb: str = "be") -> None:
        least = 0 if self.is_class_conditional else -1
        count = self.num_classes if self.is_class_conditional else self.num_components
        count = count or 1
        rule = f"{verb} labels from 0 to {count - 1}" + (", or -1 where unknown" if least else "")
        known = labels.numel() == 0 or labels.is_meta
        if labels.is_floating_point():
            check_finite_context(labels)
            check(known or bool((labels == labels.floor()).all()), "context", rule, labels.dtype)
        elif known:
            return
        low, high = int(labels.min()), int(labels.max())
        check(low >= least and high < count, "context", rule, f"values from {low} to {high}")

    def _split(self, context: Tensor | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the class, the known labels of components, and the features of a context."""
        labels, features = context, None
        if context is not None and self.context_shape is not None:
            rank, size = len(self.context_shape), self.context_shape[0]
            joint = context.shape[-rank] > size
            labels = _first(context, rank) if joint else None
            features = context.narrow(-rank, 1, size) if joint else context
        labels = None if labels is None else labels.long()
        if self.is_class_conditional:
            return labels, None, features
        # All unknown are none.
        if labels is not None and bool((labels < 0).all()):
            labels = None
        return None, labels, features

    # Distributions

    def _components(self, group: Tensor | None, features: Tensor | None) -> ModelComponents:
        given = features if self.conditional.context_shape is not None else None
        if group is None:
            return ModelComponents(self.conditional, given, chunk_size=self.chunk_size)
        options = {"chunk_size": self.chunk_size}
        return ComponentsOfClass(self.conditional, group, self.num_components, given, **options)

    def _mixture(
        self, group: Tensor | None, features: Tensor | None, known: Tensor | None = None
    ) -> Mixture:
        logits = self.weights(group, features).to(self.dtype)
        if known is not None:
            logits = _where_unknown(known, logits)
        return Mixture(logits, self._components(group, features), validate_args=False)

    def label_distribution(self, context: GivenContext = None) -> dist.Categorical:
        """Return the distribution of components before any data.

        Args:
            context: Features, or labels of a class-conditional mixture, if there are any.

        Raises:
            ValueError: If the context does not fit.
        """
        _, given, _ = self._checked(None, context)
        group, _, features = self._split(given)
        return self._weights_of(group, features)

    def _weights_of(self, group: Tensor | None, features: Tensor | None) -> dist.Categorical:
        logits = self.weights(group, features).to(self.dtype)
        return dist.Categorical(logits=logits, validate_args=False)

    def distribution(self, context: GivenContext = None) -> Mixture:
        """Return the mixture, a distribution over data.

        Args:
            context: Features, or labels of a class-conditional mixture, if there are any.

        Raises:
            ValueError: If the model is dequantised, for which there is only a bound; if labels of
                components are given, whose data are ``conditional.distribution``'s; if the context
                does not fit, or weights of a network are random.
        """
        name = type(self).__name__
        levels = f"{name} of levels: its `density` is of dequantised values"
        self._check_exact(not self.is_dequantized, levels)
        group, known, features = self._split(self._checked_exact(context))
        self._check_exact(known is None, f"{name} given components, which is `conditional`'s")
        self.remember_parameters()
        return self._mixture(group, features)

    def density(self, context: GivenContext = None) -> Any:
        """Return the mixture over dequantised values, of a model of dequantised levels.

        Args:
            context: Features, or labels of a class-conditional mixture, if there are any.
        """
        group, known, features = self._split(self._checked_exact(context))
        return self._mixture(group, features, known)

    def dequantized(self, x: Tensor) -> Any:
        """Return the distribution of the values that round down to data, the conditional's.

        Args:
            x: Levels ``(*batch, *event)``.

        Raises:
            ValueError: If the conditional model is not dequantised.
        """
        name = type(self.conditional).__name__
        check(self.is_dequantized, "conditional", "be dequantised", name)
        model: Any = self.conditional
        return model.dequantized(x)

    def log_prob(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> Float[Tensor, "*batch"]:
        r"""Return the exact log-probability of data, in nats, components summed out.

        Args:
            x: Data ``(*batch, *event)``.
            context: Labels, -1 where unknown; those known are scored too, :math:`\log p(x, y)`. Or
                features, or both.

        Raises:
            ValueError: If the model is dequantised, or an argument does not fit.
        """
        levels = f"{type(self).__name__} of levels, which `log_weights` gives bounds of"
        self._check_exact(not self.is_dequantized, levels)
        return self.log_weights(x, context)[0]

    @integers_checked
    def log_weights(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
        *,
        num_particles: int = 1,
    ) -> Float[Tensor, "num_particles *batch"]:
        r"""Return :math:`\log p(x)`, or of dequantised levels :math:`\log p(v) - \log q(v \mid x)`.

        The component is summed out, so that nothing but the dequantisation is drawn.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
            num_particles: Draws for each data point.

        Returns:
            Log-weights in nats per example.
        """
        check_positive(num_particles=num_particles)
        value, noise, group, known, features = self._values(x, context, num_particles)
        joint = self._joint(value, group, known, features)
        weights: Tensor = summed_out(joint) - noise
        batch = x.shape[: x.dim() - len(self.event_shape)]
        return weights.expand(num_particles, *batch)

    def posterior(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> dist.Categorical:
        r"""Return the exact posterior of the component, :math:`p(y \mid x)`.

        Of dequantised levels it is an estimate, by draws of the dequantisation.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`; a label that is known has probability one.

        Returns:
            Categorical distribution of batch shape ``(*batch,)``.

        Raises:
            ValueError: If an argument does not fit.
        """
        draws = self.default_particles if self.is_dequantized else 1
        value, noise, group, known, features = self._values(x, context, draws)
        joint = self._joint(value, group, known, features)
        if self.is_dequantized:
            joint = (joint - noise.unsqueeze(-1)).logsumexp(0)
        batch = x.shape[: x.dim() - len(self.event_shape)]
        return posterior_of(joint.expand(*batch, self.num_components))

    def _values(
        self, x: Tensor, context: GivenContext, num_draws: int
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Return what the components score, its own log-density, and the parts of the context."""
        checked, given, _ = self._checked_alone(x, context)
        assert checked is not None  # narrows the type for the checker
        self._check_no_random_weights()
        self.remember_parameters()
        parts = self._split(given)
        if not self.is_dequantized:
            return checked, checked.new_zeros((), dtype=self.dtype), *parts
        noise = self.dequantized(checked.expand(num_draws, *checked.shape))
        value = noise.rsample()
        return value, noise.log_prob(value), *parts

    def _joint(
        self,
        value: Tensor,
        group: Tensor | None,
        known: Tensor | None,
        features: Tensor | None,
    ) -> Float[Tensor, "*batch K"]:
        """Return the joint log-probabilities of data and components, of known ones alone."""
        if known is not None and bool((known >= 0).all()):
            # One component of each: the others are not evaluated.
            scores = self._components(group, features).given(known).log_prob(value)
            scores = scores + self._weights_of(group, features).log_prob(known)
            return _where_unknown(
                known, scores.unsqueeze(-1).repeat_interleave(self.num_components, -1)
            )
        joint = self._mixture(group, features).joint_log_probs(value)
        return joint if known is None else _where_unknown(known, joint)

    # Programs

    def _seen(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        # The components have the data's units themselves, and data far from zero keep their digits.
        seen = x if self.standardization.is_set else x.to(dtype)
        note_source(seen, x)
        return seen

    def _generate(
        self, seen: Tensor | None, context: Tensor | None, x: Tensor | None = None
    ) -> Tensor:
        return self.generate(seen, context)

    def _infer_in_plates(self, x: Tensor, context: Tensor | None, batch: tuple[int, ...]) -> None:
        # Predictive does not know of a plate without sites.
        if self.is_dequantized or not _are_all_known(self._split(context)[1]):
            super()._infer_in_plates(x, context, batch)

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Infer the component from its exact posterior, unless all are known."""
        self._check_no_random_weights()
        group, known, features = self._split(context)
        value, record = x, self.shared_pass.begin(x, context)
        if self.is_dequantized:
            with self.latent_scale():
                value = pyro.sample("v", self.dequantized(x))
            record.add_work(None)
            record.add_latent(value)
        if _are_all_known(known):
            return
        rule = "not divide by the probability of a component, which is zero where another is known"
        divides = known is not None and weighing_estimator() == "TraceTMC_ELBO"
        check(not divides, "make_elbo", rule, "TraceTMC_ELBO")
        mixture = self._mixture(group, features)
        scores = mixture.components.log_probs(value)
        record.add_work(scores)
        joint = without_nan(mixture.joint(scores))
        posterior = posterior_of(joint if known is None else _where_unknown(known, joint))
        with self.latent_scale():
            pyro.sample("component", posterior, infer={"enumerate": "parallel"})

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw or observe the component and the data given it; without a guide the data alone."""
        record = self.shared_pass.take(x, context)
        group, known, features = self._split(context)
        components = self._components(group, features)
        weights = self._weights_of(group, features)
        self._add_prior(x)
        if known is not None and _are_all_known(known):
            with self.latent_scale():
                pyro.sample("component", weights, obs=known)
            return self._emit(x, components.given(known))
        if replayed_value("component") is None:
            if known is not None:
                seen = known >= 0
                with self.latent_scale():
                    pyro.sample("component", weights.mask(seen), obs=known.clamp_min(0))
            return self._emit(x, self._mixture(group, features, known))
        with self.latent_scale():
            label = pyro.sample("component", weights)
        if x is None and not self.is_dequantized:
            return self._emit(x, components.given(label))
        value = replayed_value("v") if self.is_dequantized else x
        scored = None
        if value is not None:
            scores = self.shared_pass.look_up(record, [value] if self.is_dequantized else [])
            scored = None if scores is None else (value, scores)
        return self._emit(x, ComponentOf(components, label, scored))

    def _emit(self, x: Tensor | None, law: Any) -> Tensor:
        """Observe or draw site ``"x"``, by way of a dequantised value ``"v"`` if there is one."""
        if not self.is_dequantized:
            return pyro.sample("x", law, obs=x)
        with self.latent_scale():
            continuous = pyro.sample("v", law)
        levels = self.num_levels or 1
        floor = continuous.floor().clamp(0, levels - 1)
        return pyro.sample("x", dist.Delta(floor, event_dim=len(self.event_shape)), obs=x)

    def _add_prior(self, x: Tensor | None) -> None:
        """Add the weights' prior to the objective, shared by the training examples."""
        trains = self.training and not self.is_bounding and torch.is_grad_enabled()
        if self.weights.concentration is None or x is None or not trains:
            return
        batch = x.shape[: x.dim() - len(self.event_shape)].numel()
        share = self.weights.log_prior() / (self.num_examples or batch)
        pyro.factor("weights_prior", share)

    # Expectation-maximisation

    @property
    def fits_by_em(self) -> bool:
        """Whether the conditional model has a closed form for it, and the weights are a table."""
        has_family = type(self.conditional).em_family is not GenerativeModel.em_family
        plain = self.context_shape is None and not self.is_class_conditional
        return has_family and plain and not self.is_dequantized

    @torch.no_grad()
    @integers_checked
    def fit_em(
        self,
        x: Num[Tensor, "n ..."],
        *,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        priors: Any = "default",
        num_starts: int = 5,
        tol: float = 1e-7,
        max_iterations: int = 1000,
        seed: int = 0,
    ) -> EMResult:
        """Fit components and weights to data by expectation-maximisation, in float64.

        From several starts; the best fit is copied into the model.

        Args:
            x: Data ``(n, *event)``, NaN where an element is missing, if the model has ``missing``.
            labels: Components of the data ``(n,)`` where they are known, -1 where not; not given,
                none are.
            weights: Weight of each data point ``(n,)``, 1 by default: 2 is the point twice.
            priors: Priors of the components' parameters, such as a
                :class:`~pyro_genmodels.models.GaussianPriors`; ``None`` for maximum likelihood. By
                default those of the conditional model. The prior of the mixture's weights is the
                model's own.
            num_starts: Number of random starts; 0 goes on from the model's parameters.
            tol: What a converged fit may leave to gain, in nats per data point.
            max_iterations: Most iterations of one start.
            seed: Seed of the starts.

        Returns:
            What was reached: log-likelihood, history, information criteria.

        Raises:
            ValueError: If the conditional model has no closed form for it, weights are a network's,
                or an argument does not fit.
        """
        name = f"{type(self).__name__} of {type(self.conditional).__name__}"
        rule = "have components with a maximum in closed form (train it by ELBOLoss)"
        check(self.fits_by_em, "model", rule, name)
        x = self._checked_data(x)
        sizes = {"labels": labels, "weights": weights}
        for argument, given in sizes.items():
            rule = f"have shape ({len(x)},)"
            fits = given is None or tuple(given.shape) == (len(x),)
            check(fits, argument, rule, None if given is None else tuple(given.shape))
        options = {} if priors == "default" else {"priors": priors}
        family = self.conditional.em_family(x, weights=weights, **options)
        if num_starts and not self.is_trained:
            self.standardize(x)  # so that the model's own dtype holds what is fitted in float64
        structure = MixtureWeights(
            self.num_components,
            weights=weights,
            labels=labels,
            concentration=self.weights.concentration or 1.0,
            learned=self.weights.is_learned,
            read=self.weights.probabilities,
            write=self.weights.set_probabilities,
        )
        result = run_em(
            family,
            structure,
            num_starts=num_starts,
            tol=tol,
            max_iterations=max_iterations,
            seed=seed,
            weights=weights,
        )
        self.standardization.take_as_fitted()
        self.shared_pass.clear()
        return result

    # Missing elements

    @torch.no_grad()
    @integers_checked
    def impute(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
        *,
        num_samples: int = 1,
    ) -> Num[Tensor, "num_samples *batch_event"]:
        """Draw what is missing of data given what was observed, exactly.

        The component is drawn from its posterior given what was observed, and the rest by the
        conditional model.

        Args:
            x: Data ``(*batch, *event)``, NaN where an element is missing.
            context: As in :meth:`model`.
            num_samples: Number of draws for each data point.

        Returns:
            Whole data ``(num_samples, *batch, *event)``.

        Raises:
            ValueError: If the conditional model does not take missing elements, or ``x`` does not
                fit.
        """
        name = type(self).__name__
        rule = "be made around a model with missing=True, to impute"
        check(self.missing, "model", rule, name)
        check(num_samples >= 1, "num_samples", "be at least 1", num_samples)
        with evaluating(self):
            labels = self.posterior(x, context).sample((num_samples,))
            _, given, _ = self._checked(None, context)
            group, _, features = self._split(given)
            components = self._components(group, features)
            data = x.expand(num_samples, *x.shape)
            return self._drawn(data, components.context_of(labels))

    def _drawn(self, x: Tensor, context: Tensor) -> Tensor:
        model: Any = self.conditional
        if model.can_complete:  # what is missing is the end
            drawn = model.complete(x, None, context)
        else:
            drawn = model.impute(x, context)[0]
        return torch.where(x.isnan(), drawn.to(x), x)


def _are_all_known(labels: Tensor | None) -> bool:
    return labels is not None and bool((labels >= 0).all())


def _first(context: Tensor, rank: int) -> Tensor:
    """Return the labels that a joint context begins with."""
    labels = context
    for _ in range(rank):
        labels = labels.select(context.dim() - rank, 0)
    return labels


def _where_unknown(known: Tensor, logits: Tensor) -> Tensor:
    """Return logits of labels, minus infinity where another one is known."""
    numbers = torch.arange(logits.shape[-1], device=logits.device)
    other = (known.unsqueeze(-1) >= 0) & (known.unsqueeze(-1) != numbers)
    return torch.where(other, torch.full_like(logits, -torch.inf), logits)
