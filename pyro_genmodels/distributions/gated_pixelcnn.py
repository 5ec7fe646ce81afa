"""The gated PixelCNN distribution."""

from __future__ import annotations

from pyro_genmodels.distributions.autoregressive.base import SoftmaxAutoregressive
from pyro_genmodels.nets import GatedPixelCNNNet


class GatedPixelCNN(SoftmaxAutoregressive):
    r"""Distribution over images, one softmax over levels a sub-pixel, by a gated network.

    .. math:: p(x \mid c) = \prod_t \mathrm{softmax}(f(x_{<t}, c))_{x_t}

    over the sub-pixels in raster order, the channels of a pixel one after another.

    Args:
        net: Network that gives the logits.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, for which :class:`PixelCNN` is the general name, or
            the context is not what it was declared to take.

    References:
        van den Oord et al. (2016), Conditional image generation with PixelCNN decoders.
        https://arxiv.org/abs/1606.05328

    Example:
        >>> import torch
        >>> net = GatedPixelCNNNet((1, 8, 8), 17, hidden_channels=8, num_classes=10)
        >>> digits = GatedPixelCNN(net, torch.arange(10))
        >>> x = digits.sample((2,))
        >>> x.shape, digits.log_prob(x).shape
        (torch.Size([2, 10, 1, 8, 8]), torch.Size([2, 10]))
    """

    network = GatedPixelCNNNet
