"""Whoever waits sees a bar, after a while and on a terminal; the bar of training fits into one."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pyro_genmodels import _progress, compression, data, models, nets, training
from pyro_genmodels._progress import progress_shown, tracked
from pyro_genmodels.data import InMemory
from pyro_genmodels.distributions import PixelCNN
from tests.training.tiny import QUICK


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STREAMS = pytest.mark.parametrize("stream", [Terminal, io.StringIO])


def watched(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what is written to a terminal or into a file; each wait counts as a long one."""
    monkeypatch.setattr(_progress, "SECONDS", 0.0)
    monkeypatch.setattr(sys, "stderr", stream())
    return sys.stderr  # type: ignore[return-value]


def network() -> nets.PixelCNNNet:
    return nets.PixelCNNNet((1, 4, 4), 3, hidden_channels=4)


def levels(number: int = 4) -> torch.Tensor:
    return torch.randint(3, (number, 1, 4, 4))


def evaluates() -> None:
    training.evaluate(models.AutoregressiveModel(network()), InMemory(levels(40), num_levels=3))


def encodes(folder: Path) -> None:
    model = models.VQVAE((1, 8, 8), num_levels=3, codebook=8)
    training.encode_codes(model, InMemory(torch.randint(3, (40, 1, 8, 8)), num_levels=3), folder)


def compresses() -> None:
    pytest.importorskip("constriction")
    compression.compress(PixelCNN(network().eval()), levels())


WAITS: dict[str, Callable[[Path], object]] = {
    "standardizing": lambda _: models.VAE((2,)).standardize(torch.randn(50, 2)),
    "evaluating": lambda _: evaluates(),
    "encoding train": encodes,
    "sampling": lambda _: PixelCNN(network()).sample((2,)),
    "sampling ": lambda _: PixelCNN(network()).sample((2,), method="parallel"),
    "sampling  ": lambda _: training.draw_samples(models.VAE((2,)), 5),
    "sampling   ": lambda _: training.rejection_sample(torch.randn, lambda x: -x.abs(), 5),
    "coding": lambda _: compresses(),
}


@STREAMS
@pytest.mark.parametrize("name", WAITS)
def test_each_wait_is_shown(
    name: str, stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shown = watched(stream, monkeypatch)
    with progress_shown(False):
        WAITS[name](tmp_path / "hidden")
    assert shown.getvalue() == ""
    WAITS[name](tmp_path / "seen")
    assert name.strip() in shown.getvalue()


def test_a_wait_is_one_line_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = watched(io.StringIO, monkeypatch)
    assert list(tracked(range(5), "waiting")) == [0, 1, 2, 3, 4]
    assert shown.getvalue() == "waiting ...\n"


@STREAMS
def test_what_is_quick_shows_nothing(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    assert list(tracked(range(5), "waiting")) == [0, 1, 2, 3, 4]
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]


@STREAMS
def test_what_is_hidden_stays_hidden(
    stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = watched(stream, monkeypatch)
    with progress_shown(False), progress_shown(True):
        list(tracked(range(5), "waiting"))
    PixelCNN(network()).sample(progress=False)
    assert shown.getvalue() == ""


@pytest.mark.parametrize("num_levels", [None, 17])
def test_sixty_columns_show_value_and_unit(
    num_levels: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("lightning")
    master, terminal = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    x = torch.randn(64, 4) if num_levels is None else torch.randint(17, (64, 4))
    model = models.VAE((4,), num_levels=num_levels, latent_dim=2)
    options = {**QUICK, "progress": True, "max_epochs": 3}
    with os.fdopen(terminal, "w") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        source = data.InMemory(x, num_levels=num_levels)
        training.fit(model, source, run=tmp_path / "run", **options)
        stream.flush()
        lines = os.read(master, 2**16).decode().replace("\n", "\r").split("\r")
    os.close(master)
    unit = "nats" if num_levels is None else "bits/dim"
    whole = [line for line in lines if ", val " in line]
    assert whole
    assert all(f" {unit} " in line and len(line.rstrip()) <= 60 for line in whole), whole
