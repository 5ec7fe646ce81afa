"""The law of one element given the network's parameters: how it scores, and how it is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Num


class OutputLaw(ABC):
    """What an autoregressive distribution needs of the law of one element.

    A draw is a deterministic function of the parameters and of noise that was drawn beforehand:
    that is what lets different ways of sampling give the same values.
    """

    @abstractmethod
    def log_prob(
        self, parameters: Float[Tensor, "*batch parameters"], level: Num[Tensor, ...]
    ) -> Float[Tensor, "*batch"]:
        """Return the log-probability of ``level``, whose shape broadcasts to ``*batch``."""

    @abstractmethod
    def noise(
        self, batch_size: int, elements: int, generator: torch.Generator
    ) -> Float[Tensor, "batch elements noise"]:
        """Draw the noise of some elements, in float64."""

    @abstractmethod
    def draw(
        self, parameters: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> Num[Tensor, "*batch"]:
        """Return the level that the noise picks; ``noise`` is already times the temperature."""

    @abstractmethod
    def margin(
        self, parameters: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return how far a draw is from being another one, and by how much errors may change that.

        Args:
            parameters: Of whole rows, in the order of generation.
            noise: The noise.

        Returns:
            The lead, which is continuous in the parameters; and its change over the errors of the
            network's outputs, about half of the sum of what each contributes.
        """

    def magnitude(self, parameters: Float[Tensor, "*batch parameters"]) -> Float[Tensor, "*batch"]:
        """Return the size of the largest parameter, in proportion to which they are rounded."""
        return parameters.abs().amax(-1)


def positive_uniform(size: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, ...]:
    """Return uniform variables in float64, all above zero."""
    uniform = torch.rand(size, dtype=torch.float64, device=generator.device, generator=generator)
    # Zero, one draw in 2**53, would give an infinity.
    return uniform.clamp_min_(2.0**-54)


def gumbel(size: tuple[int, ...], generator: torch.Generator) -> Float[Tensor, ...]:
    """Return standard Gumbel variables in float64."""
    # Not by `exponential_`, which is thrice as slow on a CPU.
    return positive_uniform(size, generator).log_().neg_().log_().neg_()


class Softmax(OutputLaw):
    """A softmax over levels, drawn by the Gumbel trick.

    One Gumbel variable a level. Of two laws that differ by little, nearly the largest possible
    share of the noise picks the same level, so parallel sampling settles soon; and the winner's
    lead over the second is seldom small (below t for less than a share t of the draws, however
    many levels there are), so rounding seldom matters.
    """

    def __init__(self, num_levels: int) -> None:
        self.num_levels = num_levels

    def log_prob(
        self, parameters: Float[Tensor, "*batch parameters"], level: Num[Tensor, ...]
    ) -> Float[Tensor, "*batch"]:
        """Return the log-probability of ``level``."""
        self._check(parameters)
        index = level.long().expand(parameters.shape[:-1])[..., None]
        # Half precision would lose the likelihood's third digit.
        wide = torch.promote_types(parameters.dtype, torch.float32)
        return F.log_softmax(parameters, -1, dtype=wide).gather(-1, index)[..., 0]

    def noise(
        self, batch_size: int, elements: int, generator: torch.Generator
    ) -> Float[Tensor, "batch elements noise"]:
        """Draw standard Gumbel variables."""
        return gumbel((batch_size, elements, self.num_levels), generator)

    def draw(
        self, parameters: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> Num[Tensor, "*batch"]:
        """Return the level whose logit plus noise is largest."""
        self._check(parameters)
        return (parameters + noise).argmax(-1)

    def margin(
        self, parameters: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return the winner's lead over the second, and one."""
        first, second = (parameters + noise).topk(2).values.unbind(-1)
        return first - second, torch.ones_like(first)

    def _check(self, parameters: Tensor) -> None:
        # Another law's parameters would give levels that need not sum to one.
        given = parameters.shape[-1]
        rule = f"give {self.num_levels} logits an element for a softmax"
        check(given == self.num_levels, "net", rule, f"{given} parameters")
