"""An amortised posterior that is more than a Gaussian: one that passes through transforms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from pyro.distributions.conditional import ConditionalTransform
from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import nn
from torch.distributions import Transform

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.transforms.interop.density import FlowDensity, as_list, conditioned, modules

PosteriorTransforms: TypeAlias = (
    Transform | ConditionalTransform | Sequence[Transform | ConditionalTransform]
)


class FlowPosterior(nn.Module):
    r"""What transforms make of the encoder's Gaussian.

    .. math:: z = f_T \circ \dots \circ f_1(z_0; h(x)), \quad
        z_0 \sim N(\mu(x), \mathrm{diag}\,\sigma^2(x))

    Args:
        transforms: Transforms of vectors, or of their entries, in the order of sampling; those
            that are conditional take the encoder's extra features :math:`h`.
        num_features: How many extra features the encoder gives.

    Raises:
        ValueError: If there is a conditional transform and no feature, or a feature and nobody
            to take it; or if a transform is of images.

    References:
        Rezende and Mohamed (2015), Variational inference with normalizing flows. Kingma et al.
        (2016), Improved variational inference with inverse autoregressive flow, section 3.
    """

    def __init__(self, transforms: PosteriorTransforms, *, num_features: int = 0) -> None:
        super().__init__()
        self.transforms = as_list(transforms)
        takes = any(isinstance(part, ConditionalTransform) for part in self.transforms)
        rule = "be positive with a conditional transform" if takes else "be 0 without one"
        check((num_features > 0) == takes, "posterior_features", rule, num_features)
        ranks = [_rank(part) for part in self.transforms]
        check(all(rank <= 1 for rank in ranks), "posterior_transforms", "be of vectors", ranks)
        self.parts = modules(self.transforms)
        self.num_features = num_features

    def forward(
        self, gaussian: TorchDistributionMixin, features: Float[Tensor, "*batch H"]
    ) -> TorchDistributionMixin:
        """Return the posterior.

        Args:
            gaussian: The encoder's distribution of vectors.
            features: Its extra features.
        """
        context = features if self.num_features else None
        return FlowDensity(gaussian, conditioned(self.transforms, context))


def _rank(part: Any) -> int:
    """Return the rank of what a transform takes; Pyro's conditional ones do not say."""
    domain = getattr(part, "domain", None) or getattr(getattr(part, "flow", None), "domain", None)
    return 1 if domain is None else int(domain.event_dim)
