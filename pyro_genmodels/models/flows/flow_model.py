"""A normalizing flow as a model/guide pair, on continuous or on dequantised discrete data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from pyro import distributions as dist
from pyro.distributions.conditional import ConditionalTransform
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch.distributions.transforms import AffineTransform, Transform

from pyro_genmodels._checks import check_choice
from pyro_genmodels._typing import EventShape, GivenContext, ScaleName, Tensor
from pyro_genmodels.distributions.logistic import FiniteLogistic
from pyro_genmodels.distributions.uniform import ClosedUniform
from pyro_genmodels.models.base.generative_model import DensityModel
from pyro_genmodels.models.flows.checks import check_transforms
from pyro_genmodels.models.flows.variational_dequantization import (
    VariationalDequantization,
    make_dequantizer,
)
from pyro_genmodels.nets.layers import DerivedBuffers
from pyro_genmodels.transforms.interop import (
    FlowDensity,
    as_list,
    conditioned,
    forget,
    modules,
    settle_range,
)

# Each takes zeros and ones: location and scale, or the ends.
_BASES: Mapping[str, Any] = MappingProxyType(
    {"normal": dist.Normal, "logistic": FiniteLogistic, "uniform": ClosedUniform}
)


class FlowModel(DensityModel, DerivedBuffers):
    r"""Data are noise seen through invertible transforms.

    On continuous data site ``"x"`` is the flow itself. On discrete data the flow is the prior of a
    continuous site ``"v"`` in :math:`[0, \text{num\_levels})`, of which ``"x"`` observes the
    floor; the guide of ``"v"`` is the dequantisation. Its ELBO is then a bound on the discrete
    likelihood and nothing is left to do by hand.

    Args:
        event_shape: Sizes of one data point.
        transforms: The flow from noise to data, in that order: any of Pyro's or torch's
            transforms, plain or conditional. On discrete data its output is in units of the whole
            range, 0 to 1.
        num_levels: As for every model; ``None`` for continuous data.
        num_classes: As for every model; needs a conditional transform.
        context_shape: As for every model; needs a conditional transform.
        base: ``"normal"`` or ``"logistic"`` noise; ``"uniform"``, on the unit box, for flows from
            box to box.
        dequantization: ``"uniform"`` noise within each level; ``"variational"``, noise from a small
            flow that is given the data and is learned with the model, a bound that is tighter for
            a second flow's cost in training and in evaluation; or your own conditional transform
            in its place, whose events and contexts both have ``event_shape``. The context that it
            sees are the data, scaled to [-1, 1], and not the labels or features of a conditional
            model.

    Raises:
        ValueError: If an argument is not among its choices, or a dequantisation does not fit.

    References:
        Dinh et al. (2017), Density estimation using Real NVP. Theis et al. (2016), A note on the
        evaluation of generative models (dequantisation). Ho et al. (2019), Flow++, section 3.1
        (variational dequantisation). https://arxiv.org/abs/1902.00275

    Example:
        >>> from pyro_genmodels.transforms import RealNVP
        >>> flow = FlowModel((1, 8, 8), RealNVP((1, 8, 8)), num_levels=17)
        >>> flow.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "learning_rate": 3e-3,
            "warmup_steps": 50,
            "schedule": "cosine",
            "batch_size": 64,
            "max_epochs": 60,
            "ema_decay": 0.99,
            "gradient_clip": 50.0,
        }
    )

    origin: Tensor

    def __init__(
        self,
        event_shape: EventShape,
        transforms: Transform | ConditionalTransform | Sequence[Transform | ConditionalTransform],
        *,
        num_levels: int | None = None,
        num_classes: int | None = None,
        context_shape: EventShape | None = None,
        base: str = "normal",
        dequantization: str | ConditionalTransform = "uniform",
    ) -> None:
        super().__init__(
            event_shape, num_levels=num_levels, num_classes=num_classes, context_shape=context_shape
        )
        check_choice("base", base, _BASES)
        self.base = base
        flow = make_dequantizer(dequantization, self.event_shape, num_levels)
        self.dequantization = "uniform" if flow is None else "variational"
        self.dequantizer = (
            None
            if flow is None or num_levels is None
            else VariationalDequantization(flow, self.event_shape, num_levels)
        )
        self.transforms = as_list(transforms)
        check_transforms(self.transforms, self.event_shape, num_classes, self.context_shape)
        self.parts = modules(self.transforms)
        self.register_derived("origin", partial(torch.zeros, ()))

    @property
    def display_name(self) -> str:
        """The transform's, if it is one alone."""
        one = len(self.transforms) == 1
        return type(self.transforms[0]).__name__ if one else super().display_name

    def density(self, context: GivenContext = None) -> Any:
        """Return the flow's density over one event, or over each context's.

        Args:
            context: Labels or features, if the flow is conditional.

        Returns:
            A distribution of data, or of dequantised data in ``[0, num_levels)``.
        """
        self.remember_parameters()
        context = self._given(context)
        forget(self.transforms)
        transforms = conditioned(self.transforms, context)
        if self.num_levels is not None:
            event_dim = len(self.event_shape)
            transforms.append(AffineTransform(0.0, float(self.num_levels), event_dim=event_dim))
        density = FlowDensity(self._noise(context), transforms)
        return self.standardization.in_data_units(density, self.dtype)

    def __getstate__(self) -> dict[str, Any]:
        forget(self.transforms)
        return super().__getstate__()

    @property
    def standardization_scale(self) -> ScaleName | None:
        """None of flows that settle the data's range, or their scale by an affine map of constants.

        That is noise on the unit box, a transform whose values are bounded, unless a later one
        leads back to all numbers, or torch's ``AffineTransform`` anywhere among the transforms.
        """
        settled = self.base == "uniform" or settle_range(self.transforms)
        return None if settled else super().standardization_scale

    @property
    def bound_kind(self) -> str:
        """The exact log-likelihood of continuous data, else the dequantisation's bound."""
        return f"{self.dequantization}-dequantisation" if self.has_latents else "exact"

    def dequantized(self, x: Tensor) -> Any:
        """Return the distribution of the values that round down to data.

        Args:
            x: Levels ``(*batch, *event)``.
        """
        if self.dequantizer is None:
            return super().dequantized(x)
        return self.dequantizer(x.to(self.dtype))

    def _noise(self, context: Tensor | None) -> TorchDistributionMixin:
        """Return the noise of each context's events, which not all transforms broadcast."""
        zero = self.origin.expand(self.event_shape)
        noise = _BASES[self.base](zero, zero + 1, validate_args=False)
        event: TorchDistributionMixin = noise.to_event(len(self.event_shape))
        if context is None:
            return event
        rank = self.context_event_dim or 0
        return event.expand(context.shape[: context.dim() - rank])
