"""How well autoregressive networks fit in little time.

``python tests/benchmarks/autoregressive_quality.py``: first problems with a known optimum, two
minutes each; then a table of all the networks on Digits and on Photos at equal time, by the exact
likelihood: see ``quality.py``, which runs them.

``--side 10 --beta 0.5 --field 0.1 --first_seed 2`` runs one Ising lattice instead, with the setting
that serves all of them; ``--clock cpu`` is for a machine with other work.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

from quality import Problem, main, sampled

from pyro_genmodels import data, models

ENDLESS: dict[str, Any] = {"batch_size": 64, "ema_decay": 0.995}
ISING: dict[str, Any] = {**ENDLESS, "learning_rate": 5e-3}


def ising(side: int, beta: float) -> data.Sampled:
    return sampled(data.Ising(side, side, beta=beta), train=600_000, test=100_000)


def gated_ising(side: int) -> models.GenerativeModel:
    """A wide first kernel: a spin depends on the frontier alone, the last one of each column."""
    options: dict[str, Any] = {"kernel_size": 15, "layer_kernel_size": 1 if side == 8 else 3}
    sizes: dict[str, Any] = {"hidden_channels": 16, "num_layers": 2, "dropout": 0.0}
    return models.gated_pixelcnn((1, side, side), num_levels=2, **sizes, **options)


def lattice(side: int, beta: float, field: float) -> data.Sampled:
    distribution = data.Ising(side, side, beta=beta, field=field)
    return sampled(distribution, train=160_000, test=60_000 if side <= 12 else 20_000)


def lattice_network(side: int) -> models.GenerativeModel:
    """One setting for all lattices: the builder chooses the kernel that spans them."""
    sizes: dict[str, Any] = {"hidden_channels": 24, "num_layers": 1, "dropout": 0.0}
    return models.gated_pixelcnn((1, side, side), num_levels=2, **sizes)


def lattice_problem(side: int, beta: float, field: float) -> Problem:
    return Problem(
        partial(lattice, side, beta, field),
        partial(lattice_network, side),
        {**ENDLESS, "learning_rate": 1e-2},
        120,
        0.0005 if side <= 12 else 0.001,
    )


def field_network() -> models.GenerativeModel:
    """One logistic a sub-pixel is enough here, and the law's means are linear in three pixels."""
    options: dict[str, Any] = {"hidden_channels": 16, "num_resnets": 1, "num_scales": 1}
    return models.pixelcnn_pp((3, 16, 16), num_mixtures=1, dropout=0.0, **options)


EXACT = {
    "gated on Ising 8x8, beta .4407": Problem(
        partial(ising, 8, 0.4406868), partial(gated_ising, 8), ISING, 120, 0.0003
    ),
    "gated on Ising 8x8, beta .6": Problem(
        partial(ising, 8, 0.6), partial(gated_ising, 8), ISING, 120, 0.0003
    ),
    "gated on Ising 16x16, beta .4407": Problem(
        lambda: sampled(data.Ising(16, 16), train=150_000, test=4000),
        partial(gated_ising, 16),
        {**ISING, "batch_size": 16},
        120,
        0.001,
    ),
    "PixelCNN++ on the logistic field 16x16": Problem(
        lambda: sampled(data.LogisticField(16, 16), train=50_000, test=4000),
        field_network,
        {**ENDLESS, "learning_rate": 5e-3, "batch_size": 16},
        120,
        0.001,
    ),
}
# Each as its short form makes it.
NETWORKS: dict[str, Callable[..., models.GenerativeModel]] = {
    "n-gram": models.ngram,
    "MADE": models.made,
    "char-RNN": models.char_rnn,
    "WaveNet": models.wavenet,
    "PixelCNN": models.pixelcnn,
    "gated PixelCNN": models.gated_pixelcnn,
    "PixelSNAIL": models.pixelsnail,
    "PixelCNN++": models.pixelcnn_pp,
    "Row LSTM": models.row_lstm,
    "diagonal BiLSTM": models.diagonal_bilstm,
}
DATA: dict[str, tuple[Callable[[], Any], tuple[int, ...], int]] = {
    "digits": (data.Digits, (1, 8, 8), 17),
    "photos": (partial(data.Photos, 8), (3, 8, 8), 256),
}
TABLE = {
    f"{name} on {key}": Problem(source, partial(make, shape, num_levels=levels), {}, 60, seeds=3)
    for key, (source, shape, levels) in DATA.items()
    for name, make in NETWORKS.items()
}
BEST = {
    f"{name} on digits, {seconds} s": TABLE[f"{name} on digits"]._replace(
        bound=bound, seconds=seconds
    )
    for seconds, bound in ((60, 1.83), (150, 1.82))
    for name in ("WaveNet", "PixelCNN")
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--side", type=int)
    parser.add_argument("--beta", type=float, default=0.4406868)
    parser.add_argument("--field", type=float, default=0.0)
    chosen, words = parser.parse_known_args()
    problems = EXACT | TABLE | BEST
    if chosen.side is not None:
        name = f"gated on Ising {chosen.side}x{chosen.side}, beta {chosen.beta:g}"
        problem = lattice_problem(chosen.side, chosen.beta, chosen.field)
        problems = {f"{name}, field {chosen.field:g}": problem}
    main(problems, __doc__, words)
