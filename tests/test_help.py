"""What ``train NAME --help`` showed before builders and constructors took their arguments in parts.

``tests/data/help_options.json`` holds the options of each model as of then.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pyro_genmodels._migration import MOVED
from pyro_genmodels.cli import main
from pyro_genmodels.cli.names import model_makers

pytest.importorskip("jsonargparse")
pytestmark = pytest.mark.once
SAVED = json.loads((Path(__file__).parent / "data" / "help_options.json").read_text("utf-8"))
SHARED = SAVED.pop("of every model")
# What is no option any more, by model, each with its reason; so is `cache_size`, which did nothing.
GONE = {("AutoregressiveModel", "model.distribution"): "the network knows its distribution"}


def now(name: str, option: str) -> str:
    """What an option of before is called now; nothing if it is gone."""
    argument = option.removeprefix("model.")
    moved = MOVED.get(f"models.{name}", {}).get(argument)
    if (name, option) in GONE or argument == "cache_size":
        return ""
    return option if moved is None else f"model.{moved.argument}.{moved.field}"


def shown_options(name: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The options that the help shows, each with its text."""
    assert main(["train", name, "--help"]) == 0
    shown = capsys.readouterr().out.partition("\noptions:")[2]
    parts = re.split(r"^  --([\w.]+)", shown, flags=re.MULTILINE)[1:]
    return {
        option: text.partition("(type:")[0]
        for option, text in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize("name", SAVED)
def test_no_option_is_lost(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = shown_options(name, capsys)
    expected = {now(name, option) for option in SHARED + SAVED[name]} - {""}
    assert expected <= shown.keys()
    # Behind an option stands its value's name, then what it means.
    without_text = {o for o in expected if o.startswith("model.") and len(shown[o].split()) < 3}
    assert not without_text


def test_each_model_is_there() -> None:
    assert SAVED.keys() <= model_makers().keys()
    assert all(option in SAVED[name] for name, option in GONE)
