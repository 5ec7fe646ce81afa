"""What version 0.1.0 wrote, before modules moved into families, is read and gone on with.

``tests/data/compatibility/make.py`` made the files; they are never made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pyro
import pytest
import torch

from pyro_genmodels import compression, models, training
from pyro_genmodels._checks import require
from pyro_genmodels.cli import main
from tests import cases

SAVED = Path(__file__).parent / "data" / "compatibility"
RUNS = sorted(path.parent.name for path in SAVED.glob("*/config.yaml"))
QUICK = ["--max_epochs", "1", "--progress", "false", "--num_samples", "0", "--accelerator", "cpu"]


@pytest.fixture(params=RUNS)
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return copy_of(request.param, tmp_path)


def copy_of(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(SAVED / name, folder / name))


def test_each_family_has_a_run() -> None:
    families = {"vae", "beta_vae", "realnvp", "glow", "pixelcnn", "pixelcnn_pp", "nvae", "vqvae"}
    assert set(RUNS) == families


def test_a_run_scores_what_it_scored(run: Path) -> None:
    saved = torch.load(run / "scores.pt", weights_only=True)
    model = training.load(run).double()
    pyro.set_rng_seed(0)
    with torch.no_grad():
        found = model.log_weights(saved["x"], num_particles=3)
        # Nats, in float64, at the very draws: nothing but the order of sums may differ.
        torch.testing.assert_close(found, saved["log_weights"], atol=1e-4, rtol=0)
        if isinstance(model, models.VectorQuantizedModel):
            for codes, before in zip(model.code_maps(saved["x"]), saved["codes"], strict=True):
                assert torch.equal(codes, before)


def test_evaluate_gives_the_saved_result(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require("jsonargparse", extra="train")
    saved = json.loads((run / "result.json").read_text())["nats"]
    evaluation = training.evaluate(training.load(run), training.load_source(run))
    result = evaluation.as_dict()["nats"]
    # Another machine's float32 sums in another order; a draw that flips would be seen.
    assert result["mean"] == pytest.approx(saved["mean"], rel=1e-4)
    assert result["standard_error"] == pytest.approx(saved["standard_error"], rel=1e-2)
    assert main(["evaluate", str(run)]) == 0
    assert str(evaluation) in capsys.readouterr().out


def test_a_run_resumes_to_the_same_parameters(tmp_path: Path) -> None:
    require("lightning.pytorch", extra="train")
    run = copy_of("vae", tmp_path)
    assert main(["train", "--run", str(run), "--resume", "--max_epochs", "4"]) == 0
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    averaged = training.load(run).state_dict()
    for found, file in ((last, "resumed.pt"), (averaged, "resumed_loaded.pt")):
        before = torch.load(run / file, weights_only=True)
        assert found.keys() == before.keys()
        for name, value in before.items():
            # Equal bit for bit where they were saved; Adam magnifies another machine's rounding.
            torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("part", ["models", "nets", "transforms"])
def test_parameters_keep_their_order(part: str) -> None:
    """An optimizer's state goes by position: another order would load moments into others."""
    before = json.loads((SAVED / "parameter_order.json").read_text())
    tables = {"models": cases.MODELS, "nets": cases.NETS, "transforms": cases.TRANSFORMS}
    for name, make in tables[part].items():
        module = make().part
        if f"{part}: {name}" in before and isinstance(module, torch.nn.Module):
            shapes = [f"{key} {tuple(p.shape)}" for key, p in module.named_parameters()]
            mark = hashlib.sha256("\n".join(shapes).encode()).hexdigest()[:12]
            assert mark == before[f"{part}: {name}"], f"{name}: {shapes}"


def test_a_configuration_trains_anew(run: Path, tmp_path: Path) -> None:
    require("lightning.pytorch", extra="train")
    config, folder = run / "config.yaml", tmp_path / "again"
    assert main(["train", "--config", str(config), "--run", str(folder), *QUICK]) == 0
    again = training.load(folder).state_dict()
    assert again.keys() == training.load(run / "checkpoints" / "best.ckpt").state_dict().keys()


def test_priors_go_on_with_their_codes(tmp_path: Path) -> None:
    require("lightning.pytorch", extra="train")
    run = copy_of("vqvae", tmp_path)
    written = {path: path.stat().st_mtime_ns for path in (run / "codes").iterdir()}
    assert main(["train", "prior", str(run), "--resume", "--max_epochs", "2"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (run / "codes").iterdir()} == written
    prior = torch.load(run / "prior" / "checkpoints" / "last.ckpt", weights_only=True)
    assert prior["epoch"] == 1


def test_a_compressed_file_comes_back() -> None:
    run = SAVED / "pixelcnn"
    data = (run / "compressed.bin").read_bytes()
    found = compression.decompress_images(training.load(run), data)
    assert torch.equal(found.long(), torch.load(run / "scores.pt", weights_only=True)["x"].long())


@pytest.mark.once  # Pyro 1.9.1 cannot load its own store under torch 2.6
def test_a_param_store_loads() -> None:
    pyro.get_param_store().load(str(SAVED / "param_store.pt"))
    saved = torch.load(SAVED / "param_store_values.pt", weights_only=True)
    found = dict(pyro.get_param_store().items())
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[name], value) for name, value in saved.items())
