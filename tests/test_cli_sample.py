"""``sample``: at a temperature, under given labels, and from where given data break off."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="comes with the train extra")

from pyro_genmodels import models, training
from pyro_genmodels.cli import main
from tests.small_runs import SHAPE, train_runs
from tests.test_cli_mistakes import contents, refuse


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoregressive run with labels and one with latents, on sixty images of four levels."""
    folder = tmp_path_factory.mktemp("runs")
    train_runs(
        folder,
        {
            "vae": models.VAE(
                SHAPE, num_levels=4, latent_dim=2, network=models.VAENetwork(hidden=(4,))
            )
        },
    )
    return folder


def drawn(words: str, runs: Path, tmp_path: Path) -> torch.Tensor:
    out = tmp_path / "x.pt"
    assert main(["sample", str(runs / "pixelcnn"), *words.split(), "--out", str(out)]) == 0
    samples: torch.Tensor = torch.load(out)
    return samples


def of_the_data(runs: Path, column: int) -> torch.Tensor:
    test: Any = training.load_source(runs / "pixelcnn").test
    return torch.stack([torch.as_tensor(test[i][column]) for i in range(len(test))])


def test_at_temperature_zero_all_are_alike(runs: Path, tmp_path: Path) -> None:
    cold = drawn("--num 9 --label 1 --temperature 0", runs, tmp_path)
    assert (cold == cold[0]).all()
    assert not (cold[0] == drawn("--num 9 --label 1", runs, tmp_path)).all()


def test_rows_are_kept_and_the_rest_is_drawn(runs: Path, tmp_path: Path) -> None:
    given = of_the_data(runs, 0)
    number = len(given) + 2  # more than there are: the first ones again
    words = f"--complete test --rows 2 --num {number}"
    completed = drawn(words, runs, tmp_path)
    begun = torch.cat([given, given[:2]])
    assert torch.equal(completed[:, :, :2].long(), begun[:, :, :2].long())
    assert not torch.equal(completed[:, :, 2:].long(), begun[:, :, 2:].long())
    assert torch.equal(completed, drawn(words, runs, tmp_path))
    # Those of a part of the data are under its labels.
    np.save(tmp_path / "x.npy", given.numpy())
    again = f"--complete {tmp_path}/x.npy --labels test --rows 2 --num {number}"
    assert torch.equal(completed, drawn(again, runs, tmp_path))


def test_labels_are_those_given(runs: Path, tmp_path: Path) -> None:
    torch.save(torch.full((5,), 2), tmp_path / "y.pt")
    given = drawn(f"--num 5 --labels {tmp_path}/y.pt", runs, tmp_path)
    assert torch.equal(given, drawn("--num 5 --label 2", runs, tmp_path))


def test_a_bar_is_shown_to_who_looks(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", str(runs / "pixelcnn"), "--complete", "test", "--rows", "1", "--label", "0"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("completions.png\n")
    assert shown.err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(words) == 0
    assert "sampling: 100%" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("vae --temperature 0.5", "`temperature` must be left out, VAE has none; got 0.5"),
        ("vae --complete test --rows 2", "`complete` must be left out, only an autoregressive"),
        ("pixelcnn --rows 2", "`rows` must come with --complete; got 2"),
        ("pixelcnn --complete test", "`rows` must be given with --complete"),
        ("pixelcnn --complete test --rows 5", "`num_rows` must be from 0 to 4; got 5"),
        ("pixelcnn --temperature -1", "`temperature` must be finite, not negative; got -1.0"),
        ("pixelcnn --label 1 --labels test", "`label` must be left out with --labels"),
        ("pixelcnn --complete {tmp}/y.pt --rows 1", "`complete` must hold examples of shape"),
        ("pixelcnn --complete {tmp}/x.pt --rows 1", "`labels` must be given, the model is cond"),
    ],
)
def test_an_impossible_option_is_named(
    words: str, message: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(torch.zeros(3, 2), tmp_path / "y.pt")
    torch.save(torch.zeros(3, *SHAPE), tmp_path / "x.pt")
    run, *rest = words.format(tmp=tmp_path).split()
    before = contents(runs)
    status = 1 if "`complete` must hold" in message else 2
    refuse(["sample", str(runs / run), *rest], message, capsys, status=status)
    assert contents(runs) == before
