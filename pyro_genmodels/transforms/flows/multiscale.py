"""What makes a flow of images multi-scale: work on squeezed images, and on half of the channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributions import Transform

from pyro_genmodels.transforms.base.chain import common_context, context_for
from pyro_genmodels.transforms.base.event_types import Context, Event, MappedEvent
from pyro_genmodels.transforms.base.flow_transform import FlowTransform, as_flow
from pyro_genmodels.transforms.couplings.coupling import AffineCoupling
from pyro_genmodels.transforms.couplings.masks import ChannelMask
from pyro_genmodels.transforms.layers.squeeze import squeeze, unsqueeze


class OnSqueezed(FlowTransform):
    """Applies a transform to the squeezed image, and puts the pixels back in their places.

    Args:
        transform: Transform of ``(4 C, H / 2, W / 2)``.
        alternating: Order of the squeezed channels; see :class:`Squeeze`.
    """

    def __init__(self, transform: FlowTransform, *, alternating: bool = False) -> None:
        super().__init__(3)
        self.transform = transform
        self.alternating = alternating
        self.num_classes, self.context_shape = transform.num_classes, transform.context_shape

    def largest_value(self, noise: float) -> float:
        """Return the transform's bound."""
        return self.transform.largest_value(noise)

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the image after the transform, and its log-determinant."""
        squeezed = squeeze(x, alternating=self.alternating)
        y, log_det = self.transform.forward_and_log_det(squeezed, context)
        return unsqueeze(y, alternating=self.alternating), log_det

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the image before the transform, and the log-determinant of its inverse."""
        squeezed = squeeze(y, alternating=self.alternating)
        x, log_det = self.transform.inverse_and_log_det(squeezed, context)
        return unsqueeze(x, alternating=self.alternating), log_det


class FactorOut(FlowTransform):
    r"""Lets one half of the channels go on through a transform, and the other out to the noise.

    From data to noise, the channels are divided into :math:`h`, the first half (of an odd number,
    the smaller), and :math:`z`. With a prior network :math:`z` is standardised by the Gaussian
    that the network predicts from :math:`h`, which is a learned conditional prior
    :math:`p(z \mid h)`; then :math:`h` goes on. The factored-out half is carried along, so that
    noise has the size of the data and the flow stays an ordinary transform.

    Args:
        transform: Transform of the half that goes on, an image of half the channels.
        prior: Network from the channels that go on to twice those that do not, log-scales (of the
            map to noise) first; see :class:`AffineCoupling` with ``scale="exp"``. Without it the
            prior is a standard Gaussian.
        max_amplification: Bound on the deviations that the prior network gives, and their
            inverses; see :class:`AffineCoupling`.

    Raises:
        ValueError: If the transform is not of this package, an image has one channel only, the
            network returns another number of features, or the two take different contexts.

    References:
        Dinh et al. (2017), RealNVP, section 3.6. https://arxiv.org/abs/1605.08803. Kingma and
        Dhariwal (2018), Glow, section 3.4 and its code. https://arxiv.org/abs/1807.03039

    Example:
        >>> import torch
        >>> from pyro_genmodels import nets, transforms
        >>> rest = transforms.InvertibleLinear(2)
        >>> layer = FactorOut(rest, nets.ConvNet(2, 4, zero_init=True))
        >>> layer(torch.zeros(5, 4, 3, 3)).shape
        torch.Size([5, 4, 3, 3])
    """

    def __init__(
        self,
        transform: Transform,
        prior: nn.Module | None = None,
        *,
        max_amplification: float | None = None,
    ) -> None:
        transform = as_flow("transform", transform)
        super().__init__(3)
        self.transform = transform
        self.mask = ChannelMask()
        bound: dict[str, Any] = {"max_amplification": max_amplification}
        net = prior
        self.prior = None if net is None else AffineCoupling(self.mask, net, scale="exp", **bound)
        parts = [transform] if self.prior is None else [transform, self.prior]
        self.num_classes, self.context_shape = common_context(parts)

    def largest_value(self, noise: float) -> float:
        """Return the larger bound of the two halves."""
        kept = self.transform.largest_value(noise)
        return kept if self.prior is None else max(kept, self.prior.largest_value(noise))

    def forward_and_log_det(self, x: Event, context: Context = None) -> MappedEvent:
        """Return the data of the noise ``x`` and the log-determinant."""
        self.mask.check(x.shape[-3:])
        kept, out = self.mask.divide(x)
        context_here = context_for(self.transform, context)
        kept, log_det = self.transform.forward_and_log_det(kept, context_here)
        y = self.mask.merge(kept, out)
        if self.prior is None:
            return y, log_det
        y, log_det_of_prior = self.prior.forward_and_log_det(y, context_for(self.prior, context))
        return y, log_det + log_det_of_prior

    def inverse_and_log_det(self, y: Event, context: Context = None) -> MappedEvent:
        """Return the noise of the data ``y`` and the log-determinant."""
        self.mask.check(y.shape[-3:])
        log_det_of_prior: Tensor | float = 0.0
        if self.prior is not None:
            context_here = context_for(self.prior, context)
            y, log_det_of_prior = self.prior.inverse_and_log_det(y, context_here)
        kept, out = self.mask.divide(y)
        context_here = context_for(self.transform, context)
        kept, log_det = self.transform.inverse_and_log_det(kept, context_here)
        return self.mask.merge(kept, out), log_det + log_det_of_prior
