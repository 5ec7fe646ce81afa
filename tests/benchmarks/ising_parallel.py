"""How many calls parallel sampling takes: ``python tests/benchmarks/ising_parallel.py``.

A gated PixelCNN trained on the critical 16x16 Ising field, then batches of 16 images. ``calls`` is
the number of evaluations of the network for a batch, whatever the number of images still unsettled,
float64 checks included; naive sampling takes 256. ``images`` counts the images evaluated, over
those of naive sampling: what is paid where a call's cost grows with its batch.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from pyro_genmodels.data import Ising
from pyro_genmodels.distributions import GatedPixelCNN
from pyro_genmodels.nets import GatedPixelCNNNet

SIDE, BATCH = 16, 16


def trained(seconds: float) -> GatedPixelCNN:
    """Return the law of a network that was trained for so long, and print its gap."""
    field = Ising(SIDE, SIDE)
    net = GatedPixelCNNNet((1, SIDE, SIDE), 2, hidden_channels=24, num_layers=6)
    law, x = GatedPixelCNN(net, validate_args=False), field.sample((20_000,)).float()
    optimizer, start, share = torch.optim.Adam(net.parameters()), time.perf_counter(), 0.0
    while share < 1:
        share = (time.perf_counter() - start) / seconds
        optimizer.param_groups[0]["lr"] = 3e-3 * max(0.01, 1 - share)
        loss = -law.log_prob(x[torch.randint(len(x), (64,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = field.sample((1000,)).float()
    with torch.no_grad():
        gap = (field.log_prob(test) - law.log_prob(test)).mean() / test[0].numel()
    print(f"gap to the entropy {gap / torch.log(torch.tensor(2.0)):.4f} bits/dim")
    return law


def count(law: GatedPixelCNN, **options: object) -> tuple[int, int]:
    """Return the calls and the images evaluated in drawing a batch."""
    sizes: list[int] = []
    handle = law.net.levels.register_forward_hook(
        lambda _, inputs, __: sizes.append(len(inputs[0]))
    )
    try:
        law.sample((BATCH,), method="parallel", **options)  # type: ignore[arg-type]
    finally:
        handle.remove()
    return len(sizes), sum(sizes)


def main() -> None:
    """Print a line for each window."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=90.0, help="of training")
    parser.add_argument("--batches", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    law, naive = trained(options.seconds), SIDE * SIDE
    for window in (None, 8 * SIDE, 4 * SIDE, 2 * SIDE):
        calls, images = zip(
            *(count(law, window=window) for _ in range(options.batches)), strict=True
        )
        mean, most = statistics.mean(calls) / naive, max(calls) / naive
        cost = statistics.mean(images) / BATCH / naive
        shown = f"calls / naive {mean:.3f} (most {most:.3f}), images / naive {cost:.3f}"
        print(f"window {window or naive:4}: {shown}", flush=True)


if __name__ == "__main__":
    main()
