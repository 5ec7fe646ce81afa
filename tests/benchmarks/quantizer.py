"""What a quantiser costs: ``python tests/benchmarks/quantizer.py [--collapse]``.

Quantising 32768 vectors of size 64 and updating the averages, in training mode without a backward
pass, against the limit (one distance product and its argmax, nothing else) and against the fastest
Euclidean configuration of vector-quantize-pytorch, if that is installed. All run in one process on
two threads, interleaved, so that a change of the machine's speed meets all alike; what is printed
is medians and their ratios.

With ``--collapse`` instead: codes alive and perplexity on held-out vectors after 1000 steps with
defaults, restarts off for the last 200, for frozen inputs of several shapes and for a trained
encoder.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pyro_genmodels.models import VQVAE, ELBOLoss
from pyro_genmodels.nets import VectorQuantizer, code_perplexity

NUM_VECTORS, DIM = 32768, 64
Clock = Callable[[], float]


def limit(num_codes: int) -> Callable[[Tensor], Tensor]:
    codebook = torch.randn(num_codes, DIM)

    def search(z: Tensor) -> Tensor:
        return torch.addmm(codebook.square().sum(1) / -2, z, codebook.T).argmax(1)

    return search


def variants(num_codes: int) -> dict[str, Callable[[Tensor], object]]:
    made: dict[str, Callable[[Tensor], object]] = {"limit: product and argmax": limit(num_codes)}
    # Codes are put at random: what is measured is the step, not the initialisation.
    options = {"initialization": "random"}
    made["VectorQuantizer"] = VectorQuantizer(DIM, num_codes, **options)
    made["VectorQuantizer, cosine"] = VectorQuantizer(DIM, num_codes, distance="cosine", **options)
    if importlib.util.find_spec("vector_quantize_pytorch"):
        from vector_quantize_pytorch import VectorQuantize

        peer = VectorQuantize(DIM, num_codes, decay=0.99)
        made["vector-quantize-pytorch"] = lambda z: peer(z[None])
    return made


def medians(runs: dict[str, Callable[[Tensor], object]], repeats: int, clock: Clock) -> list[float]:
    """Median seconds of each, all interleaved, after a warm-up."""
    seconds: list[list[float]] = [[] for _ in runs]
    for repeat in range(repeats + 1):
        z = torch.randn(NUM_VECTORS, DIM)
        for values, run in zip(seconds, runs.values(), strict=True):
            start = clock()
            run(z)
            if repeat:
                values.append(clock() - start)
    return [statistics.median(values) for values in seconds]


def report_speed(repeats: int, clock: Clock) -> None:
    for num_codes in (512, 8192):
        runs = variants(num_codes)
        found = medians(runs, repeats if num_codes == 512 else max(3, repeats // 4), clock)
        print(f"{NUM_VECTORS} vectors of {DIM}, {num_codes} codes")
        for name, median in zip(runs, found, strict=True):
            print(f"  {name:28} {median * 1e3:9.1f} ms  {median / found[0]:5.2f} of the limit")


def frozen_inputs() -> dict[str, Callable[[int], Tensor]]:
    """Vectors that do not change as the codes learn: the dull, the flat, the uneven, the far."""
    mixing, centers = torch.randn(8, DIM), 3 * torch.randn(3000, DIM)
    shares = torch.distributions.Dirichlet(torch.full((3000,), 0.3)).sample()
    return {
        "normal": lambda n: torch.randn(n, DIM),
        "eight dimensions of 64": lambda n: torch.randn(n, 8) @ mixing,
        "3000 uneven clusters": lambda n: (
            centers[torch.multinomial(shares, n, replacement=True)] + 0.3 * torch.randn(n, DIM)
        ),
        "normal around 100": lambda n: 100 + torch.randn(n, DIM),
    }


def report_frozen(steps: int, num_codes: int) -> None:
    for name, draw in frozen_inputs().items():
        quantizer = VectorQuantizer(DIM, num_codes)
        for step in range(steps):
            quantizer.restart_after = quantizer.restart_after if step < 0.8 * steps else None
            quantizer(draw(1024))
        _report_codes(name, quantizer.eval()(draw(32768)).codes, num_codes)


def report_trained(steps: int, num_codes: int) -> None:
    """A small VQVAE on patches of photos.

    Codes are counted on patches of the same photos that were not trained on, and on those of the
    test photos, whose colours differ.
    """
    from pyro_genmodels.data import Photos

    source = Photos()
    order = torch.randperm(len(source.train)).tolist()
    train, held_out = (
        torch.stack([source.train[i][0] for i in part]) for part in (order[:2000], order[2000:4000])
    )
    test = torch.stack([source.test[i][0] for i in range(len(source.test))])
    model = VQVAE(source.event_shape, num_levels=source.num_levels, hidden_channels=32)
    optimizer = torch.optim.Adam((loss := ELBOLoss(model)).parameters(), lr=1e-3)
    for step in range(steps):
        if step == int(0.8 * steps):
            model.quantizer.restart_after = None
        optimizer.zero_grad()
        loss(train[torch.randint(len(train), (32,))]).backward()
        optimizer.step()
    for name, x in {"held out": held_out, "test photos": test}.items():
        codes = torch.cat([model.encode_codes(part) for part in x.split(100)])
        _report_codes(f"trained encoder, {name}", codes, num_codes)


def _report_codes(name: str, codes: Tensor, num_codes: int) -> None:
    alive = len(codes.unique()) / num_codes
    effective = code_perplexity(codes, num_codes)
    print(f"{name:28} {alive:7.1%} alive, perplexity {effective:5.0f} of {num_codes}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-clock", action="store_true", help="CPU time: on a busy machine")
    parser.add_argument("--collapse", action="store_true")
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.collapse:
        report_frozen(arguments.steps, 512)
        for seed in range(5):
            torch.manual_seed(seed)
            report_trained(arguments.steps, 512)
    else:
        clock = time.process_time if arguments.cpu_clock else time.perf_counter
        report_speed(arguments.repeats, clock)


if __name__ == "__main__":
    main()
