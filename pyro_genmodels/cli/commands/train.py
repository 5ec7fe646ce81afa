"""``train``: a model, data and settings from the command line and a YAML file into a run folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyro_genmodels.cli.scoring import add_accept_other_data, add_allow
from pyro_genmodels.cli.usage import UsageError

if TYPE_CHECKING:
    from pyro_genmodels.cli.stage import Stage

_FOLDER_VARIABLE = "PYRO_GENMODELS_RUN"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that do not depend on the model and the data."""
    parser.usage = (
        "pyro-genmodels train NAME --data SOURCE [--run DIR] [--preset PRESET] [--config FILE] "
        "[--resume | --overwrite] [--conditional] [--stages all] [--model.X ...] [--data.X ...] "
        "[--SETTING ...]\n       pyro-genmodels train prior RUN [--config FILE] "
        "[--resume | --overwrite] [--model.X ...] [--SETTING ...]"
    )
    parser.add_argument("--data", metavar="SOURCE", help="data; see `list`")
    parser.add_argument("--run", dest="run_folder", type=Path, metavar="DIR", help="run folder")
    parser.add_argument("--preset", metavar="PRESET", help="published sizes; see `list`")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML of options")
    parser.add_argument("--resume", action="store_true", help="go on with the run in --run")
    parser.add_argument("--overwrite", action="store_true", help="train anew into --run")
    parser.add_argument(
        "--conditional", action="store_true", help="condition the model on the data's labels"
    )
    parser.add_argument(
        "--stages",
        choices=("one", "all"),
        default="one",
        help="all: of a VQ-VAE also its prior, with options --prior.X as those of `train prior`",
    )
    parser.add_argument("-h", "--help", action="store_true", help="help; with NAME, every option")
    add_accept_other_data(parser)
    add_allow(parser)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Train, score, and print the result."""
    # Not argparse's: without a NAME it would take the value of an option it does not know.
    named = bool(rest) and not rest[0].startswith("-")
    arguments.name, rest = (rest[0], rest[1:]) if named else (None, rest)
    if arguments.help and not arguments.name:
        return _general_help()
    from pyro_genmodels.cli import plan, prior

    alone = arguments.name == "prior"
    if arguments.help and alone:
        return prior.print_help()
    if arguments.help:
        return plan.print_help(arguments.name, arguments.data)
    if arguments.resume and arguments.overwrite:
        raise UsageError("--resume and --overwrite exclude each other")
    first: Stage
    following: Stage | None = None
    if alone:
        folder, first = prior.plan_alone(arguments, rest)
    else:
        folder, first, following = _stages(arguments, rest)
    names = ("resume", "overwrite", "allow", "accept_other_data")
    options = {name: getattr(arguments, name) for name in names}
    first.train(folder, following, **options)
    if following is not None:  # what an earlier run had of it went with the first stage
        following.train(folder, **{**options, "overwrite": False})
    return 0


def _stages(arguments: argparse.Namespace, words: list[str]) -> tuple[Path, Stage, Stage | None]:
    """Return the run's folder, its model's stage, and the next one if it is to be trained too."""
    from pyro_genmodels.cli import prior
    from pyro_genmodels.cli.plan import Plan, make_plan

    folder = arguments.run_folder
    if arguments.resume and arguments.config is None:
        if folder is None:
            raise UsageError("--resume must come with the run's folder: --run DIR")
        own = Plan.path(folder)
        if arguments.name is None and not own.is_file():
            raise ValueError(f"--run must be a run's folder to resume; '{own}' is not there")
    config = Plan.read(arguments, folder)
    words, of_prior = prior.split_prior_options(words)
    plan = make_plan(arguments, words, config)
    folder = folder or _new_folder(plan.label)
    options: dict[str, Any] = {
        "every": arguments.stages == "all",
        "preset": arguments.preset or config.get("preset"),
        "planned": prior.read_prior_config(folder, plan, config) if arguments.resume else {},
    }
    second = prior.second_stage(plan, of_prior, **options)
    if plan.settings["devices"] > 1:
        os.environ[_FOLDER_VARIABLE] = str(folder)
    return folder, plan, second


def _new_folder(label: str) -> Path:
    # Processes that Lightning starts for further devices run this same command line.
    if _FOLDER_VARIABLE in os.environ:
        return Path(os.environ[_FOLDER_VARIABLE])
    number = 1
    while Path(f"runs/{label}-{number}").exists():
        number += 1
    return Path(f"runs/{label}-{number}")


def _general_help() -> int:
    parser = argparse.ArgumentParser(prog="pyro-genmodels train", add_help=False)
    add_arguments(parser)
    parser.print_help()
    print(
        "\n`pyro-genmodels train NAME [--data SOURCE] --help` shows the options of NAME, of SOURCE"
    )
    print("and of the training, `pyro-genmodels train prior --help` those of a VQ-VAE's prior.")
    print("`pyro-genmodels list` shows names.")
    return 0
