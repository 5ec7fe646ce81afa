"""The Ising field: correlated binary images with an exact likelihood."""

from __future__ import annotations

import math

import torch

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution

CRITICAL_BETA = math.log1p(math.sqrt(2)) / 2
_LARGEST_FRONTIER = 20


class Ising(ExactDistribution):
    r"""Square-lattice Ising field with free boundary, as black and white images.

    .. math:: p(x) = \frac{1}{Z} \exp\Big(\beta \sum_{i \sim j} s_i s_j + h \sum_i s_i\Big),
        \qquad s = 2x - 1 \in \{-1, 1\}

    over neighbours up, down, left and right. The sum over the future of each possible frontier
    of spins (one a column) is built up site by site, so Z, ancestral samples and the entropy are
    exact, at a cost of ``height * width * 2 ** min(height, width)``.

    Args:
        height: Rows.
        width: Columns; the smaller of both is at most 20.
        beta: Inverse temperature; the default is the critical one of the infinite lattice.
        field: External field :math:`h` in units of the temperature; a positive one favours white.
        validate_args: Whether values are checked.

    Raises:
        ValueError: If a size is not positive, the smaller too large, or ``beta`` or ``field``
            not finite.

    References:
        Kramers and Wannier (1941), Statistics of the two-dimensional ferromagnet (transfer
        matrix); Onsager (1944) and Kaufman (1949) (critical temperature).

    Example:
        >>> field = Ising(8, 8, beta=0.3)
        >>> field.sample((5,)).shape
        torch.Size([5, 1, 8, 8])
        >>> bits = field.entropy() / (64 * math.log(2))
        >>> round(bits.item(), 5)
        0.86258
    """

    def __init__(
        self,
        height: int = 8,
        width: int = 8,
        *,
        beta: float = CRITICAL_BETA,
        field: float = 0.0,
        validate_args: bool | None = None,
    ) -> None:
        for argument, size in (("height", height), ("width", width)):
            check(size >= 1, argument, "be positive", size)
        smaller, rule = min(height, width), f"have a side of at most {_LARGEST_FRONTIER}"
        check(smaller <= _LARGEST_FRONTIER, "height x width", rule, f"{height} x {width}")
        for argument, value in (("beta", beta), ("field", field)):
            check(math.isfinite(value), argument, "be finite", value)
        super().__init__((1, height, width), num_levels=2, validate_args=validate_args)
        self.height, self.width, self.beta, self.field = height, width, beta, field
        self._rows, self._columns = max(height, width), smaller
        coupling = torch.tensor(beta, dtype=torch.float64)
        # One row of messages a row of sites: all sites' would need 134 MB for 16 x 16.
        messages = self._row_messages(coupling)
        self._messages = torch.stack(messages[1:])
        self._log_partition = messages[0][0]

    def log_density(self, value: Num[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
        """Return the exact log-probability of images."""
        spins = 2 * value.double() - 1
        across = (spins[..., 1:] * spins[..., :-1]).sum((1, 2, 3))
        down = (spins[..., 1:, :] * spins[..., :-1, :]).sum((1, 2, 3))
        energy = self.beta * (across + down) + self.field * spins.sum((1, 2, 3))
        return energy - self._log_partition

    def draw(self, count: int) -> Num[Tensor, "{count} 1 h w"]:
        """Draw site by site in raster order, each from its exact conditional."""
        spins = torch.zeros(self._rows, self._columns, count, device=self.device)
        frontier = torch.zeros(count, dtype=torch.long, device=self.device)
        for row in range(self._rows):
            tables = self._conditionals(row)
            for column, (logits, place) in enumerate(zip(tables, self._places(), strict=True)):
                chance = torch.sigmoid(logits[frontier])
                spin = torch.rand_like(chance) < chance
                frontier = (frontier & ~place) | (spin.long() * place)
                spins[row, column] = spin
        images = spins.permute(2, 0, 1).unsqueeze(1)
        return images if self.height >= self.width else images.transpose(2, 3)

    def entropy_nats(self) -> float:
        """Return the entropy: each spin's given its frontier, expected over the spins before."""
        message = self._messages.new_zeros(2**self._columns)
        nats = torch.zeros_like(message)
        coupling = torch.tensor(self.beta, dtype=torch.float64, device=self.device)
        for row in reversed(range(self._rows)):
            for column in reversed(range(self._columns)):
                terms = self._terms(message, coupling, row, column)
                chance, (before, left, _, _, after) = terms.softmax(-2), terms.shape
                following = nats.reshape(before, left, 1, 2, after)
                nats = (chance * following + torch.special.entr(chance)).sum(-2).flatten()
                message = terms.logsumexp(-2).flatten()
        return nats[0].item()

    def _places(self) -> list[int]:
        """Bit of each column's spin in the number of a frontier."""
        return [1 << (self._columns - 1 - column) for column in range(self._columns)]

    def _row_messages(self, coupling: Tensor) -> list[Tensor]:
        """Log-sum over all sites from each row on, for every frontier above it."""
        message = coupling.new_zeros(2**self._columns)
        messages = [message]
        for row in reversed(range(self._rows)):
            for column in reversed(range(self._columns)):
                message = self._terms(message, coupling, row, column).logsumexp(-2).flatten()
            messages.append(message)
        return messages[::-1]

    def _terms(self, message: Tensor, coupling: Tensor, row: int, column: int) -> Tensor:
        """Add one site's bonds and field to what follows: ``(before, left, up, spin, after)``."""
        values = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=message.device)
        left = values if column > 0 else values.new_zeros(1)
        up = values if row > 0 else values.new_zeros(2)
        energy = values * (coupling * (left[:, None, None] + up[:, None]) + self.field)
        following = message.reshape(-1, len(left), 1, 2, 2 ** (self._columns - 1 - column))
        return following + energy[..., None]

    def _conditionals(self, row: int) -> list[Tensor]:
        """Logits of every spin of a row being up, for every frontier."""
        message, logits = self._messages[row], []
        coupling = torch.tensor(self.beta, dtype=torch.float64, device=message.device)
        for column in reversed(range(self._columns)):
            terms = self._terms(message, coupling, row, column)
            logits.append((terms[..., 1, :] - terms[..., 0, :]).flatten())
            message = terms.logsumexp(-2).flatten()
        return logits[::-1]
