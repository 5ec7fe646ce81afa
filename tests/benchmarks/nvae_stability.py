"""Whether a small NVAE trains without a NaN: ``python tests/benchmarks/nvae_stability.py``.

Adamax at the published rate of 1e-2 from the first step on (``--optimizer adamw``: as the preset
``digits`` has it, at twice the rate), warm-up of the KL terms and their balancing within the run,
flows in the posterior, float32 and bf16 autocast. For each run: steps whose loss or gradient was
not finite (the run goes on without them), first and last loss in bits/dim at full weight, and the
largest norm of a gradient.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from pyro_genmodels.data import Digits, Photos
from pyro_genmodels.models import (
    NVAE,
    ELBOLoss,
    NonFiniteELBOError,
    NVAENetwork,
    NVAEObjective,
    presets,
)


def published(
    rule: Callable[..., Optimizer], settings: Mapping[str, Any]
) -> Callable[..., Optimizer]:
    """The optimizer with the settings that a model or preset has for it."""
    rate, epsilon, decay = (settings[k] for k in ("learning_rate", "epsilon", "weight_decay"))
    return partial(rule, lr=rate, eps=epsilon, weight_decay=decay)


OPTIMIZERS = {
    "adamax": published(torch.optim.Adamax, NVAE.training_defaults),
    "adamw": published(torch.optim.AdamW, presets()["NVAE"]["digits"]["training"]),
}
SOURCES = {"Digits": Digits, "Photos": lambda: Photos(16, train=2000, validation=100, test=100)}


def images_of(name: str) -> tuple[Tensor, int]:
    source = SOURCES[name]()
    images = torch.stack([item[0] for item in source.train])
    assert source.num_levels is not None
    return images, source.num_levels


def bound(model: NVAE, x: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        nats = -float(model.log_weights(x).mean())
    model.train()
    return nats / (math.log(2) * x[0].numel())


def run(name: str, seed: int, steps: int, *, bf16: bool, channels: int, optimizer_name: str) -> str:
    torch.manual_seed(seed)
    images, num_levels = images_of(name)
    model = NVAE(
        tuple(images.shape[1:]),
        num_levels=num_levels,
        network=NVAENetwork(channels=channels, num_flows=1),
        objective=NVAEObjective(warmup_steps=steps // 3),
    )
    loss, failures, largest = ELBOLoss(model, validate=False), list[int](), 0.0
    optimizer = OPTIMIZERS[optimizer_name](loss.parameters())
    first = bound(model, images[:64])
    for step in range(1, steps + 1):
        x = images[torch.randint(len(images), (32,))]
        optimizer.zero_grad()
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                value = loss(x)
        except NonFiniteELBOError:
            failures.append(step)
            continue
        value.backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in loss.parameters()])
        if not math.isfinite(float(norm)):
            failures.append(step)
            continue
        largest = max(largest, float(norm))
        optimizer.step()
    last = bound(model, images[:64])
    precision = "bf16" if bf16 else "float32"
    return (
        f"{name:7} {precision:8} seed {seed}: not finite at {failures or 'no step'}, "
        f"{first:6.2f} -> {last:5.2f} bits/dim, largest gradient {largest:.3g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--optimizer", default="adamax", choices=list(OPTIMIZERS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    options = {"channels": arguments.channels, "optimizer_name": arguments.optimizer}
    for name in arguments.sources:
        for bf16 in (False, True):
            for seed in range(arguments.seeds):
                print(run(name, seed, arguments.steps, bf16=bf16, **options), flush=True)


if __name__ == "__main__":
    main()
