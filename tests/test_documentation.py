"""Every Python block of the README and the pages runs, and every notebook, made small."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.once
ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def _pages() -> list[Path]:
    own = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [p for p in own if p.exists() and BLOCK.search(p.read_text("utf-8"))]


def _run(source: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run as a module that can be found by name, for what the page defines to be pickled."""
    module = ModuleType("page_" + re.sub(r"\W", "_", path.stem))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(source, str(path), "exec"), module.__dict__)


@pytest.mark.parametrize("page", _pages(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page are one program, run from top to bottom in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # Blank lines keep the line numbers of the page in tracebacks.
    text, source, line = page.read_text("utf-8"), "", 0
    for block in BLOCK.finditer(text):
        start = text.count("\n", 0, block.start(1))
        source += "\n" * (start - line) + block[1]
        line = start + block[1].count("\n")
    _run(source, page, monkeypatch)


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.name)
def test_notebook(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell tagged ``parameters`` assigns the sizes; the test takes the ones tagged ``small``.

    The small values stand in the metadata of that cell, so that the reader sees one set.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    cells = [c for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
    source = ""
    for cell in cells:
        source += "".join(cell["source"]) + "\n"
        if "parameters" in cell["metadata"].get("tags", []):
            source += "".join(f"{k} = {v!r}\n" for k, v in cell["metadata"]["small"].items())
    assert all(cell["outputs"] or cell["execution_count"] for cell in cells), "commit it executed"
    _run(source, path, monkeypatch)


def test_readme_names_the_commands_that_ci_runs() -> None:
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("tests run away from the checkout")
    for name in ("main-job", "tests"):
        assert re.search(
            rf"^<!-- ci: {name} -->\n```bash\n", readme.read_text("utf-8"), re.MULTILINE
        )
