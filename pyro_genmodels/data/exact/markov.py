"""A Markov chain of symbols: sequences of known entropy and known memory."""

from __future__ import annotations

import random

import torch

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution
from pyro_genmodels.data.exact.mosaic import _gamma


class MarkovChain(ExactDistribution):
    r"""A sequence of symbols, each drawn given the ``order`` symbols before it.

    .. math:: p(s) = \prod_t P(s_t \mid s_{t-n}, \dots, s_{t-1})

    with zeros before the first symbol. The table P is random but fixed by ``seed``. A model that
    sees n symbols can reach the entropy; one that sees fewer cannot.

    Args:
        length: Number of symbols of a sequence.
        num_levels: Number K of symbols.
        order: Number n of symbols that each depends on.
        seed: Seed of the table.
        validate_args: Whether values are checked.

    Attributes:
        transition: The table, ``(K,) * (order + 1)``, the oldest symbol first; sums to one over
            the last dimension.

    Raises:
        ValueError: If a number is not positive, or the table would have more than 2**20 entries.

    Example:
        >>> chain = MarkovChain(16, num_levels=3)
        >>> chain.sample((5,)).shape
        torch.Size([5, 16])
    """

    def __init__(
        self,
        length: int = 32,
        *,
        num_levels: int = 4,
        order: int = 1,
        seed: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        check_positive(length=length, order=order)
        check(num_levels >= 2, "num_levels", "be at least 2", num_levels)
        size = num_levels ** (order + 1)
        check(size <= 2**20, "order", "give a table of at most 2**20 entries", order)
        super().__init__((length,), num_levels=num_levels, validate_args=validate_args)
        self.length, self.order = length, order
        stream = random.Random(seed)
        weights = torch.tensor([_gamma(stream) for _ in range(size)], dtype=torch.float64)
        rows = weights.reshape((num_levels,) * (order + 1))
        self.transition = rows / rows.sum(-1, keepdim=True)

    def draw(self, count: int) -> Num[Tensor, "{count} t"]:
        """Draw symbol by symbol."""
        table = self._table
        state = torch.zeros(count, dtype=torch.long, device=self.device)
        symbols = []
        for _ in range(self.length):
            symbols.append(torch.multinomial(table[state], 1).squeeze(-1))
            state = self._next(state, symbols[-1])
        return torch.stack(symbols, -1)

    def log_density(self, value: Num[Tensor, "n t"]) -> Float[Tensor, " n"]:
        """Return the log-probability of sequences."""
        log_table = self._table.log()
        symbols = value.long()
        state, nats = torch.zeros_like(symbols[:, 0]), log_table.new_zeros(len(symbols))
        for symbol in symbols.unbind(-1):
            nats = nats + log_table[state, symbol]
            state = self._next(state, symbol)
        return nats

    def entropy_nats(self) -> float:
        """Return the entropy by the chain rule: each symbol's, expected over the states."""
        table = self._table
        of_row = torch.special.entr(table).sum(-1)
        chance = torch.zeros_like(of_row)
        chance[0] = 1.0
        nats = 0.0
        for _ in range(self.length):
            nats += float(chance @ of_row)
            # The oldest symbol leaves the state, the new one enters on the right.
            joint = (chance[:, None] * table).reshape(table.shape[1], -1)
            chance = joint.sum(0)
        return nats

    @property
    def _table(self) -> Tensor:
        """The rows ``(states, K)``; a state is a number in base K, the oldest symbol first."""
        return self.transition.flatten(0, -2)

    def _next(self, state: Tensor, symbol: Tensor) -> Tensor:
        return (state * self.transition.shape[-1] + symbol) % len(self._table)
