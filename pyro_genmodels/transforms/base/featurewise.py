"""The base of maps of a vector's features, or of each pixel's channels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels.transforms.base.flow_transform import FlowTransform


class FeaturewiseFlow(FlowTransform, Abstract):
    """One map of a number of features, applied to a vector or at every pixel of an image.

    Args:
        num_features: Length of the vectors or number of channels.
        event_dim: 1 for vectors, 3 for images.

    Raises:
        ValueError: If there is no feature, or events are neither vectors nor images.
    """

    def __init__(self, num_features: int, *, event_dim: int) -> None:
        check_positive(num_features=num_features)
        check_choice("event_dim", event_dim, (1, 3))
        event_shape = torch.Size([num_features]) if event_dim == 1 else None
        super().__init__(event_dim, event_shape=event_shape)
        self.num_features = num_features

    def _check_features(self, x: Tensor) -> None:
        found = x.shape[-self.domain.event_dim]
        check(found == self.num_features, "event", f"have {self.num_features} features", found)

    def _over_event(self, x: Tensor, log_det: Tensor) -> Tensor:
        """Return a pixel's log-determinant times the pixels of ``x``, for each of its batch."""
        rank = self.domain.event_dim
        pixels = math.prod(x.shape[x.dim() - rank :]) // self.num_features
        return log_det.expand(x.shape[: x.dim() - rank]) * pixels
