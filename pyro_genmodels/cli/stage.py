"""One stage of a run: a model's training, or that of the priors over its codes."""

from __future__ import annotations

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import yaml
from torch import nn

from pyro_genmodels import training
from pyro_genmodels._checks import check
from pyro_genmodels._files import written_whole
from pyro_genmodels._migration import FORMAT, migrated_options
from pyro_genmodels.cli.groups import with_public_names
from pyro_genmodels.cli.names import find, model_makers
from pyro_genmodels.cli.scoring import save_result, score
from pyro_genmodels.data import DataSource
from pyro_genmodels.models import GenerativeModel

Prepared: TypeAlias = tuple[Iterable[nn.Module], Callable[[], Any], DataSource]

CONFIG = "config.yaml"
PRIOR = "prior"  # folder of the priors' stage within the run's


class Stage(ABC):
    """What is trained, with which options, and how that goes.

    A subclass says what is trained and how. Its configuration, the training with its messages, and
    the score are the same for each stage.

    Attributes:
        model: Options of what is trained.
        settings: Fields of :class:`~pyro_genmodels.training.TrainingSettings`.
    """

    header: ClassVar[str]
    """First line of the configuration."""

    folder: ClassVar[str] = ""
    """Where the configuration lies, within the run's folder."""

    maker_name: ClassVar[str | None] = None
    """Public name of what takes the options ``model``; the model's own by default."""

    model: dict[str, Any]
    settings: dict[str, Any]

    @property
    @abstractmethod
    def label(self) -> str:
        """Short name for a message."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """Return what the configuration holds apart from the settings, as plain data."""

    @abstractmethod
    def prepare(self, run: Path, **options: Any) -> Prepared:
        """Check all that can fail at once, before a file is written.

        Args:
            run: The run's folder.
            **options: As for :meth:`train`.

        Returns:
            What is trained, a function that trains it, and the data.
        """

    @abstractmethod
    def command_to_resume(self, run: Path, following: Stage | None) -> str:
        """Return the command that goes on with a training that was interrupted."""

    @classmethod
    def path(cls, run: Path) -> Path:
        """Return where the configuration lies in a run."""
        return run / cls.folder / CONFIG

    @classmethod
    def read(cls, arguments: argparse.Namespace, run: Path | None) -> dict[str, Any]:
        """Return the options of ``--config``, or those that the run to resume began with."""
        path = arguments.config
        if path is None and arguments.resume and run is not None and cls.path(run).is_file():
            path = cls.path(run)
        if path is None:
            return {}
        return read_config(Path(path), cls.maker_name, name=arguments.name)

    def write(self, run: Path) -> None:
        """Write the configuration, which repeats the training, into a run."""
        options = {"format": FORMAT, **self.options(), **self.settings}
        self.path(run).parent.mkdir(exist_ok=True)
        with written_whole(self.path(run)) as temporary:
            temporary.write_text(self.header + yaml.safe_dump(options, sort_keys=False))

    def write_ahead(self, run: Path, *, resume: bool) -> None:
        """Write the configuration before the stage above trains: to resume is to read it.

        A training that has begun keeps its own.
        """
        if not (resume and (run / self.folder / "checkpoints").exists()):
            self.write(run)

    def train(self, run: Path, following: Stage | None = None, **options: Any) -> None:
        """Train, score the whole model, and print the result.

        Args:
            run: The run's folder.
            following: The stage that is to be trained next, if there is one.
            **options: ``resume``, ``overwrite`` and ``accept_other_data``, and ``allow``, the
                classes outside the package that may be imported.
        """
        parts, fit, source = self.prepare(run, **options)
        if not training.is_helper():
            self.write(run)
            if following is not None:
                following.write_ahead(run, resume=options["resume"])
            parts = list(parts)
            size = sum(p.numel() for part in parts for p in part.parameters())
            print(f"data: {source.summary}")
            print(f"data fingerprint: {training.fingerprint_kind(source)}")
            print(f"{self.label}: {size:,} parameters, run {run}")
            terms = [t for p in parts if isinstance(p, GenerativeModel) for t in p.beside_elbo()]
            if terms:
                print(f"objective: not the ELBO alone, but with {', '.join(terms)}")
        try:
            history = fit()
        except KeyboardInterrupt:
            command = self.command_to_resume(run, following)
            raise KeyboardInterrupt(f"go on with: {command}") from None
        if not training.is_helper():
            result = score(run, source, "cpu", options["allow"], progress=self.settings["progress"])
            save_result(result, run)
            print(result)
            advice = training.diagnosis(history)
            if advice is not None:
                print(advice)


def read_config(path: Path, maker: str | None = None, *, name: str | None = None) -> dict[str, Any]:
    """Read YAML as plain data, of an older version as this one writes it.

    Args:
        path: The file.
        maker: Public name of what takes the options ``model``; the model's own by default.
        name: Name of the model; the file's own by default.

    Raises:
        ValueError: If it is not a YAML mapping, of a newer format, or of an unknown model.
    """
    try:
        config = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' must be YAML: {error}") from error
    check(isinstance(config, dict), str(path), "hold options by name", type(config).__name__)
    check("config" not in config, str(path), "name no further file", "'config'")
    for key in ("model", "data"):
        options = config.get(key) or {}
        check(isinstance(options, dict), f"{path}: {key}", "hold options by name", options)
    name = name or config.get("name")
    if maker is None and name is not None:
        maker = "models." + find(str(name), model_makers(), "model")
    if config.get("model"):
        config["model"] = with_public_names(config["model"])
    try:
        return migrated_options(config, maker)
    except ValueError as error:
        raise ValueError(f"'{path}': {error}") from error
