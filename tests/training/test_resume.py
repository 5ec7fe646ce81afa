"""An interrupted run that goes on ends as an undisturbed one, bit for bit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch

from pyro_genmodels import training
from tests.training.child import SETTINGS, make


class KilledError(Exception):
    pass


class KillAt(lightning.Callback):
    """Dies at a moment of training."""

    def __init__(self, moment: str, step: int) -> None:
        self.moment, self.step = moment, step

    def __getattribute__(self, name: str) -> Any:
        if name == object.__getattribute__(self, "__dict__").get("moment"):
            return lambda trainer, *_: self.die(trainer)
        return object.__getattribute__(self, name)

    def die(self, trainer: lightning.Trainer) -> None:
        if trainer.global_step >= self.step:
            raise KilledError


def run(folder: Path, *callbacks: lightning.Callback, **settings: Any) -> None:
    model, source = make()
    training.fit(
        model, source, run=folder, resume=True, callbacks=callbacks, **{**SETTINGS, **settings}
    )


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Every number of the training state is the same, except the clock's.

    And except Python's generator: beartype draws from it, where these tests have it check.
    """
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a.keys() - {"seconds", "elapsed", "python"}:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}/{i}")
    else:
        assert a == b, path


def assert_same_run(a: Path, b: Path) -> None:
    one, two = last(a), last(b)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "pyro_genmodels", "callbacks"):
        assert_same(one[key], two[key], key)
    best = [torch.load(f / "checkpoints" / "best.ckpt", weights_only=True) for f in (a, b)]
    assert_same(*best)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ("on_train_batch_start", 3),  # before any checkpoint
        ("on_train_batch_end", 33),  # within an epoch
        ("on_validation_start", 40),
        ("on_validation_end", 60),  # best is written, last is not
        ("on_train_epoch_end", 60),  # between the epoch's checkpoint and its end
        ("on_train_epoch_start", 80),
        ("on_train_end", 120),
    ],
)
def test_a_run_that_died_at_this_moment_resumes(
    moment: str, step: int, undisturbed: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, KillAt(moment, step))
    torch.manual_seed(77)
    run(tmp_path)
    assert_same_run(undisturbed, tmp_path)
    rows = (tmp_path / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", *map(str, range(1, 7))]


def test_a_run_stopped_by_the_clock_goes_on_within_its_epoch(
    undisturbed: Path, tmp_path: Path
) -> None:
    run(tmp_path, max_time=0.2)
    assert last(tmp_path)["global_step"] < 120
    run(tmp_path)
    assert_same_run(undisturbed, tmp_path)


def test_a_finished_run_stays_as_it_is(undisturbed: Path) -> None:
    before = last(undisturbed)
    run(undisturbed)
    assert_same(before, last(undisturbed))


@pytest.mark.slow
def test_a_run_killed_again_and_again_resumes(undisturbed: Path, tmp_path: Path) -> None:
    moments = random.Random(0)
    child = [sys.executable, "-m", "tests.training.child", str(tmp_path)]
    for attempt in range(4):
        process = subprocess.Popen(child, stderr=subprocess.PIPE)
        while process.poll() is None and _log_files(tmp_path) <= attempt:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.5))
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
        assert process.returncode == -signal.SIGKILL, error.decode()
    subprocess.run(child, check=True)
    assert_same_run(undisturbed, tmp_path)


def _log_files(folder: Path) -> int:
    """How many processes have come as far as training."""
    return len(list(folder.glob("tensorboard/events*")))
