"""Sphinx configuration. The API reference is written from the ``__all__`` of each sub-package."""

from __future__ import annotations

import importlib
import inspect
import re
import shutil
from abc import ABC
from pathlib import Path
from types import ModuleType

from sphinx.application import Sphinx

import pyro_genmodels
from pyro_genmodels._abstract import Abstract

project = "pyro_genmodels"
author = "The pyro_genmodels founders"
copyright = "2026, " + author
version = release = pyro_genmodels.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "jupyter_execute"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "pyro_genmodels"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_show_sphinx = False
pygments_style = "friendly"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # notebooks are committed executed; tests/test_documentation.py runs them
nb_merge_streams = True

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"show-inheritance": True}
# Annotations are shape names as they stand in the source, not the objects they evaluate to.
autodoc_type_aliases = {"EventShape": "EventShape"}
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes are described with the class, once
napoleon_use_rtype = False
napoleon_preprocess_types = False

HERE = Path(__file__).parent
PARTS = [
    name
    for name in (*pyro_genmodels.__all__, "plotting", "testing")
    if inspect.ismodule(getattr(pyro_genmodels, name, None))
]


def _listing(title: str, names: list[str]) -> list[str]:
    if not names:
        return []
    head = [".. autosummary::", "   :toctree: objects", "   :nosignatures:", ""]
    return [title, "-" * len(title), "", *head, *(f"   {name}" for name in names), ""]


def _page(part: str) -> str:
    module: ModuleType = importlib.import_module(f"pyro_genmodels.{part}")
    names = sorted(getattr(module, "__all__", []), key=str.lower)
    objects = {name: getattr(module, name) for name in names}
    classes = [n for n, o in objects.items() if inspect.isclass(o)]
    functions = [n for n, o in objects.items() if inspect.isroutine(o)]
    listed = {*classes, *functions, *(n for n, o in objects.items() if inspect.ismodule(o))}
    others = [n for n in names if n not in listed]
    lines = [
        part,
        "=" * len(part),
        "",
        f".. automodule:: pyro_genmodels.{part}",
        "   :no-members:",
        "",
        *_listing("Classes", classes),
        *_listing("Functions", functions),
        *_listing("Data", others),
    ]
    return "\n".join(lines)


def _write_api() -> None:
    """Write one page a sub-package; only what changed, so that rebuilding stays quick."""
    generated = HERE / "api" / "generated"
    generated.mkdir(parents=True, exist_ok=True)
    for part in PARTS:
        page, text = generated / f"{part}.rst", _page(part)
        if not page.exists() or page.read_text() != text:
            page.write_text(text)


def _mark_up(app: object, what: str, name: str, obj: object, options: object, lines: list) -> None:
    # A plural behind a literal (``Tensor``s) is plain English, but reStructuredText needs a mark.
    # Literals are taken whole, one after another, lest the text between two be taken for one.
    for number, line in enumerate(lines):
        lines[number] = re.sub(r"(``[^`]+``)(\w?)", _parted, line)


def _parted(match: re.Match[str]) -> str:
    return f"{match[1]}\\ {match[2]}" if match[2] else match[1]


def _public_bases(app: object, name: str, obj: type, options: object, bases: list) -> None:
    """Show, in place of a private base, what that one is made of."""
    while private := [b for b in bases if getattr(b, "__name__", "").startswith("_")]:
        place = bases.index(private[0])
        bases[place : place + 1] = private[0].__bases__
    bases[:] = [b for b in dict.fromkeys(bases) if b not in (ABC, Abstract)] or [object]


def _is_foreign(
    app: object, what: str, name: str, obj: object, skip: bool, options: object
) -> bool | None:
    """Leave out what a class gets from torch or Pyro: their own references have it."""
    function = getattr(obj, "fget", obj)
    module = getattr(function, "__module__", None) or project
    of_named_tuple = (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")
    return None if module.partition(".")[0] == project and not of_named_tuple else True


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-docstring", _mark_up)
    app.connect("autodoc-process-bases", _public_bases)
    app.connect("autodoc-skip-member", _is_foreign)


def _copy_notebooks() -> None:
    """Sphinx reads nothing outside its folder; the notebooks lie where a reader looks for them."""
    target = HERE / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(HERE.parent / "notebooks", target, ignore=shutil.ignore_patterns(".*"))


_write_api()
_copy_notebooks()
