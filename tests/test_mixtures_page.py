"""The figures that the page on mixtures gives are those that its blocks compute."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="comes with the digits, in the train extra")

PAGE = Path(__file__).parents[1] / "docs" / "mixtures.md"
# What rounding may change: a start of another torch may end in another maximum.
FIGURES = {
    "density:": ("gap", 1.0, 0.004),
    "clusters:": ("agreement", 100.0, 3.0),
    "classifier of": ("few", 100.0, 1.0),
    "the same with": ("semi", 100.0, 2.0),
    "all labelled": ("every", 100.0, 1.0),
    "missing half": ("error", 1.0, 0.2),
}

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not PAGE.exists(), reason="tests run away from the checkout"),
]


def test_the_figures_of_the_page() -> None:
    text = PAGE.read_text("utf-8")
    values: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), values)
    for name, (variable, unit, tolerance) in FIGURES.items():
        row = re.search(rf"^\| {name}.* \| ([\d.]+) \|$", text, re.MULTILINE)
        assert row is not None, name
        assert unit * float(values[variable]) == pytest.approx(float(row[1]), abs=tolerance), name
