"""Ctrl-C while the command line samples: one line, exit code 130, and no half-written file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning")

from pyro_genmodels.cli import main

# Stands in for a network that takes minutes; says when sampling has begun.
CHILD = """
import sys, time
from pyro_genmodels.cli import main
from pyro_genmodels.nets.pixelcnn.pixelcnn import BlockEvaluation
step = BlockEvaluation.step
def slow(*arguments):
    print("sampling", flush=True)
    time.sleep(0.2)
    step(*arguments)
BlockEvaluation.step = slow
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "pixelcnn"
    words = "--max_epochs 1 --num_samples 0 --progress false --accelerator cpu --batch_size 500"
    small = "--model.hidden_channels 2 --model.num_blocks 1"
    assert (
        main(
            [
                "train",
                "pixelcnn",
                "--data",
                "digits",
                "--run",
                str(folder),
                *words.split(),
                *small.split(),
            ]
        )
        == 0
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.pt", "x.png"])
def test_an_interrupted_sample_ends_in_one_line(name: str, run: Path, tmp_path: Path) -> None:
    out = tmp_path / name
    torch.save(torch.zeros(1), out) if name == "x.pt" else out.write_bytes(b"old")
    old = out.read_bytes()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, "sample", str(run), "--num", "2", "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"sampling\n"
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=120)
    assert (child.returncode, error) == (130, b"interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert out.read_bytes() == old
