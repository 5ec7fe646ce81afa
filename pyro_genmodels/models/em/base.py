"""The two halves of expectation-maximisation: what emits the data, and where labels come from."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch

from pyro_genmodels._typing import Float, Int, Tensor


class ComponentFamily(ABC):
    """The data given their labels: scores of all rows, and their maximum given responsibilities.

    An object holds the training rows and float64 parameters, apart from the model's until
    :meth:`write` copies them there.

    Attributes:
        num_rows: Number of rows N.
        num_components: Number of labels K.
    """

    num_rows: int
    num_components: int

    @abstractmethod
    def start(self, generator: torch.Generator) -> None:
        """Set the parameters to a random start, such as that of k-means++.

        Args:
            generator: Random numbers of this start.
        """

    @abstractmethod
    def read(self) -> None:
        """Set the parameters to those of the model."""

    @abstractmethod
    def log_probs(self) -> Float[Tensor, "N K"]:
        """Return the log-probability of each row under each component, in nats."""

    @abstractmethod
    def maximise(self, responsibilities: Float[Tensor, "N K"]) -> None:
        """Set the parameters to their maximum of the expected log-likelihood and prior.

        Args:
            responsibilities: Probability of each label for each row, times the row's weight.
        """

    @abstractmethod
    def log_prior(self) -> float:
        """Return the log-density of the priors at the parameters, in nats; 0 without priors."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of free parameters."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the parameters, for :meth:`load`."""

    @abstractmethod
    def load(self, state: dict[str, Tensor]) -> None:
        """Set the parameters to those that :meth:`state` returned."""

    @abstractmethod
    def write(self) -> None:
        """Copy the parameters into the model."""


class LatentStructure(ABC):
    """Where labels come from: the weights of a mixture, or a Markov chain along sequences."""

    @abstractmethod
    def start(self, generator: torch.Generator) -> None:
        """Set the parameters to a start."""

    @abstractmethod
    def read(self) -> None:
        """Set the parameters to those of the model."""

    def align(self, log_probs: Float[Tensor, "N K"]) -> Float[Tensor, "N K"] | None:
        """Return responsibilities that give the components of a random start their known labels.

        None, as of a structure without known labels, leaves the components in their order.

        Args:
            log_probs: What :meth:`ComponentFamily.log_probs` returns after a start.
        """
        return None

    @abstractmethod
    def expect(self, log_probs: Float[Tensor, "N K"]) -> tuple[float, Float[Tensor, "N K"]]:
        """Return the data's log-likelihood and the responsibilities of each row, in nats.

        Both are weighted: the structure holds the rows' weights, and responsibilities have been
        multiplied by them. Also keeps what :meth:`maximise` takes.

        Args:
            log_probs: What :meth:`ComponentFamily.log_probs` returns.
        """

    @abstractmethod
    def maximise(self) -> None:
        """Set the parameters to their maximum given the last expectations."""

    def revive(self, labels: Int[Tensor, " n"]) -> None:  # noqa: B027 - most need nothing
        """Make labels that have no rows probable enough to be taken up again.

        Called after :meth:`maximise`, when components without rows were moved to the rows explained
        worst. A structure that does nothing here leaves such components without rows.

        Args:
            labels: The labels without rows.
        """

    @abstractmethod
    def log_prior(self) -> float:
        """Return the log-density of the priors at the parameters, in nats."""

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of free parameters."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return the parameters, for :meth:`load`."""

    @abstractmethod
    def load(self, state: dict[str, Tensor]) -> None:
        """Set the parameters to those that :meth:`state` returned."""

    @abstractmethod
    def write(self) -> None:
        """Copy the parameters into the model."""
