"""What beta does to the latents of sprites: ``python tests/benchmarks/beta_disentanglement.py``.

beta-VAEs of the 16x16 sprites, whose factors are known, for several betas from several seeds: the
rate (mean KL) and distortion in nats, the bounds at beta one, and measures of how far single
units stand for single factors. ``4`` stands for beta 4; ``8to4`` for a beta that falls from 8 to 4,
evenly over the first half of the steps. Network, data, optimiser and steps are the same for all. A
row a run is printed as it comes and kept in ``--out``; runs that are there already are not made
again, so that processes may share the work by ``--seeds``. In the end: means with standard
deviations over seeds, whether some objective's MIG exceeds the plain VAE's by more than that
spread, and a figure.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_genmodels import data, disentanglement, metrics, models

MEASURES = ("MIG", "SAP", "disentanglement", "completeness", "informativeness")
SCORES = (*MEASURES, "FactorVAE", "beta-VAE")
SIZES = ("rate", "distortion", "ELBO", "bound", "active")
COLUMNS = ("first", "beta", "seed", *SIZES, *SCORES, "seconds")
SHAPE_FACTOR = 0  # no order among shapes
FALLING = 0.5  # share of the steps over which beta falls


class Objective(NamedTuple):
    """Weight of the KL term at first and in the end."""

    first: float
    beta: float

    @classmethod
    def parse(cls, text: str) -> Objective:
        ends = [float(end) for end in text.split("to")]
        return cls(ends[0], ends[-1])

    def __str__(self) -> str:
        moves = self.first != self.beta
        return f"beta {self.first:g} to {self.beta:g}" if moves else f"beta {self.beta:g}"


PLAIN = Objective(1.0, 1.0)


def train(objective: Objective, seed: int, steps: int, sprites: data.Sprites) -> models.BetaVAE:
    """Adam on fresh sprites, its rate to zero along half a cosine."""
    torch.manual_seed(seed)
    moves = objective.first != objective.beta
    model = models.BetaVAE(
        sprites.event_shape,
        num_levels=2,
        latent_dim=10,
        network=models.VAENetwork(hidden=(256, 128)),
        objective=models.KLObjective(
            beta=objective.beta,
            first_beta=objective.first if moves else None,
            warmup_steps=int(FALLING * steps) if moves else 0,
        ),
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


def objective_of(row: dict[str, float]) -> Objective:
    return Objective(row["first"], row["beta"])


def by_objective(rows: list[dict[str, float]], name: str) -> dict[Objective, list[float]]:
    # By rate, which the figure's left half has on its axis.
    rates = {
        k: statistics.mean(r["rate"] for r in rows if objective_of(r) == k)
        for k in {objective_of(row) for row in rows}
    }
    ordered = sorted(rates, key=lambda k: -rates[k])
    return {k: [row[name] for row in rows if objective_of(row) == k] for k in ordered}


def spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else math.nan


def summarize(rows: list[dict[str, float]]) -> None:
    columns = (*SIZES, *SCORES)
    print(f"\n| objective | {' | '.join(columns)} |\n|{' --- |' * (1 + len(columns))}")
    for objective in by_objective(rows, "rate"):
        cells = [by_objective(rows, name)[objective] for name in columns]
        texts = (f"{statistics.mean(c):.2f} ± {spread(c):.2f}" for c in cells)
        print(f"| {objective} | {' | '.join(texts)} |")
    gaps = by_objective(rows, "MIG")
    plain = gaps.pop(PLAIN, None)
    for objective, values in gaps.items() if plain else ():
        gain = statistics.mean(values) - statistics.mean(plain)
        noise = max(spread(values), spread(plain))
        verdict = "holds" if gain > noise else "FALLS SHORT"
        verdict = "one seed" if math.isnan(noise) else verdict
        text = f"{gain:.3f}; spread over seeds {noise:.3f}: {verdict}"
        print(f"MIG, {objective} less {PLAIN}: {text}")


def draw(rows: list[dict[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), dpi=80, layout="constrained")
    left, right = figure.subplots(1, 2)
    distortions = by_objective(rows, "distortion")
    for objective, rates in by_objective(rows, "rate").items():
        left.plot(rates, distortions[objective], "o", label=str(objective), alpha=0.7)
    left.set(xlabel="rate (nats)", ylabel="distortion (nats)", title="rate against distortion")
    left.legend(frameon=False)
    for shift, name in enumerate(("MIG", "SAP", "disentanglement", "FactorVAE")):
        for place, values in enumerate(by_objective(rows, name).values()):
            places, label = (
                [place + 0.16 * (shift - 1.5)] * len(values),
                name if not place else None,
            )
            right.plot(places, values, "o", color=f"C{shift}", alpha=0.35, markersize=4)
            right.errorbar(
                places[0] + 0.05,
                statistics.mean(values),
                spread(values),
                color=f"C{shift}",
                marker="_",
                capsize=3,
                label=label,
            )
    names = [str(objective) for objective in by_objective(rows, "MIG")]
    right.set_xticks(range(len(names)), names)
    right.set(title="measures: each seed, mean ± sd", ylim=(0, 1))
    right.legend(frameon=False, ncols=2)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    usual = [PLAIN, Objective(4.0, 4.0), Objective(8.0, 4.0)]
    parser.add_argument("--objectives", type=Objective.parse, nargs="+", default=usual)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--steps", type=int, default=20_000, help="of training, each run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/beta_disentanglement"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    # Runs of another length are others.
    sprites, table = data.Sprites(16), arguments.out / f"rows_{arguments.steps}_steps.csv"
    done = {(objective_of(row), row["seed"]) for row in read(table)}
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for seed in arguments.seeds:
        for objective in arguments.objectives:
            if (objective, seed) in done:
                continue
            start = time.perf_counter()
            model = train(objective, seed, arguments.steps, sprites)
            seconds = round(time.perf_counter() - start, 1)
            row = {**objective._asdict(), "seed": seed, **score(model, sprites), "seconds": seconds}
            keep(table, row)
            show([row[name] for name in COLUMNS])
    rows = read(table)
    summarize(rows)
    draw(rows, arguments.out / "beta.png")


if __name__ == "__main__":
    main()
