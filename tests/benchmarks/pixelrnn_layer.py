"""A Diagonal BiLSTM layer against convolutions: ``tests/benchmarks/pixelrnn_layer.py``.

A training step, forward and backward, of one layer in the paper's residual setting (2h = 256
features, h = 128, images of 32x32, batch 16) against a plain stack of 3x3 convolutions with ReLUs
of as many operations, as counted by torch's ``FlopCounterMode``; at most 3 times its time is
asked. The stack has as many layers as come nearest, and its time is scaled by what is left of the
ratio of the counts. One process, the variants interleaved, medians, by the wall clock and by the
processor time of the process, which other processes disturb less. Then what a sample costs over a
forward pass of the same batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pyro_genmodels.distributions import MultiScalePixelRNN, PixelRNN
from pyro_genmodels.distributions.autoregressive.base import SoftmaxAutoregressive
from pyro_genmodels.nets import MultiScaleNet, PixelRNNNet
from pyro_genmodels.nets.pixelrnn.layers import DiagonalLSTMLayer
from pyro_genmodels.testing import randomize_parameters

HIDDEN, SIDE, BATCH = 128, 32, 16
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}


def lstm_step() -> Callable[[], None]:
    """Return a training step of the layer."""
    layer = DiagonalLSTMLayer(
        (1, SIDE, SIDE),
        2 * HIDDEN,
        HIDDEN,
        residual=True,
        skip_channels=None,
        dropout=0.0,
        context=None,
    )
    x = torch.randn(SIDE * SIDE, BATCH, 2 * HIDDEN, requires_grad=True)
    return training_step(lambda: layer(x, None)[0], [x, *layer.parameters()])


def convolutions_step(channels: int, layers: int) -> Callable[[], None]:
    """Return a training step of a stack of 3x3 convolutions."""
    parts = [
        nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()) for _ in range(layers)
    ]
    stack = nn.Sequential(*parts)
    x = torch.randn(BATCH, channels, SIDE, SIDE, requires_grad=True)
    return training_step(lambda: stack(x), [x, *stack.parameters()])


def training_step(forward: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
    """Return a function that runs forward and backward; gradients are made anew."""
    of_output = torch.randn_like(forward())

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        forward().backward(of_output)

    return step


def flops(run: Callable[[], object]) -> int:
    """Return the operations that torch counts."""
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def medians(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Return each variant's median times over interleaved runs, after one to warm up."""
    for run in variants.values():
        run()
    times: dict[str, dict[str, list[float]]] = {
        name: {clock: [] for clock in CLOCKS} for name in variants
    }
    for _ in range(repeats):
        for name, run in variants.items():
            before = {clock: read() for clock, read in CLOCKS.items()}
            run()
            for clock, read in CLOCKS.items():
                times[name][clock].append(read() - before[clock])
    return {
        name: {clock: statistics.median(row) for clock, row in rows.items()}
        for name, rows in times.items()
    }


def training(repeats: int) -> None:
    """Print the ratio of the training steps."""
    layer = lstm_step()
    total = flops(layer)
    print(f"Diagonal BiLSTM layer: {total / 1e9:.1f} GFLOP a training step")
    counts, variants = {}, {"layer": layer}
    for channels in (HIDDEN, 2 * HIDDEN):
        number = max(1, round(total / flops(convolutions_step(channels, 1))))
        name = f"{number} convolutions of {channels} channels"
        variants[name] = convolutions_step(channels, number)
        counts[name] = flops(variants[name])
    time_of = medians(variants, repeats)
    for name, count in counts.items():
        line = f"{name} ({count / 1e9:.1f} GFLOP)"
        for clock, seconds in time_of[name].items():
            mine = time_of["layer"][clock]
            ratio = mine / (seconds * total / count)
            line += f"; {clock}: {mine:.3f}s / {seconds:.3f}s, ratio {ratio:.2f}"
        print(line, flush=True)


def laws() -> dict[str, SoftmaxAutoregressive]:
    """Return distributions over binary images, of seven layers with 32 features each."""
    grey, colours = (1, 28, 28), (3, 16, 16)
    sizes: dict[str, Any] = {"hidden_channels": 32, "num_layers": 7}
    small = PixelRNNNet((1, 14, 14), 2, **sizes)
    large = PixelRNNNet(grey, 2, context_shape=(32, 28, 28), **sizes)
    return {
        f"diagonal, {grey}": PixelRNN(PixelRNNNet(grey, 2, **sizes)),
        f"row, {grey}": PixelRNN(PixelRNNNet(grey, 2, layer="row", **sizes)),
        f"diagonal, {colours}": PixelRNN(PixelRNNNet(colours, 2, **sizes)),
        f"two scales, diagonal, {grey}": MultiScalePixelRNN(MultiScaleNet(small, large)),
    }


def sampling(repeats: int) -> None:
    """Print the cost of a sample over a forward pass."""
    for name, law in laws().items():
        net = randomize_parameters(law.net, 0.2).eval()
        x = law.sample((BATCH,))
        variants: dict[str, Callable[[], object]] = {
            "forward": lambda net=net, x=x: net(x),
            "sample": lambda law=law: law.sample((BATCH,)),
        }
        with torch.inference_mode():
            time_of = medians(variants, repeats)
        forward, sample = time_of["forward"], time_of["sample"]
        for clock in CLOCKS:
            ratio = sample[clock] / forward[clock]
            figures = f"forward {forward[clock]:.3f}s, sample {sample[clock]:.3f}s"
            print(f"{name}; {clock}: {figures}, ratio {ratio:.2f}", flush=True)


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-sampling", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    training(options.repeats)
    if not options.no_sampling:
        sampling(max(1, options.repeats // 3))


if __name__ == "__main__":
    main()
