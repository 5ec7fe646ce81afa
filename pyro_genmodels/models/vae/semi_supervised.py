"""A conditional model whose labels are mostly unknown: the semi-supervised VAE, M2."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO
from torch import nn

from pyro_genmodels._checks import check, check_choice, check_trailing
from pyro_genmodels._typing import Float, GivenContext, Num, Tensor
from pyro_genmodels.distributions import with_mask
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.em.model_around import ModelAround
from pyro_genmodels.nets.autoencoders import MLPEncoder
from pyro_genmodels.nets.layers import DerivedBuffers, join_context

_TOLERANCE = 1e-6  # of the sum of probabilities, which float32 gives to about 1e-7


class SemiSupervisedVAE(ModelAround, DerivedBuffers):
    r"""Makes the label of a class-conditional model a variable: seen with some data, else inferred.

    .. math:: y \sim p(y), \quad z \sim p(z \mid y), \quad x \sim p(x \mid z, y), \quad
        q(y \mid x)\, q(z \mid x, y)

    ``model(x)`` and ``guide(x)`` are the program without labels: site ``"y"`` is enumerated out in
    parallel under ``TraceEnum_ELBO``, which :class:`ELBOLoss` uses here by default, and drawn
    under other estimators. With labels, ``model(x, y)``, they are observed, bounds are on
    :math:`\log p(x, y)`, and in training the guide adds the classifier's loss. So a step takes one
    batch of either kind::

        loss(unlabelled) + loss(labelled, labels)

    Any model of this package that is conditional on labels will do. Around one that is conditional
    on features too, ``model(x, features)`` is the program without labels, and
    ``model(x, (labels, features))`` the one with them. The classifier sees ``x`` alone.

    A rate that the conditional model holds by a learned weight (``BetaVAE(rate=...)``) is its mean
    over all labels alike where they are enumerated, not under :math:`q(y \mid x)`.

    Args:
        conditional: The class-conditional model.
        classifier: Own network: data, as the conditional model's encoder sees them, to
            ``(*batch, K)`` logits; of data with missing elements with their mask, as for
            :class:`VAE`.
        hidden: Widths of the classifier's hidden layers.
        classification_weight: Weight of the classifier's loss, in nats of its cross-entropy, for
            each labelled example.
        label_prior: Distribution of the labels before any data: ``"uniform"``; ``"learned"`` with
            the rest, from uniform on, which ends at the labels' frequencies; or K probabilities.

    Raises:
        ValueError: If the model is not conditional on labels, the weight is negative, or
            ``label_prior`` is none of these.

    References:
        Kingma et al. (2014), Semi-supervised learning with deep generative models, section 2 (M2)
        and eq. 9. https://arxiv.org/abs/1406.5298

    Example:
        >>> from pyro_genmodels.models import VAE, ELBOLoss
        >>> vae = VAE((1, 8, 8), num_levels=17, latent_dim=8, num_classes=10)
        >>> model = SemiSupervisedVAE(vae)
        >>> loss, x = ELBOLoss(model), torch.zeros(4, 1, 8, 8)
        >>> (loss(x) + loss(x, torch.arange(4))).backward()
        >>> model.classify(x).probs.shape, model.sample(2).shape
        (torch.Size([4, 10]), torch.Size([2, 1, 8, 8]))
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 1e-3, "batch_size": 64, "max_epochs": 100}
    )
    # Where all labels are known there is nothing to enumerate, and nothing to warn of.
    make_elbo: ClassVar[Callable[..., Any]] = staticmethod(
        partial(TraceEnum_ELBO, strict_enumeration_warning=False)
    )

    label_logits: Tensor

    def __init__(
        self,
        conditional: GenerativeModel,
        *,
        classifier: nn.Module | None = None,
        hidden: Sequence[int] = (128,),
        classification_weight: float = 30.0,
        label_prior: Sequence[float] | str = "uniform",
    ) -> None:
        weight = classification_weight
        check(weight >= 0, "classification_weight", "be at least 0", weight)
        super().__init__(conditional)
        self.classification_weight = classification_weight
        classes = conditional.num_classes or 1
        channels, *rest = conditional.input_shape
        shape = (channels + self.event_shape[0] * self.missing, *rest)
        self.classifier = classifier or MLPEncoder(shape, classes, hidden=hidden)
        if label_prior == "learned":
            self.label_logits = nn.Parameter(torch.zeros(classes, dtype=self.dtype))
        else:
            self.register_derived("label_logits", partial(_prior_logits, label_prior, classes))

    def beside_elbo(self) -> list[str]:
        """Name also the classifier's loss."""
        weight = self.classification_weight
        own = [f"classification_weight {weight:g}"] if weight else []
        return super().beside_elbo() + own

    def classify(
        self, x: Num[Tensor, "*batch_event"], context: GivenContext = None
    ) -> dist.Categorical:
        r"""Return the posterior over labels, :math:`q(y \mid x)`.

        Args:
            x: Data ``(*batch, *event)``.
            context: Features, where the conditional model scales data by them, as by size factors.

        Raises:
            ValueError: If an argument or the classifier's output does not fit.
        """
        self._checked_data(x)
        _, features = self.context_parts(self._given(context))
        return self._classified(self.standardization.standardized(x, self.dtype), features)

    def _classified(self, x: Tensor, features: Tensor | None) -> dist.Categorical:
        """Return the posterior over labels given what :meth:`infer` sees of data."""
        # What the encoder sees of data does not depend on the label.
        context = None if features is None else self._with_label(None, features)
        if self.missing:
            scaled, seen = self.conditional.observed_input(x, context)
            given = with_mask(scaled, self.event_shape, seen)
        else:
            given = self.conditional.encoder_input(x, context)
        logits: Float[Tensor, "*batch K"] = self.classifier(given).to(self.dtype)
        check_trailing("classifier(x)", logits, (self.num_classes or 1,))
        return dist.Categorical(logits=logits, validate_args=False)

    def label_distribution(self) -> dist.Categorical:
        """Return the distribution of labels before any data, the label prior."""
        return dist.Categorical(logits=self.label_logits.to(self.dtype), validate_args=False)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Draw or observe the label, and what the conditional model makes of it."""
        known, features = self.context_parts(context)
        with self.latent_scale():
            label = pyro.sample("y", self.label_distribution(), obs=known)
        return self.conditional.generate(x, self._with_label(label, features))

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        """Infer the label, unless it is known, and the conditional model's latents given it."""
        label, features = self.context_parts(context)
        labels = self._classified(x, features)
        if label is None:
            with self.latent_scale():
                label = pyro.sample("y", labels, infer={"enumerate": "parallel"})
        elif self.training and not self.is_bounding:
            # In a guide a factor's sign turns: this one lowers the ELBO by the loss.
            loss = -self.classification_weight * labels.log_prob(label)
            pyro.factor("classification", loss, has_rsample=True)
        self.conditional.infer(x, self._with_label(label, features))

    def _with_label(self, label: Tensor | None, features: Tensor | None) -> Tensor | None:
        """Return the conditional model's context; any label will do where it is ``None``."""
        if features is None:
            return label
        rank = self.context_event_dim or 0
        if label is None:
            label = features.new_zeros(features.shape[: features.dim() - rank], dtype=torch.long)
        return join_context(label, features, rank)

    def _lacks_label(self, context: Tensor) -> bool:
        """Whether a context is features alone, in a model of labels together with features."""
        shape, rank = self.context_shape, self.context_event_dim or 0
        if not self.takes_pairs or shape is None:
            return False
        return context.dim() >= rank and context.shape[-rank] == shape[0]

    def context_parts(self, context: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """Return the labels and the features of a context, which may lack the labels."""
        if context is not None and self._lacks_label(context):
            return None, context
        return super().context_parts(context)

    def _check_context_values(self, context: Tensor | None) -> None:
        if context is not None and self._lacks_label(context):
            context = self._with_label(None, context)
        self.conditional._check_context_values(context)

    def _checked(
        self,
        x: Tensor | None,
        context: GivenContext,
        cast: Callable[[Tensor, torch.dtype], Tensor] = Tensor.to,
    ) -> tuple[Tensor | None, Tensor | None, tuple[int, ...]]:
        context = self.joined_context(context)
        lacks_label = context is not None and self._lacks_label(context)
        if lacks_label or (context is None and not self.takes_pairs):
            return self._checked_without_label(x, context, cast)
        return super()._checked(x, context, cast)

    def _checked_without_label(
        self,
        x: Tensor | None,
        features: Tensor | None,
        cast: Callable[[Tensor, torch.dtype], Tensor],
    ) -> tuple[Tensor | None, Tensor | None, tuple[int, ...]]:
        batch: tuple[int, ...] = ()
        if features is not None:
            check_trailing("context", features, self.context_shape or ())
            self._check_context_values(features)
            batch = tuple(features.shape[: features.dim() - (self.context_event_dim or 0)])
        if x is not None:
            x = cast(self._checked_data(x), self.dtype)
            batch = tuple(x.shape[: x.dim() - len(self.event_shape)])
        return x, features, batch


def _prior_logits(prior: Sequence[float] | str, num_classes: int) -> Tensor:
    if isinstance(prior, str):
        check_choice("label_prior", prior, ("uniform", "learned"))
        return torch.zeros(num_classes)
    fits = len(prior) == num_classes and all(p > 0 for p in prior)
    rule = f"be 'uniform', 'learned' or {num_classes} positive probabilities that sum to one"
    check(fits and abs(sum(prior) - 1) < _TOLERANCE, "label_prior", rule, prior)
    return torch.tensor([math.log(p) for p in prior])
