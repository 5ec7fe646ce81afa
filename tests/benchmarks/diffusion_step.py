"""What a diffusion model's training step costs: ``python tests/benchmarks/diffusion_step.py``.

The default model of the digits, batch 64, one thread. ``--only`` runs some of four parts:

- ``steps``: loss, backward pass and optimizer over a hand-written loop with the same network and
  the same loss. All run in one process, interleaved step by step; what is printed is the median of
  the ratios to the hand-written step of the same round, by the process's own clock.
- ``variance``: of the loss and of its gradient over noise levels and noise, for one minibatch and a
  model that has been trained a little: noise levels drawn independently, stratified, and
  stratified with importance sampling. In parts of the first.
- ``sampling``: a draw over the evaluations of the network that it takes.
- ``memory``: evaluations and peak memory of log-weights, for short and long chains.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pyro
import torch
import torch.nn.functional as F
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn

from pyro_genmodels.data import Digits
from pyro_genmodels.models import DiffusionModel, ELBOLoss
from pyro_genmodels.models.diffusion.level_sampler import DrawnSteps, StepSampler
from pyro_genmodels.optim import JointOptim

BATCH = 64
OPTIONS = {"lr": 1e-3, "weight_decay": 1e-2}
Step = Callable[[Tensor], None]


def digits_model(**options: Any) -> DiffusionModel:
    torch.manual_seed(0)
    return DiffusionModel((1, 8, 8), num_levels=17, **options)


class HandWritten(nn.Module):
    """The same network and the same loss as one would write them without Pyro."""

    def __init__(self, like: DiffusionModel, levels: int = 17) -> None:
        super().__init__()
        like = copy.deepcopy(like)
        self.net, self.num_steps, self.num_levels = like.estimator.net, like.num_steps, levels
        self.first, self.log_range = like.schedule.first, like.schedule.log_range
        centres = (2 * torch.arange(levels) + 1) / levels - 1
        self.register_buffer("centres", centres)

    def logits(self, z: Tensor, g: Tensor) -> Tensor:
        alpha = torch.sigmoid(-g).sqrt()[:, None, None, None, None]
        square = (z.unsqueeze(-1) - alpha * self.centres).square()
        return -0.5 * square / torch.sigmoid(g)[:, None, None, None, None]

    def noised(self, values: Tensor, g: Tensor) -> Tensor:
        alpha, sigma = (torch.sigmoid(s * g).sqrt()[:, None, None, None] for s in (-1, 1))
        return alpha * values + sigma * torch.randn_like(values)

    def forward(self, x: Tensor) -> Tensor:
        values, number = self.centres[x.long()], len(x)
        size = self.log_range.exp()
        first, last = self.first, self.first + size
        u = (torch.rand(()) + torch.arange(number) / number) % 1
        index = (u * self.num_steps).long() + 1
        low, high = (first + size * (i / self.num_steps) for i in (index - 1, index))
        z = self.noised(values, high)
        output = self.net(z, ((high - first) / size).detach()).unflatten(1, (self.num_levels, 1))
        estimate = (output.movedim(1, -1) + self.logits(z, high)).softmax(-1) @ self.centres
        error = (values - estimate).square().flatten(1).sum(1)
        steps = self.num_steps * 0.5 * (-high).exp() * torch.expm1(high - low) * error
        square = (torch.sigmoid(-last) * values.square()).flatten(1).sum(1)
        variance = torch.sigmoid(last)
        prior = 0.5 * square + 0.5 * values[0].numel() * (variance - 1 - variance.log())
        ends = first.expand(number)
        logits = self.logits(self.noised(values, ends), ends).flatten(0, -2)
        decoder = F.cross_entropy(logits, x.long().flatten(), reduction="sum")
        return (steps.sum() + prior.sum() + decoder) / number


def optimizer_step(loss: nn.Module) -> Step:
    optimizer = torch.optim.AdamW(loss.parameters(), **OPTIONS, foreach=True)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def svi_step(model: DiffusionModel, optimizer: PyroOptim) -> Step:
    svi = SVI(model.model, model.guide, optimizer, Trace_ELBO())

    def step(x: Tensor) -> None:
        svi.step(x)

    return step


def report_steps(x: Tensor, rounds: int) -> None:
    model = digits_model()
    joint = JointOptim(torch.optim.AdamW, {**OPTIONS, "foreach": True})
    steps = {
        "hand-written": optimizer_step(HandWritten(model)),
        "ELBOLoss": optimizer_step(ELBOLoss(digits_model())),
        "SVI, JointOptim": svi_step(digits_model(), joint),
        "SVI, Pyro's optimizer": svi_step(digits_model(), PyroOptim(torch.optim.AdamW, OPTIONS)),
    }
    seconds = interleaved({name: lambda s=step: s(x) for name, step in steps.items()}, rounds)
    report(f"Steps, median of {rounds} rounds", seconds, "hand-written")


def interleaved(
    calls: dict[str, Callable[[], Any]], rounds: int, warmup: int = 3
) -> dict[str, list[float]]:
    """Seconds of the process in each call, all in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for index in range(rounds + warmup):
        for name, call in calls.items():
            start = time.process_time()
            call()
            if index >= warmup:
                seconds[name].append(time.process_time() - start)
    return seconds


def report(title: str, seconds: dict[str, list[float]], base: str) -> None:
    print(title)
    for name, values in seconds.items():
        ratios = [v / b for v, b in zip(values, seconds[base], strict=True)]
        median, ratio = statistics.median(values), statistics.median(ratios)
        quarters = statistics.quantiles(ratios, n=4)
        spread = f"quartiles {quarters[0]:.3f} {quarters[2]:.3f}"
        print(f"  {name:24} {median * 1e3:8.1f} ms  {ratio:6.3f}x  {spread}", flush=True)


class IndependentSteps(StepSampler):
    """Steps drawn uniformly, each for itself."""

    def draw(self, batch: torch.Size) -> DrawnSteps:
        index = torch.randint(self.num_steps, batch)
        weight = torch.full(batch, float(self.num_steps), dtype=torch.float64)
        return DrawnSteps(index + 1, (index + torch.rand(batch)) / self.num_steps, weight)


def report_variance(x: Tensor, data: Tensor, train_steps: int, draws: int) -> None:
    model = digits_model()
    loss = ELBOLoss(model)
    step = optimizer_step(loss)
    for index in range(train_steps):
        step(data[torch.arange(BATCH * index, BATCH * (index + 1)) % len(data)])
    steps = model.num_steps
    samplers = {
        "independent": IndependentSteps(steps, adaptive=False),
        "stratified": StepSampler(steps, adaptive=False),
        "importance sampling": copy.deepcopy(model.step_sampler).eval(),
    }
    found: dict[str, tuple[float, float]] = {}
    for name, sampler in samplers.items():
        model.step_sampler = sampler
        losses, mean, squares = [], torch.zeros(()), 0.0
        for _ in range(draws):
            model.zero_grad()
            value = loss(x)
            value.backward()
            losses.append(float(value.detach()))
            gradient = torch.cat([p.grad.flatten() for p in model.parameters()]).double()
            mean, squares = (
                mean + gradient / draws,
                squares + float(gradient.square().sum()) / draws,
            )
        spread = (squares - float(mean.square().sum())) * draws / (draws - 1)
        found[name] = statistics.variance(losses), spread
    first = found["independent"]
    print(f"Variances after {train_steps} steps, {draws} draws of one minibatch's loss (gradient)")
    for name, (of_loss, of_gradient) in found.items():
        ratios = f"{of_loss / first[0]:5.3f} ({of_gradient / first[1]:5.3f})"
        print(f"  {name:24} {of_loss:10.4g} ({of_gradient:9.4g})  {ratios}", flush=True)


def report_sampling(rounds: int, num_steps: int = 16) -> None:
    model = digits_model(num_steps=num_steps).eval()
    z, level = torch.randn(BATCH, 1, 8, 8), torch.zeros(BATCH)

    @torch.no_grad()
    def evaluations() -> None:
        for _ in range(num_steps):
            model.estimator(z, level)

    calls = {"evaluations": evaluations, "sample": lambda: model.sample(BATCH)}
    report(f"Draws of {num_steps} steps", interleaved(calls, max(3, rounds // 3), 1), "evaluations")


def report_memory(x: Tensor) -> None:
    """Each in a process of its own, as memory that was used once is not given back."""
    print("Log-weights of 8 images, 8 chains: evaluations, calls, memory beyond one part's")
    for gradients in (False, True):
        for num_steps in (16, 64) if gradients else (64, 256):
            with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
                rows, calls, growth = pool.submit(weigh, x[:8], num_steps, gradients).result()
            kind = "with gradients" if gradients else "without"
            print(f"  {kind:15} T = {num_steps:3}: {rows:6} {calls:4} {growth:6.1f} MB", flush=True)


def weigh(x: Tensor, num_steps: int, gradients: bool) -> tuple[int, int, float]:
    """Return evaluations, calls and the peak memory over that of one part of a chain, in MB."""
    torch.set_num_threads(1)
    model = digits_model(num_steps=num_steps).eval()
    rows: list[int] = []
    model.estimator.net.register_forward_pre_hook(lambda _, given: rows.append(given[1].numel()))
    for steps in (8, num_steps):
        before = peak_memory()
        rows.clear()
        with torch.set_grad_enabled(gradients):
            weights = model.log_weights(x, num_particles=8, num_steps=steps)
            if gradients:
                weights.sum().backward()
    return sum(rows), len(rows), peak_memory() - before


def peak_memory() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--train_steps", type=int, default=300)
    parser.add_argument("--draws", type=int, default=100)
    parts = ("steps", "variance", "sampling", "memory")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    data = Digits().train.tensors[0]
    x = data[:BATCH]
    if "steps" in arguments.only:
        report_steps(x, arguments.rounds)
    if "variance" in arguments.only:
        report_variance(x, data, arguments.train_steps, arguments.draws)
    if "sampling" in arguments.only:
        report_sampling(arguments.rounds)
    if "memory" in arguments.only:
        report_memory(x)


if __name__ == "__main__":
    main()
