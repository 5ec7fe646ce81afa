"""Published configurations of flows."""

from __future__ import annotations

from typing import Any

from pyro_genmodels.models.published.format import Preset, Table, published


def _glow(
    size: int, *, batch_size: int, warmup_examples: int, kind: str = "affine", **model: Any
) -> Preset:
    """Glow's code; it warms up over ten epochs, and shifts CIFAR-10's images at random."""
    shared = {"event_shape": [3, size, size], "num_levels": 256, "width": 512, "lu": False}
    coupling = {"kind": kind, "max_amplification": None}  # the published map
    course = {"batch_size": batch_size, "warmup_steps": 10 * warmup_examples // batch_size}
    model = {**shared, "coupling": coupling, "dropout": 0.0, **model}
    return published(model, optimizer="adamax", learning_rate=1e-3, **course)


def _realnvp(size: int, **model: Any) -> Preset:
    """RealNVP's code; it also decays the weights' lengths, and theirs only, by 5e-5."""
    shared = {"event_shape": [3, size, size], "num_levels": 256, "batch_norm": True}
    model = {**shared, "num_couplings": 3, "logit_margin": 0.05, "dropout": 0.0, **model}
    course = {"batch_size": 64, "gradient_clip": 100}
    return published(model, optimizer="adam", learning_rate=1e-3, **course)


def _nice(*shape: int, width: int, num_layers: int, base: str = "logistic") -> Preset:
    """NICE; its Adam has a second moment's decay of 0.01, as printed."""
    # All but MNIST were whitened (ZCA) first.
    sizes = {"num_couplings": 4, "width": width, "num_layers": num_layers, "base": base}
    model = {"event_shape": list(shape), "num_levels": 256, "dropout": 0.0, **sizes}
    course = {"learning_rate": 1e-3, "max_epochs": 1500}
    return published(model, optimizer="adam", epsilon=1e-4, **course)


FLOWS: Table = {
    # The batch is one device's; the published runs had eight of them. Larger images come in
    # smaller batches, by the ratio of their numbers of pixels.
    "glow": {
        "cifar10": _glow(32, num_scales=3, num_steps=32, batch_size=64, warmup_examples=50_000),
        "imagenet32": _glow(
            32, num_scales=3, num_steps=48, batch_size=64, warmup_examples=1_281_149
        ),
        "imagenet64": _glow(
            64, num_scales=4, num_steps=48, batch_size=16, warmup_examples=1_281_149
        ),
        "celeba256": _glow(
            256,
            num_scales=6,
            num_steps=32,
            kind="additive",
            num_levels=32,
            batch_size=1,
            warmup_examples=27_000,
        ),
    },
    # Scales are added until the last one's images are 4x4; for CIFAR-10 there are two.
    "realnvp": {
        "cifar10": _realnvp(32, num_scales=2, width=64, num_blocks=8),
        "imagenet32": _realnvp(32, num_scales=4, width=32, num_blocks=4),
        "imagenet64": _realnvp(64, num_scales=5, width=32, num_blocks=2),
        "celeba64": _realnvp(64, num_scales=5, width=32, num_blocks=2),
    },
    "nice": {
        "mnist": _nice(1, 28, 28, width=1000, num_layers=5),
        "cifar10": _nice(3, 32, 32, width=2000, num_layers=4),
        "svhn": _nice(3, 32, 32, width=2000, num_layers=4),
        "tfd": _nice(1, 48, 48, width=5000, num_layers=4, base="normal"),
    },
}
