"""How well VAEs fit in little time: ``python tests/benchmarks/vae_quality.py``.

Every family on the digits at equal time, by the test importance-weighted bound with 100 particles;
and, with ``--only sprites``, an NVAE of the sprites by its gap to their known entropy: see
``quality.py``, which runs them. Not in the table are probabilistic PCA and factor analysis, whose
Gaussian density is no probability of grey levels, and models that are told the label.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from pyro.distributions.transforms import affine_autoregressive
from quality import Problem, main, sampled

from pyro_genmodels import data, models, nets, transforms
from tests.grouped import grouped

SHAPE, LEVELS, LATENTS = (1, 8, 8), 17, 32
AUTOREGRESSIVE = "PixelCNN decoder (autoregressive)"


def vae(**options: Any) -> models.VAE:
    options = {"kind": "mlp", **options}
    return models.VAE(SHAPE, num_levels=LEVELS, latent_dim=LATENTS, **grouped(models.VAE, options))


def vamp_prior() -> models.VAE:
    prior = models.VampPrior(SHAPE, num_components=200)
    prior.initialize(data.Digits().train.tensors[0], LEVELS)
    return vae(prior=prior)


def pixelcnn(**sizes: int) -> models.AutoregressiveLikelihood:
    net = nets.PixelCNNNet(SHAPE, LEVELS, context_shape=(8, *SHAPE[1:]), **sizes)
    return models.AutoregressiveLikelihood(net)


def pixelcnn_decoder() -> models.VAE:
    """The sizes that ``posterior_collapse.py`` has; free bits, lest the latents be given up."""
    likelihood = pixelcnn(hidden_channels=32, num_blocks=3)
    options: dict[str, Any] = {"network": "conv", "hidden": (16, 32), "free_bits": 0.25}
    return models.VAE(
        SHAPE,
        num_levels=LEVELS,
        latent_dim=16,
        likelihood=likelihood,
        **grouped(models.VAE, options),
    )


def digits_nvae() -> models.NVAE:
    """The preset, but for a shorter warm-up: two minutes have room for fewer steps."""
    nvae = models.preset("NVAE", "digits", objective=models.NVAEObjective(warmup_steps=300))
    assert isinstance(nvae, models.NVAE)
    return nvae


def pixelcnn_nvae() -> models.NVAE:
    """Two groups and half the decoder's width: what the latents do not tell, the decoder does."""
    sizes: dict[str, Any] = {"num_groups": (2,), "num_blocks": 2, "channels": 8, "num_cells": 1}
    latents: dict[str, Any] = {"latent_channels": 4, "cells_per_block": 1, "regularization": 0.0}
    likelihood = pixelcnn(hidden_channels=16, num_blocks=2)
    options: dict[str, Any] = {"likelihood": likelihood, "warmup_steps": 800, **sizes, **latents}
    return models.NVAE(SHAPE, num_levels=LEVELS, **grouped(models.NVAE, options))


def sprites_nvae() -> models.NVAE:
    """Three groups on one coarse scale: a sprite is little to tell, and steps must be cheap."""
    options: dict[str, Any] = {"num_blocks": 2, "cells_per_block": 1, "warmup_steps": 1000}
    sizes: dict[str, Any] = {"latent_channels": 2, "channels": 8, "num_cells": 2}
    groups: dict[str, Any] = {"num_groups": (3,), "regularization": 0.0}
    return models.NVAE(
        (1, 16, 16),
        num_levels=2,
        **grouped(models.NVAE, groups),
        **grouped(models.NVAE, sizes),
        **grouped(models.NVAE, options),
    )


# The preset's; chosen on the sprites, see docs/benchmarks.md.
NVAE = models.presets()["NVAE"]["digits"]["training"]
del NVAE["max_epochs"]  # time is what ends a run here
FAMILIES: dict[str, tuple[Callable[[], models.GenerativeModel], dict[str, Any]]] = {
    "VAE, dense": (vae, {}),
    "VAE, convolutional": (partial(vae, kind="conv"), {}),
    "VAE, IAF posterior": (
        lambda: vae(transforms=[affine_autoregressive(LATENTS, [128]) for _ in range(2)]),
        {},
    ),
    "VAE, full posterior": (partial(vae, posterior="full"), {}),
    "VAE, low-rank posterior": (partial(vae, posterior="low_rank", rank=4), {}),
    "VAE, flow prior": (
        lambda: vae(
            prior=models.FlowPrior(
                [
                    transforms.affine_coupling(LATENTS, mask=transforms.HalfMask(inverted=second))
                    for second in (False, True)
                ]
            )
        ),
        {},
    ),
    "VampPrior": (vamp_prior, {}),
    "IWAE, 5 particles": (vae, {"objective": "iwae", "num_particles": 5}),
    "DReG, 5 particles": (vae, {"objective": "dreg", "num_particles": 5}),
    "beta-VAE, beta 2": (
        lambda: models.BetaVAE(
            SHAPE,
            num_levels=LEVELS,
            latent_dim=LATENTS,
            network="mlp",
            objective=models.KLObjective(beta=2.0),
        ),
        {},
    ),
    "delta-VAE, 5 nats": (
        lambda: models.DeltaVAE(
            SHAPE, num_levels=LEVELS, latent_dim=LATENTS, network="mlp", delta=5.0
        ),
        {},
    ),
    AUTOREGRESSIVE: (pixelcnn_decoder, {"learning_rate": 3e-3}),
    "NVAE": (digits_nvae, NVAE),
    f"NVAE, {AUTOREGRESSIVE}": (
        pixelcnn_nvae,
        {"optimizer": "adamw", "learning_rate": 1e-2, "weight_decay": 0.1, "epsilon": 1e-8},
    ),
}
TABLE = {
    f"{name} on digits": Problem(data.Digits, make, settings, 120, particles=100)
    for name, (make, settings) in FAMILIES.items()
}
SPRITES = {
    "NVAE on sprites": Problem(
        lambda: sampled(data.Sprites(16), 100_000, test=400),
        sprites_nvae,
        {**NVAE, "weight_decay": 1e-2},  # half: there are more steps than on the digits
        600,
        2.5,
        "nats",
        particles=500,
    )
}


def report(scores: dict[str, float]) -> None:
    """Say which is best of all, and of those whose pixels are independent given the latents."""
    comparable = {name: score for name, score in scores.items() if name in TABLE}
    independent = {name: s for name, s in comparable.items() if AUTOREGRESSIVE not in name}
    for kind, some in {"": comparable, " without an autoregressive decoder": independent}.items():
        if len(some) > 1:
            print(f"best{kind}: {min(some, key=some.__getitem__)}")


if __name__ == "__main__":
    report(main(TABLE | SPRITES, __doc__))
