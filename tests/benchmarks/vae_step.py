"""What a VAE step costs over a hand-written PyTorch loop: ``python tests/benchmarks/vae_step.py``.

Loss, backward pass and optimizer of a 784-400-50 Bernoulli VAE, batch 128, one thread. Every
variant takes the same Adam and the same data, and computes the same objective with its own draws.
All run in one process, interleaved step by step, so that a change of the machine's speed meets all
alike; what is printed is medians and their ratios. A second, tiny VAE shows the cost that does
not shrink with the networks.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import pyro
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam as PyroAdam
from torch import Tensor, nn

from pyro_genmodels.models import VAE, ELBOLoss

LEARNING_RATE = 1e-3
Step = Callable[[Tensor], None]


class HandWritten(nn.Module):
    """The same VAE as one would write it without Pyro: analytic KL, one draw, fused likelihood."""

    def __init__(self, data: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(data, hidden), nn.ReLU(), nn.Linear(hidden, 2 * latent)
        )
        self.decoder = nn.Sequential(nn.Linear(latent, hidden), nn.ReLU(), nn.Linear(hidden, data))

    def forward(self, x: Tensor) -> Tensor:
        loc, log_scale = self.encoder(x * 2 - 1).chunk(2, dim=-1)
        scale = log_scale.exp()
        logits = self.decoder(loc + scale * torch.randn_like(scale))
        distortion = F.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        rate = 0.5 * (loc.square() + scale.square() - 1).sum() - log_scale.sum()
        return (distortion + rate) / len(x)


def optimizer_step(loss: nn.Module) -> Step:
    optimizer = torch.optim.Adam(loss.parameters(), lr=LEARNING_RATE)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def svi_step(model: VAE) -> Step:
    pyro_adam = PyroAdam({"lr": LEARNING_RATE})
    svi = SVI(model.model, model.guide, pyro_adam, Trace_ELBO(max_plate_nesting=1))

    def step(x: Tensor) -> None:
        svi.step(x)

    return step


def variants(data: int, hidden: int, latent: int) -> dict[str, Step]:
    def vae() -> VAE:
        return VAE((data,), num_levels=2, latent_dim=latent, hidden=(hidden,))

    return {
        "hand-written": optimizer_step(HandWritten(data, hidden, latent)),
        "ELBOLoss(Trace_ELBO)": optimizer_step(ELBOLoss(vae(), Trace_ELBO)),
        "ELBOLoss(TraceMeanField_ELBO)": optimizer_step(ELBOLoss(vae(), TraceMeanField_ELBO)),
        "SVI(Trace_ELBO), validation off": svi_step(vae()),
    }


def medians(steps: dict[str, Step], x: Tensor, repeats: int) -> dict[str, float]:
    """Median seconds of each step, all interleaved, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 5):
        for name, step in steps.items():
            start = time.perf_counter()
            step(x)
            if repeat >= 5:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(title: str, steps: dict[str, Step], x: Tensor, repeats: int) -> dict[str, float]:
    """Print a table; return the ratio of each variant to the first."""
    result = medians(steps, x, repeats)
    base = next(iter(result.values()))
    print(f"{title}, batch {len(x)}, median of {repeats} steps")
    for name, median in result.items():
        extra = f"+{(median - base) * 1e6:6.0f} us" if median != base else " " * 10
        print(f"  {name:34} {median * 1e3:8.3f} ms  {median / base:5.3f}x  {extra}")
    return {name: median / base for name, median in result.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    torch.manual_seed(0)
    x = torch.rand(128, 784).round()
    report("VAE 784-400-50", variants(784, 400, 50), x, repeats)
    # Two sites, hardly any arithmetic: what a step costs whatever the networks.
    report("VAE 16-8-2", variants(16, 8, 2), x[:8, :16].contiguous(), 2 * repeats)


if __name__ == "__main__":
    main()
