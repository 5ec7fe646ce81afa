"""The contract of every model: a model/guide pair that Pyro's inference takes as it is."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pyro
import torch
from pyro import poutine
from pyro.distributions import Delta

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import (
    check,
    check_event_shape,
    check_not_traced,
    check_positive,
    integers_checked,
)
from pyro_genmodels._configuration import Configured
from pyro_genmodels._modules import evaluating, first_tensor
from pyro_genmodels._typing import EventShape, Float, GivenContext, Int, Num, Tensor
from pyro_genmodels.distributions import UniformDequantization, observed_part
from pyro_genmodels.models.base.arguments import CheckedArguments
from pyro_genmodels.models.base.kl import unit_kl
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.models.base.mean_field_elbo import MeanFieldELBO
from pyro_genmodels.models.base.param_registration import RegisteredModule
from pyro_genmodels.models.base.plates import (
    AtCentralValues,
    check_not_empty,
    log_density,
    plates,
)
from pyro_genmodels.models.base.random_weights import (
    random_weights,
    run_with_random_weights,
    run_without_random_weights,
)
from pyro_genmodels.models.base.shared_pass import SharedPass, note_source
from pyro_genmodels.models.base.standardization import Standardization, StandardizedModel
from pyro_genmodels.nets import NoiseSchedule
from pyro_genmodels.nets.layers import (
    check_context,
    checkpointed,
    context_event_shape,
    join_context,
)


class GenerativeModel(Configured, RegisteredModule, CheckedArguments, StandardizedModel, Abstract):
    """A Pyro model and its guide over one kind of data.

    A subclass writes :meth:`generate` (latent sites and the observed site ``"x"``) and, if it has
    latent variables, :meth:`infer` (the same latent sites from the posterior). The base adds what
    is easy to get silently wrong: registration under an instance-unique name, plates over the
    batch, input checks and dtype, scaling of latent sites on both sides, the slot for work shared
    between guide and model, the units of the data, and sampling and bounds.

    ``model`` and ``guide`` are what Pyro's inference takes;
    :class:`~pyro_genmodels.models.ELBOLoss` is the same objective as a module for plain
    optimizers and trainers.

    Training, evaluation, compression, pictures and the command line ask a model what it offers and
    never which class it is. A subclass overrides what differs from the defaults:
    ``training_defaults``, ``make_elbo``, :meth:`undecayed_parameters` and :attr:`preview_options`
    for its training; :attr:`bound_kind`, ``default_particles``, ``default_chunk_size``,
    ``weights_are_costly``, :meth:`bound_notes` and :meth:`report` for its evaluation; and
    ``decodes_vectors``, ``can_complete``, ``compresses`` and ``has_second_stage``, each with the
    methods that it names.

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        num_levels: Data are the integers ``0 .. num_levels - 1``; ``None`` for continuous data.
        num_classes: The context is a label below this number.
        context_shape: The context is a vector ``(D,)`` or a feature map ``(C, H, W)``. With both,
            it is a pair ``(labels, features)``, or what :func:`~pyro_genmodels.nets.join_context`
            makes of one.
        beta: Weight of the latent terms in the training objective.
        warmup_steps: Training evaluations of the guide over which that weight rises linearly.

    Raises:
        ValueError: If a size is impossible.
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Arguments of :func:`pyro_genmodels.training.fit` that suit this family."""

    event_ranks: ClassVar[tuple[int, ...]] = (1, 3)
    """Numbers of dimensions that one data point may have."""

    make_elbo: ClassVar[Callable[..., Any]] = MeanFieldELBO
    """Makes the estimator that suits this family, given ``max_plate_nesting=``."""

    default_particles: ClassVar[int] = 100
    """Draws from the posterior per example in an evaluation."""

    weights_are_costly: ClassVar[bool] = False
    """Whether log-weights take many evaluations of the network, as those of a whole chain do.

    Then validation leaves :meth:`rates` out, and an evaluation takes both bounds from one pass.
    """

    trains_on_estimates: ClassVar[bool] = False
    """Whether training estimates the ELBO, so that its exponential is not an importance weight.

    Then estimators that exponentiate are refused.
    """

    can_complete: ClassVar[bool] = False
    """Whether ``complete(x, num_rows, context)`` draws the rest of data given in part."""

    compresses: ClassVar[Literal["data", "codes"] | None] = None
    """What :func:`pyro_genmodels.compression.compress_images` codes.

    The data themselves, under the autoregressive :meth:`distribution`; or the codes that
    ``encode_codes(x, context)`` gives and ``decode_codes(codes, context)`` takes, each map under
    its entry of ``code_priors``.
    """

    num_components: int | None = None
    """Number of components of a mixture; given as a label, a component is drawn alone."""

    imputes: ClassVar[bool] = False
    """Whether :meth:`impute` draws from the exact conditional, without latent variables."""

    has_second_stage: ClassVar[bool] = False
    """Whether priors of its codes are learned once the codes are, as in a VQ-VAE.

    The model then has the methods of :class:`~pyro_genmodels.models.VectorQuantizedModel` for
    codes and their priors.
    """

    decodes_vectors: ClassVar[bool] = False
    """Whether ``decode(z, context)`` takes latent vectors, ``(*batch, latent_dim)``."""

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
        self.event_shape = check_event_shape(event_shape, ranks=self.event_ranks)
        whole = num_levels is None or (num_levels == int(num_levels) and num_levels >= 2)
        check(whole, "num_levels", "be a whole number of at least 2", num_levels)
        check(num_classes is None or num_classes >= 1, "num_classes", "be positive", num_classes)
        self.num_levels, self.num_classes = num_levels, num_classes
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        self.latent_scale = LatentScale(beta, warmup_steps=warmup_steps)
        self.shared_pass = SharedPass()
        self.standardization = Standardization(self.event_shape)
        self.is_bounding = False

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
    def bound_kind(self) -> str:
        """What an evaluation reports as the model's score.

        ``"exact"`` is the log-likelihood, of a model without latents. ``"importance-weighted"`` is
        that bound, with the ELBO next to it. ``"elbo"`` is the ELBO alone, of a posterior without
        noise, where importance weights change nothing. Any other value is the ELBO under that name,
        with the importance-weighted bound next to it: ``"uniform-dequantisation"``.
        """
        return "importance-weighted" if self.has_latents else "exact"

    @property
    def takes_unknown_labels(self) -> bool:
        """Whether a label may be -1, unknown."""
        return False

    @property
    def is_dequantized(self) -> bool:
        """Whether data are levels, to which values of a continuous density were rounded down.

        Then the model has ``density(context)``, of these values, and ``dequantized(x)``, their
        distribution given data, whose draws have a gradient. It does not see the context.
        """
        return False

    @property
    def fits_by_em(self) -> bool:
        """Whether ``fit_em(x)`` fits the model by expectation-maximisation."""
        return False

    def expect_examples(self, num_examples: int) -> None:
        """Take note of the size of the training set: minibatches share what counts once for all.

        Nothing by default, in a model whose objective is a mean over examples.

        Args:
            num_examples: Number of training examples.
        """

    def report(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> dict[str, Float[Tensor, "*batch"]]:
        """Return what an evaluation prints next to the bound: figures in nats per example, by name.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        self._checked_alone(x, context)
        return {}

    def bound_notes(self, num_steps: int | None = None) -> list[str]:
        """Return what an evaluation adds to the name of its bound: ``["256 steps"]`` of a chain.

        Args:
            num_steps: Number of steps that it scores, of a model whose ``log_weights`` takes it;
                ``None`` for the model's own.
        """
        return []

    @property
    def prior_kind(self) -> str | None:
        """Which prior the codes have, ``"uniform"`` or ``"learned"``; ``None`` without codes."""
        return None

    @property
    def column_kinds(self) -> Sequence[str] | None:
        """Kind of each element of a vector, as :class:`~pyro_genmodels.data.Column` names them.

        ``None`` where all are real numbers.
        """
        return None

    @property
    def display_name(self) -> str:
        """Short name for titles: the class's, or what the model was made around."""
        return type(self).__name__

    @property
    def input_shape(self) -> torch.Size:
        """Trailing shape of what :meth:`encoder_input` gives."""
        return self.event_shape

    def encoder_input(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return what an encoder sees of data: levels scaled to [-1, 1], others as they are.

        Args:
            x: Data ``(*batch, *event)``, standardised if the model does that.
            context: Labels or features, if the model is conditional.
        """
        return x if self.num_levels is None else x * (2 / (self.num_levels - 1)) - 1

    def observed_input(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return :meth:`encoder_input` of data with missing elements, and which are there.

        Args:
            x: Data ``(*batch, *event)``, NaN where an element is missing.
            context: Labels or features, if the model is conditional.
        """
        filled, seen = observed_part(x)
        return self.without_missing(self.encoder_input(filled, context), seen), seen

    def without_missing(self, scaled: Tensor, seen: Tensor) -> Tensor:
        """Return what :meth:`encoder_input` gives, with zeros for what is missing.

        Args:
            scaled: That, of data whose missing elements are zero.
            seen: Which elements of the data are there.
        """
        return scaled * seen

    @property
    def sampling_options(self) -> frozenset[str]:
        """Names of the further arguments of :meth:`sample`: ``"temperature"``, ``"progress"``."""
        return frozenset(inspect.signature(self.sample).parameters) - {"num_samples", "context"}

    @property
    def reconstruction_options(self) -> frozenset[str]:
        """Names of the further arguments of :meth:`reconstruct`, such as ``"deterministic"``."""
        return frozenset(inspect.signature(self.reconstruct).parameters) - {"x", "context"}

    def sampling_differences(self, **options: Any) -> list[str]:
        """Name what makes draws others than those of the model that :meth:`log_weights` scores.

        Args:
            **options: Further arguments of :meth:`sample`.

        Returns:
            ``["temperature 0.5"]``, say; nothing, if :meth:`sample` draws from that model.
        """
        temperature = options.get("temperature")
        return [] if temperature in (None, 1) else [f"temperature {temperature:g}"]

    @property
    def default_chunk_size(self) -> int:
        """Draws that an evaluation takes at once.

        With 512 vectors of 64 elements, Pyro's own work takes longer than a dense network's. Images
        have enough arithmetic in 512, and sequences of levels networks whose memory grows with
        their steps.
        """
        if len(self.event_shape) > 1 or self.num_levels is not None:
            return 512
        return max(512, min(8192, 2**18 // self.event_shape.numel()))

    @property
    def preview_options(self) -> Mapping[str, Any]:
        """Further arguments of :meth:`sample` for pictures drawn while training goes on.

        For a model whose own way to draw outlasts an epoch; nothing by default.
        """
        return {}

    @property
    def scoring_options(self) -> frozenset[str]:
        """Names of the further arguments of :meth:`log_weights`: ``"num_steps"``."""
        usual = {"x", "context", "num_particles"}
        return frozenset(inspect.signature(self.log_weights).parameters) - usual

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
        context: GivenContext = None,
        *,
        observations: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Run the generative program; with ``x`` observed, without it drawn.

        Args:
            x: Data ``(*batch, *event)``. Each batch dimension is a plate: ``data`` is the last.
            context: Labels ``(*batch)`` or features ``(*batch, *context_shape)``, if conditional;
                on both, the pair of them, whose batch shapes broadcast.
            observations: Not used; Pyro's ``ReweightedWakeSleep`` gives it to both programs.

        Returns:
            The value of site ``"x"``.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        self._check_estimator()
        self.register_with_pyro()
        self.remember_parameters()
        seen, context, batch = self._checked(x, context, self._seen)
        self._check_first_batch(x)
        return self._run(seen, context, batch, x)

    def guide(
        self,
        x: Num[Tensor, "*batch_event"] | None = None,
        context: GivenContext = None,
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
        checked, context, batch = self._checked(x, context, self._seen)
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
        self, num_samples: int = 1, context: GivenContext = None
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

    def distribution(self, context: GivenContext = None) -> Any:
        r"""Return the distribution over data, of a model that has it in closed form.

        Its ``log_prob`` scores data in their units: :math:`\log p(x)`, what :meth:`log_weights` of
        such a model gives; its ``sample`` draws them. It refers to the parameters as they are, in
        the mode that the model is in. Models with latent variables give bounds instead, by
        :meth:`log_weights`.

        Args:
            context: Labels or features ``(*batch, ...)``, if the model is conditional.

        Returns:
            A distribution with batch shape ``(*batch,)`` and event shape ``event_shape``.

        Raises:
            ValueError: If the model has no such distribution, or the context does not fit.
        """
        latent = " (it has latent variables)" if self.has_latents else ""
        self._check_exact(False, f"{type(self).__name__}{latent}")

    @integers_checked
    def class_log_probs(
        self,
        x: Num[Tensor, "*batch_event"],
        context: Tensor | None = None,
        *,
        chunk_size: int | None = None,
    ) -> Float[Tensor, "*batch K"]:
        r"""Return :math:`\log p(x \mid y)` of every label y, of an exact class-conditional model.

        Args:
            x: Data ``(*batch, *event)``.
            context: Features, in a model that takes them together with a label. Their batch shape
                expands to the data's.
            chunk_size: Labels whose distributions are evaluated at once; all by default. Memory
                grows with it, that of gradients too: each chunk is evaluated again for them.

        Raises:
            ValueError: If the model has no labels or no :meth:`distribution`, or ``x`` or
                ``context`` does not fit.
        """
        name = type(self).__name__
        check(self.num_classes is not None, "model", "be conditional on labels", name)
        self._check_exact(not self.is_dequantized, f"{name} of levels")
        batch = x.shape[: x.dim() - len(self.event_shape)]
        check_not_empty(batch)
        rule = "be features exactly if the model takes them together with a label"
        check((context is None) == (self.context_shape is None), "context", rule, context)
        if context is not None:
            check_context(context, context_shape=self.context_shape)
            self.check_context_batch(context, tuple(batch))
        labels = torch.arange(self.num_classes or 1, device=x.device)
        # Expanded, since not all transforms broadcast a context against data.
        labels = labels.reshape(-1, *[1] * len(batch)).expand(-1, *batch)
        return self.label_log_probs(x, labels, context, chunk_size=chunk_size)

    def label_log_probs(
        self,
        x: Num[Tensor, "*batch_event"],
        labels: Int[Tensor, "K *batch"],
        context: Tensor | None = None,
        *,
        chunk_size: int | None = None,
    ) -> Float[Tensor, "*batch K"]:
        """Return the log-probability of data given each of several labels of their own.

        Of a dequantised model ``x`` are dequantised values, and it is their density.

        Args:
            x: Data ``(*batch, *event)``.
            labels: Labels of each data point, ``(K, *batch)``.
            context: As for :meth:`class_log_probs`.
            chunk_size: As for :meth:`class_log_probs`.
        """
        check_positive(chunk_size=len(labels) if chunk_size is None else chunk_size)
        # In chunks to save memory, so that gradients must not keep what all of them computed.
        chunked = chunk_size is not None and chunk_size < len(labels)
        score = partial(checkpointed, self._scores) if chunked else self._scores
        scores = [score(x, part, context) for part in labels.split(chunk_size or len(labels))]
        return torch.cat(scores).movedim(0, -1)

    def _scores(self, x: Tensor, labels: Tensor, context: Tensor | None) -> Tensor:
        given = labels if context is None else join_context(labels, context, self.context_event_dim)
        model: Any = self
        law = model.density(given) if self.is_dequantized else self.distribution(given)
        scores: Tensor = law.log_prob(x.expand(len(labels), *x.shape))
        return scores

    def em_family(self, x: Num[Tensor, "n *event"], **options: Any) -> Any:
        """Return the data and parameters that expectation-maximisation goes through.

        A model overrides it whose likelihood, given the labels, has its maximum in closed form.

        Args:
            x: Data ``(n, *event)``, NaN where an element is missing, if the model has ``missing``.
            **options: Of the family: weights of the rows, priors.

        Raises:
            ValueError: If the model's likelihood has no maximum in closed form.
        """
        rule = "have a maximum in closed form (train it by ELBOLoss)"
        check(False, "model", rule, type(self).__name__)

    def _check_exact(self, holds: bool, given: object) -> None:
        check(holds, "model", "have a distribution over data in closed form", given)

    def _check_no_random_weights(self) -> None:
        weights = random_weights(self)
        self._check_exact(not weights, f"{type(self).__name__} with random weights {weights}")

    def _checked_exact(self, context: GivenContext) -> Tensor | None:
        """Check what :meth:`distribution` is given, and that no weights are random."""
        self._check_no_random_weights()
        return self._checked(None, context)[1]

    @torch.no_grad()
    def reconstruct(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
        *,
        deterministic: bool = False,
    ) -> Float[Tensor, "*batch_event"]:
        """Encode data and decode them again: the likelihood's mean given one posterior draw.

        Of a likelihood without a mean in closed form, an autoregressive one, it is a draw.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
            deterministic: Take each latent variable's posterior mean in the place of a draw, given
                the means of those before it; of a label the most probable one, of a flow's latents
                what it makes of the mean of its noise. The same data then always give the same
                reconstruction.

        Returns:
            Expected data ``(*batch, *event)``, in the units of ``x``.

        Raises:
            ValueError: If the model has no latent variables, ``x`` does not fit, or with
                ``deterministic`` a posterior or the likelihood has no mean in closed form.
        """
        checked, context, batch = self._checked_alone(x, context)
        sites = AtCentralValues() if deterministic else nullcontext()
        with evaluating(self), self._aside(), sites:
            encoded = poutine.trace(self.guide).get_trace(checked, context)
            name = type(self).__name__
            check(self.has_latents, "model", "have latent variables to reconstruct from", name)
            program = poutine.trace(poutine.replay(self._run, trace=encoded))
            site = program.get_trace(None, context, batch).nodes["x"]
        likelihood: Any = site["fn"]
        try:
            mean: Tensor = likelihood.mean
        except NotImplementedError:
            rule = "be False, the likelihood has no mean in closed form"
            found = f"True and {type(likelihood).__name__}"
            check(not deterministic, "deterministic", rule, found)
            mean = likelihood.sample()
        return mean.expand(*batch, *self.event_shape)

    @torch.no_grad()
    @integers_checked
    def impute(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
        *,
        num_samples: int = 1,
    ) -> Num[Tensor, "num_samples *batch_event"]:
        r"""Draw what is missing of data given what was observed, which stays.

        :math:`z \sim q(z \mid x_\text{obs})`, and the missing elements from :math:`p(x \mid z)`: as
        good as the approximate posterior is. A model without latent variables that can impute
        draws from the exact conditional. The mean of many draws is a regression's imputation,
        their spread its uncertainty.

        Args:
            x: Data ``(*batch, *event)``, NaN where an element is missing.
            context: As in :meth:`model`.
            num_samples: Number of draws for each data point.

        Returns:
            Whole data ``(num_samples, *batch, *event)``.

        Raises:
            ValueError: If the model was not made with ``missing=True``, or knows no conditional of
                what is missing, or ``x`` does not fit.
        """
        rule = "be made with missing=True, and have latent variables, to impute by them"
        imputes = self.missing and (self.has_latents or self.imputes)
        check(imputes, "model", rule, type(self).__name__)
        check(num_samples >= 1, "num_samples", "be at least 1", num_samples)
        given = x.expand(num_samples, *x.shape)
        checked, context, batch = self._checked_alone(given, context)
        assert checked is not None  # narrows the type for the checker
        with evaluating(self), self._aside():
            drawn = self._completed(checked, context, batch)
        return torch.where(given.isnan(), drawn.to(given.dtype), given)

    def _completed(
        self, x: Tensor, context: Tensor | None, batch: tuple[int, ...]
    ) -> Float[Tensor, "*batch_event"]:
        """Draw whole data given what was observed of them, for :meth:`impute`."""
        encoded = poutine.trace(self.guide).get_trace(x, context)
        drawn: Tensor = poutine.replay(self._run, trace=encoded)(None, context, batch)
        return drawn

    @integers_checked
    def log_weights(
        self,
        x: Num[Tensor, "*batch_event"],
        context: GivenContext = None,
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

    def bound_estimate(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> Float[Tensor, "*batch"]:
        """Return an unbiased estimate of each example's ELBO, in nats: validation's measure.

        By default one log-weight; a model that has a cheaper one overrides it.

        Args:
            x: Data ``(*batch, *event)``.
            context: As in :meth:`model`.
        """
        return self.log_weights(x, context, num_particles=1)[0]

    def particle_traces(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext, *, num_particles: int
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
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
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

    def undecayed_parameters(self) -> list[str]:
        """Name the parameters that weight decay should leave alone: those of noise schedules.

        :func:`~pyro_genmodels.training.fit` does so. For an optimizer of your own make two groups.
        """
        schedules = [(n, m) for n, m in self.named_modules() if isinstance(m, NoiseSchedule)]
        return [f"{name}.{part}" for name, schedule in schedules for part in schedule.undecayed]

    def beside_elbo(self) -> list[str]:
        """Name what the training objective has beside the ELBO at beta one; nothing, if it is that.

        None of it is left where a bound is trained in the place of the model's own objective.
        """
        scale = self.latent_scale
        beta = [] if scale.beta == 1 else [f"beta {scale.beta:g}"]
        return beta + ([f"warmup_steps {scale.warmup_steps}"] if scale.warmup_steps else [])

    def _generate(
        self, seen: Tensor | None, context: Tensor | None, x: Tensor | None = None
    ) -> Tensor:
        """Run :meth:`generate` on what it sees of the data ``x``, with ``"x"`` in their units."""
        with self.standardization.observing(x, self.dtype):
            return self.generate(seen, context)

    def _seen(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        seen = self.standardization.standardized(x, dtype)
        note_source(seen, x)
        return seen

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
        return run_with_random_weights(self, program)

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

    @torch.no_grad()
    def _support(self) -> Any:
        """Return the support of site ``"x"``, of one run aside that leaves no trace."""
        origin = first_tensor(self)
        x = origin.new_zeros(1, *self.event_shape)  # observed: not all models can be drawn from
        context = None
        if self.context_shape is not None:
            shape = context_event_shape(self.num_classes, self.context_shape)
            context = origin.new_zeros(1, *shape)
        elif self.num_classes is not None:
            context = origin.new_zeros(1, dtype=torch.long)
        devices = [origin.device] if origin.is_cuda else []
        with evaluating(self), self._aside(), torch.random.fork_rng(devices):
            site: Any = poutine.trace(self._run).get_trace(x, context, (1,)).nodes["x"]["fn"]
        self.shared_pass.clear()
        try:
            return site.support
        except (AttributeError, NotImplementedError):
            return None

    def buffers_to_save(self) -> list[str]:
        """Names in the state dict that are not parameters, and that matter.

        The count of steps matters only to a warm-up.
        """
        names = super().buffers_to_save()
        without = [] if self.latent_scale.warmup_steps else ["latent_scale.step"]
        return [name for name in names if name not in without]


class DensityModel(GenerativeModel, Abstract):
    r"""A model with a density in closed form: of continuous data, or of dequantised levels.

    On continuous data site ``"x"`` has the :meth:`density`. On discrete data it is that of a
    continuous site ``"v"`` in :math:`[0, \text{num\_levels})`, whose floor ``"x"``
    observes; the guide of ``"v"`` is the dequantisation, and the ELBO a bound on the likelihood.
    """

    # The only latent variable is the noise within a level: few draws tell enough.
    default_particles: ClassVar[int] = 10

    @abstractmethod
    def density(self, context: GivenContext = None) -> Any:
        """Return the density over one event, or over each context's.

        Args:
            context: Labels or features, if the model is conditional.

        Returns:
            A distribution of data, or of dequantised data in ``[0, num_levels)``.
        """

    def distribution(self, context: GivenContext = None) -> Any:
        """Return the distribution over continuous data: the :meth:`density`.

        Args:
            context: Labels or features ``(*batch, ...)``, if the model is conditional.

        Raises:
            ValueError: If data are levels, for which a density gives only a bound; if the context
                does not fit, or weights are random.
        """
        self._check_continuous()
        return self.density(self._checked_exact(context))

    def _check_continuous(self) -> None:
        levels = f"{type(self).__name__} of levels: its `density` is of dequantised values"
        self._check_exact(self.num_levels is None, levels)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Sample ``"v"`` from the density and observe its floor; or observe the density itself."""
        density = self.density(context)
        if self.num_levels is None:
            return pyro.sample("x", density, obs=x)
        with self.latent_scale():
            continuous = pyro.sample("v", density)
        event_dim = len(self.event_shape)
        floor = continuous.floor().clamp(0, self.num_levels - 1)
        return pyro.sample("x", Delta(floor, event_dim=event_dim), obs=x)

    @property
    def has_latents(self) -> bool:
        """Whether data are discrete: then what rounds down to them is latent."""
        return self.num_levels is not None

    @property
    def bound_kind(self) -> str:
        """The exact log-likelihood of continuous data, else the dequantisation's bound."""
        return "uniform-dequantisation" if self.has_latents else "exact"

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Dequantise levels: sample ``"v"`` among the values that round down to ``x``."""
        if self.num_levels is None:
            return  # called by a model around this one, which has latents of its own
        with self.latent_scale():
            pyro.sample("v", self.dequantized(x))

    @property
    def is_dequantized(self) -> bool:
        """Whether data are discrete."""
        return self.num_levels is not None

    def dequantized(self, x: Tensor) -> Any:
        """Return the distribution of the values that round down to data.

        Args:
            x: Levels ``(*batch, *event)``.
        """
        levels = x.to(self.dtype)
        return UniformDequantization(levels).to_event(len(self.event_shape))
