"""The PixelCNN distribution."""

from __future__ import annotations

from pyro_genmodels.distributions.autoregressive.base import SoftmaxAutoregressive


class PixelCNN(SoftmaxAutoregressive):
    r"""Distribution over images, one softmax over levels a sub-pixel.

    .. math:: p(x \mid c) = \prod_t \mathrm{softmax}(f(x_{<t}, c))_{x_t}

    over the sub-pixels in raster order, the channels of a pixel one after another.

    Args:
        net: Network that gives the logits, such as :class:`~pyro_genmodels.nets.PixelCNNNet`.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        validate_args: Whether to check values; Pyro's global setting by default.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> import torch
        >>> from pyro_genmodels.nets import PixelCNNNet
        >>> net = PixelCNNNet((1, 8, 8), 17, hidden_channels=8, num_classes=10)
        >>> digits = PixelCNN(net, torch.arange(10))
        >>> x = digits.sample((2,))
        >>> x.shape, digits.log_prob(x).shape
        (torch.Size([2, 10, 1, 8, 8]), torch.Size([2, 10]))
    """
