"""Distributions over images, one for each family of networks."""

from __future__ import annotations

from pyro_genmodels.distributions.autoregressive.base import (
    AutoregressiveDistribution,
    SoftmaxAutoregressive,
)
from pyro_genmodels.nets import (
    GatedPixelCNNNet,
    MultiScaleNet,
    PixelCNNNet,
    PixelCNNPlusPlusNet,
    PixelRNNNet,
    PixelSNAILNet,
)


class PixelCNN(SoftmaxAutoregressive):
    r"""Distribution over images, one softmax over levels a sub-pixel.

    .. math:: p(x \mid c) = \prod_t \mathrm{softmax}(f(x_{<t}, c))_{x_t}

    over the sub-pixels in raster order, the channels of a pixel one after another.

    Args:
        net: A :class:`~pyro_genmodels.nets.PixelCNNNet`, or any other network whose parameters
            are logits.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> import torch
        >>> net = PixelCNNNet((1, 8, 8), 17, hidden_channels=8, num_classes=10)
        >>> digits = PixelCNN(net, torch.arange(10))
        >>> x = digits.sample((2,))
        >>> x.shape, digits.log_prob(x).shape
        (torch.Size([2, 10, 1, 8, 8]), torch.Size([2, 10]))
    """

    network = PixelCNNNet
    takes_others = True


class GatedPixelCNN(SoftmaxAutoregressive):
    r"""Distribution over images, one softmax over levels a sub-pixel, by a gated network.

    .. math:: p(x \mid c) = \prod_t \mathrm{softmax}(f(x_{<t}, c))_{x_t}

    over the sub-pixels in raster order, the channels of a pixel one after another.

    Args:
        net: Network that gives the logits.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
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


class PixelCNNPlusPlus(AutoregressiveDistribution):
    r"""Distribution over images, one discretised mixture of logistics a pixel.

    .. math:: p(x \mid c) = \prod_{\text{pixels}} \sum_k \pi_k \prod_i
        P\big(x_i; \mu_{ki} + \textstyle\sum_{j<i} \alpha_{kij} x_j, s_{ki}\big)

    over the pixels in raster order, whose parameters the network gives from the pixels before.
    Exact for every parameter, hence normalised before any training; samples are the very integers
    that are scored, drawn by the Gumbel trick over the levels.

    Args:
        net: The network.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, or the context is not what it was declared to take.

    References:
        Salimans et al. (2017), PixelCNN++. https://arxiv.org/abs/1701.05517

    Example:
        >>> import torch
        >>> net = PixelCNNPlusPlusNet((1, 4, 4), 17, hidden_channels=4, num_classes=10)
        >>> digits = PixelCNNPlusPlus(net, torch.arange(10))
        >>> x = digits.sample((2,), method="parallel")
        >>> x.shape, digits.log_prob(x).shape
        (torch.Size([2, 10, 1, 4, 4]), torch.Size([2, 10]))
    """

    network = PixelCNNPlusPlusNet


class PixelRNN(SoftmaxAutoregressive):
    r"""Distribution over images, one softmax over levels a sub-pixel, by Row or Diagonal LSTMs.

    .. math:: p(x \mid c) = \prod_t \mathrm{softmax}(f(x_{<t}, c))_{x_t}

    over the sub-pixels in raster order, the channels of a pixel one after another.

    Args:
        net: Network that gives the logits.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, for which :class:`PixelCNN` is the general name, or
            the context is not what it was declared to take.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> import torch
        >>> net = PixelRNNNet((1, 6, 6), 17, hidden_channels=4, num_layers=1, num_classes=10)
        >>> digits = PixelRNN(net, torch.arange(10))
        >>> x = digits.sample((2,))
        >>> x.shape, digits.log_prob(x).shape
        (torch.Size([2, 10, 1, 6, 6]), torch.Size([2, 10]))
    """

    network = PixelRNNNet


class MultiScalePixelRNN(SoftmaxAutoregressive):
    r"""Distribution over images: a small image first, then the rest of the large one.

    .. math:: p(x \mid c) = p(x_{small} \mid c) \; p(x_{rest} \mid x_{small}, c)

    The small image is every s-th pixel. ``sample(given=x, num_given=n)`` with ``n`` the number of
    its sub-pixels draws larger versions of it.

    Args:
        net: The two networks in one; any autoregressive ones with a softmax will do.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, or the context is not what it was declared to take.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks, section 3.6.
        https://arxiv.org/abs/1601.06759

    Example:
        >>> sizes = {"hidden_channels": 4, "num_layers": 1}
        >>> small = PixelRNNNet((1, 3, 3), 17, **sizes)
        >>> large = PixelRNNNet((1, 6, 6), 17, context_shape=(4, 6, 6), **sizes)
        >>> images = MultiScalePixelRNN(MultiScaleNet(small, large))
        >>> x = images.sample((2,))
        >>> again = images.sample((2,), given=x, num_given=9)
        >>> bool((again[..., ::2, ::2] == x[..., ::2, ::2]).all())
        True
    """

    network = MultiScaleNet


class PixelSNAIL(SoftmaxAutoregressive):
    r"""Distribution over images, one softmax over levels a sub-pixel, by a network with attention.

    .. math:: p(x \mid c) = \prod_t \mathrm{softmax}(f(x_{<t}, c))_{x_t}

    over the sub-pixels in raster order, the channels of a pixel one after another.

    Args:
        net: Network that gives the logits.
        context: Labels, vectors or maps, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, for which :class:`PixelCNN` is the general name, or
            the context is not what it was declared to take.

    References:
        Chen et al. (2018), PixelSNAIL: an improved autoregressive generative model.
        https://arxiv.org/abs/1712.09763

    Example:
        >>> import torch
        >>> net = PixelSNAILNet((1, 8, 8), 17, hidden_channels=8, num_classes=10)
        >>> digits = PixelSNAIL(net, torch.arange(10))
        >>> x = digits.sample((2,))
        >>> x.shape, digits.log_prob(x).shape
        (torch.Size([2, 10, 1, 8, 8]), torch.Size([2, 10]))
    """

    network = PixelSNAILNet
