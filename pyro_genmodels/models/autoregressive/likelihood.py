"""An autoregressive distribution as the likelihood of a latent variable model."""

from __future__ import annotations

from typing import Any

import torch

from pyro_genmodels._checks import check, check_trailing
from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions import AutoregressiveDistribution
from pyro_genmodels.models.likelihoods.elementwise import Likelihood
from pyro_genmodels.nets import AutoregressiveNet


class AutoregressiveLikelihood(Likelihood):
    r"""A data point drawn element after element, given what the decoder says about it.

    .. math:: p(x \mid z) = \prod_t p(x_t \mid x_{<t}, f(z))

    The decoder's output is the network's context, a map, a sequence or a vector. Such a decoder may
    well do without latents, see :class:`~pyro_genmodels.models.DeltaVAE`.

    Args:
        net: The network; event shape, levels, context's shape and distribution are its own.
        missing: Whether the last elements of an example, in the network's order, may be missing.

    Raises:
        ValueError: If the network takes no vector, sequence or map for a context.

    References:
        Gulrajani et al. (2017), PixelVAE. https://arxiv.org/abs/1611.05013. Chen et al. (2017),
        Variational lossy autoencoder. https://arxiv.org/abs/1611.02731

    Example:
        >>> from pyro_genmodels import models, nets
        >>> net = nets.PixelCNNNet((1, 8, 8), 17, hidden_channels=8, context_shape=(4, 8, 8))
        >>> likelihood = AutoregressiveLikelihood(net)
        >>> vae = models.VAE((1, 8, 8), num_levels=17, network="conv", likelihood=likelihood)
        >>> vae.sample(2).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, net: AutoregressiveNet, *, missing: bool = False) -> None:
        check(isinstance(net, AutoregressiveNet), "net", "be an AutoregressiveNet", type(net))
        rank = net.context_event_dim
        rule = "be conditional on vectors, sequences or maps, without labels"
        check(rank in (1, 2, 3), "net", rule, f"context rank {rank}")
        check(net.num_classes is None, "net", rule, f"{net.num_classes} classes")
        # Checked on entry to the model, or drawn: no value needs a check.
        super().__init__(net.event_shape, 1, num_levels=net.num_levels, validate_args=False)
        self.net, self.missing = net, missing
        self.parameter_shape = torch.Size(net.context_shape or ())

    def forward(
        self, decoded: Float[Tensor, "*batch_parameters"], context: Tensor | None = None
    ) -> Any:
        """Return the distribution over a data point.

        Args:
            decoded: Decoder output ``(*batch, *parameter_shape)``, the network's context.
            context: Not used.

        Raises:
            ValueError: If the trailing shape is another.
        """
        check_trailing("decoded", decoded, self.parameter_shape)
        options: dict[str, Any] = {"missing": self.missing, "validate_args": self.validate_args}
        return AutoregressiveDistribution.of(self.net, decoded, **options)

    def _elementwise(self, decoded: Tensor) -> Any:
        raise NotImplementedError("the elements are not independent")
