"""Published configurations of models with latent variables."""

from __future__ import annotations

from typing import Any

from pyro_genmodels.models.published.format import PLAIN, Options, Table

_ADAMAX: Options = {"optimizer": "adamax", "epsilon": 1e-3, "weight_decay": 3e-4}
# For short runs: ended lower than Adamax on digits and sprites, see docs/benchmarks.md.
_ADAMW: Options = {"optimizer": "adamw", "epsilon": 1e-6, "weight_decay": 2e-2}


def _nvae(
    *shape: int,
    network: Options,
    batch_size: int,
    max_epochs: int,
    examples: int,
    objective: Options | None = None,
    num_levels: int = 256,
    rate: float = 1e-2,
    rise: int = 5,
    optimizer: Options = _ADAMAX,
) -> dict[str, Options]:
    """NVAE's code."""
    sizes = {"latent_channels": 20, "num_cells": 2, "num_blocks": 1, "cells_per_block": 2}
    steps = max_epochs * examples // batch_size
    weights = {"warmup_steps": 3 * steps // 10, "regularization": 1e-2}
    warmup = rise * examples // batch_size
    course = {"schedule": "cosine", "warmup_steps": warmup, "final_learning_rate": 1e-4}
    training = {**optimizer, "learning_rate": rate, "batch_size": batch_size, **course}
    return {
        "model": {
            "event_shape": list(shape),
            "num_levels": num_levels,
            "network": {**sizes, "num_flows": 1, **network},
            "objective": {**weights, **(objective or {})},
        },
        "training": {**PLAIN, **training, "max_epochs": max_epochs},
    }


def _vqvae(
    size: int,
    *,
    rate: float,
    batch_size: int,
    network: Options,
    codebook: Options | None = None,
    **model: Any,
) -> dict[str, Options]:
    """VQ-VAE and VQ-VAE-2; the squared error of the papers is ``VQVAE2.paper``'s likelihood."""
    training = {"optimizer": "adam", "learning_rate": rate, "batch_size": batch_size}
    return {
        "model": {
            "event_shape": [3, size, size],
            "num_levels": 256,
            "codebook": {**_CODEBOOK, **(codebook or {})},
            "network": {"num_blocks": 2, "reduction": 4, **network},
            **model,
        },
        "training": {**PLAIN, **training},
    }


_CODEBOOK: Options = {"num_codes": 512, "dim": 64, "commitment": 0.25}
_LARGE: Options = {"hidden_channels": 128, "residual_channels": 32}


def _vq_priors(*, residual: list[int]) -> dict[str, Options]:
    """Priors of VQ-VAE-2; the paper trains each alone, the bottom's in batches of 512.

    Its layers are of another kind, see :func:`~pyro_genmodels.models.learned_priors`; the sizes are
    the paper's. The rate is that of rosinality's code.
    """
    sizes = {"hidden_channels": 512, "residual_channels": residual, "num_output_layers": 20}
    layers = {"num_blocks": 4, "num_layers": 5, "kernel_size": 5, "layer_kernel_size": 5}
    options = {"num_heads": 8, "conditioning_blocks": 20, "dropout": 0.1}
    training = {"optimizer": "adam", "learning_rate": 3e-4, "batch_size": 1024}
    return {"model": {**sizes, **layers, **options}, "training": {**PLAIN, **training}}


LATENTS: Table = {
    # Groups from the top; 32 levels are five bits. The batch is one device's, of 2, 8 or 24; the
    # warm-ups are in steps of one device alone, and to be divided by their number.
    "NVAE": {
        # Of no paper: one that trains in five minutes of one core.
        "digits": _nvae(
            *(1, 8, 8),
            network={
                "num_groups": [4],
                "channels": 16,
                "latent_channels": 4,
                "num_cells": 1,
                "cells_per_block": 1,
                "num_flows": 0,
            },
            objective={"regularization": 0.0},
            num_levels=17,
            batch_size=64,
            max_epochs=120,
            examples=1_297,
            rate=2e-2,
            rise=0,
            optimizer=_ADAMW,
        ),
        "mnist": _nvae(
            *(1, 28, 28),
            network={
                "num_groups": [5, 10],
                "channels": 32,
                "num_blocks": 2,
                "cells_per_block": 3,
                "num_flows": 0,
            },
            num_levels=2,
            batch_size=200,
            max_epochs=400,
            examples=60_000,
        ),
        "cifar10": _nvae(
            *(3, 32, 32),
            network={"num_groups": [30], "channels": 128},
            batch_size=32,
            max_epochs=400,
            examples=50_000,
        ),
        "imagenet32": _nvae(
            *(3, 32, 32),
            network={"num_groups": [28], "channels": 192},
            objective={"regularization_start": 1.0},
            batch_size=24,
            max_epochs=45,
            examples=1_281_149,
            rise=1,
        ),
        "celeba64": _nvae(
            *(3, 64, 64),
            network={"num_groups": [5, 10, 20], "channels": 64},
            objective={"regularization": 0.1},
            batch_size=16,
            max_epochs=90,
            examples=162_770,
        ),
        "celeba256": _nvae(
            *(3, 256, 256),
            network={
                "num_groups": [4, 4, 4, 8, 16],
                "channels": 30,
                "num_flows": 2,
                "checkpointing": True,
            },
            objective={"regularization_start": 1.0},
            num_levels=32,
            batch_size=4,
            max_epochs=300,
            examples=27_000,
        ),
        "ffhq256": _nvae(
            *(3, 256, 256),
            network={
                "num_groups": [4, 4, 4, 8, 16],
                "channels": 30,
                "num_flows": 2,
                "checkpointing": True,
            },
            objective={"regularization": 0.1, "regularization_start": 1.0},
            num_levels=32,
            batch_size=4,
            max_epochs=200,
            examples=63_000,
            rate=8e-3,
        ),
    },
    # The paper's for ImageNet, 250,000 steps of it; for CIFAR-10 Sonnet's example.
    "VQVAE": {
        "imagenet128": _vqvae(
            128,
            network={
                "hidden_channels": 256,
                "residual_channels": 256,
                "strided_channels": [256, 256],
                "projection": False,
            },
            rate=2e-4,
            batch_size=128,
        ),
        "cifar10": _vqvae(32, network=_LARGE, rate=3e-4, batch_size=32),
        # Of no paper: data that tile by tile are coded without loss.
        "mosaic": _vqvae(
            16,
            event_shape=[1, 16, 16],
            num_levels=2,
            codebook={"num_codes": 8, "dim": 8},
            network={
                "kind": "patch",
                "hidden_channels": 32,
                "residual_channels": 32,
                "num_blocks": 0,
            },
            rate=3e-3,
            batch_size=128,
        ),
    },
    # 16 kHz in 256 levels by the mu-law; six strided convolutions and no blocks. Number of
    # channels, sizes of the WaveNet and the batch are unsaid; dilations are WaveNet's.
    "SequenceVQVAE": {
        "vctk": {
            "model": {
                "event_shape": [40_960],
                "num_levels": 256,
                "codebook": _CODEBOOK,
                "network": {"reduction": 64, "hidden_channels": 256, "num_blocks": 0},
                "wavenet": {
                    "channels": 256,
                    "skip_channels": 256,
                    "num_blocks": 3,
                    "layers_per_block": 10,
                    "dropout": 0.0,
                },
            },
            "training": {
                **PLAIN,
                "optimizer": "adam",
                "learning_rate": 2e-4,
                "batch_size": 8,
            },
        },
    },
    "VQVAE2": {
        "imagenet256": {
            **_vqvae(256, network=_LARGE, num_maps=2, rate=3e-4, batch_size=128),
            "prior": _vq_priors(residual=[2048, 1024]),
        },
        # The batch is unsaid.
        "ffhq1024": _vqvae(
            1024, network={**_LARGE, "reduction": 8}, num_maps=3, rate=3e-4, batch_size=128
        ),
    },
}
