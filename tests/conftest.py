"""Test session: run-time shape checks, one thread, clean Pyro state, options for long tests."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import typecheck
from tests.extras import CORE_ONLY, SkipWhatNeedsAnExtra, imports_an_extra

# Before the package is imported, so that every public tensor's declared shape is checked. Shapes do
# not depend on torch's version: CI's second job, without extras, spends its time on values.
if not CORE_ONLY:
    typecheck.install()

import pyro
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    # Type variables and aliases of Pyro and torch spell Callable the old way; we do not.
    ignored = "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    config.addinivalue_line("filterwarnings", ignored)
    if CORE_ONLY:
        config.pluginmanager.register(SkipWhatNeedsAnExtra())
    # The user's own cache is neither read nor written.
    cache = tempfile.TemporaryDirectory(prefix="pyro_genmodels_cache_")
    config.add_cleanup(cache.cleanup)
    os.environ["PYRO_GENMODELS_CACHE"] = cache.name
    torch.set_num_threads(int(os.environ.get("PYRO_GENMODELS_TEST_THREADS", "1")))
    gc.disable()  # till all is collected


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {"gpu": pytest.mark.skip(reason="needs CUDA")} if not torch.cuda.is_available() else {}
    if not config.getoption("--runslow"):
        skips["slow"] = pytest.mark.skip(reason="long: give --runslow")
    for item in items:
        markers = set(item.keywords)
        if "one_each" in markers and "/" in item.name.partition("[")[2]:
            markers.add("slow")
        for marker in set(skips) & markers:
            item.add_marker(skips[marker])


def pytest_collection_finish() -> None:
    # Thousands of tests stay till the end: no garbage collection need look at them each time.
    gc.freeze()
    gc.enable()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Doctests are the package's: scripts and helpers beside the tests are not imported for any."""
    path = collection_path
    if path.suffix != ".py":
        return None
    beside = not path.name.startswith("test_")
    return True if beside or (CORE_ONLY and imports_an_extra(path.read_text("utf-8"))) else None


@pytest.fixture(autouse=True)
def _fresh_state() -> None:
    """Each test starts from the same seed, an empty param store and float32 defaults."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def double(_fresh_state: None) -> Iterator[None]:
    """Float64 by default: for a file, ``pytestmark = pytest.mark.usefixtures("double")``."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)
