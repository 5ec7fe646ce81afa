"""The VAE whose training weighs the KL term, to limit what the latents carry."""

from __future__ import annotations

from typing import ClassVar

from pyro_genmodels.models.vae.vae import VAE


class BetaVAE(VAE):
    r"""VAE whose training weighs the KL term by :math:`\beta`, to limit what the latents carry.

    .. math:: E_{q(z \mid x)}[\log p(x \mid z)] - \beta\, KL(q(z \mid x) \| p(z))

    It is :class:`VAE` with :math:`\beta` 4 where the ``objective`` gives no other. Of its
    objectives, see :class:`KLObjective`, a capacity or a rate limit the latents too. None is a
    bound on the likelihood: ``log_weights`` and the metrics give the bounds, at beta one.

    It takes the arguments of :class:`VAE`.

    References:
        Higgins et al. (2017), beta-VAE: learning basic visual concepts with a constrained
        variational framework, eq. 4. https://openreview.net/forum?id=Sy2fzU9gl. Burgess et al.
        (2018), Understanding disentangling in beta-VAE. https://arxiv.org/abs/1804.03599

    Example:
        >>> from pyro_genmodels.models import KLObjective
        >>> float(BetaVAE((1, 8, 8), num_levels=2).beta)
        4.0
        >>> objective = KLObjective(first_beta=8.0, warmup_steps=100)
        >>> float(BetaVAE((1, 8, 8), num_levels=2, objective=objective).beta)
        8.0
        >>> float(BetaVAE((1, 8, 8), num_levels=2, objective=KLObjective(1.0, rate=5.0)).beta)
        1.0
    """

    default_beta: ClassVar[float] = 4.0
