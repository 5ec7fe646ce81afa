"""How well flows fit in little time: ``python tests/benchmarks/flow_quality.py``.

Digits by the bound under uniform dequantisation, the others by the gap to the known optimum: see
``quality.py``, which runs them.
"""

from __future__ import annotations

from typing import Any

import torch
from quality import Problem, main, sampled
from torch.distributions.transforms import AffineTransform, ReshapeTransform

from pyro_genmodels import data, models, transforms


def spline_digits() -> models.FlowModel:
    return models.spline_flow((1, 8, 8), num_levels=17)


def plane_splines() -> models.FlowModel:
    flow = transforms.NeuralSplineFlow(2, num_couplings=4, splines=transforms.Splines(num_bins=16))
    return models.FlowModel((2,), flow)


def board_splines() -> models.FlowModel:
    """Splines of the unit square, which is then scaled to the board: no mass beyond its edges."""
    flow = transforms.NeuralSplineFlow(
        2, num_couplings=4, splines=transforms.Splines("unit", num_bins=16)
    )
    board = AffineTransform(-2.0, 4.0, event_dim=1)
    return models.FlowModel((2,), [flow, board], base="uniform")


def linear_texture() -> models.FlowModel:
    flat, image = torch.Size([256]), torch.Size([1, 16, 16])
    linear = transforms.InvertibleLinear(256, event_dim=1)
    parts = [ReshapeTransform(image, flat), linear, ReshapeTransform(flat, image)]
    return models.FlowModel(image, parts)


def glow_texture() -> models.FlowModel:
    flow = transforms.Glow((1, 16, 16), num_scales=2, num_steps=6, width=32)
    return models.FlowModel((1, 16, 16), flow)


PLANE: dict[str, Any] = {"learning_rate": 2e-3, "batch_size": 512, "ema_decay": 0.998}

PROBLEMS = {
    "splines on digits, 60 s": Problem(data.Digits, spline_digits, {}, 60, 1.89, seeds=3),
    "splines on digits, 150 s": Problem(data.Digits, spline_digits, {}, 150, 1.86, seeds=3),
    "RealNVP on digits, 60 s": Problem(
        data.Digits, lambda: models.realnvp((1, 8, 8), num_levels=17), {}, 60, 2.04, seeds=3
    ),
    "splines on eight Gaussians": Problem(
        lambda: sampled(data.EightGaussians()), plane_splines, PLANE, 60, 0.006, "nats"
    ),
    "RealNVP on eight Gaussians": Problem(
        lambda: sampled(data.EightGaussians()),
        lambda: models.realnvp((2,), dropout=0.0, width=64, num_couplings=12),
        {"learning_rate": 3e-3, "batch_size": 256, "ema_decay": 0.99, "gradient_clip": 50.0},
        120,
        0.04,
        "nats",
    ),
    "splines on the checkerboard": Problem(
        lambda: sampled(data.Checkerboard()), board_splines, PLANE, 120, 0.02, "nats"
    ),
    "Glow on the texture": Problem(
        lambda: sampled(data.GaussianTexture(16), 50_000),
        glow_texture,
        {"learning_rate": 2e-3, "batch_size": 128, "ema_decay": 0.99, "gradient_clip": 50.0},
        120,
        0.02,
        "nats/dim",
    ),
    "linear flow on the texture": Problem(
        lambda: sampled(data.GaussianTexture(16), 50_000),
        linear_texture,
        {"learning_rate": 3e-3, "batch_size": 128, "ema_decay": 0.99},
        60,
        0.02,
        "nats/dim",
    ),
}

if __name__ == "__main__":
    main(PROBLEMS, __doc__)
