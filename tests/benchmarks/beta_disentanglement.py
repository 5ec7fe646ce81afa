"""What beta does to the latents of sprites: ``python tests/benchmarks/beta_disentanglement.py``.

beta-VAEs of the 16x16 sprites, whose factors are known, for several betas from several seeds: the
rate (mean KL) and distortion in nats, the bounds at beta one, and five measures of how far single
units stand for single factors. A row a run is printed as it comes and kept in ``--out``; runs that
are there already are not made again, so that processes may share the work by ``--seeds``. In the
end: means with standard deviations over seeds, whether some beta's MIG exceeds the plain VAE's by
more than that spread, and a figure.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels import data, disentanglement, metrics, models

MEASURES = ("MIG", "SAP", "disentanglement", "completeness", "informativeness")
SCORES = (*MEASURES, "FactorVAE", "beta-VAE")
COLUMNS = ("beta", "seed", "rate", "distortion", "ELBO", "bound", "active", *SCORES, "seconds")
SHAPE_FACTOR = 0  # no order among shapes


def train(beta: float, seed: int, steps: int, sprites: data.Sprites) -> models.BetaVAE:
    """Adam on fresh sprites, its rate to zero along half a cosine."""
    torch.manual_seed(seed)
    model = models.BetaVAE(
        sprites.event_shape, num_levels=2, latent_dim=10, hidden=(256, 128), beta=beta
    )
    loss, batch = models.ELBOLoss(model), 64
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(sprites.sample((batch,))).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def score(model: models.BetaVAE, sprites: data.Sprites) -> dict[str, float]:
    """Measure on every combination of the factors, in random order."""
    factors = sprites.factors[torch.randperm(len(sprites.factors))]
    x = sprites.render(factors).float()
    posterior = model.encode(x)
    codes = posterior.mean
    rate = float(torch.distributions.kl_divergence(posterior, model.prior_law()).mean())
    elbo = float(metrics.elbo(model, x, num_particles=4, chunk_size=4096).mean())
    bound = metrics.importance_weighted_bound(model, x, num_particles=100, chunk_size=8192)
    dci = disentanglement.dci(codes, factors)

    def represent(images: Tensor) -> Tensor:
        return model.encode(images.float()).mean

    return {
        "rate": rate,
        "distortion": -elbo - rate,
        "ELBO": elbo,
        "bound": float(bound.mean()),
        "active": int(disentanglement.active_units(codes).sum()),
        "MIG": disentanglement.mig(codes, factors),
        "SAP": disentanglement.sap(codes, factors, categorical=(SHAPE_FACTOR,)),
        "disentanglement": dci.disentanglement,
        "completeness": dci.completeness,
        "informativeness": dci.informativeness,
        "FactorVAE": disentanglement.factor_vae_score(represent, sprites, num_votes=400),
        "beta-VAE": disentanglement.beta_vae_score(represent, sprites, num_points=400),
    }


def read(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def keep(path: Path, row: dict[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.is_file()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def show(cells: list[Any]) -> None:
    texts = (f"{c:.3f}" if isinstance(c, float) and c != int(c) else f"{c:g}" for c in cells)
    print(f"| {' | '.join(texts)} |", flush=True)


def by_beta(rows: list[dict[str, float]], name: str) -> dict[float, list[float]]:
    betas = sorted({row["beta"] for row in rows})
    return {beta: [row[name] for row in rows if row["beta"] == beta] for beta in betas}


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def summarize(rows: list[dict[str, float]]) -> None:
    columns = ("rate", "distortion", "ELBO", "bound", "active", *SCORES)
    print(f"\n| beta | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}")
    for beta in by_beta(rows, "beta"):
        cells = [by_beta(rows, name)[beta] for name in columns]
        texts = (f"{statistics.mean(c):.2f} ± {spread(c):.2f}" for c in cells)
        print(f"| {beta:g} | {' | '.join(texts)} |")
    gaps = by_beta(rows, "MIG")
    plain = gaps.pop(1.0, None)
    for beta, values in gaps.items() if plain else ():
        gain = statistics.mean(values) - statistics.mean(plain)
        noise = max(spread(values), spread(plain))
        verdict = "holds" if gain > noise else "FALLS SHORT"
        verdict = "one seed" if math.isnan(noise) else verdict
        text = f"{gain:.3f}; spread over seeds {noise:.3f}: {verdict}"
        print(f"MIG, beta {beta:g} less beta 1: {text}")


def draw(rows: list[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    distortions = by_beta(rows, "distortion")
    for beta, rates in by_beta(rows, "rate").items():
        left.plot(rates, distortions[beta], "o", label=f"beta {beta:g}", alpha=0.7)
    left.set(xlabel="rate (nats)", ylabel="distortion (nats)", title="rate against distortion")
    left.legend(frameon=False)
    for name in ("MIG", "SAP", "disentanglement", "FactorVAE"):
        scores = by_beta(rows, name)
        means = [statistics.mean(values) for values in scores.values()]
        errors = [spread(values) for values in scores.values()]
        right.errorbar(list(scores), means, errors, marker="o", capsize=3, label=name)
    right.set(xlabel="beta", xscale="log", title="measures, mean ± sd over seeds", ylim=(0, 1))
    right.set_xticks(list(by_beta(rows, "MIG")), [f"{beta:g}" for beta in by_beta(rows, "MIG")])
    right.minorticks_off()
    right.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--betas", type=float, nargs="+", default=[1.0, 4.0, 8.0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--steps", type=int, default=20_000, help="of training, each run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/beta_disentanglement"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # Runs of another length are others.
    sprites, table = data.Sprites(16), arguments.out / f"rows_{arguments.steps}_steps.csv"
    done = {(row["beta"], row["seed"]) for row in read(table)}
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for seed in arguments.seeds:
        for beta in arguments.betas:
            if (beta, seed) in done:
                continue
            start = time.perf_counter()
            model = train(beta, seed, arguments.steps, sprites)
            seconds = round(time.perf_counter() - start, 1)
            row = {"beta": beta, "seed": seed, **score(model, sprites), "seconds": seconds}
            keep(table, row)
            show([row[name] for name in COLUMNS])
    rows = read(table)
    summarize(rows)
    draw(rows, arguments.out / "beta.png")


if __name__ == "__main__":
    main()
