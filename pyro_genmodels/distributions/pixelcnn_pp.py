"""The PixelCNN++ distribution."""

from __future__ import annotations

from pyro_genmodels.distributions.autoregressive.base import AutoregressiveDistribution
from pyro_genmodels.distributions.autoregressive.logistic_mixture import logistic_mixture
from pyro_genmodels.distributions.autoregressive.output_distributions import OutputLaw
from pyro_genmodels.nets import PixelCNNPlusPlusNet


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

    net: PixelCNNPlusPlusNet
    network = PixelCNNPlusPlusNet

    @property
    def law(self) -> OutputLaw:
        """A discretised mixture of logistics."""
        net = self.net
        return logistic_mixture(net.num_levels, net.num_mixtures, num_linked=net.event_shape[0])
