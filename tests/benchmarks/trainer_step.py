"""What a step through the trainer costs over a hand-written PyTorch loop.

``python tests/benchmarks/trainer_step.py [--clock cpu] [--ema_decay 0.99]``: the 784-400-50
Bernoulli VAE of ``vae_step.py``, batch 128, one thread, progress bar on. After each step of the
trainer the hand-written loop takes one, in the same process, so that a change of the machine's
speed meets both; what is printed is medians and their ratio. The trainer's step is all between
two hand-written ones: indexing of the data, loss, backward pass, optimizer, average, bar, hooks.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor

from pyro_genmodels import data, models, training
from tests.benchmarks.vae_step import HandWritten

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Interleave(lightning.Callback):
    """Takes a hand-written step after each of the trainer's, and times both."""

    def __init__(self, x: Tensor, clock: Callable[[], float]) -> None:
        self.x, self.clock = x, clock
        self.module = HandWritten(784, 400, 50)
        self.optimizer = torch.optim.Adam(self.module.parameters())
        self.trainer_steps: list[float] = []
        self.hand_steps: list[float] = []
        self.left = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        start = self.clock()
        if self.left:
            self.trainer_steps.append(start - self.left)
        self.step()
        self.left = self.clock()
        self.hand_steps.append(self.left - start)

    def on_train_epoch_start(self, *_: Any) -> None:
        self.left = 0.0  # what lies between two epochs is no step

    def step(self) -> None:
        x = self.x[torch.randint(len(self.x), (128,))].float()
        self.optimizer.zero_grad()
        self.module(x).backward()
        self.optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--ema_decay", type=float)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    x = (torch.rand(12_800, 784) > 0.5).to(torch.uint8)
    source = data.InMemory(x, x[:128], x[:128], num_levels=2)
    race = Interleave(x, CLOCKS[arguments.clock])
    training.fit(
        models.VAE((784,), num_levels=2, latent_dim=50),
        source,
        run=tempfile.mkdtemp(),
        callbacks=[race],
        max_epochs=arguments.epochs,
        batch_size=128,
        ema_decay=arguments.ema_decay,
        num_samples=0,
        accelerator="cpu",
    )
    hand, trainer = statistics.median(race.hand_steps), statistics.median(race.trainer_steps)
    print(f"hand-written {1e3 * hand:.3f} ms, trainer {1e3 * trainer:.3f} ms a step")
    print(f"ratio {trainer / hand:.3f} over {len(race.trainer_steps)} steps")


if __name__ == "__main__":
    main()
