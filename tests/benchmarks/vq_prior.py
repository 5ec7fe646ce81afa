"""Learned code priors on mosaics, whose optimum is known: ``python tests/benchmarks/vq_prior.py``.

Two measurements. *The prior alone* is trained on the true tiles' numbers under a random
permutation; printed is the paired gap, mean of log p_true - log p_prior over the same test maps,
in bits per image. *Both stages* train a VQ-VAE on the images, then its prior on the codes; printed
are the codes in use, the pixels that come back wrong, and the codes' and the reconstruction's
share of the gap to the true distribution: once with networks that see one tile at a time
(``network="patch"``, the preset for mosaics), once with convolutions, which see over a tile's
borders and may give one tile different codes.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels import data, metrics, models, training
from pyro_genmodels.data import Mosaic
from pyro_genmodels.models.vqvae.learned_priors import LearnedPrior, code_model
from pyro_genmodels.nets import PixelSNAILNet

BOUND = 0.02
COMMON: dict[str, Any] = {
    "schedule": "cosine",
    "schedule_by": "time",
    "warmup_steps": 50,
    "ema_decay": 0.999,
    "num_samples": 0,
    "max_epochs": 1000,
}


def make_prior(hidden: int = 32) -> LearnedPrior:
    net = PixelSNAILNet(
        (4, 4),
        8,
        hidden_channels=hidden,
        embedding_size=16,
        kernel_size=5,
        num_blocks=1,
        num_layers=2,
        num_heads=2,
    )
    return LearnedPrior(net)


def bits(nats: metrics.Estimate) -> str:
    return f"{nats.mean / math.log(2):.4f} ± {nats.standard_error / math.log(2):.4f} bits/image"


def verdict(nats: metrics.Estimate) -> str:
    return "holds" if nats.mean / math.log(2) <= BOUND else "FALLS SHORT"


def prior_alone(seconds: float, train: int, progress: bool) -> None:
    mosaic = Mosaic()
    source = data.Sampled(mosaic, train=train, test=20_000)
    permutation = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    codes = {k: permuted(mosaic, v.tensors[0], permutation) for k, v in source.splits.items()}
    torch.manual_seed(0)
    model = code_model([make_prior()])
    settings = {**COMMON, "batch_size": 128, "learning_rate": 4e-3, "progress": progress}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        of_codes = data.InMemory(**codes, num_levels=8)
        history = training.fit(model, of_codes, run=f"{folder}/run", max_time=seconds, **settings)
    scored = metrics.elbo(model, codes["test"], chunk_size=4096)
    gap = metrics.paired_gap(source.distribution.log_prob(source.test.tensors[0]), scored)
    entropy = mosaic.entropy().item() / math.log(2)
    print(f"prior alone, permuted tiles: entropy {entropy:.3f} bits/image, gap {bits(gap)},")
    print(f"  bound {BOUND}: {verdict(gap)}; {int(history[-1]['step'])} steps", end=", ")
    print(f"{time.perf_counter() - start:.0f} s")


def permuted(mosaic: Mosaic, images: Tensor, permutation: Tensor) -> Tensor:
    return permutation[mosaic.codes(images)].flatten(1)


def make_vqvae(network: str) -> models.VQVAE:
    sizes = {"num_blocks": 0} if network == "patch" else {"residual_channels": 16, "num_blocks": 2}
    made = models.preset("VQVAE", "mosaic", network=network, **sizes)
    assert isinstance(made, models.VQVAE)
    return made


def both_stages(network: str, seconds: float, train: int, progress: bool) -> None:
    source = data.Sampled(Mosaic(), train=train, test=20_000)
    torch.manual_seed(0)
    shared: dict[str, Any] = {"batch_size": 128, "num_samples": 0, "progress": progress}
    rate = 3e-3 if network == "patch" else 1e-3
    with tempfile.TemporaryDirectory() as folder:
        first = {"max_epochs": 4, "learning_rate": rate, "max_time": seconds, **shared}
        training.fit(make_vqvae(network), source, run=folder, overwrite=True, **first)
        second = {**COMMON, **shared, "learning_rate": 4e-3, "max_time": seconds}
        training.fit_prior(folder, priors=[make_prior()], source=source, **second)
        report(f"both stages, {network}", training.load(folder), source)


@torch.no_grad()
def report(name: str, model: Any, source: data.Sampled) -> None:
    (x,) = source.test.tensors
    codes = model.encode_codes(x)
    used = len(codes.unique())
    wrong = float((model.decode_codes(codes).round() != x).float().mean())
    log_true = source.distribution.log_prob(x)
    prior_gap = metrics.paired_gap(log_true, model.code_log_prob(x))
    whole = metrics.paired_gap(log_true, metrics.elbo(model, x, chunk_size=4096))
    print(f"{name}: {used} of 8 codes in use, {wrong:.2e} of the pixels come back wrong;")
    print(f"  codes {bits(prior_gap)} above the entropy, {verdict(prior_gap)}; whole {bits(whole)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="of training, each stage")
    parser.add_argument("--train", type=int, default=200_000, help="training images")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="alone, patch or conv")
    parser.add_argument("--progress", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measurements: dict[str, Any] = {
        "alone": prior_alone,
        "patch": partial(both_stages, "patch"),
        "conv": partial(both_stages, "conv"),
    }
    for name, measure in measurements.items():
        if arguments.only in name:
            measure(arguments.seconds, arguments.train, arguments.progress)


if __name__ == "__main__":
    main()
