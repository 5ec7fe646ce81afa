"""Mistakes on the command line: one line that says what is wrong, and every good file kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pyro_genmodels import training
from pyro_genmodels.cli import main

QUICK = ["--max_epochs", "1", "--num_samples", "0", "--progress", "false", "--accelerator", "cpu"]
SMALL = ["--model.network.hidden", "[8]", "--model.latent_dim", "2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vae"
    words = ["train", "vae", "--data", "digits", "--run", str(folder), *SMALL, *QUICK]
    assert main(words) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def refuse(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], *, status: int = 2
) -> None:
    """Check that a command fails with one line that holds the message.

    Status 2 is that of a wrong command line, 1 that of what failed at work.
    """
    capsys.readouterr()
    assert main(words) == status
    shown = capsys.readouterr()
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1
    assert message in shown.err


TRAIN = "train vae --data digits --run {run} --overwrite"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (f"{TRAIN} --model.event_shape [1,9,9]", "`data` must have trailing shape (1, 9, 9)"),
        (f"{TRAIN} --max_epochs 0", "`max_epochs` must be positive"),
        (f"{TRAIN} --resume", "--resume and --overwrite exclude each other"),
        ("train --run {run} --resume --model.latent_dim 5", "must fit its model; got weights with"),
        ("train realnvp --run {run} --resume", "`name` must be VAE, as in the run to resume"),
        ("train --data ising --run {run} --resume", "`source` must be Digits, as in the run"),
        ("train --run {run}/none --resume", "--run must be a run's folder to resume"),
        ("train --run {run} --resume --max_epochs 2 --optimizer sgd", "`optimizer` must be adam"),
        ("train --run {run} --resume --batch_size 0", "`batch_size` must be positive"),
    ],
)
def test_a_refused_run_keeps_the_good_one(
    words: str, message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(run)
    at_work = ("trailing shape", "must fit its model", "must be a run's folder")
    status = 1 if any(part in message for part in at_work) else 2
    refuse(words.format(run=run).split(), message, capsys, status=status)
    assert contents(run) == before


def test_a_run_that_is_refused_leaves_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "vae", "--data", "digits", "--run", str(tmp_path / "run")]
    refuse([*words, "--model.num_levels", "5"], "integers from 0 to 4", capsys, status=1)
    assert not list(tmp_path.iterdir())


def test_fewer_epochs_than_done_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--run", str(run), "--resume", "--max_epochs", "3"]) == 0
    words = ["train", "--run", str(run), "--resume", "--max_epochs", "2"]
    refuse(words, "`max_epochs` must be at least 3, the epochs that the run has begun", capsys)


def test_weights_alone_do_not_resume(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(run / "checkpoints" / "best.ckpt", run / "checkpoints" / "last.ckpt")
    words = ["train", "--run", str(run), "--resume"]
    refuse(words, "without the state of a training", capsys, status=1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample {run} --out {tmp}", "`out` must be a new folder"),
        ("sample {run} --out {tmp}/x.xyz", "`out` must be a file that ends in .csv or .npy"),
        ("sample {run} --out {tmp}/no/x.png", "`out` must lie in a folder that is there"),
        ("sample {run} --seed -1", "`seed` must be from 0 to 2**32 - 1; got -1"),
        ("sample {run} --num 0", "`num` must be at least 1"),
        ("sample {run} --label 3", "`label` must be left out"),
        ("sample {run} --device foo", "`device` must be one that torch can use; got 'foo'"),
        ("evaluate {run} --device foo", "`device` must be one that torch can use; got 'foo'"),
        ("evaluate {run} --particles 0", "`num_particles` must be positive; got 0"),
        ("evaluate {run} --num_steps 9", "`num_steps` must be left out"),
        ("reconstruct {run} --out {tmp}/x.pt", "`out` must be a file that ends in .png"),
        ("train vae --data digits --max_epoch 1", "did you mean --max_epochs"),
        ("train vae --data digits --model.latentdim 1", "did you mean --model.latent_dim"),
    ],
)
def test_an_impossible_option_is_named(
    words: str, message: str, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(words.format(run=trained, tmp=tmp_path).split(), message, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": 3}, "model` must hold options by name; got 3"),
        ({"data": [1]}, "data` must hold options by name; got [1]"),
        ({"config": {"seed": 3}}, "must name no further file"),
        ({"model": {"encoder": {"class": "MLPEncoder", "arguments": 3}}}, "be a class name, or"),
        ({"foo": 3}, "'foo' is not accepted"),
    ],
)
def test_a_wrong_configuration_is_named(
    config: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"name": "VAE", "source": "Digits", **config}))
    words = ["train", "--config", str(path), "--run", str(tmp_path / "run")]
    status = 1 if "hold options" in message or "no further file" in message else 2
    refuse(words, message, capsys, status=status)
    assert not (tmp_path / "run").exists()


def test_an_interrupt_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "fit", interrupted)
    words = ["train", "vae", "--data", "digits", "--run", str(tmp_path / "run"), *SMALL, *QUICK]
    assert main(words) == 130
    shown = capsys.readouterr().err
    assert shown == f"interrupted; go on with: pyro-genmodels train --run {tmp_path}/run --resume\n"


def test_a_core_only_installation_names_the_extra() -> None:
    code = (
        "import sys\nfor name in ('yaml', 'jsonargparse', 'lightning'): sys.modules[name] = None\n"
        "from pyro_genmodels.cli import main\nsys.exit(main('train vae --data digits'.split()))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 1
    assert shown.stderr.count("\n") == 1
    assert "pip install 'pyro-genmodels[train]'" in shown.stderr


def test_a_damaged_checkpoint_is_not_loaded(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "checkpoints" / "best.ckpt"
    damaged = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["pyro_genmodels"]["weights"]
    place = damaged.find(max(weights.values(), key=torch.numel).numpy().tobytes())
    damaged[place] ^= 0xFF
    path.write_bytes(damaged)
    refuse(["evaluate", str(run)], "must be a whole checkpoint", capsys, status=1)


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = "from pyro_genmodels.cli import main; raise SystemExit(main(['list']))"
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
