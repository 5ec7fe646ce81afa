"""What a PixelCNN sample costs over a forward pass: ``tests/benchmarks/pixelcnn_sampling.py``.

Batch 16 of 1x28x28 binary images, PixelCNN at several sizes and the gated PixelCNN, of which at
most 2.2 forward passes are asked with ``--threads 2``. One process, the variants
interleaved so that a change of the machine's speed meets all alike; medians and their ratios.
Naive sampling takes one forward pass an element, 784 here, and is not run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from pyro_genmodels.distributions import PixelCNN
from pyro_genmodels.nets import AutoregressiveNet, GatedPixelCNNNet, PixelCNNNet
from pyro_genmodels.testing import randomize_parameters

EVENT_SHAPE, BATCH = (1, 28, 28), 16


def pixelcnn(hidden: int, blocks: int) -> AutoregressiveNet:
    """A PixelCNN for the images."""
    return PixelCNNNet(EVENT_SHAPE, 2, hidden_channels=hidden, num_blocks=blocks)


def gated(hidden: int, layers: int, kernel: int = 3) -> AutoregressiveNet:
    """A gated PixelCNN for the images."""
    return GatedPixelCNNNet(
        EVENT_SHAPE, 2, hidden_channels=hidden, num_layers=layers, layer_kernel_size=kernel
    )


NETS: dict[str, Callable[[], AutoregressiveNet]] = {
    "32 maps, 5 blocks": lambda: pixelcnn(32, 5),
    "64 maps, 8 blocks": lambda: pixelcnn(64, 8),
    "128 maps, 15 blocks": lambda: pixelcnn(128, 15),
    "gated, 64 x 8 layers": lambda: gated(64, 8),
    "the same, 5x5 kernels": lambda: gated(64, 8, 5),
}


def seconds(run: Callable[[], object]) -> float:
    """Return the wall-clock time of a call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def medians(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Return each variant's median time over interleaved runs, after one to warm up."""
    for run in variants.values():
        run()
    times = [{name: seconds(run) for name, run in variants.items()} for _ in range(repeats)]
    return {name: statistics.median(row[name] for row in times) for name in variants}


def main() -> None:
    """Print one line a size of the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="part of the names to run")
    parser.add_argument("--no-parallel", action="store_true", help="leave parallel sampling out")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'network':22}{'forward':>10}{'cached':>10}{'/ forward':>10}{'parallel / forward':>20}")
    for name, make in NETS.items():
        if options.only not in name:
            continue
        net = make().eval()
        law = PixelCNN(randomize_parameters(net, 0.2))
        x = law.sample((BATCH,))
        variants: dict[str, Callable[[], object]] = {
            "forward": lambda net=net, x=x: net(x),
            "cached": lambda law=law: law.sample((BATCH,)),
            "parallel": lambda law=law: law.sample((BATCH,), method="parallel"),
        }
        if options.no_parallel:
            del variants["parallel"]
        with torch.inference_mode():
            time_of = medians(variants, options.repeats)
        forward, cached = time_of["forward"], time_of["cached"]
        parallel = time_of.get("parallel", float("nan"))
        line = f"{name:22}{forward:9.3f}s{cached:9.3f}s{cached / forward:10.2f}"
        print(f"{line}{parallel / forward:20.1f}", flush=True)


if __name__ == "__main__":
    main()
