"""Distributions of data, with a known optimum."""

from __future__ import annotations

from pyro_genmodels import data
from tests.cases.case import Case, Cases

DATA_DISTRIBUTIONS: Cases = {
    "BarsAndStripes": lambda: Case(data.BarsAndStripes(2)),
    "BarsAndStripes/coin": lambda: Case(data.BarsAndStripes(3, coin=True)),
    "Checkerboard": lambda: Case(data.Checkerboard()),
    "EightGaussians": lambda: Case(data.EightGaussians(1.0, scale=0.5)),
    "GaussianTexture": lambda: Case(data.GaussianTexture(2)),
    "HiddenMarkov": lambda: Case(data.HiddenMarkov(5, num_states=2, num_levels=3)),
    "HiddenMarkov/identity": lambda: Case(
        data.HiddenMarkov(4, num_states=3, num_levels=3, sticky=0.0, emissions="identity")
    ),
    "Ising": lambda: Case(data.Ising(2, 3)),
    "Ising/field": lambda: Case(data.Ising(2, 3, beta=0.4, field=-0.3)),
    "Ising/strong": lambda: Case(data.Ising(3, 2, beta=0.8)),
    "LogisticField": lambda: Case(data.LogisticField(1, 2, channels=2, num_levels=5)),
    "MarkovChain": lambda: Case(data.MarkovChain(5, num_levels=3, order=2)),
    "Mosaic": lambda: Case(data.Mosaic(2, tile_size=2, num_codes=3)),
    "PPCA": lambda: Case(data.PPCA(4, latent_dim=2)),
    "Sprites": lambda: Case(data.Sprites()),
}
