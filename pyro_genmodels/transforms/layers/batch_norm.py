"""Batch normalisation as a bijection."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check, check_positive, integers_checked
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.featurewise import FeaturewiseFlow


class BatchNorm(FeaturewiseFlow):
    r"""Standardises each feature of a vector, or each channel of an image.

    .. math:: x = \frac{y - \mu}{\sqrt{\sigma^2 + \epsilon}}

    from data :math:`y` to noise :math:`x`. In evaluation the moments are running averages; then it
    is a bijection like any other. In training, data are standardised by the moments of their own
    batch, so that the density of one depends on the others, and noise by the running averages;
    this helps a deep flow to train, but a training-mode density is no density of single events.

    Args:
        num_features: Length of the vectors or number of channels.
        event_dim: 1 for vectors, 3 for images.
        momentum: Share of a batch in the running averages.
        epsilon: :math:`\epsilon`.

    Raises:
        ValueError: If a number is not positive, ``momentum`` exceeds 1, or ``event_dim`` is
            another. In training, if there is one value of a feature only.

    References:
        Dinh et al. (2017), RealNVP, section 3.7 and appendix E. https://arxiv.org/abs/1605.08803

    Example:
        >>> layer = BatchNorm(3, event_dim=1)
        >>> x = layer.inv(5 + 2 * torch.randn(1000, 3))
        >>> bool(x.mean(0).abs().max() < 1e-5)
        True
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        event_dim: int = 3,
        momentum: float = 0.1,
        epsilon: float = 1e-4,
    ) -> None:
        check_positive(momentum=momentum, epsilon=epsilon)
        check(momentum <= 1, "momentum", "be at most 1", momentum)
        super().__init__(num_features, event_dim=event_dim)
        self.momentum, self.epsilon = momentum, epsilon
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant, by the running averages."""
        self._check_features(x)
        mean, log_scale = self._of_moments(self.running_mean, self.running_var)
        return x * torch.exp(-log_scale) + mean, -self._over_event(x, log_scale.sum())

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant."""
        self._check_features(y)
        moments = self._of_batch(y) if self.training else (self.running_mean, self.running_var)
        mean, log_scale = self._of_moments(*moments)
        return (y - mean) * torch.exp(log_scale), self._over_event(y, log_scale.sum())

    def _of_batch(self, y: Tensor) -> tuple[Tensor, Tensor]:
        dims = [dim for dim in range(-y.dim(), 0) if dim != -self.domain.event_dim]
        count = y.numel() // self.num_features
        check(count > 1, "y", "have two values of each feature or more in training", count)
        var, mean = torch.var_mean(y, dims, unbiased=False)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        return mean, var

    def _of_moments(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, *(1,) * (self.domain.event_dim - 1))
        return mean.reshape(shape), -0.5 * torch.log(var + self.epsilon).reshape(shape)


@integers_checked
@takes_arguments_of(BatchNorm, without=["num_features"], event_dim=1)
def batch_norm(input_dim: int, **options: Any) -> BatchNorm:
    """Return a :class:`BatchNorm` of vectors of ``input_dim``.

    Args:
        input_dim: Length of the vectors.
        options: Others.

    Example:
        >>> batch_norm(3).num_features
        3
    """
    return BatchNorm(input_dim, **options)
