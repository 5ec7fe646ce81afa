"""What a run draws: titles, names, and the same data next to its samples each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_genmodels import data, models, nets, plotting, training
from pyro_genmodels.cli import main
from pyro_genmodels.transforms import RealNVP
from tests.training.tiny import QUICK

pytest.importorskip("lightning")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The arguments of each sheet of samples and each picture of curves."""
    calls: list[dict[str, Any]] = []
    for name in ("save_samples", "save_curves"):
        original = getattr(plotting, name)

        def noting(
            x: Any, *args: Any, name: str = name, original: Any = original, **options: Any
        ) -> None:
            calls.append({"of": name, "x": x, **options})
            original(x, *args, **options)

        monkeypatch.setattr(plotting, name, noting)
    return calls


def test_vectors_stand_beside_the_same_validation_data(
    drawn: list[dict[str, Any]], tmp_path: Path
) -> None:
    source = data.InMemory(torch.randn(200, 3))
    options = {**QUICK, "num_samples": 7, "max_epochs": 2}
    training.fit(models.VAE((3,), latent_dim=2), source, run=tmp_path / "run", **options)
    sheets = [call for call in drawn if call["of"] == "save_samples"]
    assert {tuple(call["data"].shape) for call in sheets} == {(7, 3)}
    assert all(torch.equal(call["data"], sheets[0]["data"]) for call in sheets)
    rows = source.validation.tensors[0]  # type: ignore[attr-defined]
    assert all((rows == row).all(1).any() for row in sheets[0]["data"])
    assert sheets[0]["title"] == "VAE on InMemory, epoch 1"
    assert sheets[-1]["title"] in {"VAE on InMemory, epoch 1", "VAE on InMemory, epoch 2"}
    assert {c["title"] for c in drawn if c["of"] == "save_curves"} == {"VAE on InMemory"}


def test_classes_have_their_names_in_columns(drawn: list[dict[str, Any]], tmp_path: Path) -> None:
    x, labels = torch.randint(2, (60, 1, 2, 2)), torch.arange(60) % 3
    source = data.InMemory((x, labels), num_levels=2, num_classes=3)
    source.classes = ["cat", "dog", "owl"]
    net = nets.PixelCNNNet((1, 2, 2), 2, hidden_channels=4, num_classes=3)
    model = models.AutoregressiveModel(net)
    run = tmp_path / "run"
    training.fit(model, source, run=run, **{**QUICK, "num_samples": 6, "max_epochs": 1})
    sheet = next(call for call in drawn if call["of"] == "save_samples")
    assert (sheet["columns"], sheet["classes"]) == (3, ["cat", "dog", "owl"] * 2)
    assert sheet["title"] == "PixelCNN on InMemory, epoch 1"
    # The data are the caller's own: a later picture does without their names.
    assert main(["sample", str(run), "--label", "1", "--num", "4", "--temperature", "0.5"]) == 0
    assert drawn[-1]["classes"] == ["1"] * 4
    assert drawn[-1]["title"] == "PixelCNN, epoch 1, temperature 0.5"


def test_models_are_called_what_they_are_made_around() -> None:
    assert models.FlowModel((2,), RealNVP((2,))).display_name == "RealNVP"
    assert models.FlowModel((2,), [RealNVP((2,)), RealNVP((2,))]).display_name == "FlowModel"
    assert models.AutoregressiveModel(nets.MADENet((3,), 2)).display_name == "MADE"
    assert models.VAE((2,)).display_name == "VAE"


def test_train_says_what_its_curves_show(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    words = ["train", "vae", "--data", "digits", "--run", str(tmp_path / "run"), "--max_epochs"]
    words += ["1", "--progress", "false", "--num_samples", "0", "--accelerator", "cpu"]
    words += ["--model.network.hidden", "[8]"]
    monkeypatch.setattr(training, "diagnosis", lambda history: f"{len(history)} epochs seen")
    assert main(words) == 0
    assert capsys.readouterr().out.endswith("1 epochs seen\n")
