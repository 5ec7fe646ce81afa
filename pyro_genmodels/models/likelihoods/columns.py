"""The likelihood of tables: each column of its own kind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import nn
from torch.distributions import constraints

from pyro_genmodels._checks import check, check_counts, check_levels
from pyro_genmodels._typing import Float, Num, ScaleName, Tensor
from pyro_genmodels.distributions import NegativeBinomial
from pyro_genmodels.distributions.expansion import expanded
from pyro_genmodels.models.likelihoods.base import Likelihood
from pyro_genmodels.models.likelihoods.counts import LOG_MEAN, LOG_THETA, exp_within
from pyro_genmodels.models.likelihoods.elementwise import MIN_LOG_SCALE, Levels, bounded_below


class Columns(Likelihood):
    r"""Vectors whose columns are real numbers, categories or counts, independent given the latents.

    A real column is Gaussian with a predicted mean and scale; a categorical one is a softmax over
    its codes ``0 .. K - 1``; a count is negative binomial, with a predicted mean and a learned
    inverse dispersion. Log-densities and log-masses add up, in nats of the data as they came.

    An encoder sees real columns, standardised if the model does that, the codes one-hot and
    :math:`\log(1 + x)` of counts: all real columns, then all counts, then the categories. Only real
    columns are standardised. The ``mean``, which is what :meth:`GenerativeModel.reconstruct` gives,
    has the most probable code of a categorical column.

    Args:
        kinds: What each column is: ``"gaussian"``, ``"count"``, or the number of categories.
        min_log_scale: Lower bound of the log-scales of the Gaussians.
        validate_args: Whether the distributions check parameters and values.

    Raises:
        ValueError: If there is no column, or one has another kind, or no category.

    Example:
        >>> from pyro_genmodels.models import VAE
        >>> likelihood = Columns(["gaussian", 3, "count"])
        >>> likelihood.input_shape, likelihood.parameter_shape
        (torch.Size([5]), torch.Size([6]))
        >>> vae = VAE((3,), latent_dim=2, likelihood=likelihood)
        >>> vae.sample(4).shape, vae.log_weights(torch.tensor([[0.5, 2.0, 7.0]])).shape
        (torch.Size([4, 3]), torch.Size([1, 1]))
    """

    def __init__(
        self,
        kinds: Sequence[str | int],
        *,
        min_log_scale: float = MIN_LOG_SCALE,
        validate_args: bool | None = None,
    ) -> None:
        check(len(kinds) > 0, "kinds", "name at least one column", kinds)
        for kind in kinds:
            named = kind in ("gaussian", "count")
            fits = named or (isinstance(kind, int) and not isinstance(kind, bool) and kind >= 1)
            rule = "hold 'gaussian', 'count', or positive numbers of categories"
            check(fits, "kinds", rule, repr(kind))
        super().__init__((len(kinds),), 1, num_levels=None, validate_args=validate_args)
        self.kinds, self.min_log_scale = list(kinds), min_log_scale
        places: dict[str | int, list[int]] = {"gaussian": [], "count": []}
        for place, kind in enumerate(kinds):
            places.setdefault(kind, []).append(place)
        self._groups = {kind: columns for kind, columns in places.items() if columns}
        counts = len(places["count"])
        if counts:
            self.log_theta = nn.Parameter(torch.zeros(counts))
        self.parameter_shape = torch.Size((sum(n for _, n in self._sizes(gaussian=2)),))
        self.input_shape = torch.Size((sum(n for _, n in self._sizes(gaussian=1)),))

    def _sizes(self, *, gaussian: int) -> Iterator[tuple[str | int, int]]:
        """Yield how many numbers the columns of each kind have together."""
        for kind, columns in self._groups.items():
            each = kind if isinstance(kind, int) else {"gaussian": gaussian, "count": 1}[kind]
            yield kind, each * len(columns)

    @property
    def standardization_scale(self) -> ScaleName | None:
        """One for each real column."""
        return "per_dimension" if "gaussian" in self._groups else None

    @property
    def standardized_columns(self) -> Sequence[int]:
        """The real ones."""
        return self._groups.get("gaussian", [])

    @property
    def column_kinds(self) -> Sequence[str]:
        """Kind of each column."""
        return ["categorical" if isinstance(kind, int) else kind for kind in self.kinds]

    def check_values(self, argument: str, x: Tensor, *, missing: bool = False) -> None:
        """Raise ``ValueError`` unless counts are whole numbers from zero, and codes in range."""
        for kind, columns in self._groups.items():
            for place in columns if kind != "gaussian" else []:
                name, values = f"{argument}: column {place}", x[..., place]
                if isinstance(kind, int):
                    check_levels(name, values, kind, missing=missing)
                else:
                    check_counts(name, values, missing=missing)

    def encoder_input(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return real columns, logarithms of counts, and categories one-hot."""
        return torch.cat([self._seen(kind, x[..., at]) for kind, at in self._groups.items()], -1)

    def without_missing(self, scaled: Tensor, seen: Tensor) -> Tensor:
        """Return what an encoder sees, with zeros for all codes of a category that is missing.

        Args:
            scaled: What :meth:`encoder_input` gives, ``(*batch, *input_shape)``.
            seen: Which columns are there, ``(*batch, columns)``.
        """
        sizes = {kind: kind if isinstance(kind, int) else 1 for kind in self._groups}
        parts = [seen[..., at].repeat_interleave(sizes[k], -1) for k, at in self._groups.items()]
        return scaled * torch.cat(parts, -1)

    def _seen(self, kind: str | int, x: Tensor) -> Tensor:
        if isinstance(kind, int):
            return F.one_hot(x.long(), kind).flatten(-2).to(x.dtype)
        return torch.log1p(x) if kind == "count" else x

    def _elementwise(self, decoded: Tensor) -> MixedColumns:
        sizes = [size for _, size in self._sizes(gaussian=2)]
        numbers = zip(self._groups.items(), decoded.split(sizes, -1), strict=True)
        laws = [self._law(kind, given) for (kind, _), given in numbers]
        places = list(self._groups.values())
        return MixedColumns(laws, places, validate_args=self.validate_args)

    def _law(self, kind: str | int, numbers: Tensor) -> Any:
        options: dict[str, Any] = {"validate_args": self.validate_args}
        if isinstance(kind, int):
            return Categories(logits=numbers.unflatten(-1, (-1, kind)), **options)
        if kind == "count":
            theta = exp_within(self.log_theta, LOG_THETA)
            return NegativeBinomial(exp_within(numbers, LOG_MEAN), theta, **options)
        loc, raw = numbers.chunk(2, -1)
        return dist.Normal(loc, bounded_below(raw, self.min_log_scale).exp(), **options)


class Categories(Levels):
    """A categorical over names: in the place of a mean it has the most probable code."""

    @property
    def mean(self) -> Tensor:
        """The most probable code."""
        return self.logits.argmax(-1).to(self.logits.dtype)


class MixedColumns(TorchDistribution):
    """Independent columns with a distribution for each kind of them.

    Args:
        laws: For each kind, the distributions of its columns, batch shape ``(*batch, d)``.
        places: For each kind, which columns these are.
        validate_args: Whether values are checked; Pyro's global setting by default.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}

    def __init__(
        self, laws: Sequence[Any], places: Sequence[Sequence[int]], *, validate_args: bool | None
    ) -> None:
        self.laws, self.places = list(laws), [list(place) for place in places]
        order = [column for place in self.places for column in place]
        self._back = sorted(range(len(order)), key=order.__getitem__)
        shape = torch.Size((*laws[0].batch_shape[:-1], len(order)))
        super().__init__(shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> Any:
        """That of each column."""
        return _OfColumns(self)

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> MixedColumns:
        """Return the same distribution with another batch shape; its last size is the columns'."""
        rows = torch.Size(batch_shape)[:-1]
        laws = [law.expand((*rows, *law.batch_shape[-1:])) for law in self.laws]
        return expanded(self, batch_shape, _instance, laws=laws)

    def log_prob(self, value: Num[Tensor, "*value"]) -> Float[Tensor, "*shape"]:
        """Return the log-density, or log-mass, of each column in nats."""
        if self._validate_args:
            self._validate_sample(value)
        return self.joined(lambda law, x: law.log_prob(x), value)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Draw values, codes of categories among them."""
        return self.joined(lambda law: law.sample(torch.Size(sample_shape)))

    @property
    def mean(self) -> Tensor:
        """Means; of categories the most probable code."""
        return self.joined(lambda law: law.mean)

    @property
    def variance(self) -> Tensor:
        """Variances; of categories that of the codes."""
        return self.joined(lambda law: law.variance)

    def joined(self, of: Any, value: Tensor | None = None) -> Tensor:
        """Return what a function gives for the columns of each kind, in the columns' order."""
        pairs = zip(self.laws, self.places, strict=True)
        parts = [of(law) if value is None else of(law, value[..., at]) for law, at in pairs]
        return torch.cat(parts, -1)[..., self._back]


class _OfColumns(constraints.Constraint):
    """Values that each column's distribution takes."""

    is_discrete, event_dim = False, 0

    def __init__(self, law: MixedColumns) -> None:
        self.law = law
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        return self.law.joined(lambda law, x: law.support.check(x), value)
