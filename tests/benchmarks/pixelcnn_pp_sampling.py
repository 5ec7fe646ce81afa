"""What a PixelCNN++ sample costs over a forward pass: ``tests/benchmarks/pixelcnn_pp_sampling.py``.

The published network for CIFAR-10, untrained, in float32. ``cached`` is the incremental evaluation
alone, ``sample`` all of it: at 256 levels nearly every image has a sub-pixel near the border of two
levels, so that all are checked by a pass in float64. Naive sampling takes 3072 passes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from pyro_genmodels import distributions, models


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Print times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--hidden", type=int, default=160)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    net = models.preset("pixelcnn_pp", "cifar10", hidden_channels=options.hidden).net.eval()
    law = distributions.PixelCNNPlusPlus(net)
    x = torch.randint(256, (options.batch, 3, 32, 32)).float()

    def cached() -> None:
        state = net.incremental(options.batch, None)
        for level in x.movedim(1, -1).flatten(1).unbind(1):
            state.parameters()
            state.append(level)

    with torch.inference_mode():
        net(x[:1])
        forward = seconds(lambda: net(x))
        print(f"forward {forward:.2f} s")
        print(f"cached / forward {seconds(cached) / forward:.2f}")
    print(f"sample / forward {seconds(lambda: law.sample((options.batch,))) / forward:.2f}")


if __name__ == "__main__":
    main()
