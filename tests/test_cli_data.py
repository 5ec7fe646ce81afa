"""Which data a command reads: the run's own wherever they lie, or others by name or place."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lightning", reason="comes with the train extra")

from pyro_genmodels import data, models, training
from pyro_genmodels.cli import _one_line, description, main, scoring
from pyro_genmodels.cli.usage import UsageError, split_data_options, usage
from tests.small_runs import SETTINGS, SHAPE, train_runs
from tests.test_cli_mistakes import QUICK, refuse

CLASSES = ["bird", "cat", "dog"]


def images(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 4, (60, *SHAPE)).astype(np.uint8)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PixelCNN with labels and a VAE on ``data.npz``, in one folder."""
    folder = tmp_path_factory.mktemp("project")
    network = models.VAENetwork(hidden=(4,))
    vae = models.VAE(SHAPE, num_levels=4, latent_dim=2, network=network)
    train_runs(folder, {"vae": vae})
    return folder


@pytest.fixture
def project(trained: Path, tmp_path: Path) -> Path:
    """A copy whose runs know no other place than that of the original."""
    return Path(shutil.copytree(trained, tmp_path / "project"))


def write_other(folder: Path) -> str:
    np.savez(folder / "other.npz", train=images(1), train_labels=np.arange(60) % 3)
    return str(folder / "other.npz")


COMMANDS = {
    "evaluate": "evaluate {run}",
    "reconstruct": "reconstruct {vae} --out {tmp}/r.png",
    "labels": "sample {run} --labels test --num 5 --out {tmp}/s.pt",
    "complete": "sample {run} --complete test --rows 2 --num 3 --out {tmp}/c.pt",
    "compress": "compress {run} --num 2 --output {tmp}/x.pgm",
}


def words_of(command: str, project: Path, tmp_path: Path) -> list[str]:
    run, vae = project / "pixelcnn", project / "vae"
    return COMMANDS[command].format(run=run, vae=vae, tmp=tmp_path).split()


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_reads_other_data_and_says_so(
    command: str, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of(command, project, tmp_path)
    assert main(words) == 0
    own = capsys.readouterr().out
    assert "other than the run's" not in own
    assert main([*words, "--data", write_other(tmp_path)]) == 0
    other = capsys.readouterr().out
    assert "data: other than the run's: train has other values" in other
    assert main([*words, "--data.seed", "1"]) == 0
    assert "other than the run's" in capsys.readouterr().out
    assert main(["evaluate", *words[1:2], "--data.sed=1"]) == 2
    assert "did you mean --data.seed" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_notices_that_the_data_are_others_and_finds_them_elsewhere(
    command: str, trained: Path, project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words, path = words_of(command, project, tmp_path), trained / "data.npz"
    good, moved = path.read_bytes(), tmp_path / "moved.npz"
    moved.write_bytes(good)
    try:
        np.savez(path, train=images(1), train_labels=np.arange(60) % 3)
        refuse(words, "train has other values", capsys, status=1)
        assert main([*words, "--accept_other_data"]) == 0
        path.unlink()
        refuse(words, "data.npz', which is not there: say where", capsys, status=1)
        for place in (["--data", str(moved)], ["--data.path", str(moved)]):
            assert main([*words, *place]) == 0
            assert "other than the run's" not in capsys.readouterr().out
    finally:
        path.write_bytes(good)


def test_a_folder_named_as_a_source_must_be_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    for words in (["data", "photos"], ["train", "vae", "--data", "photos"]):
        assert main(words) != 0
        message = "`data` must be Photos for the built-in data, or ./photos for what lies there"
        assert message in capsys.readouterr().err


def test_a_resumed_run_notices_other_data_and_takes_moved_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)).astype("f4"))
    monkeypatch.chdir(tmp_path)
    small = ["--model.network.hidden", "[4]", "--model.latent_dim", "2", *QUICK]
    assert main(["train", "vae", "--data", "x.npy", "--run", "run", *small]) == 0
    shown = capsys.readouterr().out
    assert "data: x.npy(" in shown
    assert "data fingerprint: whole content" in shown
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resume = ["train", "--run", str(tmp_path / "run"), "--resume", "--max_epochs"]
    assert main([*resume, "2"]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    moved = (tmp_path / "x.npy").rename(tmp_path / "elsewhere" / "y.npy")
    assert main([*resume, "3"]) == 1
    assert main([*resume, "3", "--data", "y.npy"]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0  # where they lie is known by now
    np.save(moved, np.load(moved) + 1)
    before = (tmp_path / "run" / "config.yaml").read_bytes()
    refuse([*resume, "4"], "train has other values", capsys, status=1)
    assert (tmp_path / "run" / "config.yaml").read_bytes() == before
    assert main([*resume, "4", "--accept_other_data"]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0


def test_data_of_another_kind_take_the_models_levels(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", images(2))
    words = ["evaluate", str(project / "vae"), "--data", str(tmp_path / "x.npy")]
    assert main([*words, "--data.num_classes=null"]) == 0
    words = ["evaluate", str(project / "vae"), "--data", "bars_and_stripes", "--data.size", "4"]
    assert main([*words, "--data.train", "50", "--data.validation=5", "--data.test", "6"]) == 0
    assert "gap to the true distribution" in capsys.readouterr().out


def name_classes(run: Path, **names: Any) -> None:
    path = run / "checkpoints" / "last.ckpt"
    contents = torch.load(path, weights_only=True)
    contents["pyro_genmodels"]["source"] |= names
    torch.save(contents, path)


def test_a_class_is_drawn_by_name_without_the_data(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = project / "pixelcnn"
    name_classes(run, classes=CLASSES)
    drawn = []
    for label in ("cat", "1"):
        words = ["sample", str(run), "--num", "3", "--out", str(tmp_path / "x.pt")]
        assert main([*words, "--label", label]) == 0
        assert "label cat" in capsys.readouterr().out
        drawn.append(torch.load(tmp_path / "x.pt"))
    assert torch.equal(*drawn)
    assert main(words) == 0
    assert "labels in turn: bird, cat, dog" in capsys.readouterr().out
    assert main([*words, "--complete", "test", "--rows", "2"]) == 0
    assert "in turn" not in capsys.readouterr().out  # they are those of the images
    for wrong in ("cow", "3", "-1"):
        rule = "`label` must be a number from 0 to 2, or one of bird, cat, dog"
        refuse([*words, "--label", wrong], rule, capsys)


def test_samples_are_tables_arrays_and_folders(project: Path, tmp_path: Path) -> None:
    words = ["sample", str(project / "vae"), "--num", "3", "--out"]
    assert main([*words, str(tmp_path / "x.npy")]) == 0
    assert np.load(tmp_path / "x.npy").shape == (3, *SHAPE)
    assert main([*words, str(tmp_path / "x.csv")]) == 0
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0].split(",") == [f"x{index}" for index in range(16)]
    assert lines[1].split(",") == [str(v) for v in np.load(tmp_path / "x.npy")[0].ravel()]
    assert main([*words, str(tmp_path / "folder")]) == 0
    assert len(list((tmp_path / "folder").iterdir())) == 3


def test_columns_keep_their_names_through_to_samples(tmp_path: Path) -> None:
    source = data.InMemory(torch.randn(60, 3))
    model = models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(4,)))
    training.fit(model, source, run=tmp_path / "run", **SETTINGS)
    kinds: list[dict[str, Any]] = [
        {"name": "height", "kind": "gaussian", "categories": []},
        {"name": "legs", "kind": "count", "categories": []},
        {"name": "colour", "kind": "categorical", "categories": ["red", "green"]},
    ]
    name_classes(tmp_path / "run", columns=kinds)
    from pyro_genmodels.cli.arrays import write_data

    columns = training.run_data(tmp_path / "run").columns
    x = torch.tensor([[0.5, 4.0, 1.0], [math.nan, 2.0, 0.0]])
    write_data(x, None, tmp_path / "x.csv", columns)
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines == ["height,legs,colour", "0.5,4,green", ",2,red"]


def test_figures_that_are_not_finite_are_null_in_json(tmp_path: Path) -> None:
    class Result:
        def as_dict(self) -> dict[str, Any]:
            return {"nats": {"mean": math.nan, "all": [1.0, math.inf]}, "gap": None}

    scoring.save_result(Result(), tmp_path)
    text = (tmp_path / "result.json").read_text()
    plain = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert plain == {"nats": {"mean": None, "all": [1.0, None]}, "gap": None}


def test_an_error_carries_no_terminal_codes() -> None:
    assert _one_line(ValueError("\x1b[1mbold\x1b[0m\nand plain")) == "bold and plain"


def test_only_plain_errors_are_the_command_lines() -> None:
    with pytest.raises(UsageError, match="`seed` must"), usage("seed"):
        raise ValueError("`seed` must be positive; got 0.")
    for error in (ValueError("`data` must be finite"), training.CheckpointError("`seed` must")):
        with pytest.raises(ValueError, match="must") as caught, usage("seed"):
            raise error
        assert caught.value is error


def test_options_of_the_data_are_told_from_the_rest() -> None:
    words = "evaluate --data.path x.npy RUN --data.seed=3 --data.fraction -1 --split test"
    others, found = split_data_options(words.split())
    assert others == ["evaluate", "RUN", "--split", "test"]
    assert found == ["--data.path", "x.npy", "--data.seed=3", "--data.fraction", "-1"]


@pytest.mark.parametrize(
    "words",
    ["evaluate", "evaluate RUN --foo", "list --data.path x", "decompress RUN", "nothing"],
)
def test_what_argparse_refuses_is_a_wrong_command_line(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pyro-genmodels"])
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    assert caught.value.code == 2


def shown_in_60_columns(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "60")
        assert main(["data", *words]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 60 or " " not in line.strip() for line in shown.splitlines())
    return " ".join(shown.split())


def test_data_are_described(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, path = tmp_path / "x.png", str(trained / "data.npz")
    words = [path, "--data.num_levels", "4", "--data.num_classes=3", "--out", str(picture)]
    shown = shown_in_60_columns(words, capsys)
    x = training.load_source(trained / "vae").train.tensors[0].double()  # type: ignore[attr-defined]
    for part in (
        "splits train 42, validation 6, test 12",
        "x shape (1, 4, 4), 4 levels, uint8",
        f"values 0 to 3, mean {x.mean():.4g}, deviation {x.std(unbiased=False):.4g}",
        "classes 0: ",
        "fingerprint whole content",
        "SequenceVQVAE, maf: `event_shape` must be positive sizes (D,)",
        "train with pyro-genmodels train vae --data",
        "--data.num_levels 4 --data.num_classes=3",
    ):
        assert part in shown
    assert picture.is_file()


def test_columns_and_what_is_missing_are_described(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data.InMemory(torch.tensor([[0.0, 1.0]] * 30 + [[2.0, 0.0]] * 10), test_fraction=0.5)
    source.columns = [data.Column("size"), data.Column("kind", "categorical", ("a", "b"))]
    source.missing = True
    source.train.tensors[0][0, 0] = math.nan  # type: ignore[attr-defined]
    (source.__dict__)["skipped"] = ["bad.png"]
    description.print_source(source)
    shown = " ".join(capsys.readouterr().out.split())
    assert "size gaussian, 0 to 2, mean" in shown
    assert "1 missing (" in shown
    assert "kind 2 categories: a, b" in shown
    assert "missing allowed, as NaN" in shown
    assert "skipped 1: bad.png" in shown


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("nowhere.npy", 2, "`path` must be a file or a folder; got 'nowhere.npy'"),
        ("digitz", 2, "unknown data 'digitz': did you mean Digits"),
        ("{tmp}/torn.npy", 1, "`path` must be a readable .npy file"),
        ("digits --data.foo=3", 2, "data.foo"),
        ("digits --out {tmp}/x.txt", 2, "`out` must be a file that ends in .png"),
    ],
)
def test_data_that_are_not_there_are_named(
    words: str, status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torn.npy").write_bytes(b"torn")
    refuse(["data", *words.format(tmp=tmp_path).split()], message, capsys, status=status)


def test_counts_with_size_factors_train_and_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    sparse = pytest.importorskip("scipy.sparse")
    counts = np.random.default_rng(0).poisson(3.0, (60, 4)) + 1
    scipy_io.mmwrite(tmp_path / "counts.mtx", sparse.csr_matrix(counts))
    own = ["--data", str(tmp_path / "counts.mtx"), "--data.size_factors", "true", "--conditional"]
    run = str(tmp_path / "run")
    words = ["train", "vae", *own, "--run", run, "--max_epochs", "1", "--progress", "false"]
    assert main([*words, "--model.latent_dim", "2", "--num_samples", "4"]) == 0
    assert main(["sample", run, "--num", "3"]) != 0
    assert "`labels` must be given, the model is conditioned on features" in capsys.readouterr().err
    out = tmp_path / "samples.csv"
    assert main(["sample", run, "--num", "3", "--labels", "train", "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 4
