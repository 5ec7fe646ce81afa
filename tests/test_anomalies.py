"""Anomaly scores: their definitions, and what they say of images that are no digits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_genmodels import data, metrics
from pyro_genmodels.models import VAE, ELBOLoss, VAENetwork
from pyro_genmodels.training.random import seeded


@pytest.fixture(scope="module")
def digits() -> data.Digits:
    return data.Digits()


@pytest.fixture(scope="module")
def vae(digits: data.Digits) -> VAE:
    with seeded(0):
        model = VAE((1, 8, 8), num_levels=17, latent_dim=6, network=VAENetwork(hidden=(128,)))
        x, loss = digits.train.tensors[0].float(), ELBOLoss(model)
        optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
        for _ in range(400):
            optimizer.zero_grad()
            loss(x[torch.randint(len(x), (64,))]).backward()
            optimizer.step()
    return model.eval()


def anomalies(name: str, x: Tensor, vae: VAE) -> Tensor:
    with seeded(1):
        return {
            "noise": torch.randint(17, x.shape),
            "constant": torch.randint(17, (len(x), 1, 1, 1)).expand(x.shape),
            "likeliest pixels": likeliest(vae, x),
            "inverted": 16 - x.long(),
            "other pixels' values": x.flatten(1)[:, torch.randperm(64)].reshape(x.shape),
        }[name]


def likeliest(vae: VAE, x: Tensor) -> Tensor:
    """Images with the mode of each pixel's law, as no draw has."""
    with torch.no_grad():
        pixels = vae.decode(vae.encode(x).mean).base_dist
        levels = torch.arange(17.0).reshape(-1, 1, 1, 1, 1).expand(17, *x.shape)
        return pixels.log_prob(levels).argmax(0)


def area(real: Tensor, other: Tensor) -> float:
    """Return the area under the curve of true against false positives."""
    score = pytest.importorskip("sklearn.metrics").roc_auc_score
    return float(score([0] * len(real) + [1] * len(other), torch.cat([real, other])))


NAMES = ("noise", "constant", "likeliest pixels", "inverted", "other pixels' values")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_digit_is_atypical(name: str, digits: data.Digits, vae: VAE) -> None:
    x = digits.test.tensors[0]

    def bound(images: Tensor) -> Tensor:
        return metrics.importance_weighted_bound(vae, images, num_particles=20, chunk_size=8000)

    with seeded(2):
        typical, real, other = map(bound, (digits.train.tensors[0], x, anomalies(name, x, vae)))
    scores = [metrics.atypicality(each, typical) for each in (real, other)]
    assert area(*scores) > 0.9
    if name == "likeliest pixels":
        # Likelier than nearly all digits: by a small likelihood alone these would pass.
        assert area(-real, -other) < 0.05


def test_atypicality_is_the_distance_from_the_mean() -> None:
    typical, some = torch.randn(50), torch.randn(3, 4)
    score = metrics.atypicality(some, typical)
    torch.testing.assert_close(score.float(), (some - typical.mean()).abs())
    assert score.dtype == torch.float64
    with pytest.raises(ValueError, match="`log_p_typical` must hold at least one"):
        metrics.atypicality(some, torch.empty(0))
