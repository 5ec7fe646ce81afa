"""What a PixelCNN++ sample costs over a forward pass: ``tests/benchmarks/pixelcnn_pp_sampling.py``.

The published network for CIFAR-10, untrained unless a checkpoint is given, in float32. ``cached``
is the incremental evaluation alone, ``sample`` all of it: draws, and passes in float64 of the
images in which rounding may have changed a draw. At most five forward passes are asked. Ratios by
the wall clock and by the processor's, which other jobs disturb less. Naive sampling takes 3072
passes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

import pyro_genmodels
from pyro_genmodels import distributions, models
from pyro_genmodels.distributions.autoregressive import rounding


def clocks(run: Callable[[], object]) -> torch.Tensor:
    """Return the wall-clock time and the processor's of a call."""
    start = torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)
    run()
    stop = torch.tensor([time.perf_counter(), time.process_time()], dtype=torch.float64)
    return stop - start


def count_settled(counts: list[int]) -> None:
    """Have each call that settles images append their number."""
    settle = rounding.Settling._settle

    def counting(self: rounding.Settling, x: torch.Tensor, images: torch.Tensor) -> float | None:
        counts.append(len(images))
        return settle(self, x, images)

    rounding.Settling._settle = counting  # type: ignore[method-assign]


def main() -> None:
    """Print times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=160)
    parser.add_argument("--checkpoint", help="of a trained model, in place of the preset")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = (
        models.preset("pixelcnn_pp", "cifar10", hidden_channels=options.hidden)
        if options.checkpoint is None
        else pyro_genmodels.load(options.checkpoint)
    )
    net = model.net.eval()  # type: ignore[union-attr]
    law = distributions.PixelCNNPlusPlus(net)
    x = torch.randint(net.num_levels, (options.batch, *net.event_shape)).float()

    def cached() -> None:
        state = net.incremental(options.batch, None)
        for level in x.movedim(1, -1).flatten(1).unbind(1):
            state.parameters()
            state.append(level)

    counts: list[int] = []
    count_settled(counts)
    with torch.inference_mode():
        net(x[:1])
        forward = (clocks(lambda: net(x)) + clocks(lambda: net(x))) / 2
        print(f"forward {forward[0]:.2f} s, of the processor {forward[1]:.2f} s", flush=True)
        runs = {"cached": cached, "sample": lambda: law.sample((options.batch,))}
        for name, run in runs.items():
            wall, processor = (clocks(run) / forward).tolist()
            print(f"{name} / forward {wall:.2f}, by the processor {processor:.2f}", flush=True)
    print(f"images settled in float64: {sum(counts)} of {options.batch}")


if __name__ == "__main__":
    main()
