"""Rational-quadratic splines: flexible monotone maps with a closed inverse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._checks import as_shape, check, check_positive, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels._typing import Float
from pyro_genmodels.transforms.base.conditional import CONTEXT, ConditionalFlow
from pyro_genmodels.transforms.couplings.base import GIVEN, Coupling, coupling_net, default_mask
from pyro_genmodels.transforms.couplings.masks import Mask

LEAST_BIN = 1e-3  # share of the whole range
LEAST_SLOPE = 1e-3
# softplus of this is the slope of the identity, so that a network's zeros are the identity.
_UNIT_SLOPE = math.log(math.expm1(1 - LEAST_SLOPE))


class SplineCoupling(Coupling):
    r"""Maps one part of an event by monotone splines that the other part determines.

    Each changing element passes a rational-quadratic spline of ``num_bins`` bins from
    :math:`[c - B, c + B]` onto itself, the identity outside. From data to noise, in the bin
    between the knots :math:`(y_k, x_k)` and :math:`(y_{k+1}, x_{k+1})` with slopes :math:`d_k`,
    :math:`d_{k+1}`,

    .. math:: x = x_k + \frac{(x_{k+1} - x_k)\,(s\,\theta^2 + d_k\,\theta(1-\theta))}
        {s + (d_{k+1} + d_k - 2 s)\,\theta(1-\theta)}, \qquad
        \theta = \frac{y - y_k}{y_{k+1} - y_k}, \quad s = \frac{x_{k+1} - x_k}{y_{k+1} - y_k}.

    A network that returns zeros makes it the identity.

    Args:
        mask: Which part passes unchanged.
        net: Network that returns ``3 num_bins - 1`` values for each feature that changes: widths,
            heights and inner slopes, before they are normalised; see :class:`Coupling`.
        num_bins: Number of bins.
        bound: :math:`B`.
        center: :math:`c`.

    Raises:
        ValueError: If ``num_bins`` or ``bound`` is impossible, an event has too few dimensions for
            the mask, the mask leaves a part of it empty, or the network returns another number of
            features.

    References:
        Durkan et al. (2019), Neural Spline Flows, section 3.1. https://arxiv.org/abs/1906.04032

    Example:
        >>> from pyro_genmodels import nets, transforms
        >>> net = nets.MLP(1, 2 * SplineCoupling.parameters_of(8))
        >>> layer = transforms.SplineCoupling(transforms.HalfMask(), net, num_bins=8)
        >>> x = torch.randn(4, 3)
        >>> layer.inv(layer(x)).shape
        torch.Size([4, 3])
    """

    def __init__(
        self,
        mask: Mask,
        net: nn.Module,
        *,
        num_bins: int = 8,
        bound: float = 3.0,
        center: float = 0.0,
    ) -> None:
        check(2 <= num_bins < 1 / LEAST_BIN, "num_bins", "be from 2 to 999", num_bins)
        check_positive(bound=bound)
        count = self.parameters_of(num_bins)
        super().__init__(mask, net, num_parameters=count)
        self.num_bins, self.bound, self.center = num_bins, float(bound), float(center)

    @staticmethod
    def parameters_of(num_bins: int) -> int:
        """Return how many values an element's spline needs."""
        return 3 * num_bins - 1

    def _to_noise(self, y: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(y, parameters, inverse=False)

    def largest_value(self, noise: float) -> float:
        """Return the bound: a spline maps its range to itself, and what lies outside to itself."""
        return max(noise, abs(self.center) + self.bound)

    def _to_data(self, x: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
        return self._map(x, parameters, inverse=True)

    def _map(self, x: Tensor, parameters: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        knots = self._knots(parameters)
        if not self.center:
            return rational_quadratic_spline(x, *knots, bound=self.bound, inverse=inverse)
        centered = x - self.center
        # A center is given where noise and data are bounded, as on the unit cube.
        y, log_slope = rational_quadratic_spline(
            centered, *knots, bound=self.bound, inverse=inverse, closed=True
        )
        return y + self.center, log_slope

    def _knots(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions ``(*batch, *changed, 2, bins + 1)`` and slopes likewise, without 2."""
        # The bins go last: sums along them and look-ups in them are then over neighbours in memory.
        raw = parameters.movedim(-1 - self.mask.changed_dim, -1)
        bins = self.num_bins
        sizes = torch.softmax(raw[..., : 2 * bins].unflatten(-1, (2, bins)), dim=-1)
        sizes = LEAST_BIN + (1 - LEAST_BIN * bins) * sizes
        inner = 2 * self.bound * sizes[..., :-1].cumsum(-1) - self.bound
        knots = F.pad(F.pad(inner, (1, 0), value=-self.bound), (0, 1), value=self.bound)
        slopes = LEAST_SLOPE + F.softplus(raw[..., 2 * bins :] + _UNIT_SLOPE)
        return knots, F.pad(slopes, (1, 1), value=1.0)


def rational_quadratic_spline(
    x: Float[Tensor, "*shape"],
    knots: Float[Tensor, "*shape 2 K"],
    slopes: Float[Tensor, "*shape K"],
    *,
    bound: float,
    inverse: bool = False,
    closed: bool = False,
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Map each element by its spline; outside of the bounds by the identity.

    Args:
        x: Where to evaluate.
        knots: Increasing places of the knots on the one axis and on the other, both from
            ``-bound`` to ``bound``.
        slopes: Positive slopes at the knots.
        bound: End of the spline's range on both axes.
        inverse: Map from the second axis to the first.
        closed: Let no rounding carry a value beyond an end, where a bounded density is zero.

    Returns:
        Values and log-slopes of the map.
    """
    inside = x.abs() < bound
    at = torch.where(inside, x, 0.0)
    places = knots[..., 1 if inverse else 0, 1:-1]
    bin_ = (at.unsqueeze(-1) >= places).sum(-1, keepdim=True)
    ends = torch.cat([bin_, bin_ + 1], dim=-1)
    slope_0, slope_1 = slopes.gather(-1, ends).unbind(-1)
    (x_0, x_1), (y_0, y_1) = (
        pair.unbind(-1)
        for pair in knots.gather(-1, ends.unsqueeze(-2).expand(*knots.shape[:-1], 2)).unbind(-2)
    )
    width, height = x_1 - x_0, y_1 - y_0
    mean_slope = height / width
    bend = slope_0 + slope_1 - 2 * mean_slope
    if inverse:
        theta = _solve(at - y_0, height, mean_slope, slope_0, bend)
        value = x_0 + theta * width
    else:
        theta = (at - x_0) / width
    both = theta * (1 - theta)
    denominator = mean_slope + bend * both
    if not inverse:
        value = y_0 + height * (mean_slope * theta**2 + slope_0 * both) / denominator
    numerator = slope_1 * theta**2 + 2 * mean_slope * both + slope_0 * (1 - theta) ** 2
    log_slope = torch.log(numerator) + 2 * torch.log(mean_slope / denominator)
    log_slope = -log_slope if inverse else log_slope
    if closed:
        value = value.clamp(-bound, bound)
    return torch.where(inside, value, x), torch.where(inside, log_slope, 0.0)


def _solve(rise: Tensor, height: Tensor, mean_slope: Tensor, slope: Tensor, bend: Tensor) -> Tensor:
    """Return where in its bin the spline has risen so far: a root of a quadratic in [0, 1]."""
    a = height * (mean_slope - slope) + rise * bend
    b = height * slope - rise * bend
    c = -mean_slope * rise
    root = torch.sqrt((b**2 - 4 * a * c).clamp_min(0))
    # Of the root's two forms the one that subtracts no nearly equal numbers, by one division: a
    # second one, not taken, could spoil the gradient.
    positive = b >= 0
    theta = torch.where(positive, 2 * c, root - b) / torch.where(positive, -b - root, 2 * a)
    return theta.clamp(0, 1)


@integers_checked
@takes_arguments_of(coupling_net, without=GIVEN)
def spline_coupling(
    input_dim: int | Sequence[int],
    *,
    mask: Mask | None = None,
    num_bins: int = 8,
    bound: float = 3.0,
    **options: Any,
) -> SplineCoupling:
    """Return a :class:`SplineCoupling` of vectors or images with a network of its own.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        mask: Halves for vectors and a checkerboard for images if not given.
        num_bins: As for :class:`SplineCoupling`.
        bound: As for :class:`SplineCoupling`.
        options: Others.

    Example:
        >>> spline_coupling(3, hidden=(8,))(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """
    mask = default_mask(input_dim, mask)
    net = coupling_net(mask, input_dim, SplineCoupling.parameters_of(num_bins), **options)
    return SplineCoupling(mask, net, num_bins=num_bins, bound=bound)


@integers_checked
@takes_arguments_of(spline_coupling, without=["input_dim", *CONTEXT])
def conditional_spline_coupling(
    input_dim: int | Sequence[int], context_dim: int | Sequence[int], **options: Any
) -> ConditionalFlow:
    """Return a spline coupling that waits for context vectors of ``context_dim`` or maps.

    Args:
        input_dim: Length of vectors, or sizes of an event.
        context_dim: Length of the context vectors, or sizes of a map.
        options: Others.

    Example:
        >>> conditional_spline_coupling(3, 2).condition(torch.zeros(5, 2)).forward_shape((3,))
        torch.Size([5, 3])
    """
    context_shape = as_shape(context_dim)
    return ConditionalFlow(spline_coupling(input_dim, context_shape=context_shape, **options))
