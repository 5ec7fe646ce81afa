"""``train prior``: the second stage of a VQ-VAE's run, its learned prior over codes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyro

from pyro_genmodels import models, training
from pyro_genmodels._checks import check
from pyro_genmodels.cli.components import gather, options_of
from pyro_genmodels.cli.names import family, over, preset_options
from pyro_genmodels.cli.plan import Plan, parse, training_parser
from pyro_genmodels.cli.sources import run_source
from pyro_genmodels.cli.stage import PRIOR, Prepared, Stage, read_config
from pyro_genmodels.cli.usage import UsageError, split_data_options, usage

_PREFIX = "--prior."
# Where and how a first stage runs, the second does too, unless it is told otherwise.
_SHARED = ("accelerator", "precision", "progress", "num_samples", "seed", "num_workers")


@dataclass(frozen=True)
class PriorPlan(Stage):
    """Sizes of the priors' networks, and how to train them."""

    header = "# Options of `pyro-genmodels train prior RUN`; for another run: --config THIS_FILE\n"
    folder = PRIOR
    maker_name = "models.learned_priors"

    model: dict[str, Any]
    settings: dict[str, Any]
    arguments: argparse.Namespace | None = None
    """The command's, which may say where the run's data lie now."""

    @property
    def label(self) -> str:
        """Return ``prior``."""
        return "prior"

    def options(self) -> dict[str, Any]:
        """Return the priors' options."""
        return {"model": self.model}

    def prepare(self, run: Path, **options: Any) -> Prepared:
        """Make the priors; check that the run can get them."""
        accepted = options.pop("accept_other_data")
        model = training.check_prior_run(run, **options)
        pyro.set_rng_seed(self.settings["seed"])
        with usage():
            priors = models.learned_priors(model, **self.model)
        with usage(*self.settings):
            training.check_priors(run, priors, resume=options["resume"], **self.settings)
        if self.arguments is not None:
            source = run_source(self.arguments, model)
        else:
            source = training.load_source(run, allow=options["allow"], accept_other_data=accepted)
        options |= {"source": source, "accept_other_data": accepted}
        fit = partial(training.fit_prior, run, priors=priors, **options, **self.settings)
        return priors, fit, source

    def command_to_resume(self, run: Path, following: Stage | None) -> str:
        """Return the command that goes on with the priors alone."""
        return f"pyro-genmodels train prior {run} --resume"


def plan_alone(arguments: argparse.Namespace, rest: list[str]) -> tuple[Path, PriorPlan]:
    """Return the run that ``train prior`` is to complete, and the plan of its second stage.

    Raises:
        ValueError: If no run is named, or an option does not go with ``train prior`` or is wrong.
    """
    named = bool(rest) and not rest[0].startswith("-")
    run, words = (Path(rest[0]), rest[1:]) if named else (arguments.run_folder, rest)
    if run is None:
        raise UsageError("train prior must be given RUN, the folder of a trained VQ-VAE")
    if arguments.conditional:
        raise UsageError("--conditional does not go with `train prior`: it is the run's")
    words, arguments.data_words = split_data_options(words)
    arguments.run_folder = run
    with usage():
        check(arguments.stages == "one", "stages", "be left out with `train prior`", "all")
    config, preset = PriorPlan.read(arguments, run), arguments.preset
    if preset is not None:
        with usage():
            check(not arguments.resume, "preset", "be left out to resume", preset)
        model = training.check_prior_run(run, overwrite=arguments.overwrite, allow=arguments.allow)
        name = type(model).__name__
        with usage():
            published = preset_options(name, preset, stage="prior")
            rule = f"be left out: no priors of {name} are published under that name"
            check(bool(published), "preset", rule, preset)
        config = over(published, config)
    return run, replace(make_plan(words, config), arguments=arguments)


def make_plan(words: list[str], config: dict[str, Any]) -> PriorPlan:
    """Combine words with a configuration, the words first.

    Raises:
        ValueError: If an option is wrong or a setting impossible.
    """
    with usage():
        parsed = parse(_parser(), gather(words), config)
        model = parsed.pop("model", {})
        training.settings_for(models.AutoregressiveModel, **parsed)
    return PriorPlan(model, parsed)


def split_prior_options(words: list[str]) -> tuple[list[str], list[str]]:
    """Split off the options of the second stage, less what marks them as such."""
    if not any(word.startswith(_PREFIX) for word in words):
        return words, []
    own, of_prior = list[str](), list[str]()
    for option, value in options_of(words):
        marked = option.startswith(_PREFIX)
        name = "--" + option.removeprefix(_PREFIX) if marked else option
        (of_prior if marked else own).append(name if value is None else f"{name}={value}")
    return own, of_prior


def second_stage(
    plan: Plan,
    words: list[str],
    *,
    every: bool,
    preset: str | None = None,
    planned: Mapping[str, Any] = MappingProxyType({}),
) -> PriorPlan | None:
    """Return the plan of the second stage, if there shall be one, before the first begins.

    Words take precedence over what was planned for a run to resume, and that over a preset. That
    a preset says nothing of the priors is printed.

    Raises:
        ValueError: If the model has no second stage, or an option is wrong.
    """
    with usage():
        return _second_stage(plan, words, every, preset, planned)


def _second_stage(
    plan: Plan, words: list[str], every: bool, preset: str | None, planned: Mapping[str, Any]
) -> PriorPlan | None:
    if not every:
        check(not words, "stages", "be all for options of the prior", " ".join(words))
        return None
    has_second = family(plan.maker).has_second_stage
    check(has_second, "stages", f"be left out: {plan.name} has no second stage", "all")
    devices = plan.settings["devices"]
    check(devices == 1, "stages", "be left out on several devices: train them in turn", "all")
    shared = {name: plan.settings[name] for name in _SHARED}
    published = preset_options(plan.name, preset, stage="prior")
    if preset is not None and not (published or planned):
        print(f"prior: no sizes are published for preset {preset}; defaults unless given")
    return make_plan(words, {**published, **shared, **planned})


def read_prior_config(run: Path, plan: Plan, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a resumed run's second stage.

    Shared options whose first-stage value has changed are left out.

    Args:
        run: The run's folder.
        plan: The first stage, as it goes on.
        before: Its options as they were.
    """
    path = PriorPlan.path(run)
    found = read_config(path, PriorPlan.maker_name) if path.is_file() else {}
    changed = {name for name in _SHARED if plan.settings[name] != before.get(name)}
    return {name: value for name, value in found.items() if name not in changed}


def print_help() -> int:
    """Print every option of the second stage."""
    _parser().print_help()
    return 0


def _parser() -> Any:
    parser = training_parser("prior RUN", models.AutoregressiveModel)
    parser.add_function_arguments(models.learned_priors, "model", skip={"model"})
    return parser
