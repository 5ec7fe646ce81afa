"""Test session: run-time shape checks, one thread, clean Pyro state, options for long tests."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Generator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401 - the hook below looks it up by name

# Before the package is imported, so that every public tensor's declared shape is checked.
_hook = install_import_hook("pyro_genmodels", "tests.typecheck.checked")

import pyro  # noqa: E402
import torch  # noqa: E402

# Without the extras (CI's second environment), a test that turns out to need one is skipped with
# the package's own message; with them, such an error fails the test.
CORE_ONLY = importlib.util.find_spec("lightning") is None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--runslow", action="store_true", help="also run the tests marked slow")


def pytest_configure(config: pytest.Config) -> None:
    # Type variables and aliases of Pyro and torch spell Callable the old way; we do not.
    ignored = "ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning"
    config.addinivalue_line("filterwarnings", ignored)
    torch.set_num_threads(int(os.environ.get("PYRO_GENMODELS_TEST_THREADS", "1")))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {"gpu": pytest.mark.skip(reason="needs CUDA")} if not torch.cuda.is_available() else {}
    if not config.getoption("--runslow"):
        skips["slow"] = pytest.mark.skip(reason="long: give --runslow")
    for item in items:
        for marker in set(skips) & set(item.keywords):
            item.add_marker(skips[marker])


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Doctests are the package's: scripts and helpers beside the tests are not imported for any."""
    name = collection_path.name
    return True if name.endswith(".py") and not name.startswith("test_") else None


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    try:
        return (yield)
    except ImportError as error:
        if CORE_ONLY and "pip install 'pyro-genmodels[" in str(error):
            pytest.skip(str(error))
        raise


@pytest.fixture(autouse=True)
def _fresh_state() -> None:
    """Each test starts from the same seed, an empty param store and float32 defaults."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    torch.set_default_dtype(torch.float32)
