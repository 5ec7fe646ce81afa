"""Published configurations of models with latent variables."""

from __future__ import annotations

from typing import Any

from pyro_genmodels.models.published.format import Options, Preset, Table, published

_ADAMAX: Options = {"optimizer": "adamax", "epsilon": 1e-3, "weight_decay": 3e-4}
# For short runs: ended lower than Adamax on digits and sprites, see docs/benchmarks.md.
_ADAMW: Options = {"optimizer": "adamw", "epsilon": 1e-6, "weight_decay": 2e-2}


_CODEBOOK: Options = {"num_codes": 512, "dim": 64, "commitment": 0.25}
_MAPS: Options = {"reduction": 4, "hidden_channels": 128, "residual_channels": 32, "num_blocks": 2}


def _nvae(
    *shape: int,
    batch_size: int,
    max_epochs: int,
    examples: int,
    num_levels: int = 256,
    regularization: float = 1e-2,
    regularization_start: float | None = None,
    rate: float = 1e-2,
    rise: int = 5,
    optimizer: Options = _ADAMAX,
    **network: Any,
) -> Preset:
    """NVAE's code."""
    sizes = {"latent_channels": 20, "num_cells": 2, "num_blocks": 1, "cells_per_block": 2}
    steps = max_epochs * examples // batch_size
    objective: Options = {"warmup_steps": 3 * steps // 10, "regularization": regularization}
    if regularization_start is not None:
        objective["regularization_start"] = regularization_start
    model = {
        "event_shape": list(shape),
        "num_levels": num_levels,
        "network": {**sizes, "num_flows": 1, **network},
        "objective": objective,
    }
    warmup = rise * examples // batch_size
    course = {"schedule": "cosine", "warmup_steps": warmup, "final_learning_rate": 1e-4}
    training = {"learning_rate": rate, "batch_size": batch_size, "max_epochs": max_epochs}
    return published(model, **optimizer, **course, **training)


def _nvae_256(**options: Any) -> Preset:
    """NVAE of faces of 256 x 256 pixels and five bits."""
    groups: Options = {"num_groups": [4, 4, 4, 8, 16], "channels": 30, "num_flows": 2}
    shared: Options = {"num_levels": 32, "regularization_start": 1.0, "checkpointing": True}
    return _nvae(3, 256, 256, batch_size=4, **groups, **shared, **options)


def _vqvae(size: int, *, rate: float, batch_size: int, network: Options, **model: Any) -> Preset:
    """VQ-VAE and VQ-VAE-2; the squared error of the papers is ``VQVAE2.paper``'s likelihood."""
    shared = {"event_shape": [3, size, size], "num_levels": 256, "codebook": _CODEBOOK}
    model = {**shared, "network": {**_MAPS, **network}, **model}
    return published(model, optimizer="adam", learning_rate=rate, batch_size=batch_size)


def _sequence_vqvae() -> Preset:
    """VQ-VAE of speech: 16 kHz in 256 levels by the mu-law; six strided convolutions, no blocks.

    Number of channels, sizes of the WaveNet and the batch are unsaid; dilations are WaveNet's.
    """
    layers = {"num_blocks": 3, "layers_per_block": 10, "dropout": 0.0}
    model = {
        "event_shape": [40_960],
        "num_levels": 256,
        "codebook": _CODEBOOK,
        "network": {"reduction": 64, "hidden_channels": 256, "num_blocks": 0},
        "wavenet": {"channels": 256, "skip_channels": 256, **layers},
    }
    return published(model, optimizer="adam", learning_rate=2e-4, batch_size=8)


def _vq_priors(*, residual: list[int]) -> Preset:
    """Priors of VQ-VAE-2; the paper trains each alone, the bottom's in batches of 512.

    Its layers are of another kind, see :func:`~pyro_genmodels.models.learned_priors`; the sizes are
    the paper's. The rate is that of rosinality's code.
    """
    sizes = {"hidden_channels": 512, "residual_channels": residual, "num_output_layers": 20}
    layers = {"num_blocks": 4, "num_layers": 5, "kernel_size": 5, "layer_kernel_size": 5}
    options = {"num_heads": 8, "conditioning_blocks": 20, "dropout": 0.1}
    model = {**sizes, **layers, **options}
    return published(model, optimizer="adam", learning_rate=3e-4, batch_size=1024)


# Groups from the top; 32 levels are five bits. The batch is one device's, of 2, 8 or 24; the
# warm-ups are in steps of one device alone, and to be divided by their number.
_NVAE = {
    # Of no paper: one that trains in five minutes of one core.
    "digits": _nvae(
        *(1, 8, 8),
        num_levels=17,
        num_groups=[4],
        channels=16,
        latent_channels=4,
        num_cells=1,
        cells_per_block=1,
        num_flows=0,
        regularization=0.0,
        batch_size=64,
        max_epochs=120,
        examples=1_297,
        rate=2e-2,
        rise=0,
        optimizer=_ADAMW,
    ),
    "mnist": _nvae(
        *(1, 28, 28),
        num_levels=2,
        num_groups=[5, 10],
        channels=32,
        num_blocks=2,
        cells_per_block=3,
        num_flows=0,
        batch_size=200,
        max_epochs=400,
        examples=60_000,
    ),
    "cifar10": _nvae(
        *(3, 32, 32), num_groups=[30], channels=128, batch_size=32, max_epochs=400, examples=50_000
    ),
    "imagenet32": _nvae(
        *(3, 32, 32),
        num_groups=[28],
        channels=192,
        regularization_start=1.0,
        batch_size=24,
        max_epochs=45,
        examples=1_281_149,
        rise=1,
    ),
    "celeba64": _nvae(
        *(3, 64, 64),
        num_groups=[5, 10, 20],
        channels=64,
        regularization=0.1,
        batch_size=16,
        max_epochs=90,
        examples=162_770,
    ),
    "celeba256": _nvae_256(max_epochs=300, examples=27_000),
    "ffhq256": _nvae_256(regularization=0.1, max_epochs=200, examples=63_000, rate=8e-3),
}

_WIDE: Options = {"hidden_channels": 256, "residual_channels": 256}
_TILES: Options = {"hidden_channels": 32, "residual_channels": 32, "num_blocks": 0}

# The paper's for ImageNet, 250,000 steps of it; for CIFAR-10 Sonnet's example.
_VQVAE = {
    "imagenet128": _vqvae(
        128,
        network={**_WIDE, "strided_channels": [256, 256], "projection": False},
        rate=2e-4,
        batch_size=128,
    ),
    "cifar10": _vqvae(32, network={}, rate=3e-4, batch_size=32),
    # Of no paper: data that tile by tile are coded without loss.
    "mosaic": _vqvae(
        16,
        event_shape=[1, 16, 16],
        num_levels=2,
        codebook={**_CODEBOOK, "num_codes": 8, "dim": 8},
        network={"kind": "patch", **_TILES},
        rate=3e-3,
        batch_size=128,
    ),
}

_VQVAE2: dict[str, Preset] = {
    "imagenet256": {
        **_vqvae(256, network={}, num_maps=2, rate=3e-4, batch_size=128),
        "prior": _vq_priors(residual=[2048, 1024]),
    },
    # The batch is unsaid.
    "ffhq1024": _vqvae(1024, network={"reduction": 8}, num_maps=3, rate=3e-4, batch_size=128),
}

LATENTS: Table = {
    "NVAE": _NVAE,
    "VQVAE": _VQVAE,
    "SequenceVQVAE": {"vctk": _sequence_vqvae()},
    "VQVAE2": _VQVAE2,
}
