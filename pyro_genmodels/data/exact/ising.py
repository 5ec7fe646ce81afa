"""The Ising field: correlated binary images with an exact likelihood."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from pyro_genmodels._checks import check, check_positive
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
        check_positive(height=height, width=width)
        smaller, rule = min(height, width), f"have a side of at most {_LARGEST_FRONTIER}"
        check(smaller <= _LARGEST_FRONTIER, "height x width", rule, f"{height} x {width}")
        for argument, value in (("beta", beta), ("field", field)):
            check(math.isfinite(value), argument, "be finite", value)
        super().__init__((1, height, width), num_levels=2, validate_args=validate_args)
        self.height, self.width, self.beta, self.field = height, width, beta, field
        self._rows, self._columns = max(height, width), smaller
        # What follows each row. All sites' messages would need 134 MB for 16 x 16.
        message = torch.zeros(2**self._columns, dtype=torch.float64)
        messages = []
        for row in reversed(range(self._rows)):
            messages.append(message)
            for _, above in self._sites(message, row):
                message = above
        self._messages = torch.stack(messages[::-1])
        self._log_partition = message[0]

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
            sites = self._sites(self._messages[row], row)
            logits = [(terms[..., 1, :] - terms[..., 0, :]).flatten() for terms, _ in sites]
            for column, of_frontier in enumerate(reversed(logits)):
                chance = torch.sigmoid(of_frontier[frontier])
                spin = torch.rand_like(chance) < chance
                bit = 1 << (self._columns - 1 - column)
                frontier = (frontier & ~bit) | (spin.long() * bit)
                spins[row, column] = spin
        images = spins.permute(2, 0, 1).unsqueeze(1)
        return images if self.height >= self.width else images.transpose(2, 3)

    def entropy_nats(self) -> float:
        """Return the entropy: each spin's given its frontier, expected over the spins before."""
        nats = torch.zeros_like(self._messages[0])
        for row in reversed(range(self._rows)):
            for terms, _ in self._sites(self._messages[row], row):
                chance, (before, left, _, _, after) = terms.softmax(-2), terms.shape
                following = nats.reshape(before, left, 1, 2, after)
                nats = (chance * following + torch.special.entr(chance)).sum(-2).flatten()
        return nats[0].item()

    def _sites(self, message: Tensor, row: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Go through the sites of a row, the last first.

        Args:
            message: Log-sum over all sites behind the row, for every frontier.
            row: Number of the row.

        Yields:
            The site's bonds and field added to what follows, ``(before, left, up, spin, after)``;
            and the log-sum of that over the spin, for every frontier above the site.
        """
        spin = torch.tensor([-1.0, 1.0], dtype=torch.float64, device=message.device)
        up = spin if row > 0 else torch.zeros_like(spin)
        for column in reversed(range(self._columns)):
            left = spin if column > 0 else spin.new_zeros(1)
            energy = spin * (self.beta * (left[:, None, None] + up[:, None]) + self.field)
            following = message.reshape(-1, len(left), 1, 2, 2 ** (self._columns - 1 - column))
            terms = following + energy[..., None]
            message = terms.logsumexp(-2).flatten()
            yield terms, message
