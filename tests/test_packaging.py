"""What the installed package is, and what importing it costs."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
import subprocess
import sys

import pytest

import pyro_genmodels

HEAVY = ("torch", "pyro", "lightning", "torchvision", "sklearn", "matplotlib", "jsonargparse")
EXTRAS = (
    "lightning",
    "torchvision",
    "sklearn",
    "matplotlib",
    "hypothesis",
    "nflows",
    "constriction",
)
CORE = "nets optim transforms distributions models metrics data training plotting testing"
CORE += " compression"


def _python(program: str) -> str:
    # A fresh process: this one has everything loaded already, with the run-time checks installed.
    command = [sys.executable, "-c", program]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _loaded(program: str, among: tuple[str, ...]) -> str:
    check = f"import sys; print([m for m in {among!r} if m in sys.modules])"
    return _python(f"{program}\n{check}").strip()


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert _loaded("import pyro_genmodels", HEAVY) == "[]"


def test_core_parts_import_without_any_extra() -> None:
    """None of the extras is loaded by importing; nor missed, where none can be found."""
    program = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))  # None: importing any of them raises
import pyro_genmodels
for name in {CORE!r}.split():
    getattr(pyro_genmodels, name)
"""
    _python(program)


@pytest.mark.parametrize("name", [n for n in pyro_genmodels.__all__ if n != "__version__"])
def test_public_names_are_found_lazily(name: str) -> None:
    assert getattr(pyro_genmodels, name) is not None
    assert name in dir(pyro_genmodels)


def test_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        pyro_genmodels.nonsense  # noqa: B018


def test_version_is_that_of_the_distribution() -> None:
    assert importlib.metadata.version("pyro-genmodels") == pyro_genmodels.__version__


def test_types_are_shipped() -> None:
    assert importlib.resources.files(pyro_genmodels).joinpath("py.typed").is_file()


def test_core_dependencies_have_tested_minima() -> None:
    """`.ci/run` installs exactly these minima, so each dependency must name one."""
    requirements = importlib.metadata.requires("pyro-genmodels") or []
    core = [r for r in requirements if "extra ==" not in r]
    assert {re.split("[^a-z-]", r)[0] for r in core} == {"torch", "pyro-ppl", "jaxtyping", "tqdm"}
    assert all(re.fullmatch(r"[a-z-]+>=[\d.]+", r) for r in core)
