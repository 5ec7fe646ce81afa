"""The other gradient of the importance-weighted bound: the same mean, and less noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import nets
from pyro_genmodels.models import (
    NVAE,
    VAE,
    VQVAE,
    AutoregressiveModel,
    BetaVAE,
    DeltaVAE,
    ELBOLoss,
    KLObjective,
    NVAENetwork,
    NVAEObjective,
    SemiSupervisedVAE,
    VAENetwork,
    VampPrior,
)
from tests.grouped import grouped
from tests.models.test_importance import linear_vae

SOME: dict[str, dict[str, Any]] = {
    "diagonal": {},
    "full": {"posterior": "full"},
    "VampPrior": {"prior": VampPrior((4,), num_components=3)},
    "labels": {"num_classes": 3},
}


def small(**options: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(
        (4,), num_levels=3, latent_dim=2, network=VAENetwork(hidden=(5,)), **grouped(VAE, options)
    ).double()


def gradients(loss: ELBOLoss, x: Tensor, context: Tensor | None = None, runs: int = 1) -> Tensor:
    """Of the encoder's parameters, then all others; a row a run, by its own draws."""
    model: Any = loss.model
    first = list(model.encoder.parameters())
    rest = [p for p in model.parameters() if all(p is not q for q in first)]
    rows = []
    for seed in range(runs):
        torch.manual_seed(seed)
        found = torch.autograd.grad(loss(x, context), first + rest)
        rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.mark.parametrize("case", SOME)
def test_the_mean_is_the_same(case: str) -> None:
    vae, x = small(**SOME[case]), torch.randint(3, (2, 4)).repeat(100, 1)
    labels = torch.tensor([0, 2]).repeat(100) if case == "labels" else None
    options: dict[str, Any] = {"num_particles": 4, "importance": True}
    plain = gradients(ELBOLoss(vae, **options), x, labels, 40)
    other = gradients(ELBOLoss(vae, **options, doubly_reparameterized=True), x, labels, 40)
    difference = other - plain
    error = difference.std(0) / len(difference) ** 0.5
    assert (difference.mean(0).abs() <= 5 * error + 1e-9).all()
    assert error.max() > 0


def test_values_are_the_bound() -> None:
    vae, x = small(), torch.randint(3, (3, 4))
    losses = []
    for doubly in (False, True):
        torch.manual_seed(0)
        loss = ELBOLoss(vae, num_particles=6, importance=True, doubly_reparameterized=doubly)
        losses.append(loss(x))
    torch.testing.assert_close(*losses)
    torch.manual_seed(0)
    torch.testing.assert_close(loss.bound(x).mean(), -losses[0])


def test_its_noise_does_not_grow_with_the_particles() -> None:
    vae, x = small(), torch.randint(3, (1, 4))
    size = sum(p.numel() for p in vae.encoder.parameters())

    def noise(doubly: bool) -> float:
        """Standard deviation over mean, of the encoder's gradient with 64 particles."""
        loss = ELBOLoss(vae, num_particles=64, importance=True, doubly_reparameterized=doubly)
        rows = gradients(loss, x, runs=60)[:, :size]
        return float(rows.std(0).norm() / rows.mean(0).norm())

    assert noise(True) < 0.5 * noise(False)


@pytest.mark.parametrize("num_particles", [1, 5])
def test_at_the_exact_posterior_there_is_none(num_particles: int) -> None:
    """All weights are the evidence: nothing to gain by the draws, whatever they are."""
    vae, oracle = linear_vae()
    encoder = vae.encoder.mlp.layers[0]
    with torch.no_grad():
        # Columns at right angles make the exact posterior diagonal.
        basis = torch.linalg.qr(oracle.loading).Q
        oracle.loading.copy_(basis)
        vae.decoder.mlp.layers[0].weight.copy_(basis)
        origin = oracle.posterior(torch.zeros(4).double())
        encoder.weight[:2] = (oracle.posterior(torch.eye(4).double()).mean - origin.mean).mT
        encoder.bias[:2] = origin.mean
        encoder.bias[2:] = 0.5 * origin.covariance_matrix.diagonal().log()
    x, size = oracle.sample(3), sum(p.numel() for p in vae.encoder.parameters())
    options: dict[str, Any] = {"num_particles": num_particles, "importance": True}
    other = ELBOLoss(vae, **options, doubly_reparameterized=True)
    assert gradients(other, x)[:, :size].abs().max() < 1e-7
    assert gradients(ELBOLoss(vae, **options), x)[:, :size].abs().max() > 1e-3


def test_it_trains() -> None:
    vae, x = small(), torch.randint(3, (32, 4))
    loss = ELBOLoss(vae, num_particles=8, importance=True, doubly_reparameterized=True)
    optimizer, losses = torch.optim.Adam(vae.parameters(), lr=1e-2), []
    for _ in range(60):
        optimizer.zero_grad()
        losses.append(loss(x))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert not loss.unreached_parameters()


def exact() -> AutoregressiveModel:
    return AutoregressiveModel(nets.PixelCNNNet((1, 3, 3), 3, hidden_channels=4, num_blocks=1))


MODELS: dict[str, tuple[Any, str]] = {
    "weight": (lambda: BetaVAE((4,), latent_dim=2, objective=KLObjective(beta=2.0)), "beta 2"),
    "capacity": (
        lambda: BetaVAE((4,), latent_dim=2, objective=KLObjective(beta=1.0, capacity=3.0)),
        "capacity 3",
    ),
    "rate": (
        lambda: BetaVAE((4,), latent_dim=2, objective=KLObjective(beta=1.0, rate=3.0)),
        "rate 3",
    ),
    "free bits": (
        lambda: VAE((4,), latent_dim=2, objective=KLObjective(free_bits=0.5)),
        "free_bits 0.5",
    ),
    "warm-up": (
        lambda: DeltaVAE((4,), latent_dim=16, objective=KLObjective(warmup_steps=9)),
        "warmup_steps 9",
    ),
    "NVAE": (
        lambda: NVAE(
            (1, 4, 4),
            num_levels=2,
            network=NVAENetwork((1,), channels=4),
            objective=NVAEObjective(warmup_steps=0),
        ),
        "regularization 0.01",
    ),
    "codes": (lambda: VQVAE((1, 4, 4), num_levels=2, codebook=4), "a quantisation loss"),
    "labels": (
        lambda: SemiSupervisedVAE(VAE((4,), latent_dim=2, num_classes=3)),
        "classification_weight 30",
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_what_it_would_leave_out_is_named(name: str) -> None:
    make, message = MODELS[name]
    with pytest.raises(ValueError, match=f"with importance=True; got {message}"):
        ELBOLoss(make(), num_particles=5, importance=True)


def test_it_asks_for_one_site() -> None:
    nvae = NVAE(
        (1, 4, 4),
        num_levels=2,
        network=NVAENetwork((1, 1), channels=4, num_blocks=0),
        objective=NVAEObjective(warmup_steps=0, regularization=0.0),
    )
    options: dict[str, Any] = {"num_particles": 2, "importance": True}
    x = torch.zeros(2, 1, 4, 4)
    assert ELBOLoss(nvae, **options)(x).isfinite()
    with pytest.raises(ValueError, match=r"`model` must have one latent site.* got z_1, z_2"):
        ELBOLoss(nvae, **options, doubly_reparameterized=True)(x)
    with pytest.raises(ValueError, match=r"one latent site.* got none"):
        ELBOLoss(exact(), **options, doubly_reparameterized=True)(torch.zeros(2, 1, 3, 3))
    with pytest.raises(ValueError, match="`doubly_reparameterized` must be False without"):
        ELBOLoss(nvae, doubly_reparameterized=True)


def test_a_score_left_in_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The law bites: with shares once instead of twice, the mean is another."""
    vae, x = small(), torch.randint(3, (2, 4)).repeat(100, 1)
    options: dict[str, Any] = {"num_particles": 4, "importance": True}
    plain = gradients(ELBOLoss(vae, **options), x, runs=40)
    monkeypatch.setattr(Tensor, "register_hook", lambda self, hook: None)
    other = gradients(ELBOLoss(vae, **options, doubly_reparameterized=True), x, runs=40)
    error = (other - plain).std(0) / 40**0.5
    assert ((other - plain).mean(0).abs() > 8 * error).any()
