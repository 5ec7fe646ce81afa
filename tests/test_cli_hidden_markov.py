"""Hidden Markov models on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning.pytorch")

from pyro_genmodels import training
from pyro_genmodels.cli import main


def test_symbols_and_series_train_evaluate_and_sample(tmp_path: Path) -> None:
    series = tmp_path / "series.pt"
    torch.save({"train": 100 + torch.randn(60, 7, 2)}, series)
    fitted = ["--max_epochs", "1", "--model.num_states", "2"]
    of_symbols = ["--data", "HiddenMarkov", "--data.length", "9", "--data.train", "64"]
    of_symbols += ["--data.validation", "16", "--data.test", "16", "--model.topology", "banded"]
    of_series = ["--data", str(series), "--data.series", "true", "--model.covariance", "diagonal"]
    for name, options, shape in (
        ("symbols", of_symbols, (9,)),
        ("series", of_series, (7, 2)),
    ):
        run = tmp_path / name
        assert main(["train", "hidden_markov", "--run", str(run), *options, *fitted]) == 0
        assert main(["evaluate", str(run)]) == 0
        assert (run / "samples.png").exists()
        out = tmp_path / f"{name}.npy"
        assert main(["sample", str(run), "--num", "3", "--out", str(out)]) == 0
        model = training.load(run)
        assert tuple(model.event_shape) == shape
