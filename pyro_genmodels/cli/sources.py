"""The data that a command reads: a run's own, wherever they lie now, or others."""

from __future__ import annotations

import argparse
import inspect
from typing import Any

from pyro_genmodels import training
from pyro_genmodels._checks import listed
from pyro_genmodels.cli.names import data_makers, path_argument
from pyro_genmodels.cli.plan import find_source, make_source, words_of_path
from pyro_genmodels.cli.usage import UsageError, usage
from pyro_genmodels.data import DataSource
from pyro_genmodels.training.checkpoint import RunData


def run_source(arguments: argparse.Namespace, model: Any = None) -> DataSource:
    """Return the data that ``--data`` and ``--data.X`` name, by default the run's.

    Options that are not given are those of the run, if its data are of the same kind; else levels
    and classes are the model's. That data so named are others than the run's is printed.

    Args:
        arguments: The command's.
        model: The run's, if it is loaded.

    Raises:
        ValueError: If the run's own data are others by now and were not accepted, or there are
            none.
    """
    run, allow = arguments.run_folder, arguments.allow
    if arguments.data is None and not arguments.data_words:
        accepted = arguments.accept_other_data
        return training.load_source(run, allow=allow, accept_other_data=accepted)
    known = training.run_data(run)
    recorded, config = _recorded(known)
    name = recorded if arguments.data is None else None
    with usage():
        if name is None:
            if arguments.data is None:
                raise UsageError("--data must name the data: the run keeps no name of its own")
            name = find_source(arguments.data)
        words = [*words_of_path(arguments.data), *arguments.data_words]
    if name != recorded:
        taken = inspect.signature(data_makers()[name]).parameters
        facts = ("num_levels", "num_classes") if model is not None else ()
        config = {fact: getattr(model, fact) for fact in facts if fact in taken}
    source, _ = make_source(name, words, config)
    other = known.differences(source)
    if other:
        print(f"data: other than the run's: {listed(other)}")
    return source


def _recorded(known: RunData) -> tuple[str | None, dict[str, Any]]:
    """Return name and options of a run's data as the command line writes them."""
    described = known.description or {"class": ""}
    options = dict(described.get("arguments") or {})
    drawn = options.pop("distribution", None)
    if isinstance(drawn, dict):
        described, options = drawn, {**(drawn.get("arguments") or {}), **options}
    name = str(described["class"]).removeprefix("data.")
    if name not in data_makers():
        return None, {}
    return name, known.located(options, path_argument(data_makers()[name]))
