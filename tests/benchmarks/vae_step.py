"""What a VAE step costs over a hand-written PyTorch loop: ``python tests/benchmarks/vae_step.py``.

Loss, backward pass and optimizer of a 784-400-50 Bernoulli VAE, batch 128, one thread. Every
variant takes the same Adam and the same data, and computes the same objective with its own draws.
All run in one process, interleaved step by step, so that a change of the machine's speed meets all
alike; what is printed is medians and their ratios. ``--clock cpu`` counts the thread's own time,
for a machine with other work. The last table is the cost that does not shrink with the networks:
so much a step, and so much for each latent site.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.optim import Adam as PyroAdam
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_genmodels.models import VAE, ELBOLoss, GenerativeModel, VAENetwork
from pyro_genmodels.optim import JointOptim

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


def svi_step(model: VAE, optimizer: PyroOptim) -> Step:
    svi = SVI(model.model, model.guide, optimizer, Trace_ELBO(max_plate_nesting=1))

    def step(x: Tensor) -> None:
        svi.step(x)

    return step


def variants(data: int, hidden: int, latent: int) -> dict[str, Step]:
    def vae() -> VAE:
        return VAE((data,), num_levels=2, latent_dim=latent, network=VAENetwork(hidden=(hidden,)))

    pyros = PyroAdam({"lr": LEARNING_RATE})
    joint = JointOptim(torch.optim.Adam, {"lr": LEARNING_RATE})
    return {
        "hand-written": optimizer_step(HandWritten(data, hidden, latent)),
        "ELBOLoss": optimizer_step(ELBOLoss(vae())),
        "ELBOLoss(TraceMeanField_ELBO)": optimizer_step(ELBOLoss(vae(), TraceMeanField_ELBO)),
        "ELBOLoss(Trace_ELBO)": optimizer_step(ELBOLoss(vae(), Trace_ELBO)),
        "SVI(Trace_ELBO), validation off": svi_step(vae(), pyros),
        "the same by JointOptim": svi_step(vae(), joint),
    }


class HandWrittenSites(nn.Module):
    """Some scalar latents, each with its own posterior parameters, and a Gaussian likelihood."""

    def __init__(self, num_sites: int) -> None:
        super().__init__()
        self.locs = nn.ParameterList(torch.zeros(1) for _ in range(num_sites))

    def forward(self, x: Tensor) -> Tensor:
        zs = [loc + torch.randn(len(x), 1) for loc in self.locs]
        rate = sum(len(x) * 0.5 * loc.square().sum() for loc in self.locs)
        return (0.5 * (x - sum(zs)).square().sum() + rate) / len(x)


class Sites(GenerativeModel):
    """The same as a model/guide pair."""

    def __init__(self, num_sites: int) -> None:
        super().__init__((1,))
        self.locs = nn.ParameterList(torch.zeros(1) for _ in range(num_sites))
        self.one = torch.ones(1)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        total = torch.zeros(1)
        for i in range(len(self.locs)):
            total = total + pyro.sample(f"z_{i}", dist.Normal(0 * self.one, self.one).to_event(1))
        return pyro.sample("x", dist.Normal(total, self.one).to_event(1), obs=x)

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        for i, loc in enumerate(self.locs):
            pyro.sample(f"z_{i}", dist.Normal(loc, self.one).to_event(1))


def medians(
    steps: dict[str, Step], x: Tensor, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each step, all interleaved, after a warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 5):
        for name, step in steps.items():
            start = clock()
            step(x)
            if repeat >= 5:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(title: str, result: dict[str, float], repeats: int) -> None:
    base = next(iter(result.values()))
    print(f"{title}, median of {repeats} steps")
    for name, median in result.items():
        extra = f"+{(median - base) * 1e6:5.0f} us" if median != base else ""
        print(f"  {name:34} {median * 1e3:8.3f} ms  {median / base:5.3f}x  {extra}")


def report_fixed_cost(x: Tensor, repeats: int, clock: Callable[[], float]) -> None:
    """Fit the extra time over the hand-written loop as a line in the number of latent sites."""
    few, many = 1, 9
    steps = {
        f"{kind.__name__} {n}": optimizer_step(ELBOLoss(kind(n)) if kind is Sites else kind(n))
        for kind in (HandWrittenSites, Sites)
        for n in (few, many)
    }
    result = medians(steps, x, repeats, clock)
    extra = [result[f"Sites {n}"] - result[f"HandWrittenSites {n}"] for n in (few, many)]
    a_site = (extra[1] - extra[0]) / (many - few)
    a_step = extra[0] - few * a_site
    print(f"Fixed cost: {a_step * 1e6:.0f} us a step and {a_site * 1e6:.0f} us a latent site")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    clock = time.perf_counter if arguments.clock == "wall" else time.thread_time
    repeats = arguments.repeats
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    torch.manual_seed(0)
    x = torch.rand(128, 784).round()
    result = medians(variants(784, 400, 50), x, repeats, clock)
    report("VAE 784-400-50, batch 128", result, repeats)
    report_fixed_cost(x[:8, :1].contiguous(), 2 * repeats, clock)


if __name__ == "__main__":
    main()
