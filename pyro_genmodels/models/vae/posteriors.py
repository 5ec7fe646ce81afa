"""Posteriors from the output of an encoder: Gaussians of any covariance, and flows of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias, get_args

import pyro.distributions as dist
import torch
from pyro.distributions.conditional import ConditionalTransform
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.distributions import (
    LowRankMultivariateNormal,
    MultivariateNormal,
    Transform,
    register_kl,
)

from pyro_genmodels._checks import check, check_choice
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal
from pyro_genmodels.transforms.interop import FlowDensity, as_list, conditioned, modules

Covariance: TypeAlias = Literal["diagonal", "full", "low_rank"]
PosteriorTransforms: TypeAlias = (
    Transform | ConditionalTransform | Sequence[Transform | ConditionalTransform]
)

_LARGEST = 10.0  # of a log-scale, either way


@dataclass(frozen=True)
class GaussianPosterior(ArgumentGroup):
    """The posterior of a VAE: a Gaussian given by the encoder, or what transforms make of one.

    Args:
        covariance: ``"diagonal"``; ``"full"``, from ``latent_dim * (latent_dim - 1) / 2`` more
            outputs of the encoder; or ``"low_rank"``, diagonal plus the square of a ``latent_dim``
            by ``rank`` matrix, given row by row.
        rank: Columns of that matrix, at most ``latent_dim``.
        log_scale: Logarithm of the standard deviation of every latent, the same for all data; by
            default the encoder gives them.
        transforms: What the Gaussian passes through, in the order of sampling: this package's
            transforms, Pyro's or torch's, plain or conditional. They are evaluated from noise to
            latents: Pyro's ``affine_autoregressive`` is then the inverse autoregressive flow. The
            KL term is estimated from the draws.
        features: Outputs that the encoder gives beside means and log-scales, behind them, for the
            conditional ones among the transforms.

    Raises:
        ValueError: If there is no such covariance, the rank is not positive, or a fixed log-scale
            is not finite or comes with correlated latents.

    References:
        Kingma et al. (2016), Improved variational inference with inverse autoregressive flow,
        section 3. https://arxiv.org/abs/1606.04934

    Example:
        >>> from pyro.distributions.transforms import affine_autoregressive
        >>> from pyro_genmodels.models import VAE
        >>> posterior = GaussianPosterior(transforms=affine_autoregressive(3))
        >>> vae = VAE((5,), latent_dim=3, posterior=posterior)
        >>> vae.encode(torch.zeros(2, 5)).rsample().shape
        torch.Size([2, 3])
    """

    covariance: Covariance = "diagonal"
    _: KW_ONLY
    rank: int = 1
    log_scale: float | None = None
    transforms: PosteriorTransforms = ()
    features: int = 0

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a field is out of range."""
        super().__post_init__()
        check_choice("posterior", self.covariance, get_args(Covariance))
        check(self.rank >= 1, "posterior.rank", "be at least 1", self.rank)
        if (log_scale := self.log_scale) is not None:
            rule = "be None unless the covariance is diagonal"
            check(self.covariance == "diagonal", "posterior.log_scale", rule, log_scale)
            check(math.isfinite(log_scale), "posterior.log_scale", "be finite", log_scale)


class GaussianHead:
    r"""Makes a Gaussian of an encoder's outputs: means, log-scales, and what correlates them.

    .. math:: z = \mu + \sigma \odot \epsilon, \quad
        z = \mu + (\mathrm{diag}\,\sigma + \text{strictly lower } L)\,\epsilon \quad\text{or}\quad
        z = \mu + \sigma \odot \epsilon + W \eta

    The log-scales are kept in :math:`[-10, 10]`, where their exponentials do no harm in float32.
    With outputs of zero behind the log-scales all three are the same.

    Args:
        size: Number of latent variables D.
        posterior: Covariance, rank of W, and a log-scale that the encoder does not give.

    Raises:
        ValueError: If the rank is larger than D.
    """

    def __init__(self, size: int, posterior: GaussianPosterior) -> None:
        rank = posterior.rank
        check(rank <= size, "posterior.rank", f"lie between 1 and {size}", rank)
        self.size, self.covariance, self.rank = size, posterior.covariance, rank
        self.log_scale = posterior.log_scale
        more = {"diagonal": 0, "full": size * (size - 1) // 2, "low_rank": size * rank}
        given = 2 if self.log_scale is None else 1
        self.num_features = given * size + more[self.covariance]

    def __call__(self, features: Float[Tensor, "*batch F"]) -> Any:
        """Return the distribution over vectors."""
        if self.log_scale is not None:
            return DiagonalNormal(features, torch.full_like(features, self.log_scale))
        loc = features[..., : self.size]
        log_scale = features[..., self.size : 2 * self.size].clamp(-_LARGEST, _LARGEST)
        rest = features[..., 2 * self.size :]
        if self.covariance == "diagonal":
            return DiagonalNormal(loc, log_scale)
        if self.covariance == "low_rank":
            factor = rest.unflatten(-1, (self.size, self.rank))
            variance = (2 * log_scale).exp()
            return dist.LowRankMultivariateNormal(loc, factor, variance, validate_args=False)
        rows, columns = torch.tril_indices(self.size, self.size, -1, device=features.device)
        scale_tril = log_scale.exp().diag_embed()
        scale_tril[..., rows, columns] = rest
        return dist.MultivariateNormal(loc, scale_tril=scale_tril, validate_args=False)


@register_kl(MultivariateNormal, StandardNormal)  # type: ignore[untyped-decorator]
def _kl_full_standard(q: MultivariateNormal, p: StandardNormal) -> Tensor:
    factor = q._unbroadcasted_scale_tril
    log_det = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl(q.loc, factor.square().sum((-2, -1)), log_det, p)


@register_kl(LowRankMultivariateNormal, StandardNormal)  # type: ignore[untyped-decorator]
def _kl_low_rank_standard(q: LowRankMultivariateNormal, p: StandardNormal) -> Tensor:
    """By the matrix determinant lemma, from the small Cholesky factor that the law keeps."""
    diagonal, factor = q._unbroadcasted_cov_diag, q._unbroadcasted_cov_factor
    log_det = 0.5 * diagonal.log().sum(-1)
    log_det = log_det + q._capacitance_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return _kl(q.loc, diagonal.sum(-1) + factor.square().sum((-2, -1)), log_det, p)


def _kl(loc: Tensor, trace: Tensor, half_log_det: Tensor, prior: StandardNormal) -> Tensor:
    nats = 0.5 * (loc.square().sum(-1) + trace - prior.event_shape[0]) - half_log_det
    return nats.expand(torch.broadcast_shapes(nats.shape, prior.batch_shape))


class FlowPosterior(nn.Module):
    r"""What transforms make of the encoder's Gaussian.

    .. math:: z = f_T \circ \dots \circ f_1(z_0; h(x)), \quad
        z_0 \sim N(\mu(x), \mathrm{diag}\,\sigma^2(x))

    Args:
        transforms: Transforms of vectors, or of their entries, in the order of sampling; those
            that are conditional take the encoder's extra features :math:`h`.
        num_features: How many extra features the encoder gives.

    Raises:
        ValueError: If there is a conditional transform and no feature, or a feature and nobody
            to take it; or if a transform is of images.

    References:
        Rezende and Mohamed (2015), Variational inference with normalizing flows. Kingma et al.
        (2016), Improved variational inference with inverse autoregressive flow, section 3.
    """

    def __init__(self, transforms: PosteriorTransforms, *, num_features: int = 0) -> None:
        super().__init__()
        self.transforms = as_list(transforms)
        takes = any(isinstance(part, ConditionalTransform) for part in self.transforms)
        rule = "be positive with a conditional transform" if takes else "be 0 without one"
        check((num_features > 0) == takes, "posterior.features", rule, num_features)
        ranks = [_rank(part) for part in self.transforms]
        check(all(rank <= 1 for rank in ranks), "posterior.transforms", "be of vectors", ranks)
        self.parts = modules(self.transforms)
        self.num_features = num_features

    def forward(
        self, gaussian: TorchDistributionMixin, features: Float[Tensor, "*batch H"]
    ) -> TorchDistributionMixin:
        """Return the posterior.

        Args:
            gaussian: The encoder's distribution of vectors.
            features: Its extra features.
        """
        context = features if self.num_features else None
        return FlowDensity(gaussian, conditioned(self.transforms, context))


def _rank(part: Any) -> int:
    """Return the rank of what a transform takes; Pyro's conditional ones do not say."""
    domain = getattr(part, "domain", None) or getattr(getattr(part, "flow", None), "domain", None)
    return 1 if domain is None else int(domain.event_dim)
