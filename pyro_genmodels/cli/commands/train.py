"""``train``: a model, data and settings from the command line and a YAML file into a run folder."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from pyro_genmodels.cli.scoring import RESULT, add_allow

CONFIG = "config.yaml"
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
    add_allow(parser)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Train, score, and print the result."""
    # Not argparse's: without a NAME it would take the value of an option it does not know.
    named = bool(rest) and not rest[0].startswith("-")
    arguments.name, rest = (rest[0], rest[1:]) if named else (None, rest)
    if arguments.help and not arguments.name:
        return _general_help()
    from pyro_genmodels.cli import prior
    from pyro_genmodels.cli.plan import make_plan, print_help, read_config

    if arguments.name == "prior":
        return prior.run(arguments, rest)
    if arguments.help:
        return print_help(arguments.name, arguments.data)
    if arguments.resume and arguments.overwrite:
        raise ValueError("--resume and --overwrite exclude each other")
    config = _configuration_file(arguments)
    rest, of_prior = prior.split_words(rest)
    read = read_config(config) if config else {}
    plan = make_plan(arguments, rest, read)
    preset = arguments.preset or read.get("preset")
    every = arguments.stages == "all"
    folder = arguments.run_folder or _new_folder(plan.label)
    planned = prior.planned_for(folder, plan, read) if arguments.resume else {}
    second = prior.second_stage(plan, of_prior, every=every, preset=preset, planned=planned)
    if plan.settings["devices"] > 1:
        os.environ[_FOLDER_VARIABLE] = str(folder)
    status = _train(plan, second, folder, arguments)
    if second is not None:
        prior.train(folder, second, resume=arguments.resume, allow=arguments.allow)
    return status


def _train(plan: Any, second: Any, folder: Path, arguments: argparse.Namespace) -> int:
    from pyro_genmodels import training
    from pyro_genmodels._files import written_whole
    from pyro_genmodels.cli.prior import foresee
    from pyro_genmodels.cli.scoring import save_result, score

    model = plan.build_model()
    options = {"resume": arguments.resume, "overwrite": arguments.overwrite}
    training.check_run(model, plan.source, folder, resume=arguments.resume, **plan.settings)
    training.prepare_run(folder, **options)
    if arguments.overwrite:
        (folder / RESULT).unlink(missing_ok=True)
    if not training.is_helper():
        with written_whole(folder / CONFIG) as temporary:
            temporary.write_text(plan.as_yaml())
        foresee(second, folder, resume=arguments.resume)
        size = sum(p.numel() for p in model.parameters())
        print(f"{plan.label}: {size:,} parameters, run {folder}")
    # The folder is ours by now: only its own checkpoint may lie in it.
    try:
        training.fit(model, plan.source, run=folder, **{**options, "resume": True}, **plan.settings)
    except KeyboardInterrupt:
        stages = "" if second is None else " --stages all"
        command = f"pyro-genmodels train --run {folder} --resume{stages}"
        raise KeyboardInterrupt(f"go on with: {command}") from None
    if training.is_helper():
        return 0
    result = score(folder, "cpu", arguments.allow)
    save_result(result, folder)
    print(result)
    return 0


def _configuration_file(arguments: argparse.Namespace) -> Path | None:
    """Return ``--config``, or the resumed run's own."""
    if arguments.config is not None:
        return Path(arguments.config)
    if arguments.resume and arguments.run_folder is None:
        raise ValueError("--resume must come with the run's folder: --run DIR")
    own = arguments.run_folder / CONFIG if arguments.resume else None
    if own is None or own.is_file():
        return own
    if arguments.name is None:
        raise ValueError(f"--run must be a run's folder to resume; '{own}' is not there")
    return None


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
