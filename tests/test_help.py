"""What ``train NAME --help`` showed before builders and constructors took their arguments in parts.

``tests/data/help_options.json`` holds the options of each model as of then.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pyro_genmodels import _migration
from pyro_genmodels.cli import main
from pyro_genmodels.cli.names import model_makers

pytest.importorskip("jsonargparse")
pytestmark = pytest.mark.once
SAVED = json.loads((Path(__file__).parent / "data" / "help_options.json").read_text("utf-8"))
SHARED = SAVED.pop("of every model")
# What is not an option any more, by model, each with its reason.
GONE = {
    ("AutoregressiveModel", "model.distribution"): "the network knows its distribution",
    **{
        (name, "model.cache_size"): "it changed nothing"
        for name in ("glow", "nice", "realnvp", "spline_flow")
    },
}


def option_now(name: str, option: str) -> str:
    """Where an option is found since its argument may have moved into a group."""
    moved = _migration.MOVED.get(f"models.{name}", {}).get(option.removeprefix("model."))
    return option if moved is None else f"model.{moved.argument}.{moved.field}"


def shown_options(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The options that the help shows, each with its text."""
    assert main(["train", name, "--help"]) == 0
    shown = capsys.readouterr().out.partition("\noptions:")[2]
    # The text stands behind the names of the values, on the next line or after two spaces.
    parts = re.split(r"^  --([\w.]+).*?(?:  +|\n)", shown, flags=re.MULTILINE)[1:]
    return {
        option: text.partition("(type:")[0].strip()
        for option, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize("name", SAVED)
def test_no_option_is_lost(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = shown_options(name, capsys)
    kept = {option for option in SHARED + SAVED[name] if (name, option) not in GONE}
    expected = {option_now(name, option) for option in kept}
    assert expected <= shown.keys()
    assert not {option for option in shown if option.startswith("model.") and not shown[option]}


def test_each_model_is_there() -> None:
    assert SAVED.keys() <= model_makers().keys()
    assert all(option in SAVED[name] for name, option in GONE)
