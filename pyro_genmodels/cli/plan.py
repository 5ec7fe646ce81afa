"""From words and YAML to a model, its data and its settings, through jsonargparse."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
import yaml

from pyro_genmodels import training
from pyro_genmodels._checks import check, require
from pyro_genmodels._configuration import (
    Configured,
    argument_groups,
    configuration,
    described_arguments,
    with_groups,
)
from pyro_genmodels._migration import MOVED, moved_hint
from pyro_genmodels.cli.components import (
    Description,
    build_components,
    gather,
    options_of,
    register_component_types,
)
from pyro_genmodels.cli.names import (
    data_makers,
    family,
    find,
    is_known,
    model_makers,
    over,
    path_argument,
    preset_options,
)
from pyro_genmodels.cli.scoring import RESULT
from pyro_genmodels.cli.stage import CONFIG, PRIOR, Prepared, Stage
from pyro_genmodels.cli.usage import usage
from pyro_genmodels.data import DataSource, Sampled, source_class
from pyro_genmodels.models import GenerativeModel
from pyro_genmodels.training import TrainingSettings

_NAMES = ("name", "source", "preset")


@dataclass(frozen=True)
class Plan(Stage):
    """What is to be trained, on what, and how.

    Attributes:
        name: Name of the model.
        source_name: Name of the data.
        source: The data.
        maker: Makes the model.
        model: Its arguments, parts as descriptions.
        data: Arguments of the data.
        settings: Fields of :class:`TrainingSettings`.
        allow: Classes outside the package that may be imported.
    """

    header = "# Options of `pyro-genmodels train`; train anew with: train --config THIS_FILE\n"

    name: str
    source_name: str
    source: DataSource
    maker: Callable[..., GenerativeModel]
    model: dict[str, Any]
    data: dict[str, Any]
    settings: dict[str, Any]
    allow: Collection[str]

    @property
    def label(self) -> str:
        """Return ``vae-digits``."""
        return f"{self.name}-{self.source_name}".lower()

    def build_model(self) -> GenerativeModel:
        """Make the model, its initial weights from the settings' seed."""
        pyro.set_rng_seed(self.settings["seed"])
        # Parts of a model of the data's labels take them too.
        by_labels = bool(self.model.get("observed_labels"))
        facts = training.facts_of(self.source, conditional=by_labels)
        arguments = {k: build_components(v, facts, self.allow) for k, v in self.model.items()}
        return self.maker(**with_groups(self.maker, arguments))

    def options(self) -> dict[str, Any]:
        """Return names and options of model and data."""
        named = {"name": self.name, "source": self.source_name}
        return {**named, "model": _plain(self.model), "data": _plain(self.data)}

    def prepare(self, run: Path, **options: Any) -> Prepared:
        """Make the model and the run's folder, and take away what an earlier run left there."""
        resume, overwrite = options["resume"], options["overwrite"]
        accepted = {"accept_other_data": options["accept_other_data"]}
        with usage():
            model = self.build_model()
        with usage(*self.settings):
            training.check_run(model, self.source, run, resume=resume, **accepted, **self.settings)
        training.prepare_run(run, resume=resume, overwrite=overwrite)
        if overwrite:
            (run / RESULT).unlink(missing_ok=True)
        if not resume and not training.is_helper():
            (run / PRIOR / CONFIG).unlink(missing_ok=True)
        # The folder is ours by now: only its own checkpoint may lie in it.
        fit = partial(training.fit, model, self.source, run=run, resume=True, overwrite=overwrite)
        return [model], partial(fit, **accepted, **self.settings), self.source

    def command_to_resume(self, run: Path, following: Stage | None) -> str:
        """Return the command that goes on with this stage, and with the next if there is one."""
        stages = "" if following is None else " --stages all"
        return f"pyro-genmodels train --run {run} --resume{stages}"


def make_plan(arguments: argparse.Namespace, words: list[str], config: dict[str, Any]) -> Plan:
    """Combine the command line with a configuration, the command line first.

    Raises:
        UsageError: If a name is unknown or an option is wrong.
        ValueError: If the data cannot be read.
    """
    with usage():
        name = _named(arguments.name or config.get("name"), "NAME", model_makers(), "model")
        given = arguments.data or config.get("source")
        words = [*words_of_path(arguments.data), *words]
        source_name = _named(_source_name(given), "--data", data_makers(), "data")
        _check_resumed(arguments, config)
        maker = model_makers()[name]
        groups = argument_groups(maker)
        _check_moved(name, words)
        words = gather(words, groups)
        rest = {k: v for k, v in config.items() if k not in (*_NAMES, "data")}
        published = preset_options(name, arguments.preset or config.get("preset"))
        rest = over(published, rest, groups)
    of_data = [word for word in words if word.startswith("--data.")]
    data = dict(config.get("data") or {})
    if arguments.resume and not of_data:
        data = _located(arguments.run_folder, data_makers()[source_name], data)
    source, data = make_source(source_name, of_data, data)
    with usage():
        facts = training.facts_of(source, conditional=arguments.conditional)
        if arguments.conditional and source.num_classes is not None:
            facts["observed_labels"] = True  # of a mixture, whose components they are
        parser = _model_parser(name, facts)
        others = [word for word in words if not word.startswith("--data.")]
        parsed = parse(parser, others, rest)
    model = parsed.pop("model", {})
    return Plan(name, source_name, source, maker, model, data, parsed, arguments.allow)


def _located(run: Path, maker: Any, data: dict[str, Any]) -> dict[str, Any]:
    """Return a resumed run's options of the data, which another working folder may have had."""
    place = path_argument(maker)
    there = place is None or Path(str(data.get(place))).expanduser().exists()
    try:
        return data if there else training.run_data(run).located(data, place)
    except training.CheckpointError:
        return data  # nothing has begun


def _check_moved(name: str, words: list[str]) -> None:
    """Raise ``ValueError`` for options of before, and say where they have gone."""
    moved = MOVED.get(f"models.{name}", {})
    for option, _ in options_of(words):
        argument = option.removeprefix("--model.")
        if argument == option:
            continue
        if to := moved.get(argument):
            raise ValueError(f"{option} is now --model.{to.argument}.{to.field}")
        if hint := moved_hint([f"models.{name}"], [argument]):
            raise ValueError(f"{option} is not an option any more: {hint}")


def _check_resumed(arguments: argparse.Namespace, config: dict[str, Any]) -> None:
    """Raise ``ValueError`` for another model's or other data's name than the resumed run's."""
    source = _source_name(arguments.data)
    given = (("name", arguments.name, model_makers()), ("source", source, data_makers()))
    if arguments.resume:
        check(arguments.preset is None, "preset", "be left out to resume", arguments.preset)
    for key, name, among in given:
        if arguments.resume and name is not None and config.get(key) is not None:
            rule = f"be {config[key]}, as in the run to resume, or left out"
            check(find(name, among, key) == config[key], key, rule, name)


def _is_path(data: str | None) -> bool:
    """Whether ``--data`` names a file or a folder, and no source.

    Raises:
        ValueError: If it might be either.
    """
    if data is None or not Path(data).exists():
        return False
    name = find(data, data_makers(), "data") if is_known(data, data_makers()) else None
    rule = f"be {name} for the built-in data, or ./{data} for what lies there"
    check(name in (None, data), "data", rule, f"'{data}', which may be either")
    return name is None


def _source_name(data: str | None) -> str | None:
    if data is None or is_known(data, data_makers()):
        return data
    # What looks like a path is none of a name misspelt.
    looks_like_one = Path(data).suffix != "" or len(Path(data).parts) > 1
    return source_class(data).__name__ if looks_like_one or _is_path(data) else data


def find_source(data: str) -> str:
    """Return the name of the source that ``--data`` names, or that reads its path.

    Raises:
        ValueError: If there is none.
    """
    return find(_source_name(data) or "", data_makers(), "data")


def words_of_path(data: str | None) -> list[str]:
    """Return the option that says where the data lie, if ``--data`` is a path."""
    if data is None or not _is_path(data):
        return []
    return [f"--data.{source_class(data).path_argument}={data}"]


def print_help(name: str, source_name: str | None) -> int:
    """Print every option of a model, and of the data if given."""
    parser = _model_parser(find(name, model_makers(), "model"), {})
    if source_name is not None:
        _add_data(parser, find_source(source_name))
    parser.print_help()
    return 0


def _named(name: Any, option: str, among: Mapping[str, Any], kind: str) -> str:
    if name is None:
        known = "`pyro-genmodels list` shows the models and the data"
        raise ValueError(f"train must be given {option}; {known}")
    return find(str(name), among, kind)


def new_parser(name: str) -> Any:
    """Return a parser of the options of ``train NAME``."""
    jsonargparse = require("jsonargparse", extra="train")
    return jsonargparse.ArgumentParser(
        prog=f"pyro-genmodels train {name}", exit_on_error=False, allow_abbrev=False
    )


def training_parser(name: str, trained: type[GenerativeModel]) -> Any:
    """Return a parser of the settings of a training, with the defaults of what is trained."""
    parser = new_parser(name)
    parser.add_class_arguments(TrainingSettings, sub_configs=False, instantiate=False)
    parser.set_defaults(dict(trained.training_defaults))
    return parser


def _model_parser(name: str, facts: Mapping[str, Any]) -> Any:
    register_component_types()
    maker = model_makers()[name]
    parser = training_parser(name, family(maker))
    _add(parser, maker, "model")
    parameters = inspect.signature(maker).parameters
    settled = {k: v for k, v in facts.items() if k in parameters}
    discrete = settled.get("num_levels", 0) is not None or takes_none(parameters["num_levels"])
    check(discrete, "data", f"be discrete for {name}", "continuous data")
    described = {k: configuration(v) for k, v in settled.items() if isinstance(v, Configured)}
    parser.set_defaults({f"model.{k}": v for k, v in {**settled, **described}.items()})
    for group, cls in argument_groups(maker).items():
        within = [each.name for each in fields(cls) if each.name in facts.keys() - settled.keys()]
        parser.set_defaults({f"model.{group}.{k}": facts[k] for k in within})
    return parser


def takes_none(parameter: inspect.Parameter) -> bool:
    """Return whether an argument may be ``None``."""
    return parameter.default is None or "None" in str(parameter.annotation)


def _add(
    parser: Any, maker: Any, group: str, *, skip: Collection[str] = (), **options: Any
) -> None:
    groups = argument_groups(maker)
    options["skip"] = {*skip, *groups}
    if inspect.isclass(maker):
        parser.add_class_arguments(maker, group, instantiate=False, **options)
    else:
        parser.add_function_arguments(maker, group, **options)
    parameters = inspect.signature(maker).parameters
    texts = described_arguments(maker)
    for name, cls in groups.items():
        parser.add_class_arguments(cls, f"{group}.{name}", instantiate=False)
        whole = next(each for each in parser._actions if each.dest == f"{group}.{name}")
        whole.metavar = "GROUP"
        # jsonargparse has no argument for it, and says "Path to a configuration file".
        whole.help = texts[name].partition(":")[2]
        defaults = cls.of(parameters[name].default).current_arguments()
        parser.set_defaults({f"{group}.{name}.{k}": v for k, v in defaults.items()})


def _add_data(parser: Any, source_name: str) -> Any:
    maker: Any = data_makers()[source_name]
    if issubclass(maker, DataSource):
        _add(parser, maker, "data")
    else:
        _add(parser, maker, "data", skip={"validate_args"})
        shared = {"distribution", *inspect.signature(maker).parameters}
        _add(parser, Sampled, "data", skip=shared, as_group=False)
    return maker


def make_source(
    source_name: str, words: list[str], config: dict[str, Any]
) -> tuple[DataSource, dict[str, Any]]:
    """Return data and all their options.

    Args:
        source_name: Name of the source.
        words: Options of the command line, ``--data.X``.
        config: Options that give way to them.

    Raises:
        UsageError: If an option is unknown, or its value impossible.
        ValueError: If the data cannot be read.
    """
    with usage():
        parser = new_parser(source_name)
        maker = _add_data(parser, source_name)
        given = parse(parser, words, {"data": config} if config else {}).get("data") or {}
    with usage(*(given.keys() - {path_argument(maker)})):
        return _made(maker, given)


def _made(maker: Any, given: dict[str, Any]) -> tuple[DataSource, dict[str, Any]]:
    if issubclass(maker, DataSource):
        return maker(**given), given
    law, drawing = (
        {k: v for k, v in given.items() if k in inspect.signature(made).parameters}
        for made in (maker, Sampled)
    )
    return Sampled(maker(**law), **drawing), given


def parse(parser: Any, words: list[str], config: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a command line, those of a configuration where it has none.

    Raises:
        ValueError: If an option is unknown or its value is wrong.
    """
    jsonargparse = require("jsonargparse", extra="train")
    parser.add_argument("--config", action="config")
    given = [f"--config={yaml.safe_dump(config)}"] if config else []
    try:
        parsed = parser.parse_args([*given, *words])
    except (jsonargparse.ArgumentError, argparse.ArgumentError) as error:
        raise ValueError(_reason(parser, error)) from error
    parsed.pop("config", None)
    return dict(parsed.as_dict())


def _reason(parser: Any, error: Exception) -> str:
    """Return what an error says; beside an unknown option, those that resemble it."""
    text = str(getattr(error, "message", error))
    unknown = re.match(r"unrecognized arguments: --([\w.+]+)", text)
    known = set(parser.get_defaults(skip_validation=True).keys()) - {"config"}
    close = difflib.get_close_matches(unknown[1], known, n=3) if unknown else []
    hint = ", ".join(f"--{key}" for key in close)
    return f"{text}: did you mean {hint}?" if close else text


def _plain(value: Any) -> Any:
    if isinstance(value, Description):
        return _plain(value.data)
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | torch.Size):
        return [_plain(v) for v in value]
    return value
