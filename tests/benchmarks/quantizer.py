"""What a quantiser costs: ``python tests/benchmarks/quantizer.py [--collapse]``.

Quantising 32768 vectors of size 64 and updating the averages, in training mode without a backward
pass, against the limit (one distance product and its argmax, nothing else) and against the fastest
of several Euclidean configurations of vector-quantize-pytorch, if that is installed. All run in one
process on two threads, interleaved, so that a change of the machine's speed meets all alike; what
is printed is medians and their ratios.

With ``--collapse`` instead: codes alive (chosen for some vector) and perplexity on held-out vectors
after 1000 steps with defaults, restarts off for the last 200, for frozen inputs of several shapes
and for a trained encoder, beside its reconstruction error. ``--seeds 5 6`` and ``--only trained``
choose a part, ``--decay``, ``--restart-after`` and ``--learning-rate`` other settings than the
defaults.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels.models import VQVAE, ELBOLoss, VQVAENetwork
from pyro_genmodels.nets import VectorQuantizer, code_perplexity

NUM_VECTORS, DIM = 32768, 64
NUM_CODES = 512  # of the collapse benchmark
PEER = "vector-quantize-pytorch"
# What may make the peer's step shorter. Not tried: a codebook that the optimizer moves, which has
# no averages to update; nor restarts of its codes, which by default it does without.
_LESS: dict[str, dict[str, Any]] = {
    "no rotation_trick": {"rotation_trick": False},
    "no sync_codebook": {"sync_codebook": False},
    "no commitment": {"commitment_weight": 0.0},
}
PEER_OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "kmeans_init": {"kmeans_init": True},
    **_LESS,
    "none of the three": {name: value for one in _LESS.values() for name, value in one.items()},
}
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
    return {**made, **peers(num_codes)}


def peers(num_codes: int) -> dict[str, Callable[[Tensor], object]]:
    """Configurations of the peer that do what is timed, or less."""
    if not importlib.util.find_spec("vector_quantize_pytorch"):
        return {}
    from vector_quantize_pytorch import VectorQuantize

    made = {
        f"{PEER}, {name}": VectorQuantize(DIM, num_codes, decay=0.99, **options)
        for name, options in PEER_OPTIONS.items()
    }
    return {name: lambda z, peer=peer: peer(z[None]) for name, peer in made.items()}


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


def report_speed(sizes: list[int], repeats: int, clock: Clock) -> None:
    for num_codes in sizes:
        runs = variants(num_codes)
        found = medians(runs, repeats if num_codes == 512 else max(3, repeats // 4), clock)
        print(f"{NUM_VECTORS} vectors of {DIM}, {num_codes} codes")
        for name, median in zip(runs, found, strict=True):
            print(f"  {name:42} {median * 1e3:9.1f} ms  {median / found[0]:5.2f} of the limit")
        seconds = dict(zip(runs, found, strict=True))
        rivals = [name for name in runs if name.startswith(PEER)]
        if rivals:
            fastest = min(rivals, key=seconds.__getitem__)
            share = seconds["VectorQuantizer"] / seconds[fastest]
            print(f"  VectorQuantizer: {share:.3f} of the fastest, {fastest}", flush=True)


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


def report_frozen(steps: int, options: dict[str, float]) -> None:
    for name, draw in frozen_inputs().items():
        quantizer = VectorQuantizer(DIM, NUM_CODES, **options)
        for step in range(steps):
            quantizer.restart_after = quantizer.restart_after if step < 0.8 * steps else None
            quantizer(draw(1024))
        z = draw(32768)
        quantized = quantizer.eval()(z)
        _report_codes(name, quantized.codes, (quantized.values - z).square().sum(1).mean())


def photo_parts() -> dict[str, Tensor]:
    """Patches of the training photos, by what they share with those that are trained on.

    Photos cuts its patches out of cells, and they overlap. Trained on are 2000 of the cells' upper
    halves; counted are others of the same, those of the lower halves, of which no pixel is trained
    on, and those of the test photos, whose colours differ.
    """
    from pyro_genmodels.data.datasets.photos import _CELL_HEIGHT, Photos

    source, half = Photos(), _CELL_HEIGHT // 2
    row = source.places["train"][:, 1] % _CELL_HEIGHT
    everything = torch.stack([source.train[i][0] for i in range(len(row))])
    upper, lower = everything[row + source.event_shape[-1] <= half], everything[row >= half]
    upper, lower = (part[torch.randperm(len(part))[:4000]] for part in (upper, lower))
    test = torch.stack([source.test[i][0] for i in range(len(source.test))])
    parts = {"train": upper[:2000], "overlapping patches": upper[2000:]}
    return {**parts, "unseen pixels": lower[:2000], "unseen colours": test}


def report_trained(steps: int, seed: int, rate: float, options: dict[str, float]) -> None:
    """A small VQVAE on patches of photos, at a constant learning rate."""
    torch.manual_seed(seed)
    parts = photo_parts()
    train = parts.pop("train")
    quantizer = VectorQuantizer(DIM, NUM_CODES, **options)
    model = VQVAE(
        (3, 32, 32), num_levels=256, network=VQVAENetwork(hidden_channels=32), quantizer=quantizer
    )
    optimizer = torch.optim.Adam((loss := ELBOLoss(model)).parameters(), lr=rate)
    for step in range(steps):
        if step == int(0.8 * steps):
            quantizer.restart_after = None
        optimizer.zero_grad()
        loss(train[torch.randint(len(train), (32,))]).backward()
        optimizer.step()
    for name, x in parts.items():
        codes = torch.cat([model.encode_codes(part) for part in x.split(100)])
        errors = [(model.reconstruct(part) - part).square().mean() for part in x[:500].split(100)]
        _report_codes(f"seed {seed}, {name}", codes, torch.stack(errors).mean())


def _report_codes(name: str, codes: Tensor, error: Tensor) -> None:
    alive = len(codes.unique()) / NUM_CODES
    effective = code_perplexity(codes, NUM_CODES)
    used = f"{alive:7.1%} of {NUM_CODES} alive, perplexity {effective:4.0f}"
    print(f"{name:28} {used}, squared error {float(error):8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--codes", type=int, nargs="+", default=[512, 8192])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu-clock", action="store_true", help="CPU time: on a busy machine")
    parser.add_argument("--collapse", action="store_true")
    parser.add_argument("--only", choices=("frozen", "trained"), help="of the collapse benchmark")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--decay", type=float, help="the default's unless given")
    parser.add_argument("--restart-after", type=float, help="the default's unless given")
    rate = VQVAE.training_defaults["learning_rate"]
    parser.add_argument("--learning-rate", type=float, default=rate, help="of the encoder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    if arguments.collapse:
        given = {name: getattr(arguments, name) for name in ("decay", "restart_after")}
        options = {name: value for name, value in given.items() if value is not None}
        if arguments.only != "trained":
            report_frozen(arguments.steps, options)
        for seed in arguments.seeds if arguments.only != "frozen" else ():
            report_trained(arguments.steps, seed, arguments.learning_rate, options)
    else:
        clock = time.process_time if arguments.cpu_clock else time.perf_counter
        report_speed(arguments.codes, arguments.repeats, clock)


if __name__ == "__main__":
    main()
