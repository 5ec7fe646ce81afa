"""A hidden Markov chain of symbols: sequences whose exact probability sums over all paths."""

from __future__ import annotations

import itertools
import math
import random
from typing import Literal

import torch

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._typing import Float, Num, Tensor
from pyro_genmodels.data.base.exact_distribution import ExactDistribution
from pyro_genmodels.data.exact.markov import random_table

_MOST_ENUMERATED = 2**16
_DRAWS = 20_000  # for an entropy that cannot be enumerated


class HiddenMarkov(ExactDistribution):
    r"""A sequence of symbols, each drawn given the hidden state of a Markov chain.

    .. math:: p(x) = \sum_{s} \prod_t A_{s_{t-1} s_t} B_{s_t x_t}

    with state 0 before the first step, as :class:`MarkovChain` has it, so that row 0 of A is the
    distribution of the first state. Both tables are random but fixed by ``seed``. A model with as
    many states can reach the entropy; no model that sees a fixed number of symbols can.

    Args:
        length: Number of symbols of a sequence.
        num_states: Number K of hidden states.
        num_levels: Number of symbols.
        sticky: Weight of staying in the state, from 0 to below 1; the rest is a random table's,
            :math:`A = \text{sticky}\, I + (1 - \text{sticky})\, R`.
        emissions: ``"random"``: a random table B; ``"identity"``: each state shows its own symbol,
            which makes ``sticky=0`` the :class:`MarkovChain` of order 1 with the same seed.
        seed: Seed of the tables.
        validate_args: Whether values are checked.

    Attributes:
        initial: Probabilities of the first state, ``(K,)``.
        transition: The table A, ``(K, K)``, the earlier state first.
        emission: The table B, ``(K, num_levels)``.
        entropy_error: Standard error of :meth:`entropy`, in nats: zero up to 65,536 possible
            sequences, which are enumerated; beyond them the entropy is estimated from 20,000 draws,
            always the same.

    Raises:
        ValueError: If a number is out of its range, or identity emissions have not as many symbols
            as states.

    Example:
        >>> truth = HiddenMarkov(12, num_states=3, num_levels=4)
        >>> x = truth.sample((5,))
        >>> x.shape, truth.log_prob(x).shape
        (torch.Size([5, 12]), torch.Size([5]))
    """

    def __init__(
        self,
        length: int = 60,
        *,
        num_states: int = 4,
        num_levels: int = 8,
        sticky: float = 0.8,
        emissions: Literal["random", "identity"] = "random",
        seed: int = 0,
        validate_args: bool | None = None,
    ) -> None:
        check_positive(length=length, num_states=num_states)
        check(num_levels >= 2, "num_levels", "be at least 2", num_levels)
        check(0 <= sticky < 1, "sticky", "be at least 0 and below 1", sticky)
        check_choice("emissions", emissions, ("random", "identity"))
        fits = emissions == "random" or num_levels == num_states
        rule = f"be num_states={num_states} for identity emissions"
        check(fits, "num_levels", rule, num_levels)
        super().__init__((length,), num_levels=num_levels, validate_args=validate_args)
        self.length, self.num_states = length, num_states
        stream = random.Random(seed)
        table = random_table(stream, (num_states, num_states))
        identity = torch.eye(num_states, dtype=table.dtype)
        self.transition = sticky * identity + (1 - sticky) * table
        self.initial = self.transition[0]
        identical = emissions == "identity"
        self.emission = identity if identical else random_table(stream, (num_states, num_levels))
        self._entropy: tuple[float, float] | None = None

    def draw(self, count: int) -> Num[Tensor, "{count} t"]:
        """Draw state by state, and a symbol from each."""
        state = torch.multinomial(self.initial.expand(count, -1), 1).squeeze(-1)
        symbols = []
        for _ in range(self.length):
            symbols.append(torch.multinomial(self.emission[state], 1).squeeze(-1))
            state = torch.multinomial(self.transition[state], 1).squeeze(-1)
        return torch.stack(symbols, -1)

    def log_density(self, value: Num[Tensor, "n t"]) -> Float[Tensor, " n"]:
        """Return the log-probability of sequences, by the forward recursion."""
        emitted = self.emission.mT[value.long()]  # (n, t, K)
        chance = self.initial * emitted[:, 0]
        nats = chance.new_zeros(len(chance))
        for t in range(1, self.length + 1):
            total = chance.sum(-1, keepdim=True)
            nats = nats + total.squeeze(-1).log()
            if t < self.length:
                chance = chance / torch.where(total > 0, total, torch.ones_like(total))
                chance = (chance @ self.transition) * emitted[:, t]
        return nats

    def entropy_nats(self) -> float:
        """Return the entropy, by enumeration or from draws: see ``entropy_error``."""
        return self._entropy_and_error()[0]

    @property
    def entropy_error(self) -> float:
        """Standard error of :meth:`entropy` in nats, zero of an enumeration."""
        return self._entropy_and_error()[1]

    @torch.no_grad()
    def _entropy_and_error(self) -> tuple[float, float]:
        if self._entropy is None:
            levels = self.emission.shape[1]
            enumerable = levels**self.length <= _MOST_ENUMERATED
            self._entropy = self._enumerated(levels) if enumerable else self._estimated()
        return self._entropy

    def _enumerated(self, levels: int) -> tuple[float, float]:
        every = itertools.product(range(levels), repeat=self.length)
        values = torch.tensor(list(every), device=self.device)
        return float(torch.special.entr(self.log_density(values).exp()).sum()), 0.0

    def _estimated(self) -> tuple[float, float]:
        tables = self.to("cpu")  # so that the draws are the same on every machine
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            nats = -tables.log_density(tables.draw(_DRAWS))
        return float(nats.mean()), float(nats.std() / math.sqrt(_DRAWS))
