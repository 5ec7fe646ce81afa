"""Checkpoints: what loads, and one clear error for what does not."""

from __future__ import annotations

import os
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyro.distributions.transforms as pt
import pytest
import torch
from torch.distributions.transforms import AffineTransform

from pyro_genmodels import data, models, training
from pyro_genmodels._files import save_whole, written_whole
from pyro_genmodels._migration import FORMAT
from pyro_genmodels.training import CheckpointError
from tests.training.tiny import QUICK, Tiny, source

NAME = "tests.training.tiny.Tiny"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    training.fit(Tiny(), source(), run=folder, max_epochs=3, ema_decay=0.9, **QUICK)
    return folder


def altered(run: Path, folder: Path, **changes: Any) -> Path:
    contents = torch.load(run / "checkpoints" / "best.ckpt", weights_only=True)
    contents["pyro_genmodels"] |= changes
    torch.save(contents, folder / "altered.ckpt")
    return folder / "altered.ckpt"


def test_load_gives_the_averaged_weights_in_eval_mode(run: Path) -> None:
    model = training.load(run, allow=[NAME])
    assert isinstance(model, Tiny)
    assert not model.training
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert torch.equal(model.mean, last["pyro_genmodels"]["weights"]["mean"])
    assert not torch.equal(model.mean, last["state_dict"]["loss.model.mean"])


def test_fit_leaves_the_model_with_its_best_weights(tmp_path: Path) -> None:
    model = Tiny()
    history = training.fit(model, source(), run=tmp_path, max_epochs=2, **QUICK)
    loaded = training.load(tmp_path, allow=[NAME])
    assert not model.training
    assert torch.equal(model.mean, loaded.mean)
    assert [row["epoch"] for row in history] == [1, 2]
    names = {path.name for path in tmp_path.iterdir()}
    assert names >= {"metrics.csv", "curves.png", "checkpoints", "tensorboard"}


def test_a_class_outside_the_package_needs_to_be_allowed(run: Path) -> None:
    with pytest.raises(CheckpointError, match=r"allowed by name .* got 'tests.training.tiny.Tiny'"):
        training.load(run)


def test_a_model_with_foreign_parts_trains_and_is_loaded_into_one_like_it(tmp_path: Path) -> None:
    def flow(size: int = 3) -> models.FlowModel:
        scaled = AffineTransform(torch.zeros(size), 2.0, event_dim=1)
        return models.FlowModel((size,), [pt.affine_autoregressive(size, [8]).inv, scaled])

    model, own = flow(), source()
    training.fit(model, own, run=tmp_path, max_epochs=2, **QUICK)
    with pytest.raises(
        CheckpointError, match=r"a model like its own: .models.FlowModel\(transforms"
    ):
        training.load(tmp_path)
    again = training.load(tmp_path, model=flow())
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    with pytest.raises(CheckpointError, match="must fit its model"):
        training.load(tmp_path, model=flow(4))
    training.fit(flow(), own, run=tmp_path, resume=True, max_epochs=3, **QUICK)


def test_a_class_outside_is_not_even_imported(run: Path, tmp_path: Path) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    trap = altered(run, tmp_path, model={"class": "trap.Model", "arguments": {}})
    with pytest.raises(CheckpointError, match="public class"):
        training.load(trap)


def test_a_truncated_file_is_named(run: Path, tmp_path: Path) -> None:
    content = (run / "checkpoints" / "best.ckpt").read_bytes()
    path = tmp_path / "cut.ckpt"
    end = len(content)
    for length in {*range(0, end, end // 100), *range(end - 40, end)}:
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"cut.ckpt' must be a whole checkpoint"):
            training.load(path)


def test_a_damaged_directory_or_member_is_named(run: Path, tmp_path: Path) -> None:
    content = (run / "checkpoints" / "best.ckpt").read_bytes()
    path, directory = tmp_path / "damaged.ckpt", content.index(b"PK\x01\x02")
    draws = np.random.default_rng(0)
    places = draws.integers(0, len(content), 30).tolist()
    for place in [*places, *range(directory, directory + 46)]:
        damaged = bytearray(content)
        damaged[place] ^= 0x5A
        path.write_bytes(damaged)
        with suppress(CheckpointError):  # of times and names of members nothing depends
            training.load(path, allow=[NAME])


def test_what_grows_when_it_is_read_is_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match="must be a whole checkpoint"):
        training.load(tmp_path / "bomb.ckpt")


@pytest.mark.parametrize(
    "content", [b"text\n", b"\x80\x04}\x94.", b"PK\x03\x04", b"root:x:0:0\n" * 9]
)
def test_a_foreign_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(CheckpointError, match="must be a whole checkpoint"):
        training.load(tmp_path / "foreign")


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    torch.save({"model": Path}, tmp_path / "object.pt")
    with pytest.raises(CheckpointError, match="only their own code could load"):
        training.load(tmp_path / "object.pt")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 99, "version": "9.0"}, f"format {FORMAT} or older; got format 99, .* 9.0"),
        ({"format": "one"}, "another program"),
        ({"weights": {"mean": torch.zeros(3)}}, "weights without .*log_scale"),
        ({"weights": {**Tiny().state_dict(), "more": torch.zeros(4)}}, "with unknown more"),
        ({"weights": Tiny(4).state_dict()}, "with other shapes of log_scale, mean"),
        (
            {"model": {"class": NAME, "arguments": {"width": 3}}},
            "`class` must take the arguments given",
        ),
        ({"model": {"class": NAME, "arguments": {"size": -3}}}, "positive"),
    ],
)
def test_what_does_not_fit_is_named(
    run: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = altered(run, tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        training.load(path, allow=[NAME])


def test_a_folder_without_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="a folder with one"):
        training.load(tmp_path)


def test_a_run_is_not_overwritten_unasked(run: Path) -> None:
    with pytest.raises(FileExistsError, match="holds a run already"):
        training.fit(Tiny(), source(), run=run, **QUICK)


def test_data_that_were_only_in_memory_are_asked_for(run: Path) -> None:
    with pytest.raises(CheckpointError, match="given again"):
        training.load_source(run)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match=str(tmp_path)):
        training.fit(Tiny(), source(), run=tmp_path / "run", **QUICK)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), written_whole(path) as temporary:
        temporary.write_text("half \ud800", "utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_cannot_be_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "none" / "file.ckpt"
    with pytest.raises(FileNotFoundError) as caught, written_whole(path) as temporary:
        temporary.write_text("text")
    assert caught.value.filename == str(path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_and_the_old_file_kept(tmp_path: Path) -> None:
    path = tmp_path / "file.ckpt"
    path.write_text("old")
    (tmp_path / ".file.part.ckpt").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left|disk full") as caught:
        save_whole({"weights": torch.zeros(100_000)}, path)
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"


@pytest.mark.parametrize("weights", [None, [1], {"mean": 3, "log_scale": 4}])
def test_weights_that_are_no_tensors_are_named(run: Path, tmp_path: Path, weights: Any) -> None:
    with pytest.raises(CheckpointError, match="weights that are no tensors"):
        training.load(altered(run, tmp_path, weights=weights), allow=[NAME])


def test_a_model_is_no_data_source(run: Path, tmp_path: Path) -> None:
    path = altered(run, tmp_path, data={"class": NAME, "arguments": {}})
    with pytest.raises(CheckpointError, match=r"altered.ckpt.* be a DataSource; got Tiny"):
        training.load_source(path, allow=[NAME])


def test_runs_of_before_the_quantisers_kept_more_load_and_go_on(tmp_path: Path) -> None:
    images = data.InMemory(torch.randn(100, 1, 4, 4))

    def history(max_epochs: int, **options: Any) -> list[dict[str, float]]:
        model = models.VQVAE(
            (1, 4, 4),
            codebook=models.Codebook(4, dim=2),
            network=models.VQVAENetwork(reduction=2, hidden_channels=8, num_blocks=0),
        )
        options |= {"run": tmp_path, "max_epochs": max_epochs, **QUICK}
        return training.fit(model, images, **options)

    history(1)
    for path in (tmp_path / "checkpoints").glob("*.ckpt"):
        contents = torch.load(path, weights_only=True)
        for weights in (contents["pyro_genmodels"]["weights"], contents.get("state_dict", {})):
            for name in [name for name in weights if name.endswith(("frequencies", "unchosen"))]:
                del weights[name]
        torch.save(contents, path)
    loaded = training.load(tmp_path)
    assert isinstance(loaded, models.VQVAE)
    assert torch.equal(loaded.quantizer.frequencies, loaded.quantizer.counts)
    assert [row["epoch"] for row in history(2, resume=True)] == [1, 2]
