"""One's own sound and text: trained, sampled and evaluated by two commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("lightning", reason="comes with the train extra")

from pyro_genmodels import training
from pyro_genmodels.cli import main

SMALL = "--max_epochs 1 --batch_size 8 --progress false"


def run(words: str, *more: str) -> None:
    assert main([*words.split(), *more]) == 0


@pytest.fixture
def sounds(tmp_path: Path) -> Path:
    numpy, soundfile = pytest.importorskip("numpy"), pytest.importorskip("soundfile")
    for index in range(6):
        time = numpy.arange(1000 + 50 * index) / 8000
        path = tmp_path / "sounds" / f"{index}.wav"
        path.parent.mkdir(exist_ok=True)
        soundfile.write(path, 0.4 * numpy.sin(2 * numpy.pi * (200 + 50 * index) * time), 8000)
    return tmp_path / "sounds"


@pytest.fixture
def names(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text("\n".join(["ada", "emmy", "sofia", "mary", "marie", "rosalind"] * 5))
    return path


def check_run(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert result["nats"]["mean"] > 0
    run(f"evaluate {folder}")
    run(f"sample {folder} --num 2 --out {folder}/x.pt")
    assert (folder / "x.pt").exists()


@pytest.mark.parametrize("missing", [False, True])
def test_a_folder_of_sounds(sounds: Path, missing: bool) -> None:
    folder = sounds.parent / "run"
    sizes = "--model.channels 4 --model.skip_channels 4 --data.length 64"
    ends = "--data.missing true" if missing else ""
    run(f"train wavenet --data {sounds} {sizes} {ends} {SMALL} --run {folder}")
    assert training.load(folder).missing == missing
    check_run(folder)
    assert main(["sample", str(folder), "--out", str(folder / "pictures")]) == 2


def test_a_sequence_vq_vae_of_sounds_that_end_early(sounds: Path) -> None:
    folder = sounds.parent / "run"
    sizes = (
        "--model.network.reduction 16 --model.network.hidden_channels 4 --model.codebook.dim 4 "
        "--model.wavenet.channels 4 --model.wavenet.layers_per_block 2 --data.length 64"
    )
    run(f"train SequenceVQVAE --data {sounds} {sizes} --data.missing true {SMALL} --run {folder}")
    assert training.load(folder).missing
    check_run(folder)


@pytest.mark.parametrize("unit", ["window", "line"])
def test_a_text_file(names: Path, unit: str) -> None:
    folder = names.parent / "run"
    options = f"--data.unit {unit} --model.hidden_features 8"
    options += " --data.length 8" if unit == "window" else ""
    run(f"train char_rnn --data {names} {options} {SMALL} --run {folder}")
    assert training.load(folder).missing == (unit == "line")
    check_run(folder)


def test_models_that_cannot_take_what_ends_early(
    names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"train realnvp --data {names} --data.unit line {SMALL} --run {names.parent}/run"
    assert main(words.split()) != 0
    assert "`data` must have no missing elements for a model" in capsys.readouterr().err
