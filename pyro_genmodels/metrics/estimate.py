"""Means with their errors, their units, and gaps to a known optimum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeVar

from pyro_genmodels._checks import check, check_event_shape
from pyro_genmodels._typing import EventShape, Float, Num, Tensor

Nats = TypeVar("Nats", float, Tensor)


def bits_per_dim(nats: Nats, event_shape: EventShape) -> Nats:
    r"""Convert nats per example to bits per dimension of the data.

    .. math:: \text{bits/dim} = \frac{\text{nats}}{\ln 2 \cdot \text{data dimensions}}

    For the discrete data themselves: give the negative log-probability of the integers (or a
    bound on it), not the density of rescaled data. Each colour channel is a dimension.

    Args:
        nats: Negative log-likelihood in nats per example, or any difference of such.
        event_shape: Sizes of one example, ``(C, H, W)`` or ``(D,)``; of a sequence of such, with
            its number of frames in front.

    Example:
        >>> bits_per_dim(64 * math.log(2), (1, 8, 8))
        1.0
    """
    dimensions = check_event_shape(event_shape, ranks=(1, 2, 3, 4)).numel()
    return nats / (math.log(2) * dimensions)


@dataclass(frozen=True)
class Estimate:
    """A mean over examples with its standard error.

    Attributes:
        mean: Mean over examples.
        standard_error: Sample standard deviation over the root of ``n``; NaN if ``n`` is 1.
        n: Number of examples.

    Example:
        >>> import torch
        >>> estimate = Estimate.of(torch.tensor([1.0, 2.0, 3.0]))
        >>> print(estimate)
        2.00 ± 0.58 (n=3)
        >>> print(estimate.bits_per_dim((2,)))
        1.44 ± 0.42 (n=3)
    """

    mean: float
    standard_error: float
    n: int

    @classmethod
    def of(cls, values: Num[Tensor, "*batch"]) -> Estimate:
        """Estimate the mean of one value an example.

        Raises:
            ValueError: If there are no values.
        """
        check(values.numel() > 0, "values", "hold at least one example", "none")
        values = values.detach().double()
        n = values.numel()
        spread = values.std().item() if n > 1 else math.nan
        return cls(values.mean().item(), spread / math.sqrt(n), n)

    def bits_per_dim(self, event_shape: EventShape) -> Estimate:
        """Return the same estimate, in nats, converted to bits per dimension."""
        return Estimate(
            bits_per_dim(self.mean, event_shape),
            bits_per_dim(self.standard_error, event_shape),
            self.n,
        )

    def __str__(self) -> str:
        """Mean and standard error, to the error's second significant digit."""
        error = self.standard_error
        known = math.isfinite(error) and error > 0
        digits = min(max(1 - math.floor(math.log10(error)), 0), 12) if known else 4
        return f"{self.mean:.{digits}f} ± {error:.{digits}f} (n={self.n})"


def paired_gap(log_p_true: Num[Tensor, "*batch"], log_p_model: Num[Tensor, "*same"]) -> Estimate:
    r"""Estimate how far a model is from the true distribution, on the same examples.

    The mean of :math:`\log p_\text{true}(x) - \log p_\text{model}(x)` over samples of the truth
    estimates the Kullback-Leibler divergence (an upper bound of it if the model's is a lower
    bound). Its standard error is about ten times smaller than that of the likelihood alone.

    Args:
        log_p_true: Exact log-probability of each example, nats.
        log_p_model: The model's, nats.

    Returns:
        The gap in nats per example.

    Raises:
        ValueError: If the shapes differ.

    Example:
        >>> import torch
        >>> print(paired_gap(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.5])))
        0.25 ± 0.25 (n=2)
    """
    same = log_p_true.shape == log_p_model.shape
    shape = tuple(log_p_true.shape)
    check(same, "log_p_model", f"have shape {shape}", f"shape {tuple(log_p_model.shape)}")
    return Estimate.of(log_p_true.double() - log_p_model.double())


def atypicality(
    log_p: Num[Tensor, "*batch"], log_p_typical: Num[Tensor, "*others"]
) -> Float[Tensor, "*batch"]:
    r"""Return how far each example is from the typical ones, in nats: a score of anomalies.

    .. math:: \Big| \log p(x) - \frac1N \sum_{n=1}^{N} \log p(x_n) \Big|

    A model may find what it would never draw likelier than all that it was trained on, an image of
    each pixel's likeliest value for one. What tells is not a small likelihood, but another than the
    data have.

    Args:
        log_p: Log-probabilities, or :func:`importance_weighted_bound`, of the examples in question.
        log_p_typical: The same of data of the model's kind. Training data serve, as in the paper,
            unless the model has learned them by heart: then data held out.

    Returns:
        One score an example, float64.

    Raises:
        ValueError: If there are no typical examples.

    References:
        Nalisnick et al. (2019), Detecting out-of-distribution inputs to deep generative models
        using typicality, section 3, for single examples. https://arxiv.org/abs/1906.02994

    Example:
        >>> import torch
        >>> atypicality(torch.tensor([-9.0, -5.0, -1.0]), torch.tensor([-6.0, -4.0]))
        tensor([4., 0., 4.], dtype=torch.float64)
    """
    check(log_p_typical.numel() > 0, "log_p_typical", "hold at least one example", "none")
    return (log_p.double() - log_p_typical.double().mean()).abs()
