"""A Markov chain of symbols: sequences of known entropy and known memory."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution

_CONCENTRATION = 0.3  # of the rows' Dirichlet: few likely successors each


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
        self.transition = random_table(random.Random(seed), (num_levels,) * (order + 1))

    def draw(self, count: int) -> Num[Tensor, "{count} t"]:
        """Draw symbol by symbol."""
        before = [torch.zeros(count, dtype=torch.long, device=self.device)] * self.order
        return torch.stack(continued(self.transition, before, self.length), -1)

    def log_density(self, value: Num[Tensor, "n t"]) -> Float[Tensor, " n"]:
        """Return the log-probability of sequences."""
        padded = F.pad(value.long(), (self.order, 0))
        windows = padded.unfold(-1, self.order + 1, 1)
        return self.transition.log()[windows.unbind(-1)].sum(-1)

    def entropy_nats(self) -> float:
        """Return the entropy by the chain rule: each symbol's, expected over the states."""
        chance = torch.zeros_like(self.transition[..., 0])
        chance[(0,) * self.order] = 1.0
        return expected_entropy(self.transition, chance, self.length)


def random_table(stream: random.Random, shape: Sequence[int]) -> Float[Tensor, "..."]:
    """Draw conditional probabilities, over the last dimension, with few likely values each."""
    weights = torch.tensor([_gamma(stream) for _ in range(math.prod(shape))], dtype=torch.float64)
    rows = weights.reshape(shape)
    return rows / rows.sum(-1, keepdim=True)


def continued(transition: Tensor, before: Sequence[Tensor], count: int) -> list[Tensor]:
    """Draw ``count`` symbols of chains, one by one, given as many as each depends on."""
    symbols = list(before)
    for _ in range(count):
        row = transition[tuple(symbols[-len(before) :])]
        symbols.append(torch.multinomial(row, 1).squeeze(-1))
    return symbols[len(before) :]


def expected_entropy(transition: Tensor, chance: Tensor, count: int) -> float:
    """Return the entropy in nats of ``count`` symbols: each one's, expected over those before.

    Args:
        transition: The table, the oldest symbol first.
        chance: Joint distribution of the symbols before the first one.
        count: Number of symbols.
    """
    of_row = torch.special.entr(transition).sum(-1)
    nats = 0.0
    for _ in range(count):
        nats += float((chance * of_row).sum())
        chance = (chance.unsqueeze(-1) * transition).sum(0)  # without the oldest symbol
    return nats


def _gamma(stream: random.Random) -> float:
    """Draw from a gamma distribution of shape below one, as Jöhnk (1964): beta times exponential.

    Python promises only ``random()`` to stay the same for ever, not its gamma variates.
    """
    while True:
        x = stream.random() ** (1 / _CONCENTRATION)
        y = stream.random() ** (1 / (1 - _CONCENTRATION))
        if 0 < x + y <= 1:
            return float(x / (x + y) * -math.log(1 - stream.random()))
