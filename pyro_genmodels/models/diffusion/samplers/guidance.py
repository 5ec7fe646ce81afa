"""Estimates that are led towards a context or a class."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pyro_genmodels._batching import over_event
from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions import Denoised


@dataclass(frozen=True)
class ClassifierGuidance:
    r"""Guidance by a classifier, or any log-probability that can be differentiated.

    .. math:: \hat x + s \, \frac{\sigma_t^2}{\alpha_t} \, \nabla_{z_t} \log p(y \mid z_t)

    in the place of :math:`\hat x`, in every sampler; the noise's estimate then moves by
    :math:`-s \, \sigma_t \nabla \log p(y \mid z_t)`. At scale 0 that is the model. With the
    model's own classifier it is, at scale 1, the distribution given y, and at any scale what
    classifier-free guidance with that number is.

    Args:
        log_prob: Called with noised values ``(*batch, *values)`` and their noise levels
            :math:`g = -\log \mathrm{SNR}`, ``(*batch)``; returns log-probabilities ``(*batch)``,
            in nats, differentiable in the first. The values are those of the chain: standardised
            data, levels between -1 and 1, bits or vectors.
        scale: Factor :math:`s` of the gradient.

    Raises:
        ValueError: If the scale is not finite.

    References:
        Dhariwal and Nichol (2021), Diffusion models beat GANs on image synthesis, algorithm 2.
        https://arxiv.org/abs/2105.05233

    Example:
        An observation y of the sum of clean data, whose estimate stands for them; gradients pass
        through the network.

        >>> def log_prob(z, level):
        ...     x = model.estimator(z, level).x
        ...     return -((y - x.sum(-1)) / 0.1).square() / 2
        >>> guidance = ClassifierGuidance(log_prob, scale=2.0)
    """

    log_prob: Callable[[Tensor, Tensor], Tensor]
    scale: float = 1.0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if the scale is not finite."""
        check(math.isfinite(self.scale), "scale", "be finite", self.scale)

    def shift(
        self, z: Float[Tensor, "*batch_values"], level: Float[Tensor, "*batch"]
    ) -> Float[Tensor, "*batch_values"]:
        """Return what is added to the estimate of the data.

        Args:
            z: Noised values.
            level: Their noise levels.

        Raises:
            ValueError: If the log-probabilities have another shape than the levels, or cannot be
                differentiated.
        """
        with torch.inference_mode(False), torch.enable_grad():
            noised = z.detach().clone().requires_grad_()
            nats = self.log_prob(noised, level.clone())
            rule = f"return log-probabilities of shape {tuple(level.shape)}"
            check(nats.shape == level.shape, "log_prob", rule, tuple(nats.shape))
            rule = "be differentiable in the noised values"
            check(nats.requires_grad, "log_prob", rule, "a result without a graph")
            (gradient,) = torch.autograd.grad(nats.sum(), noised)
        factor = self.scale * (F.logsigmoid(level) - 0.5 * F.logsigmoid(-level)).exp()
        return over_event(factor, z.dim() - level.dim()) * gradient


class GuidedEstimator:
    r"""A model's estimate of the data under guidance, as chains call it.

    With context c, guidance s is :math:`\hat x(\varnothing) + s (\hat x(c) - \hat x(\varnothing))`
    by one evaluation of twice the batch.

    Args:
        estimator: The model's :class:`DataEstimator`, or what stands for it.
        guidance: The number s, or a :class:`ClassifierGuidance`.
        carries_estimate: Whether self-conditioning is on the evaluation before.
    """

    def __init__(
        self,
        estimator: Any,
        guidance: float | ClassifierGuidance,
        *,
        carries_estimate: bool = False,
    ) -> None:
        self.estimator, self.guidance, self.carries_estimate = estimator, guidance, carries_estimate
        self._before: Tensor | None = None

    def __call__(self, z: Tensor, level: Tensor, context: Tensor | None) -> Denoised:
        """Return the estimate, as :class:`DataEstimator` does."""
        guidance = self.guidance
        if isinstance(guidance, ClassifierGuidance):
            found = self._evaluate(z, level, context)
            return found._replace(x=found.x + guidance.shift(z, level))
        if guidance in (0, 1):
            return self._evaluate(z, level, context if guidance == 1 else None)
        both = torch.stack([torch.ones_like(level), torch.zeros_like(level)]).bool()
        found = self._evaluate(z.expand(2, *z.shape), level.expand(2, *level.shape), context, both)
        given, free = found.x
        share = found.variance_share
        return Denoised(free + guidance * (given - free), None if share is None else share[0])

    def _evaluate(
        self, z: Tensor, level: Tensor, context: Tensor | None, keep: Tensor | None = None
    ) -> Denoised:
        if not self.carries_estimate:
            plain: Denoised = self.estimator(z, level, context, keep)
            return plain
        found: Denoised = self.estimator.carried(z, level, context, self._before, keep)
        self._before = found.x
        return found
