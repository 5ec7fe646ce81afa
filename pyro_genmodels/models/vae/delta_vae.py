"""The VAE that cannot give up its latents: a least rate by construction."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

from pyro_genmodels._checks import check, check_choice, check_positive
from pyro_genmodels._configuration import ArgumentGroup, takes_arguments_of
from pyro_genmodels._typing import EventShape
from pyro_genmodels.distributions.ar1 import correlation_of, largest_rate_of_sequence, log_scale_of
from pyro_genmodels.models.vae.posteriors import GaussianPosterior
from pyro_genmodels.models.vae.priors import AR1Prior, LatentPrior
from pyro_genmodels.models.vae.vae import VAE


@dataclass(frozen=True)
class RateCommitment(ArgumentGroup):
    """By what a :class:`DeltaVAE` is committed to its least rate.

    Args:
        kind: ``"sequence"``, a prior over sequences that independent Gaussians cannot match; or
            ``"variance"``, the posterior's variance.
        num_steps: Steps n of the sequence, 2 or more; ``latent_dim`` is a multiple.

    Raises:
        ValueError: If there is no such kind, or there are too few steps.
    """

    kind: Literal["sequence", "variance"] = "sequence"
    _: KW_ONLY
    num_steps: int = 8

    def __post_init__(self) -> None:
        """Raise ``ValueError`` if a field is out of range."""
        super().__post_init__()
        check_choice("commitment", self.kind, ("sequence", "variance"))
        check(self.num_steps >= 2, "commitment.num_steps", "be at least 2", self.num_steps)


class DeltaVAE(VAE):
    r"""VAE whose posterior is never nearer to its prior than :math:`\delta` nats.

    So a decoder that could do without latents, an autoregressive one say, pays for them anyway,
    and learns to use what it has paid for. The objective is the ELBO itself. Committed is either

    - a prior that independent Gaussians cannot match: over sequences of n steps, in each of d
      features, the autoregression :math:`z_t \sim N(\alpha z_{t-1}, 1 - \alpha^2)`, from which
      the least KL is

      .. math:: \delta = \tfrac d2 \big((n - 2) \log(1 + \alpha^2) - \log(1 - \alpha^2)\big)

    - or the posterior's variance, the same for all data, under a standard Gaussian prior:

      .. math:: \delta = D \big(\tfrac12 (\sigma^2 - 1) - \log \sigma\big)

    Args:
        event_shape: Sizes of one data point, ``(C, H, W)`` or ``(D,)``.
        delta: The least rate in nats, over the whole latent vector.
        commitment: ``"sequence"``, ``"variance"`` or a :class:`RateCommitment`.
        latent_dim: Number of latent variables.
        network: As for :class:`VAE`; with ``"variance"`` an own encoder gives the means alone.
        options: Others, as for :class:`VAE`.

    Raises:
        ValueError: If ``delta`` is not positive, or larger than what even a correlation of almost
            one commits to, or the steps do not divide the latents.

    References:
        Razavi et al. (2019), Preventing posterior collapse with delta-VAEs, section 2 and
        appendix. https://arxiv.org/abs/1901.03416

    Example:
        >>> vae = DeltaVAE((1, 8, 8), num_levels=2, delta=5.0, latent_dim=16)
        >>> round(vae.prior.correlation, 3)
        0.885
    """

    @takes_arguments_of(VAE, without=["prior", "posterior"])
    def __init__(
        self,
        event_shape: EventShape,
        *,
        delta: float = 5.0,
        commitment: Literal["sequence", "variance"] | RateCommitment = "sequence",
        latent_dim: int = 32,
        **options: Any,
    ) -> None:
        commitment = RateCommitment.of(commitment)
        prior, posterior = _committed(commitment, delta, latent_dim)
        own: dict[str, Any] = {"prior": prior, "posterior": posterior}
        super().__init__(event_shape, latent_dim=latent_dim, **own, **options)
        self.delta, self.commitment = delta, commitment.kind


def _committed(
    commitment: RateCommitment, delta: float, latent_dim: int
) -> tuple[LatentPrior | None, GaussianPosterior]:
    """Return the prior and the posterior's form that together have the least rate ``delta``."""
    check_positive(delta=delta, latent_dim=latent_dim)
    if commitment.kind == "variance":
        return None, GaussianPosterior(log_scale=log_scale_of(delta / latent_dim))
    num_steps = commitment.num_steps
    rule = f"be a multiple of num_steps, {num_steps}"
    check(latent_dim % num_steps == 0, "latent_dim", rule, latent_dim)
    features = latent_dim // num_steps
    largest = features * largest_rate_of_sequence(num_steps)
    rule = f"be at most {largest:.3g}, {features} times what {num_steps} steps can commit to"
    check(delta <= largest, "delta", rule, delta)
    prior = AR1Prior(correlation_of(delta / features, num_steps), num_steps=num_steps)
    return prior, GaussianPosterior()
