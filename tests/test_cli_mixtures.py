"""Mixtures on the command line: by expectation-maximisation, by gradients, and their mistakes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning.pytorch")

from pyro_genmodels import training
from pyro_genmodels.cli import main

QUICK = "--progress false --num_samples 4 --max_epochs 1"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two columns about three centres, whose number is the third column."""
    generator = np.random.default_rng(0)
    kind = np.arange(90) % 3
    x = 100 + 5 * kind[:, None] + generator.normal(size=(90, 2))
    path = tmp_path / "kinds.csv"
    rows = np.c_[x, kind]
    np.savetxt(path, rows, delimiter=",", header="a,b,kind", comments="", fmt="%.6g")
    return path


@pytest.fixture
def symbols(tmp_path: Path) -> Path:
    path = tmp_path / "symbols.npz"
    generator = np.random.default_rng(0)
    parts = {"train": 60, "validation": 20, "test": 20}
    arrays = {name: generator.integers(0, 4, (size, 1, 4, 4)) for name, size in parts.items()}
    labels = {f"{name}_labels": np.arange(size) % 2 for name, size in parts.items()}
    np.savez(path, **{k: v.astype(np.uint8) for k, v in arrays.items()}, **labels)
    return path


def run(words: str) -> None:
    assert main(words.split()) == 0


def test_a_gaussian_mixture_is_fitted_resumed_evaluated_and_sampled(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    options = "--model.num_components 3 --em_starts 2 --num_samples 4"
    run(f"train gaussian_mixture --data {table} --data.label kind --run {folder} {options}")
    assert "expectation-maximisation: EMResult(" in capsys.readouterr().out
    model = training.load(folder)
    means, _ = model.conditional.moments()
    expected = torch.tensor([100.0, 105.0, 110.0], dtype=torch.float64)
    torch.testing.assert_close(means[:, 0].sort().values, expected, atol=0.7, rtol=0)
    fitted = {name: value.clone() for name, value in model.state_dict().items()}
    # Two epochs in place of one, with no parameter moved: the fit is the maximum.
    run(f"train --run {folder} --resume --max_epochs 2 --progress false")
    for name, value in training.load(folder).state_dict().items():
        torch.testing.assert_close(value, fitted[name], rtol=0, atol=0)
    run(f"evaluate {folder}")
    out = tmp_path / "x.npy"
    run(f"sample {folder} --label 1 --num 50 --out {out}")
    drawn = np.load(out)[:, 0]
    assert abs(drawn.mean() - float(means[1, 0])) < 1


def test_labels_are_components(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    options = "--data.label kind --conditional --model.num_components 3"
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*no sample sites configured for enumeration")
        run(f"train gaussian_mixture --data {table} --run {folder} {options} {QUICK}")
    model = training.load(folder)
    assert model.observed_labels
    means = model.conditional.moments()[0][:, 0]
    torch.testing.assert_close(means, 100 + 5 * torch.arange(3.0).double(), atol=0.7, rtol=0)


def test_mixtures_of_networks_and_tables(symbols: Path, tmp_path: Path) -> None:
    network = "--model.conditional pixelcnn --model.conditional.num_classes 2"
    sizes = "--model.conditional.hidden_channels 4"
    for name, words in (
        ("network", f"mixture_model {network} {sizes}"),
        ("tables", "categorical_mixture --model.num_components 2"),
    ):
        folder = tmp_path / name
        run(f"train {words} --data {symbols} --run {folder} {QUICK}")
        run(f"evaluate {folder}")
        run(f"sample {folder} --num 2 --label 1 --out {folder}/x.pt")
        run(f"train --run {folder} --resume --max_epochs 2 --progress false")


MISTAKES = {
    "gaussian_mixture --model.num_components 500": "`num_components` must be at most the number",
    "gaussian_mixture --model.num_components 0": "`num_components` must be positive; got 0",
    "gaussian_mixture --model.weights dirichle": "`weights` must be one of 'learned', 'uniform'",
    "gaussian_mixture --model.covariance low_rank": "`rank` must be given for a low-rank",
    "gaussian_mixture --model.rank 2": "`rank` must be given for a low-rank covariance, and for no",
    "gaussian_mixture --em_starts -1": "`em_starts` must be at least 0; got -1",
    "gaussian_mixture --data.label kind --conditional --model.num_components 2": (
        "`labels` must be from -1 (unknown) to 1; got 0 to 2"
    ),
    "categorical_mixture": "`data` must be discrete for categorical_mixture",
    "mixture_model": "arguments are required: model.conditional",
    "mixture_model --model.conditional pixelcnn": "must be",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_named_in_one_line(
    words: str, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert main([*f"train {words} --data {table} --run {folder} {QUICK}".split()]) in (1, 2)
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ")
    assert "\n" not in err
    assert MISTAKES[words] in err
