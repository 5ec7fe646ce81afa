"""One's own sound and text: trained, sampled and evaluated by two commands."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

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


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs on windows, on lines and on bytes, all of eight symbols."""
    folder = tmp_path_factory.mktemp("texts")
    (folder / "names.txt").write_text("\n".join(["emmy", "sofia", "zoë", "rosalind"] * 9))
    kinds = {"window": "", "line": "--data.unit line", "bytes": "--data.bytes true"}
    for name, options in kinds.items():
        words = f"train char_rnn --data {folder}/names.txt --data.length 8 {options}"
        run(f"{words} --model.hidden_features 8 {SMALL} --run {folder}/{name}")
    return folder


@pytest.mark.parametrize("kind", ["window", "line", "bytes"])
@pytest.mark.parametrize("prompt", ["", "so", "zoë", "rosalind", "names"])
def test_a_text_is_gone_on_with(
    kind: str, prompt: str, texts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(texts)
    (texts / "names").mkdir(exist_ok=True)  # a text all the same
    run(f"sample {kind} --num 3 --complete", prompt)
    separator = "\n" if kind == "line" else "\n\n"
    found = (texts / kind / "completions.txt").read_text().removesuffix(separator)
    assert found.startswith(prompt)
    assert kind == "window" or found.count(f"{separator}{prompt}") == 2
    run(f"sample {kind} --num 3 --rows 0 --out {kind}.pt --complete", prompt)
    assert training.load(texts / kind).event_shape == (8,)


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("window", ["Qt"], "`complete` must have only characters of the data; got Qt"),
        ("line", ["so\n"], r"`complete` must have only characters of the data; got \n"),
        ("window", ["rosalinda"], "`complete` must have at most 8 symbols; got 9"),
        ("bytes", ["zoëzoëz"], "`complete` must have at most 8 symbols; got 9"),
        ("window", ["so", "--rows", "3"], "`rows` must be at most 2, the symbols of the text"),
        ("window", ["so", "--rows", "-1"], "`num_rows` must be from 0 to 8; got -1"),
        ("window", ["test"], "`rows` must be given with --complete; got None"),
    ],
)
def test_a_text_that_cannot_be_gone_on_with(
    kind: str,
    words: list[str],
    message: str,
    texts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["sample", str(texts / kind), "--complete", *words]) == 2
    assert message in capsys.readouterr().err


def test_what_is_missing_is_drawn_without_rows(texts: Path) -> None:
    begun = torch.tensor([[0.0, 1, 2], [1, math.nan, math.nan]])
    begun = torch.nn.functional.pad(begun, (0, 5), value=math.nan)
    torch.save(begun, texts / "begun.pt")
    run(f"sample {texts}/line --num 2 --complete {texts}/begun.pt --out {texts}/whole.pt")
    whole = torch.load(texts / "whole.pt")
    assert torch.equal(whole[~begun.isnan()], begun[~begun.isnan()])
    assert not whole.isnan().any()


def test_models_that_cannot_take_what_ends_early(
    names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"train realnvp --data {names} --data.unit line {SMALL} --run {names.parent}/run"
    assert main(words.split()) != 0
    assert "`data` must have no missing elements for a model" in capsys.readouterr().err
