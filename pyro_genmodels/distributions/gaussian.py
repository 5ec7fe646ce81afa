"""Gaussian vectors and maps as one event, in the few tensor operations that they need.

``Normal(loc, scale).to_event(1)`` is the same law at three times the cost: two wrapped objects, an
``expand`` of both, and a KL that takes logarithms of what was an exponential a moment before. In a
small VAE that is a twentieth of the step. What it offers is here too: its moments, its KL to and
from such distributions, and the parameters ``loc`` and ``scale`` by which Pyro's reparameterisers
make a site's distribution again.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from pyro.distributions import Normal, TorchDistribution
from pyro.distributions.util import sum_rightmost
from torch.distributions import (
    Independent,
    MultivariateNormal,
    constraints,
    kl_divergence,
    register_kl,
)
from torch.distributions.utils import lazy_property

from pyro_genmodels._checks import check, check_trailing, integers_checked
from pyro_genmodels._typing import EventShape, Float, Tensor
from pyro_genmodels.distributions.expansion import expanded

_LOG_2_PI = math.log(2 * math.pi)


class DiagonalNormal(TorchDistribution):
    """Gaussian with independent elements, over vectors, maps or events of any rank.

    Args:
        loc: Means ``(*batch, *event)``.
        log_scale: Logarithms of the standard deviations, of the same shape.
        scale: The standard deviations, in the place of their logarithms.
        event_dim: Rank of the event: 1 for vectors ``(D,)``, 3 for maps ``(C, H, W)``.
        validate_args: Whether parameters and values are checked.

    Raises:
        ValueError: If neither or both of ``log_scale`` and ``scale`` are given, or ``loc`` has
            fewer dimensions than the event. Under validation, if a mean is NaN or a standard
            deviation not positive.

    Example:
        >>> noise = DiagonalNormal(torch.zeros(2, 3), torch.zeros(2, 3))
        >>> noise.sample((5,)).shape, noise.log_prob(torch.zeros(2, 3)).shape
        (torch.Size([5, 2, 3]), torch.Size([2]))
        >>> maps = torch.ones(2, 1, 4, 4)
        >>> DiagonalNormal(maps, scale=maps, event_dim=3).event_shape
        torch.Size([1, 4, 4])
    """

    # Pyro's reparameterisers make a distribution again from the names here. The event's rank is
    # one of them; `dependent` keeps torch from checking it as a tensor.
    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "event_dim": constraints.dependent,
    }
    has_rsample = True

    @integers_checked
    def __init__(
        self,
        loc: Float[Tensor, "*batch_event"],
        log_scale: Float[Tensor, "*batch_event"] | None = None,
        *,
        scale: Float[Tensor, "*batch_event"] | None = None,
        event_dim: int = 1,
        validate_args: bool | None = None,
    ) -> None:
        rank = loc.dim()
        check(0 <= event_dim <= rank, "event_dim", f"lie between 0 and {rank}", event_dim)
        self.loc = loc
        if log_scale is not None:
            check(scale is None, "scale", "be left out with `log_scale`", "both")
            self.log_scale, self.scale = log_scale, log_scale.exp()
        else:
            check(scale is not None, "scale", "be given without `log_scale`", None)
            assert scale is not None  # narrows the type for the checker
            self.scale = scale
        # Of a tensor that TraceGraph_ELBO follows, a part of the shape is a plain tuple.
        batch = torch.Size(loc.shape[: rank - event_dim])
        event = torch.Size(loc.shape[rank - event_dim :])
        super().__init__(batch, event, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """All real numbers, with the event's rank."""
        return constraints.independent(constraints.real, self.event_dim)

    @lazy_property
    def log_scale(self) -> Float[Tensor, "*batch_event"]:
        """Logarithms of the standard deviations."""
        return self.scale.log()

    def expand(self, batch_shape: Any, _instance: Any = None) -> DiagonalNormal:
        """Return the same distribution with the parameters broadcast to ``batch_shape``."""
        shape = torch.Size(batch_shape) + self.event_shape
        names = [name for name in ("loc", "scale", "log_scale") if name in vars(self)]
        parameters = {name: getattr(self, name).expand(shape) for name in names}
        return expanded(self, batch_shape, _instance, **parameters)

    def rsample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape_event"]:
        """Draw events, differentiably."""
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return torch.addcmul(self.loc, self.scale, noise)

    def log_prob(self, value: Float[Tensor, "*value_event"]) -> Float[Tensor, "*shape"]:
        """Return the log-density in nats."""
        if self._validate_args:
            self._validate_sample(value)
        standardised = (value - self.loc) / self.scale
        constant = 0.5 * _LOG_2_PI * self.event_shape.numel()
        terms = 0.5 * standardised.square() + self.log_scale
        return -sum_rightmost(terms, self.event_dim) - constant

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """The location."""
        return self.loc

    mode = mean

    @property
    def stddev(self) -> Float[Tensor, "*batch_event"]:
        """The scale."""
        return self.scale

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """The square of the scale."""
        return self.scale.square()

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        constant = 0.5 * (1 + _LOG_2_PI) * self.event_shape.numel()
        return sum_rightmost(self.log_scale, self.event_dim) + constant


class StandardNormal(TorchDistribution):
    """Gaussian over vectors with mean zero and unit covariance.

    Made of ``loc`` and ``scale`` instead, as Pyro's ``LocScaleReparam`` makes the distribution of a
    site anew, it is the :class:`DiagonalNormal` of these.

    Args:
        like: A tensor of the wanted dtype and device.
        size: Length D of the vectors.
        batch_shape: Batch shape.
        validate_args: Whether values are checked.

    Example:
        >>> StandardNormal(torch.zeros((), dtype=torch.float64), 3).sample((2,)).dtype
        torch.float64
    """

    arg_constraints: ClassVar[dict[str, Any]] = DiagonalNormal.arg_constraints
    support = constraints.real_vector
    has_rsample = True

    def __new__(cls, *args: Any, loc: Any = None, scale: Any = None, **options: Any) -> Any:
        """Return an instance, or the ``DiagonalNormal`` of ``loc`` and ``scale``."""
        if loc is None and scale is None:
            return super().__new__(cls)
        return DiagonalNormal(loc, scale=scale, **options)

    def __init__(
        self, like: Tensor, size: int, batch_shape: Any = (), *, validate_args: bool | None = None
    ) -> None:
        self.like = like
        super().__init__(torch.Size(batch_shape), torch.Size((size,)), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> StandardNormal:
        """Return the same distribution with another batch shape."""
        return expanded(self, batch_shape, _instance)

    def rsample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape D"]:
        """Draw vectors."""
        shape = self._extended_shape(torch.Size(sample_shape))
        return torch.randn(shape, dtype=self.like.dtype, device=self.like.device)

    def log_prob(self, value: Float[Tensor, "*value D"]) -> Float[Tensor, "*shape"]:
        """Return the log-density in nats."""
        if self._validate_args:
            self._validate_sample(value)
        nats = -0.5 * value.square().sum(-1) - 0.5 * _LOG_2_PI * self.event_shape[0]
        return nats.expand(torch.broadcast_shapes(nats.shape, self.batch_shape))

    @property
    def mean(self) -> Float[Tensor, "*batch D"]:
        """Zeros."""
        return self.like.new_zeros(self.batch_shape + self.event_shape)

    loc = mode = log_scale = mean

    @property
    def variance(self) -> Float[Tensor, "*batch D"]:
        """Ones."""
        return self.like.new_ones(self.batch_shape + self.event_shape)

    scale = stddev = variance

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        nats = 0.5 * (1 + _LOG_2_PI) * self.event_shape[0]
        return self.like.new_full(self.batch_shape, nats)


class WhitenedNormal(TorchDistribution):
    r"""Gaussian vectors or maps with any covariance, by what makes them white.

    .. math:: A (x - \mu) \sim N(0, I), \quad \Sigma^{-1} = A^T A

    With :math:`A` in the place of the covariance's own factor, as ``MultivariateNormal`` has it, a
    density is a product of matrices and solves no equations; and one covariance serves a batch of
    means without a copy for each.

    Args:
        loc: Means, in a row: ``(*batch, D)``.
        whitening: Lower-triangular :math:`A` with a positive diagonal: ``(*batch, D, D)``, or
            fewer leading dimensions, that broadcast to the batch.
        event_shape: Sizes of an event of D elements; vectors ``(D,)`` by default.
        validate_args: Whether parameters and values are checked.

    Raises:
        ValueError: If the sizes do not fit each other. Under validation, if a mean is NaN or a
            matrix not lower triangular with a positive diagonal.

    Example:
        >>> law = WhitenedNormal(torch.zeros(2), torch.tensor([[2.0, 0.0], [-1.0, 1.0]]))
        >>> law.covariance_matrix
        tensor([[0.2500, 0.2500],
                [0.2500, 1.2500]])
        >>> law.log_prob(torch.ones(3, 2)).shape, law.sample().shape
        (torch.Size([3]), torch.Size([2]))
    """

    arg_constraints: ClassVar[dict[str, Any]] = {
        "loc": constraints.real_vector,
        "whitening": constraints.lower_cholesky,
    }
    has_rsample = True

    def __init__(
        self,
        loc: Float[Tensor, "*batch D"],
        whitening: Float[Tensor, "*some D D"],
        *,
        event_shape: EventShape | None = None,
        validate_args: bool | None = None,
    ) -> None:
        size = loc.shape[-1]
        check_trailing("whitening", whitening, (size, size))
        event = torch.Size((size,) if event_shape is None else event_shape)
        check(event.numel() == size, "event_shape", f"have {size} elements", tuple(event))
        batch = torch.broadcast_shapes(loc.shape[:-1], whitening.shape[:-2])
        self.loc, self.whitening = loc.expand(*batch, size), whitening
        super().__init__(batch, event, validate_args=validate_args)

    @property
    def support(self) -> Any:
        """All real numbers, with the event's rank."""
        return constraints.independent(constraints.real, len(self.event_shape))

    def expand(self, batch_shape: Any, _instance: Any = None) -> WhitenedNormal:
        """Return the same distribution with the means broadcast to ``batch_shape``."""
        loc = self.loc.expand(torch.Size(batch_shape) + self.loc.shape[-1:])
        return expanded(self, batch_shape, _instance, loc=loc)

    def rsample(self, sample_shape: Any = ()) -> Float[Tensor, "*shape_event"]:
        """Draw events, differentiably."""
        shape = torch.Size(sample_shape) + self.loc.shape
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        if self.whitening.dim() == 2:
            flat = torch.linalg.solve_triangular(
                self.whitening.mT, noise.reshape(-1, shape[-1]), upper=True, left=False
            )
            coloured = flat.reshape(shape)
        else:
            columns = noise.unsqueeze(-1)
            coloured = torch.linalg.solve_triangular(self.whitening, columns, upper=False)
            coloured = coloured.squeeze(-1)
        return self._as_event(self.loc + coloured)

    def log_prob(self, value: Float[Tensor, "*value_event"]) -> Float[Tensor, "*shape"]:
        """Return the log-density in nats."""
        if self._validate_args:
            self._validate_sample(value)
        error = value.flatten(value.dim() - len(self.event_shape)) - self.loc
        if self.whitening.dim() == 2:
            white = error @ self.whitening.mT
        else:
            white = torch.einsum("...ij,...j->...i", self.whitening, error)
        nats: Tensor = self._log_det() - 0.5 * white.square().sum(-1)
        return nats - 0.5 * _LOG_2_PI * error.shape[-1]

    def _log_det(self) -> Tensor:
        return self.whitening.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @lazy_property
    def covariance_matrix(self) -> Float[Tensor, "*some D D"]:
        """Covariances of the events in a row, with the leading dimensions of ``whitening``."""
        factor = inverse_triangular(self.whitening)
        return factor @ factor.mT

    @property
    def mean(self) -> Float[Tensor, "*batch_event"]:
        """The means."""
        return self._as_event(self.loc)

    mode = mean

    @property
    def variance(self) -> Float[Tensor, "*batch_event"]:
        """The variance of each element."""
        variances = inverse_triangular(self.whitening).square().sum(-1)
        return self._as_event(variances.expand(self.loc.shape))

    def entropy(self) -> Float[Tensor, "*batch"]:
        """Return the entropy in nats."""
        constant = 0.5 * (1 + _LOG_2_PI) * self.event_shape.numel()
        nats: Tensor = constant - self._log_det()
        return nats.expand(self.batch_shape)

    def _as_event(self, rows: Tensor) -> Tensor:
        return rows.reshape(rows.shape[:-1] + self.event_shape)


def inverse_triangular(matrix: Float[Tensor, "*some D D"]) -> Float[Tensor, "*some D D"]:
    """Return the inverse of lower-triangular matrices."""
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    return torch.linalg.solve_triangular(matrix, identity.expand(matrix.shape), upper=False)


@register_kl(StandardNormal, StandardNormal)  # type: ignore[untyped-decorator]
@register_kl(StandardNormal, DiagonalNormal)  # type: ignore[untyped-decorator]
@register_kl(DiagonalNormal, DiagonalNormal)  # type: ignore[untyped-decorator]
def _kl_diagonal_diagonal(q: Any, p: Any) -> Tensor:
    """The general form of eq. 2 of Vahdat and Kautz (2020), NVAE."""
    check_same_rank(q, p)
    ratio, distance = q.scale / p.scale, (q.loc - p.loc) / p.scale
    terms = 0.5 * (ratio.square() + distance.square() - 1) + p.log_scale - q.log_scale
    return sum_rightmost(terms, q.event_dim)


@register_kl(DiagonalNormal, StandardNormal)  # type: ignore[untyped-decorator]
def _kl_diagonal_standard(q: DiagonalNormal, p: StandardNormal) -> Tensor:
    """Kingma and Welling (2014), appendix B.

    The general form, with the prior's zeros and ones, would take 3 to 5 % of a small VAE's step.
    """
    check_same_rank(q, p)
    spread = torch.addcmul(q.loc.square(), q.scale, q.scale)
    nats = (0.5 * spread - q.log_scale).sum(-1) - 0.5 * q.event_shape[0]
    return nats.expand(torch.broadcast_shapes(nats.shape, p.batch_shape))


def check_same_rank(q: Any, p: Any) -> None:
    """Raise ``NotImplementedError``, as torch does, for a KL divergence between other events."""
    if q.event_dim != p.event_dim:
        raise NotImplementedError(f"events of ranks {q.event_dim} and {p.event_dim}")


def _plain(normal: Any) -> Any:
    """Return Pyro's own form of one of these distributions."""
    return Normal(normal.loc, normal.scale).to_event(normal.event_dim)


def _register_plain_kl(kind: type) -> None:
    for other in (Independent, Normal):
        register_kl(kind, other)(lambda q, p: kl_divergence(_plain(q), p))
        register_kl(other, kind)(lambda q, p: kl_divergence(q, _plain(p)))
    register_kl(kind, MultivariateNormal)(lambda q, p: kl_divergence(_plain(q), p))


_register_plain_kl(DiagonalNormal)
_register_plain_kl(StandardNormal)
