"""The least rate of delta-VAEs, and that it is held where a plain VAE gives its latents up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, kl_divergence

from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.distributions.ar1 import (
    AR1Normal,
    correlation_of,
    least_rate_of_sequence,
    log_scale_of,
)
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal
from pyro_genmodels.models import (
    VAE,
    AutoregressiveLikelihood,
    DeltaVAE,
    ELBOLoss,
    RateCommitment,
    VAENetwork,
)
from pyro_genmodels.nets import PixelCNNNet
from tests.grouped import grouped

LIKE = torch.zeros((), dtype=torch.float64)


def covariance(correlation: float, steps: int, features: int) -> Tensor:
    place = torch.arange(steps).double()
    between = correlation ** (place[:, None] - place).abs()
    return torch.kron(between, torch.eye(features).double())


@pytest.mark.parametrize(("steps", "features"), [(2, 1), (5, 1), (4, 3), (1, 2)])
def test_the_autoregression_is_its_gaussian(steps: int, features: int) -> None:
    torch.manual_seed(0)
    size = steps * features
    law = AR1Normal(LIKE, size, 0.8, steps)
    dense = MultivariateNormal(torch.zeros(size).double(), covariance(0.8, steps, features))
    z = torch.randn(7, size).double()
    torch.testing.assert_close(law.log_prob(z), dense.log_prob(z))
    draws = law.sample((50_000,))
    torch.testing.assert_close(
        draws.mT.cov().reshape(size, size), dense.covariance_matrix, atol=0.04, rtol=0
    )
    q = DiagonalNormal(z, 0.3 * z)
    expected = kl_divergence(MultivariateNormal(q.loc, q.scale.square().diag_embed()), dense)
    torch.testing.assert_close(kl_divergence(q, law), expected)
    assert law.expand((2, 3)).log_prob(z[0]).shape == (2, 3)


@pytest.mark.parametrize("steps", [2, 3, 8])
@pytest.mark.parametrize("delta", [0.05, 1.0, 6.0])
def test_no_posterior_comes_nearer_than_delta(steps: int, delta: float) -> None:
    """Minimised over all means and variances, the KL ends at delta, from above."""
    correlation = correlation_of(delta, steps)
    assert abs(least_rate_of_sequence(correlation, steps) - delta) < 1e-9
    prior = AR1Normal(LIKE, steps, correlation, steps)
    torch.manual_seed(0)
    loc = (0.1 * torch.randn(steps).double()).requires_grad_()
    log_scale = torch.full((steps,), -0.5).double().requires_grad_()
    optimizer = torch.optim.LBFGS([loc, log_scale], max_iter=300, line_search_fn="strong_wolfe")
    seen: list[float] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        kl = kl_divergence(DiagonalNormal(loc, log_scale), prior)
        kl.backward()
        seen.append(kl.item())
        return kl

    optimizer.step(closure)
    assert min(seen) > delta - 1e-9
    assert min(seen) < delta + 1e-4
    random = DiagonalNormal(torch.randn(1000, steps).double(), torch.randn(1000, steps).double())
    assert (kl_divergence(random, prior) > delta).all()


@pytest.mark.parametrize("delta", [0.01, 1.0, 30.0])
def test_fixed_variance_commits(delta: float) -> None:
    log_scale = torch.tensor([log_scale_of(delta)]).double()
    kl = kl_divergence(DiagonalNormal(torch.zeros(1).double(), log_scale), StandardNormal(LIKE, 1))
    torch.testing.assert_close(kl, torch.tensor(delta).double())


def test_a_rate_out_of_reach_is_refused() -> None:
    """It would be committed to less than it was asked for."""
    options: dict[str, Any] = {"num_levels": 2, "latent_dim": 8, "num_steps": 8}
    with pytest.raises(ValueError, match=r"`delta` must be at most 16\.7, 1 times"):
        DeltaVAE((5,), delta=40.0, **grouped(DeltaVAE, options))
    vae = DeltaVAE((5,), delta=16.0, **grouped(DeltaVAE, options))
    # So near to one, a float64 has what is missing to some 3e-4 of it: half of that in nats.
    assert abs(least_rate_of_sequence(vae.prior.correlation, 8) - 16.0) < 1e-3


@pytest.mark.parametrize("commitment", ["sequence", "variance"])
def test_no_parameters_come_nearer(commitment: str) -> None:
    """Whatever the encoder gives."""
    vae = DeltaVAE(
        (5,),
        num_levels=2,
        delta=3.0,
        latent_dim=8,
        commitment=RateCommitment(commitment, num_steps=4),
        network=VAENetwork(hidden=(6,)),
    ).double()
    x = torch.randint(2, (200, 5)).double()
    for scale in (0.0, 0.01, 0.3, 1.0):
        for parameter in vae.parameters():
            nn.init.normal_(parameter, std=scale)
        kl = kl_divergence(vae.encode(x), vae.prior_law())
        assert (kl > 3.0 - 1e-9).all()
    again = build(configuration(vae)).double()
    again.load_state_dict(vae.state_dict())


def stripes(count: int) -> Tensor:
    """Images whose rows are one colour: easy for whoever sees the pixel before."""
    return torch.randint(2, (count, 1, 4, 1)).float().expand(-1, -1, -1, 4).contiguous()


def trained(make: Any, **options: Any) -> tuple[Any, Tensor]:
    torch.manual_seed(0)
    net = PixelCNNNet((1, 4, 4), 2, hidden_channels=12, num_blocks=1, context_shape=(2, 4, 4))
    options = {"likelihood": AutoregressiveLikelihood(net), "num_levels": 2} | options
    vae = make((1, 4, 4), latent_dim=4, network=VAENetwork(hidden=(16,)), **grouped(make, options))
    loss = ELBOLoss(vae)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        loss(stripes(16)).backward()
        optimizer.step()
    return vae.eval(), stripes(200)


def rate(vae: Any, x: Tensor) -> float:
    with torch.no_grad():
        return float(kl_divergence(vae.encode(x), vae.prior_law()).mean())


def test_the_plain_vae_gives_up_its_latents_and_delta_vae_does_not() -> None:
    """The data have four bits, 2.77 nats, which the pixels' law knows without any latent."""
    plain, x = trained(VAE)
    assert rate(plain, x) < 0.05
    committed, _ = trained(DeltaVAE, delta=1.5, num_steps=4)
    assert rate(committed, x) > 1.5
    # It was paid for, and so it is used: without it the pixels cost more.
    z, other = committed.encode(x).sample(), committed.encode(x.flip(0)).sample()
    with torch.no_grad():
        used = committed.decode(z).log_prob(x) - committed.decode(other).log_prob(x)
    assert used.mean() > 0.5


def test_reconstruction_without_a_mean_is_a_draw() -> None:
    vae, x = VAE((1, 4, 4), num_levels=2, likelihood=AutoregressiveLikelihood(net())), stripes(3)
    drawn = vae.reconstruct(x)
    assert drawn.shape == x.shape
    assert ((drawn == 0) | (drawn == 1)).all()


def net(**options: Any) -> PixelCNNNet:
    options = {"context_shape": (2, 4, 4)} | options
    return PixelCNNNet((1, 4, 4), 2, hidden_channels=4, num_blocks=1, **options)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="`latent_dim` must be a multiple of num_steps, 8; got 12"):
        DeltaVAE((5,), latent_dim=12)
    with pytest.raises(ValueError, match="`delta` must be positive"):
        DeltaVAE((5,), delta=0.0)
    with pytest.raises(ValueError, match="`net` must be conditional on vectors, sequences or maps"):
        AutoregressiveLikelihood(net(context_shape=None))
    with pytest.raises(TypeError, match="`distribution` is now known by the network"):
        AutoregressiveLikelihood(net(), distribution="PixelCNN")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="`decoded` must have trailing shape"):
        AutoregressiveLikelihood(net())(torch.zeros(3, 2, 4, 5))
