"""Who keeps latents beside a strong decoder: ``python tests/benchmarks/posterior_collapse.py``.

VAEs of scanned digits whose decoder is a PixelCNN given the latents, at most ``--seconds`` of
training each: the plain one, one with free bits, and delta-VAEs by either commitment. Printed for
the test digits are the rate (the mean KL), the ELBO and the importance-weighted bound in nats, the
units that are active, and what the latents say about the digits: how many nats more likely a digit
is under its own latents than under another's.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_genmodels import data, disentanglement, metrics, models, nets

DELTA = 4.0
SIZES: dict[str, Any] = {"latent_dim": 16, "network": "conv", "hidden": (16, 32)}


def likelihood(source: data.Digits) -> models.AutoregressiveLikelihood:
    net = nets.PixelCNNNet(
        source.event_shape,
        source.num_levels,
        hidden_channels=32,
        num_blocks=3,
        context_shape=(8, *source.event_shape[1:]),
    )
    return models.AutoregressiveLikelihood(net)


MAKERS: dict[str, Callable[..., models.GenerativeModel]] = {
    "VAE": models.VAE,
    "VAE, free bits": lambda *a, **k: models.VAE(
        *a, objective=models.KLObjective(free_bits=DELTA / 16), **k
    ),
    "DeltaVAE, sequence": lambda *a, **k: models.DeltaVAE(
        *a, delta=DELTA, commitment=models.RateCommitment(num_steps=8), **k
    ),
    "DeltaVAE, variance": lambda *a, **k: models.DeltaVAE(
        *a, delta=DELTA, commitment="variance", **k
    ),
}


def row(name: str, model: Any, x: Tensor) -> str:
    with torch.no_grad():
        posterior = model.encode(x)
        rate = kl_divergence(posterior, model.prior_law()).mean()
        active = disentanglement.active_units(posterior.mean).sum()
        z = posterior.sample()
        used = model.decode(z).log_prob(x) - model.decode(z.roll(1, 0)).log_prob(x)
    elbo = metrics.Estimate.of(metrics.elbo(model, x, num_particles=5, chunk_size=2000))
    tight = metrics.Estimate.of(
        metrics.importance_weighted_bound(model, x, num_particles=20, chunk_size=2000)
    )
    figures = f"{rate:.2f} | {elbo} | {tight} | {active} of 16 | {used.mean():.2f}"
    return f"| {name} | {figures} |"


def images(dataset: Any) -> Tensor:
    return dataset.tensors[0].float()


def train(model: models.GenerativeModel, x: Tensor, seconds: float) -> None:
    """Adam, the learning rate to zero along half a cosine of the time."""
    loss, start = models.ELBOLoss(model), time.perf_counter()
    optimizer = torch.optim.Adam(loss.parameters())
    while (progress := (time.perf_counter() - start) / seconds) < 1:
        for group in optimizer.param_groups:
            group["lr"] = 1.5e-3 * (1 + math.cos(math.pi * progress))
        optimizer.zero_grad()
        loss(x[torch.randint(len(x), (64,))]).backward()
        optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, each")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = data.Digits()
    x = images(source.test)
    print(f"delta = {DELTA:g} nats")
    print("| model | rate | ELBO | importance-weighted, 20 | active units | latents tell |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, make in MAKERS.items():
        torch.manual_seed(arguments.seed)
        model = make(
            source.event_shape,
            num_levels=source.num_levels,
            likelihood=likelihood(source),
            **SIZES,
        )
        train(model, images(source.train), arguments.seconds)
        print(row(name, model.eval(), x), flush=True)


if __name__ == "__main__":
    main()
