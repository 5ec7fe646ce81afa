"""Published configurations of diffusion models."""

from __future__ import annotations

from typing import Any

from pyro_genmodels.models.published.format import Options, Preset, Table, published

# Two differences: images enter as centres of equal parts of [-1, 1], where the first and last level
# of DDPM and its successor are -1 and 1; and these flip half of the training images.
_DDPM: Options = {"channels": 128, "attention": [2], "num_blocks": 2, "num_heads": 1}
_FLAT: Options = {"channels": 128, "multipliers": [1], "attention": []}
_IMPROVED: Options = {"channels": 128, "num_blocks": 3, "num_heads": 4, "scale_shift": True}


def _diffusion(
    size: int,
    network: Options,
    *,
    steps: int,
    examples: int,
    batch_size: int = 128,
    ema_decay: float = 0.9999,
    training: Options,
    **model: Any,
) -> Preset:
    """Return a preset whose papers count steps, where this package counts epochs."""
    model = {"event_shape": [3, size, size], "num_levels": 256, "network": network, **model}
    course = {"batch_size": batch_size, "max_epochs": steps * batch_size // examples}
    return published(model, ema_decay=ema_decay, **course, **training)


def _ddpm(size: int, *, rate: float, network: Options, **options: Any) -> Preset:
    """DDPM's code; its 1000th step is the decoder, see :func:`~pyro_genmodels.models.ddpm`."""
    adam = {"optimizer": "adam", "learning_rate": rate, "warmup_steps": 5000, "gradient_clip": 1.0}
    return _diffusion(
        size,
        {**_DDPM, **network},
        num_steps=999,
        variance="forward",
        training=adam,
        **options,
    )


def _improved(size: int, *, network: Options, **options: Any) -> Preset:
    """Improved DDPM's code, trained by its hybrid objective."""
    adam = {"optimizer": "adamw", "learning_rate": 1e-4}
    return _diffusion(size, {**_IMPROVED, **network}, num_steps=4000, training=adam, **options)


DIFFUSION: Table = {
    "ddpm": {
        "cifar10": _ddpm(
            32,
            rate=2e-4,
            network={"multipliers": [1, 2, 2, 2], "dropout": 0.1},
            steps=800_000,
            examples=50_000,
        ),
        "celeba256": _ddpm(
            256,
            rate=2e-5,
            network={"multipliers": [1, 1, 2, 2, 4, 4], "attention": [16], "dropout": 0.0},
            steps=500_000,
            examples=30_000,
            batch_size=64,
        ),
    },
    "improved_ddpm": {
        "cifar10": _improved(
            32,
            network={"multipliers": [1, 2, 2, 2], "attention": [2, 4], "dropout": 0.3},
            steps=500_000,
            examples=50_000,
        ),
        "imagenet64": _improved(
            64,
            network={"multipliers": [1, 2, 3, 4], "attention": [4, 8], "dropout": 0.0},
            steps=1_500_000,
            examples=1_281_149,
        ),
    },
    # Ends learned, straight between them. The paper's decay spares biases and norms.
    "vdm": {
        "cifar10": _diffusion(
            32,
            {
                "channels": 128,
                "multipliers": [1],
                "num_blocks": 32,
                "attention": [],
                "dropout": 0.1,
            },
            steps=10_000_000,
            examples=50_000,
            num_steps=1000,
            continuous=True,
            training={"optimizer": "adamw", "learning_rate": 2e-4, "weight_decay": 1e-2},
        ),
    },
}
"""Sizes and training settings of the papers."""
