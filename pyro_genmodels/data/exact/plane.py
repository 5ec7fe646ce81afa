"""Densities in the plane, to look at a flow's every mistake."""

from __future__ import annotations

import math

import torch

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution


class EightGaussians(ExactDistribution):
    """Eight equal Gaussians, evenly on a circle.

    Args:
        radius: Radius of the circle.
        scale: Standard deviation of each Gaussian.
        validate_args: Whether values are checked.

    Raises:
        ValueError: If an argument is not positive.

    Example:
        >>> round(EightGaussians().entropy().item(), 5)
        1.69806
    """

    def __init__(
        self, radius: float = 2.0, *, scale: float = 0.2, validate_args: bool | None = None
    ) -> None:
        check_positive(radius=radius, scale=scale)
        super().__init__((2,), validate_args=validate_args)
        self.radius, self.scale = radius, scale
        turn = torch.arange(8, dtype=torch.float64) * (2 * math.pi / 8)
        self._centres = radius * torch.stack([turn.cos(), turn.sin()], -1)

    def draw(self, count: int) -> Num[Tensor, "{count} 2"]:
        """Draw a centre and an offset."""
        centre = self._centres[torch.randint(8, (count,), device=self.device)]
        return centre + self.scale * torch.randn_like(centre)

    def log_density(self, value: Num[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """Return the exact log-density of the mixture."""
        offset = (value.double().unsqueeze(-2) - self._centres) / self.scale
        exponents = -0.5 * offset.square().sum(-1)
        return exponents.logsumexp(-1) - math.log(8 * 2 * math.pi * self.scale**2)

    def entropy_nats(self) -> float:
        """Return the entropy by quadrature, exact to about 1e-10.

        The trapezoidal rule on a grid of a quarter of the scale: for a function as smooth as a
        mixture of Gaussians its error falls faster than any power of the spacing.
        """
        spacing, reach = self.scale / 4, self.radius + 9 * self.scale
        axis = torch.arange(-reach, reach, spacing, dtype=torch.float64, device=self.device)
        nats = 0.0
        for row in axis.split(256):  # rows of the grid: a wide ring of narrow Gaussians is large
            logs = self.log_density(torch.cartesian_prod(row, axis))
            nats -= (logs.exp() * logs).sum().item()
        return nats * spacing**2


class Checkerboard(ExactDistribution):
    """Uniform on every other unit square of a board around the origin.

    Not on the board the log-density is minus infinity.

    Args:
        squares: Squares along either side of the board, even: the black ones fill half of it.
        validate_args: Whether values are checked.

    Raises:
        ValueError: If ``squares`` is not even and positive.

    Example:
        >>> board = Checkerboard()
        >>> round(board.entropy().item(), 4)  # eight unit squares
        2.0794
        >>> board.log_prob(torch.tensor([[0.5, 0.5], [0.5, -0.5]]))
        tensor([-2.0794,    -inf])
    """

    def __init__(self, squares: int = 4, *, validate_args: bool | None = None) -> None:
        rule = "be even and positive"
        check(squares >= 2 and squares % 2 == 0, "squares", rule, squares)
        super().__init__((2,), validate_args=validate_args)
        self.squares = squares
        self._corner = torch.tensor(-squares / 2, dtype=torch.float64)

    def draw(self, count: int) -> Num[Tensor, "{count} 2"]:
        """Draw a black square and a point in it."""
        number = torch.randint(self.squares**2 // 2, (count,), device=self.device)
        row = number // (self.squares // 2)
        column = 2 * (number % (self.squares // 2)) + row % 2
        inside = torch.rand(count, 2, dtype=torch.float64, device=self.device)
        return torch.stack([column, row], -1) + inside + self._corner

    def log_density(self, value: Num[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """Return the log-density: constant on black squares, minus infinity elsewhere."""
        square = (value.double() - self._corner).floor()
        on_board = ((square >= 0) & (square < self.squares)).all(-1)
        black = on_board & (square.sum(-1) % 2 == 0)
        nats = torch.full_like(square[..., 0], -self.entropy_nats())
        return nats.where(black, -math.inf)

    def entropy_nats(self) -> float:
        """Return the logarithm of the black area."""
        return math.log(self.squares**2 / 2)
