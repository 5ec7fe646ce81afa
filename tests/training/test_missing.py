"""Training, evaluation and the command line on data with missing elements."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_genmodels import cli, data, models, plotting, training
from pyro_genmodels.training import evaluate, fit

FAST: dict[str, Any] = {"max_epochs": 2, "batch_size": 32, "num_samples": 4, "progress": False}


def holed(x: Tensor, share: float = 0.3) -> Tensor:
    gone = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < share
    return torch.where(gone, torch.nan, x)


def vectors() -> data.InMemory:
    torch.manual_seed(0)
    return data.InMemory(holed(100 + 7 * torch.randn(200, 3)), missing=True)


def levels() -> data.InMemory:
    torch.manual_seed(0)
    x = torch.randint(3, (200, 1, 4, 4)).half()
    return data.InMemory(holed(x), num_levels=3, missing=True)


MAKERS: dict[str, tuple[Any, Any]] = {
    "vae": (vectors, lambda s: models.VAE(**training.facts_of(s), latent_dim=2)),
    "levels": (levels, lambda s: models.VAE(**training.facts_of(s), latent_dim=2)),
    "factors": (vectors, lambda s: models.FactorAnalysis((3,), latent_dim=1, missing=True)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_train_load_and_evaluate(name: str, tmp_path: Path) -> None:
    make_source, make_model = MAKERS[name]
    source = make_source()
    fit(make_model(source), source, run=tmp_path / "run", **FAST)
    model = training.load(tmp_path / "run")
    result = evaluate(model, source, num_particles=3)
    assert model.missing
    assert math.isfinite(result.nats.mean)
    x = source.test.tensors[0]
    seen = float((~x.isnan()).double().flatten(1).sum(1).mean())
    if name == "levels":
        expected = result.nats.mean / (math.log(2) * seen)
        assert result.bits_per_dim.mean == pytest.approx(expected)
    assert model.reconstruct(x).isfinite().all()


OTHERS: dict[str, Any] = {
    "FlowModel": lambda: models.realnvp((3,), num_levels=None),
    "a flow of Pyro": lambda: models.maf((3,)),
    "VAE": lambda: models.VAE((3,)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_refuse_such_data(name: str, tmp_path: Path) -> None:
    source, model = vectors(), OTHERS[name]()
    rule = "`data` must have no missing elements for a model that was not made with missing=True"
    with pytest.raises(ValueError, match=rule):
        fit(model, source, run=tmp_path / "run", **FAST)
    with pytest.raises(ValueError, match=rule):
        evaluate(model, source)


def test_a_source_that_does_not_declare_it_refuses() -> None:
    with pytest.raises(ValueError, match="`train` must be finite"):
        data.InMemory(holed(torch.randn(50, 3)))


def test_the_command_line_passes_it_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, run = tmp_path / "holed.npy", tmp_path / "run"
    np.save(path, holed(torch.randn(120, 3)).numpy())
    options = [f"--data={path}", "--data.missing=true", f"--run={run}", "--max_epochs=1"]
    assert cli.main(["train", "realnvp", *options]) != 0
    message = "`data` must have no missing elements for a model that was not made with"
    assert message in capsys.readouterr().err
    assert cli.main(["train", "vae", *options, "--model.latent_dim=2"]) == 0
    assert cli.main(["evaluate", str(run)]) == 0
    assert math.isfinite(json.loads((run / "result.json").read_text())["nats"]["mean"])
    assert cli.main(["reconstruct", str(run)]) == 0
    assert training.load(run).missing


@pytest.mark.parametrize("num_levels", [None, 3])
def test_what_is_missing_is_grey_in_pictures(num_levels: int | None) -> None:
    x = torch.linspace(0, 2, 16).round().reshape(1, 1, 4, 4)
    x[..., 0, 1] = torch.nan
    pixels = plotting.to_pixels(x, num_levels)
    assert pixels[..., 0, 1] == 0.5
    assert pixels[..., 0, 0] == 0
    assert pixels[..., 3, 3] == 1
