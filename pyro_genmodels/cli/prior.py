"""``train prior``: the second stage of a VQ-VAE's run, its learned prior over codes."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pyro
import yaml

from pyro_genmodels import models, training
from pyro_genmodels._checks import check
from pyro_genmodels._files import written_whole
from pyro_genmodels._migration import FORMAT
from pyro_genmodels.cli.components import gather, options_of
from pyro_genmodels.cli.names import family, prior_preset
from pyro_genmodels.cli.plan import Plan, new_parser, parse, read_config
from pyro_genmodels.cli.scoring import save_result, score
from pyro_genmodels.training import TrainingSettings

CONFIG = "config.yaml"
FOLDER = "prior"
_HEADER = "# Options of `pyro-genmodels train prior RUN`; for another run: --config THIS_FILE\n"
_PREFIX = "--prior."
# Where and how a first stage runs, the second does too, unless it is told otherwise.
_SHARED = ("accelerator", "precision", "progress", "num_samples", "seed", "num_workers")

_MAKER = "models.learned_priors"


@dataclass(frozen=True)
class PriorPlan:
    """Sizes of the priors' networks, and how to train them."""

    model: dict[str, Any]
    settings: dict[str, Any]

    def as_yaml(self) -> str:
        """Return the configuration that repeats the training."""
        return _HEADER + str(
            yaml.safe_dump({"format": FORMAT, "model": self.model, **self.settings})
        )


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Train the priors of a run, score the whole, and print the result."""
    if arguments.help:
        _parser().print_help()
        return 0
    named = bool(rest) and not rest[0].startswith("-")
    folder, words = (Path(rest[0]), rest[1:]) if named else (arguments.run_folder, rest)
    if folder is None:
        raise ValueError("train prior must be given RUN, the folder of a trained VQ-VAE")
    for option in ("data", "conditional"):
        if getattr(arguments, option):
            raise ValueError(f"--{option} does not go with `train prior`: it is the run's")
    check(arguments.stages == "one", "stages", "be left out with `train prior`", "all")
    if arguments.resume and arguments.overwrite:
        raise ValueError("--resume and --overwrite exclude each other")
    options = {"resume": arguments.resume, "overwrite": arguments.overwrite}
    config = _configuration(arguments, folder)
    if arguments.preset is not None:
        check(not arguments.resume, "preset", "be left out to resume", arguments.preset)
        model = training.check_prior_run(folder, allow=arguments.allow, **options)
        config = _over_preset(config, type(model).__name__, arguments.preset)
    plan = make_plan(words, config)
    return train(folder, plan, allow=arguments.allow, **options)


def train(
    folder: Path,
    plan: PriorPlan,
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow: Collection[str] = (),
) -> int:
    """Train the priors, score the whole model, and print the result."""
    options: dict[str, Any] = {"resume": resume, "overwrite": overwrite, "allow": allow}
    model = training.check_prior_run(folder, **options)
    pyro.set_rng_seed(plan.settings["seed"])
    priors = models.learned_priors(model, **plan.model)
    # All that can fail at once does before a file is written.
    training.check_priors(folder, priors, resume=resume, **plan.settings)
    source = training.load_source(folder, allow=allow)
    if not training.is_helper():
        _write(plan, folder)
        size = sum(p.numel() for prior in priors for p in prior.parameters())
        print(f"prior: {size:,} parameters, run {folder}")
    try:
        training.fit_prior(folder, priors=priors, source=source, **options, **plan.settings)
    except KeyboardInterrupt:
        command = f"pyro-genmodels train prior {folder} --resume"
        raise KeyboardInterrupt(f"go on with: {command}") from None
    if training.is_helper():
        return 0
    result = score(folder, "cpu", list(allow))
    save_result(result, folder)
    print(result)
    return 0


def make_plan(words: list[str], config: dict[str, Any]) -> PriorPlan:
    """Combine words with a configuration, the words first.

    Raises:
        ValueError: If an option is wrong or a setting impossible.
    """
    parsed = parse(_parser(), gather(words), config)
    model = parsed.pop("model", {})
    training.settings_for(models.AutoregressiveModel, **parsed)
    return PriorPlan(model, parsed)


def _over_preset(config: dict[str, Any], name: str, variant: str) -> dict[str, Any]:
    found = prior_preset(name, variant)
    rule = f"be left out: no priors of {name} are published under that name"
    check(bool(found), "preset", rule, variant)
    return {**found, **config, "model": {**found["model"], **(config.get("model") or {})}}


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
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

    Of a preset that says something of the priors, and of what was planned for a run to resume,
    the words change what they name. That a preset says nothing of them is printed.

    Raises:
        ValueError: If the model has no second stage, or an option is wrong.
    """
    if not every:
        check(not words, "stages", "be all for options of the prior", " ".join(words))
        return None
    has_second = family(plan.maker).has_second_stage
    check(has_second, "stages", f"be left out: {plan.name} has no second stage", "all")
    devices = plan.settings["devices"]
    check(devices == 1, "stages", "be left out on several devices: train them in turn", "all")
    shared = {name: plan.settings[name] for name in _SHARED}
    published = prior_preset(plan.name, preset)
    if preset is not None and not (published or planned):
        print(f"prior: no sizes are published for preset {preset}; defaults unless given")
    return make_plan(words, {**published, **shared, **planned})


def foresee(plan: PriorPlan | None, folder: Path, *, resume: bool) -> None:
    """Write the plan into a run's folder before the first stage trains: to resume is to read it.

    A training of priors that has begun keeps its own. Without a plan an earlier run's goes.
    """
    if resume and (plan is None or (folder / FOLDER / "checkpoints").exists()):
        return
    if plan is None:
        (folder / FOLDER / CONFIG).unlink(missing_ok=True)
    else:
        _write(plan, folder)


def _write(plan: PriorPlan, folder: Path) -> None:
    (folder / FOLDER).mkdir(exist_ok=True)
    with written_whole(folder / FOLDER / CONFIG) as temporary:
        temporary.write_text(plan.as_yaml())


def planned_for(folder: Path, plan: Plan, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a resumed run's second stage.

    Without those that both stages share and that the first one now has otherwise than before.
    """
    path = folder / FOLDER / CONFIG
    found = read_config(path, _MAKER) if path.is_file() else {}
    changed = {name for name in _SHARED if plan.settings[name] != before.get(name)}
    return {name: value for name, value in found.items() if name not in changed}


def _configuration(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    own = folder / FOLDER / CONFIG
    path = arguments.config or (own if arguments.resume and own.is_file() else None)
    return {} if path is None else read_config(Path(path), _MAKER)


def _parser() -> Any:
    parser = new_parser("prior RUN")
    parser.add_class_arguments(TrainingSettings, sub_configs=False, instantiate=False)
    parser.set_defaults(dict(models.AutoregressiveModel.training_defaults))
    parser.add_function_arguments(models.learned_priors, "model", skip={"model"})
    return parser
