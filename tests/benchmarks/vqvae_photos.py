"""VQ-VAE-2 against VQ-VAE at equal code bits: ``python tests/benchmarks/vqvae_photos.py --out F``.

Both on 32x32 patches of photographs, 640 bits of codes an image before a prior is learned: VQ-VAE
has one map of 8x8 codes of 10 bits, VQ-VAE-2 one of 4x4 and one of 8x8 codes of 8 bits. Of each
seed both are trained for the same time, first the model and then its prior. Printed are bits/dim
of the whole (reconstruction and codes under the learned prior), what the codes cost of it, and the
paired difference, VQ-VAE-2 minus VQ-VAE, over the same test images, so that a negative one is in
VQ-VAE-2's favour; last the mean over seeds, whose standard error is of the seeds.

The rows *digits* and *photos* are one run each of the command line, both stages.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels import data, metrics, models, plotting, training
from pyro_genmodels.cli import main as command
from tests.grouped import grouped

EVENT = (3, 32, 32)
SIZES = {"num_levels": 256, "dim": 32, "hidden_channels": 48, "residual_channels": 32}
PRIOR = {"hidden_channels": 32, "num_blocks": 1, "num_layers": 2}
TIMED: dict[str, Any] = {
    "max_epochs": 10_000,
    "schedule": "cosine",
    "schedule_by": "time",
    "warmup_steps": 100,
    "num_samples": 0,
}
DIGITS = {"num_codes": 32, "dim": 16, "reduction": 2, "hidden_channels": 32}
PHOTOS = {"num_codes": 1024, "dim": 32, "hidden_channels": 48}


def make(name: str) -> models.VQVAE | models.VQVAE2:
    if name == "VQVAE":
        return models.VQVAE(EVENT, codebook=1024, **grouped(models.VQVAE, SIZES))  # type: ignore[arg-type]
    return models.VQVAE2(EVENT, codebook=256, **grouped(models.VQVAE2, SIZES))  # type: ignore[arg-type]


def code_bits(model: models.VectorQuantizedModel) -> float:
    return sum(p.code_shape.numel() * math.log2(p.num_codes) for p in model.code_priors)


def bits_per_dim(nats: Tensor) -> metrics.Estimate:
    return metrics.Estimate.of(nats.double() / (math.log(2) * math.prod(EVENT)))


def trained(name: str, seed: int, source: data.DataSource, run: Path, options: Any) -> Any:
    """Train both stages into a run folder and load the whole."""
    torch.manual_seed(seed)
    shared = {**TIMED, "seed": seed, "progress": options.progress}
    first = {"batch_size": 32, "learning_rate": 2e-3, "max_time": options.seconds, **shared}
    training.fit(make(name), source, run=run, overwrite=True, **first)
    start: Any = training.load(run)
    torch.manual_seed(seed)
    priors = models.learned_priors(start, **PRIOR)  # type: ignore[arg-type]
    seconds = options.prior_seconds or options.seconds * 2 / 3
    second = {"batch_size": 32, "learning_rate": 2e-3, "ema_decay": 0.995, "max_time": seconds}
    training.fit_prior(run, priors=priors, source=source, **second, **shared)
    return training.load(run)


@torch.no_grad()
def costs(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return nats of the whole and of the codes, for each image."""
    codes = torch.cat([model.code_log_prob(part) for part in x.split(256)])
    return -metrics.elbo(model, x, chunk_size=256), -codes


def pair(seed: int, source: data.DataSource, options: Any) -> Tensor:
    """Train both of a seed; return the difference of each test image in nats."""
    x: Tensor = source.test.tensors[0]  # type: ignore[attr-defined]
    whole = []
    for name in ("VQVAE", "VQVAE2"):
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            model = trained(name, seed, source, Path(folder), options)
        nats, of_codes = costs(model, x)
        used = [int(c.unique().numel()) for c in model.code_maps(x)]
        size = sum(p.numel() for n, p in model.named_parameters() if not n.startswith("prior"))
        print(f"{name:6} seed {seed}: {bits_per_dim(nats)} bits/dim", end=", ")
        print(f"of these codes {bits_per_dim(of_codes)};")
        print(f"  uniform codes {code_bits(model):.0f} bits an image, in use {used}", end=", ")
        print(f"{size:,} parameters, {time.perf_counter() - start:.0f} s", flush=True)
        if seed == 0 and options.out is not None:
            draw(model, x, name.lower(), options.out)
        whole.append(nats)
    print(f"  VQ-VAE-2 minus VQ-VAE, seed {seed}: {bits_per_dim(whole[1] - whole[0])} bits/dim")
    return whole[1] - whole[0]


def draw(model: Any, x: Tensor, name: str, folder: Path) -> None:
    torch.manual_seed(0)
    plotting.save_samples(model.sample(64), model.num_levels, folder / f"{name}_samples.png")
    few = x[:32]
    path = folder / f"{name}_reconstructions.png"
    plotting.save_reconstructions(few, model.reconstruct(few), model.num_levels, path)


def pairs(options: Any) -> None:
    sizes = {} if options.train is None else {"train": options.train}
    source = data.Photos(EVENT[1], **sizes, test=options.test)
    gaps = torch.stack([bits_of(pair(seed, source, options)) for seed in range(options.seeds)])
    mean, error = gaps.mean(), gaps.std(correction=min(1, len(gaps) - 1)) / math.sqrt(len(gaps))
    print(f"VQ-VAE-2 minus VQ-VAE over {len(gaps)} seeds: {mean:.4f} ± {error:.4f} bits/dim")


def bits_of(nats: Tensor) -> Tensor:
    return nats.double().mean() / (math.log(2) * math.prod(EVENT))


def from_the_command_line(source: str, model: dict[str, int], options: Any) -> None:
    """One run of both stages; its samples and result stay in the folder."""
    folder = Path(options.out or tempfile.mkdtemp()) / f"run_{source}"
    seconds, later = options.seconds, options.prior_seconds or options.seconds * 2 / 3
    timed = {"max_epochs": 10_000, "schedule": "cosine", "schedule_by": "time"}
    timed |= {"batch_size": 32, "learning_rate": 2e-3, "warmup_steps": 100}
    first = {**timed, "max_time": seconds, "progress": str(options.progress).lower()}
    first |= {f"model.{name}": value for name, value in model.items()}
    sizes = {f"model.{name}": value for name, value in PRIOR.items()}
    second = {f"prior.{k}": v for k, v in {**timed, "max_time": later, **sizes}.items()}
    words = [f"--{name}={value}" for name, value in (first | second).items()]
    words += ["--run", str(folder), "--overwrite", "--stages", "all"]
    command(["train", "vqvae", "--data", source, *words])
    found = json.loads((folder / "result.json").read_text())
    print(f"{source}: {found['bits_per_dim']['mean']:.4f} bits/dim, samples in {folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of training the first stage")
    parser.add_argument("--prior-seconds", type=float, help="the second; by default two thirds")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, help="training images")
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="pairs, digits or photos")
    parser.add_argument("--out", type=Path, help="folder of pictures, and of the runs")
    parser.add_argument("--progress", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    if options.only in "pairs":
        pairs(options)
    for source, model in (("digits", DIGITS), ("photos", PHOTOS)):
        if options.only in source:
            from_the_command_line(source, model, options)


if __name__ == "__main__":
    main()
