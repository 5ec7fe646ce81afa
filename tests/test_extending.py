"""The worked examples of the documentation, applied to a copy of the package, keep the laws."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.once, pytest.mark.slow]
ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending" / "worked_example.md"
CHANGE = re.compile(r"^```diff\n\+\+\+ (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDED = ("FVBN", "fvbn", "ChannelAffine", "IndependentGaussian")
TESTS = ["test_laws.py", "test_registry.py", "test_contexts.py", "test_help.py"]
TESTS += ["distributions/test_families.py", "models/test_autoregressive.py"]


def apply(change: str, path: Path) -> None:
    """Put the lines with ``+`` behind the line that stands before them, or at the end."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    position = len(lines)
    for line in change.splitlines():
        if line.startswith("+"):
            lines.insert(position, line[1:])
        else:
            start = 0 if position == len(lines) else position
            position = lines.index(line[1:], start)
        position += 1
    path.write_text("\n".join(lines) + "\n", "utf-8")


def files_by_section() -> list[list[str]]:
    """Files that each example changes: the counts that the page states."""
    sections = PAGE.read_text("utf-8").split("\n## ")[1:]
    return [[name for name, _ in CHANGE.findall(section)] for section in sections]


def test_worked_examples(tmp_path: Path) -> None:
    kept = shutil.ignore_patterns("__pycache__", "compatibility")
    for name in ("pyro_genmodels", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=kept)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    changes = CHANGE.findall(PAGE.read_text("utf-8"))
    for name, change in changes:
        apply(change, tmp_path / name)
    new_files = [name for name, _ in changes if not (ROOT / name).exists()]
    assert len(new_files) == 3
    assert [len(set(touched)) for touched in files_by_section()] == [8, 3, 3]
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-k", " or ".join(ADDED) + " or is_here or missing", "--doctest-modules"]
    command += [f"tests/{name}" for name in TESTS] + new_files
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    ran = re.search(r"(\d+) passed", result.stdout)
    assert ran is not None
    assert int(ran[1]) > 60, result.stdout[-500:]
