"""What VQ-VAE and its hierarchies share: code sites, the decoder's input, the auxiliary loss."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Literal

import pyro
import torch
from pyro import poutine
from torch import nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._changes import latest_step
from pyro_genmodels._checks import check, check_levels, check_trailing, integers_checked
from pyro_genmodels._modules import evaluating
from pyro_genmodels._typing import (
    CodebookUpdate,
    EventShape,
    Float,
    GivenContext,
    Int,
    Num,
    Tensor,
)
from pyro_genmodels.distributions import AutoregressiveDistribution
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.base.plates import plates
from pyro_genmodels.models.likelihoods.elementwise import (
    HasLikelihood,
    Likelihood,
    LikelihoodName,
    make_likelihood,
)
from pyro_genmodels.models.vqvae.code_maps import exactly
from pyro_genmodels.models.vqvae.code_priors import CodePrior
from pyro_genmodels.nets import Quantized, Quantizer


class VectorQuantizedModel(HasLikelihood, GenerativeModel, Abstract):
    r"""Codes on one or more maps from their priors, and an image given the codes' vectors.

    .. math:: c \sim p(c), \quad x \sim p(x \mid f(e_c)), \quad q(c \mid x) = \delta(c - c(x))

    The posterior is deterministic, so the KL term is the cost of the codes under their prior,
    exactly :math:`\log K` each under the uniform one, and the ELBO, reconstruction and codes
    together, is a bound on the log-likelihood.

    The guide's sites are indices, through which no gradient goes. So the guide hands the model
    what the decoder takes, with the gradient that passes straight through to the encoder. A model
    that is run on other codes looks their vectors up.

    In training the guide adds the quantisers' losses, per data dimension as the reconstruction is:
    ``num_dimensions * mean(loss)`` nats. Codebooks take note of a batch once a training step, and
    of batches whose gradients are accumulated as of one; a quantiser in eval mode, or one that
    ``freeze()`` holds, stays as it is.
    """

    map_rank: ClassVar[int] = 2
    """Dimensions of a map: two of images ``(C, H, W)``, one of sequences ``(T,)``."""

    has_one_map: ClassVar[bool] = False
    """Whether ``encode_codes`` gives a map of codes, and not a list of maps."""

    compresses: ClassVar[Literal["data", "codes"] | None] = "codes"
    has_second_stage: ClassVar[bool] = True
    # Codes are a function of the data: further draws change nothing.
    default_particles: ClassVar[int] = 1

    def __init__(
        self,
        event_shape: EventShape,
        *,
        num_levels: int | None,
        likelihood: LikelihoodName | Likelihood,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
    ) -> None:
        super().__init__(
            event_shape,
            num_levels=num_levels,
            num_classes=num_classes,
            context_shape=context_shape,
        )
        rank, rule = (3, "be (C, H, W)") if self.map_rank == 2 else (1, "be (T,)")
        check(len(self.event_shape) == rank, "event_shape", rule, tuple(event_shape))
        self.likelihood = make_likelihood(likelihood, self.event_shape, num_levels)
        self._once_a_step = OnceAStep()

    @property
    @abstractmethod
    def site_names(self) -> list[str]:
        """Names of the code sites, from the top."""

    @property
    def code_priors(self) -> list[CodePrior]:
        """The laws of the maps of codes, from the top."""
        return [prior for _, prior in self._code_parts]

    @property
    def bound_kind(self) -> str:
        """The ELBO: of codes that are a function of the data, importance weights are equal."""
        return "elbo"

    def report(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> dict[str, Float[Tensor, "*batch"]]:
        """Return what the codes cost under their priors; the rest is the reconstruction's."""
        return {"codes": -self.code_log_prob(x, context)}

    @property
    def prior_kind(self) -> str:
        """``"uniform"``, ``"learned"``; of maps with different ones, each once."""
        return ", ".join(dict.fromkeys(prior.kind for prior in self.code_priors))

    @abstractmethod
    def set_code_priors(self, priors: Sequence[CodePrior]) -> None:
        """Replace the laws of all maps, from the top.

        Raises:
            ValueError: If they are another number, or one is over another map or other codes.
        """

    @property
    @abstractmethod
    def _code_parts(self) -> list[tuple[Quantizer, CodePrior]]:
        """The quantiser and the prior of each map, from the top."""

    @abstractmethod
    def _features(self, x: Tensor, context: Tensor | None) -> list[Tensor]:
        """Run the encoders on scaled data; maps ``(*batch, C, *sizes)`` from the top."""

    @abstractmethod
    def _quantized(
        self, features: list[Tensor], context: Tensor | None, update: CodebookUpdate
    ) -> tuple[list[Quantized], Tensor]:
        """Quantise every map; the second value is what the decoder takes."""

    @abstractmethod
    def _decoder_input(self, vectors: list[Tensor], context: Tensor | None) -> Tensor:
        """Return what the decoder takes from the maps of vectors, from the top."""

    @abstractmethod
    def _decoded(self, inputs: Tensor, context: Tensor | None) -> Tensor:
        """Run the decoder: ``(*batch, *likelihood.parameter_shape)``, or larger for cropping."""

    @property
    def can_be_traced(self) -> bool:
        """No: a trace fixes the maps' batch size, and whether a codebook moves."""
        return False

    def beside_elbo(self) -> list[str]:
        """Name also what the quantisers learn by."""
        return [*super().beside_elbo(), "a quantisation loss"]

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Encode the data: each map of codes is one site; add the auxiliary loss in training."""
        learns = self.training and not self.is_bounding
        quantized, inputs = self._encoded(x, context, learns and torch.is_grad_enabled())
        record = self.shared_pass.begin(x, context)
        with self.latent_scale():
            maps = zip(self.site_names, self._maps(quantized), self.code_priors, strict=True)
            for name, codes, prior in maps:
                record.add_work(None)
                posterior = exactly(codes, x, len(prior.code_shape))
                record.add_latent(pyro.sample(name, posterior))
        record.add_work(inputs)
        if learns:
            losses = [each.loss.flatten(-self.map_rank).mean(-1) for each in quantized]
            total = torch.stack(losses).sum(0) * self.event_shape.numel()
            # In a guide a factor's sign turns: this one lowers the ELBO by the loss.
            pyro.factor("quantization", total, has_rsample=True)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw the codes from their priors, and the data given the codes."""
        record, codes = self.shared_pass.take(x, context), list[Tensor]()
        with self.latent_scale():
            for name, (_, prior) in zip(self.site_names, self._code_parts, strict=True):
                codes.append(pyro.sample(name, prior(codes, context)))
        inputs = self.shared_pass.look_up(record, codes)
        if inputs is None:
            inputs = self._decoder_input(self._vectors(codes), context)
        return pyro.sample("x", self.decode(inputs, context), obs=x)

    @torch.no_grad()
    @integers_checked
    def sample(
        self, num_samples: int = 1, context: GivenContext = None, *, temperature: float = 1.0
    ) -> Float[Tensor, "num_samples *batch_event"]:
        """Draw data from the model, in eval mode.

        Args:
            num_samples: Number of draws (for each context).
            context: Labels or features ``(*batch, ...)``, if the model is conditional.
            temperature: Divides the logits of the learned priors: below 1 for likelier codes.

        Returns:
            Data ``(num_samples, *batch, *event)``.

        Raises:
            ValueError: If ``num_samples`` is not positive, the context does not fit, or a uniform
                prior, which has no temperature, is to be drawn from at another than 1.
        """
        if temperature == 1:
            return super().sample(num_samples, context)
        check(num_samples >= 1, "num_samples", "be at least 1", num_samples)
        _, context, batch = self._checked(None, context)
        shape = torch.Size((num_samples, *batch))
        with evaluating(self), self._aside(), plates(shape):
            codes = self._cooled(shape, context, temperature)
            program = poutine.condition(
                self._generate, data=dict(zip(self.site_names, codes, strict=True))
            )
            return program(None, context)

    def _cooled(
        self, batch: torch.Size, context: Tensor | None, temperature: float
    ) -> list[Tensor]:
        codes: list[Tensor] = []
        for prior in self.code_priors:
            law = prior(codes, context)
            cools = isinstance(law, AutoregressiveDistribution)
            check(cools, "temperature", "be 1 under a uniform prior", temperature)
            codes.append(law.expand(batch).sample(temperature=temperature))
        return codes

    def code_maps(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> list[Int[Tensor, ...]]:
        """Return the maps of codes of data, from the top; of a model with one map, a list of it.

        Args:
            x: Data ``(*batch, *event_shape)``.
            context: Labels or features, if the model is conditional.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        return self._codes_of(x, context)

    def code_log_prob(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> Float[Tensor, "*batch"]:
        """Return the log-probability of the data's codes under their priors, in nats.

        Minus it is the codes' share of the negative ELBO; the rest is the reconstruction's.

        Args:
            x: Data ``(*batch, *event_shape)``.
            context: Labels or features, if the model is conditional.

        Raises:
            ValueError: If ``x`` or ``context`` does not fit.
        """
        context = self.joined_context(context)
        maps = self._codes_of(x, context)
        total = torch.zeros((), dtype=self.dtype, device=maps[0].device)
        with evaluating(self), torch.no_grad():
            for index, prior in enumerate(self.code_priors):
                total = total + prior(maps[:index], context).log_prob(maps[index])
        return total

    def decode(self, inputs: Float[Tensor, "*batch_map"], context: GivenContext = None) -> Any:
        """Return the distribution over a data point given what the decoder takes."""
        context = self._given(context)
        decoded = self._decoded(inputs, context)
        for dim in range(-self.map_rank, 0):
            decoded = decoded.narrow(dim, 0, self.event_shape[dim])
        return self.standardization.in_data_units(self.likelihood(decoded), self.dtype)

    def _encoded(
        self, x: Tensor, context: Tensor | None, learns: bool
    ) -> tuple[list[Quantized], Tensor]:
        features = self._features(self.encoder_input(x, context), context)
        update: CodebookUpdate = learns and self._once_a_step.update(
            features[0].movedim(-1 - self.map_rank, -1), self._moved_by_the_optimizer()
        )
        # A bound is that of the codes, in training mode too, where a warm-up would pass them by.
        quantizers = nn.ModuleList(quantizer for quantizer, _ in self._code_parts)
        with nullcontext() if learns else evaluating(quantizers):
            return self._quantized(features, context, update)

    def _moved_by_the_optimizer(self) -> Iterable[Tensor]:
        # Not the codebooks: initialisation and restarts write to these.
        own = {id(p) for quantizer, _ in self._code_parts for p in quantizer.parameters()}
        return (p for p in self.parameters() if id(p) not in own)

    def _maps(self, quantized: Sequence[Quantized]) -> list[Tensor]:
        """Codes as sites have them: ``(*batch, h, w)``, or ``(*batch, parts, h, w)``."""
        first = -1 - self.map_rank
        return [
            each.codes.movedim(-1, first) if quantizer.code_shape else each.codes
            for (quantizer, _), each in zip(self._code_parts, quantized, strict=True)
        ]

    def _vectors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        first, vectors = -1 - self.map_rank, []
        for (quantizer, _), codes in zip(self._code_parts, maps, strict=True):
            codes = codes.movedim(first, -1) if quantizer.code_shape else codes
            vectors.append(quantizer.lookup(codes).movedim(-1, first))
        return vectors

    def _codes_of(self, x: Tensor, context: GivenContext) -> list[Tensor]:
        """Encode data, in eval mode and without gradients."""
        checked, context, _ = self._checked(x, context, self.standardization.standardized)
        assert checked is not None  # narrows the type for the checker
        with evaluating(self), torch.no_grad():
            return self._maps(self._encoded(checked, context, learns=False)[0])

    def _mean_of(self, maps: Sequence[Tensor], context: GivenContext) -> Tensor:
        """Decode codes to the likelihood's mean, in eval mode and without gradients.

        Of a likelihood without one in closed form, an autoregressive one, it is a draw.
        """
        for name, (_, prior), codes in zip(self.site_names, self._code_parts, maps, strict=True):
            check_trailing(name, codes, prior.code_shape)
            check_levels(name, codes, prior.num_codes)
        context = self._given(context)
        with evaluating(self), torch.no_grad():
            inputs = self._decoder_input(self._vectors(maps), context)
            law = self.decode(inputs, context)
            try:
                mean: Tensor = law.mean
            except NotImplementedError:
                mean = law.sample()
            return mean


class OnceAStep:
    """Tells the first guide execution of a training step from those for further particles.

    Further particles see the very numbers of the first: the same features, under parameters that
    nobody has written to since. Other features under the same parameters, which have gradients by
    then, are a further batch of a step that accumulates gradients. A step that repeats a batch has
    other parameters. Is left behind by deepcopy and pickle.

    Example:
        >>> once, features = OnceAStep(), torch.ones(3, 2)
        >>> weight = torch.ones(2, requires_grad=True)
        >>> once.update(features, [weight]), once.update(features.clone(), [weight])
        (True, False)
        >>> weight.sum().backward()
        >>> once.update(features + 1, [weight])
        'accumulate'
        >>> _ = torch.optim.SGD([weight]).step()
        >>> once.update(features, [weight])
        True
    """

    def __init__(self) -> None:
        self._seen: tuple[list[int], Tensor] | None = None

    def update(self, features: Tensor, parameters: Iterable[Tensor]) -> CodebookUpdate:
        """Return how quantisers are to learn from these features; remembers them.

        Args:
            features: What the step learns from, ``(..., D)``; their sums stand for them.
            parameters: Parameters that the optimizer moves between steps.
        """
        # Versions too: what moves parameters by hand is not an optimizer.
        parameters = list(parameters)
        state = [latest_step(), *(parameter._version for parameter in parameters)]
        mark = features.detach().flatten(0, -2).sum(0)
        seen, self._seen = self._seen, (state, mark)
        if seen is None or seen[0] != state or seen[1].device != mark.device:
            return True
        if torch.equal(seen[1], mark):
            return False
        accumulates = any(parameter.grad is not None for parameter in parameters)
        return "accumulate" if accumulates else True

    def __getstate__(self) -> dict[str, Any]:
        return {"_seen": None}
