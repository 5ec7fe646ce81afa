"""Without the extras (CI's second environment), a test that turns out to need one is skipped.

It is skipped with the package's own message; with the extras installed, such an error fails it.
"""

from __future__ import annotations

import doctest
import importlib.util
import re
from collections.abc import Generator
from contextlib import contextmanager

import pytest

CORE_ONLY = importlib.util.find_spec("lightning") is None
_EXTRAS = (
    "lightning|torchvision|sklearn|matplotlib|jsonargparse|yaml|PIL|nflows|constriction|pandas|"
    "pyarrow|scipy|anndata|soundfile|h5py"
)
_IMPORT = re.compile(rf"^(?:import|from) (?:{_EXTRAS})\b", re.MULTILINE)


def imports_an_extra(source: str) -> bool:
    """Whether a module could not even be imported without the extras."""
    return _IMPORT.search(source) is not None


class SkipWhatNeedsAnExtra:
    """A plugin, for its hooks to see the doctests of the package too."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, None, None]:
        with _skipping():
            if isinstance(item, pytest.DoctestItem) and _example_imports_an_extra(item):
                pytest.skip("its example imports an extra")
            yield

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        with _skipping():
            yield


def _example_imports_an_extra(item: pytest.DoctestItem) -> bool:
    return item.dtest is not None and any(imports_an_extra(e.source) for e in item.dtest.examples)


@contextmanager
def _skipping() -> Generator[None, None, None]:
    try:
        yield
    except Exception as error:
        missing = str(_cause(error))
        if "pip install 'pyro-genmodels[" in missing:
            pytest.skip(missing)
        raise


def _cause(error: BaseException) -> BaseException:
    """What a doctest's failure wraps, or the error itself."""
    error = getattr(error, "failures", [error])[0]
    return error.exc_info[1] if isinstance(error, doctest.UnexpectedException) else error
