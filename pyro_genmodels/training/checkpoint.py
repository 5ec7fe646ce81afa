"""Checkpoints: weights, configuration, version and training state, as plain data in one file."""

from __future__ import annotations

import inspect
import os
import pickle
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pyro_genmodels import _migration
from pyro_genmodels._checks import check
from pyro_genmodels._configuration import build, configuration, inherited_constructors, resolve
from pyro_genmodels._files import save_whole
from pyro_genmodels._modules import without_marks
from pyro_genmodels._version import __version__
from pyro_genmodels.data import Column, DataSource
from pyro_genmodels.models import GenerativeModel
from pyro_genmodels.training.data_fingerprint import DataFingerprint, column_facts
from pyro_genmodels.training.settings import TrainingSettings

SECTION = "pyro_genmodels"
FOLDER = "checkpoints"
BEST, LAST = "best.ckpt", "last.ckpt"
COMPLETE = "complete.ckpt"  # a model of two stages: the best of the first, with its priors


class CheckpointError(ValueError):
    """A file is no checkpoint that this version can read; the message says why."""


@dataclass(frozen=True)
class RunData:
    """What a run keeps of its data.

    Attributes:
        path: The checkpoint.
        description: Class and arguments of the source; ``None`` if no configuration describes it.
        fingerprint: What tells its data from others; ``None`` in runs of before 2026-12.
        classes: Names of the labels, if they have some.
        columns: Columns of a table, if they have names.
        folder: Working folder of the training, from which relative paths count.
        format: Format of the checkpoint as it was written.
    """

    path: Path
    description: dict[str, Any] | None
    fingerprint: DataFingerprint | None = None
    classes: list[str] | None = None
    columns: list[Column] | None = None
    folder: str | None = None
    format: int = _migration.FORMAT

    def differences(self, source: DataSource) -> list[str]:
        """Name what tells a source's data from the run's; nothing if that is not known."""
        if self.fingerprint is None:
            return []
        return self.fingerprint.differences(DataFingerprint.of(source))

    def check_same(self, source: DataSource, *, accept_other_data: bool = False) -> None:
        """Raise ``ValueError`` if a source's data are not the run's, unless they are accepted."""
        other = [] if accept_other_data else self.differences(source)
        rule = f"be the data that '{self.path}' was trained on, or be accepted"
        remedy = "(--accept_other_data; in Python accept_other_data=True)"
        check(not other, "data", f"{rule} {remedy}", f"others: {'; '.join(other)}")

    def located(self, arguments: Mapping[str, Any], path_argument: str | None) -> dict[str, Any]:
        """Return a source's arguments, paths from where the training's working folder was.

        Args:
            arguments: Those recorded.
            path_argument: Which of them says where the data lie.
        """
        found = dict(arguments)
        for name, value in arguments.items() if self.folder is not None else ():
            if isinstance(value, str) and value:
                place = os.path.join(self.folder or "", os.path.expanduser(value))
                # Other strings are no folders, though one may bear the name of a split.
                if os.path.isfile(place) or (name == path_argument and os.path.isdir(place)):
                    found[name] = place
        return found


def describe(model: GenerativeModel, source: DataSource | None) -> dict[str, Any]:
    """Return what a checkpoint says of its model and data, before any weight.

    A model with parts that are not of this package, such as Pyro's transforms or a user's network,
    has no description but the reason: whoever loads it brings one like it.
    """
    try:
        data = None if source is None else configuration(source)
    except ValueError:
        data = None  # the user's own tensors: whoever evaluates the run must bring them again
    own: dict[str, Any] = {"format": _migration.FORMAT, "version": __version__, "data": data}
    if source is not None:
        own["source"] = {
            "fingerprint": DataFingerprint.of(source).as_dict(),
            "classes": source.classes,
            "columns": column_facts(source),
            "folder": os.getcwd(),
        }
    try:
        return {**own, "model": configuration(model)}
    except ValueError as error:
        return {**own, "model": None, "undescribed": str(error)}


def save(contents: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a checkpoint so that ``path`` never holds half of one."""
    save_whole(dict(contents), path)


def find_checkpoint(run: str | os.PathLike[str], *names: str) -> Path | None:
    """Return the first of these checkpoints that a run folder has, if any."""
    paths = (Path(run) / FOLDER / name for name in names)
    return next((path for path in paths if path.is_file()), None)


def checkpoint_path(run: str | os.PathLike[str]) -> Path:
    """Return the checkpoint of a run folder, or the file itself if it is one.

    Raises:
        CheckpointError: If there is none.
    """
    path = Path(run)
    found = path if path.is_file() else find_checkpoint(path, COMPLETE, BEST, LAST)
    if found is None:
        raise CheckpointError(f"`run` must be a checkpoint or a folder with one; got '{path}'.")
    return found


def read(path: str | os.PathLike[str], *, map_location: Any = "cpu") -> dict[str, Any]:
    """Read a checkpoint, running no code from it.

    Raises:
        CheckpointError: If the file is truncated, foreign, or of a newer format.
    """
    with open(path, "rb"):
        pass  # an error of the operating system's names the path and what is the matter with it
    try:
        _check_archive(path)
        contents = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        what = "a foreign file, or one with objects that only their own code could load"
        raise CheckpointError(_refusal(path, what)) from error
    except Exception as error:  # torch fails on foreign bytes in many ways, also as an OSError
        raise CheckpointError(_refusal(path, "a truncated, damaged or foreign file")) from error
    own = contents.get(SECTION) if isinstance(contents, dict) else None
    if not isinstance(own, dict) or not isinstance(own.get("format"), int):
        raise CheckpointError(_refusal(path, "a file of another program"))
    _check_format(own, path)
    fill_in(contents)
    written = {key: own.get(key) for key in ("model", "data")}
    own.update(_migration.migrated(written, own["format"]), written=written["model"])
    return contents


def fill_in(contents: Mapping[str, Any]) -> None:
    """Add to a checkpoint of before 2026-12 what quantisers had not yet, as near as it is known."""
    for weights in (contents.get("state_dict"), contents[SECTION].get("weights")):
        if not isinstance(weights, dict):
            continue
        for name in [name for name in weights if name.endswith("num_placed")]:
            prefix = name.removesuffix("num_placed")
            for new, old in (("frequencies", "counts"), ("unchosen", "idle")):
                if prefix + old in weights:
                    weights.setdefault(prefix + new, weights[prefix + old])


def _check_archive(path: str | os.PathLike[str]) -> None:
    """Raise ``BadZipFile`` for a damaged file: torch writes checksums but does not read them.

    Torch compresses nothing, so that whatever is larger than its file is not torch's.
    """
    with zipfile.ZipFile(path) as archive:
        packed = [each.filename for each in archive.infolist() if each.compress_type]
        damaged = packed[0] if packed else archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(damaged)


def _refusal(path: str | os.PathLike[str], what: str) -> str:
    return f"'{os.fspath(path)}' must be a whole checkpoint of pyro_genmodels; got {what}."


def _check_format(own: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    if own["format"] > _migration.FORMAT:
        raise CheckpointError(
            f"'{os.fspath(path)}' must be of checkpoint format {_migration.FORMAT} or older; "
            f"got format {own['format']}, written by pyro_genmodels {own.get('version')}."
        )
    missing = [key for key in ("model", "weights", "version") if key not in own]
    if missing:
        raise CheckpointError(_refusal(path, f"one without {', '.join(map(repr, missing))}"))


def load(
    run: str | os.PathLike[str],
    *,
    model: GenerativeModel | None = None,
    allow: Collection[str] = (),
) -> GenerativeModel:
    """Return the trained model of a run, ready for Pyro, in eval mode.

    Loading runs no code from the file: it holds tensors and plain data, and names resolve only in
    this package.

    Args:
        run: A run folder (its best checkpoint is taken, of a run whose priors were learned the
            whole model) or a checkpoint.
        model: A model like the trained one, which takes its weights and is returned; needed where
            the model has parts that are not of this package, which a checkpoint cannot describe.
        allow: Full names of model classes outside this package that may be imported.

    Returns:
        The model with its best (averaged) weights, on the CPU.

    Raises:
        CheckpointError: If there is no checkpoint, or it is truncated, foreign, newer, incomplete,
            names a class outside the package that was not allowed, does not fit ``model``, or needs
            one.
    """
    path = checkpoint_path(run)
    own = read(path)[SECTION]
    if model is None:
        if own["model"] is None:
            reason = own.get("undescribed")
            raise CheckpointError(f"'{path}' must be loaded into a model like its own: {reason}")
        model = _build(own["model"], GenerativeModel, path, allow, own["format"])
    load_weights(model, own["weights"], path)
    return model.eval()


def load_source(
    run: str | os.PathLike[str],
    *,
    allow: Collection[str] = (),
    accept_other_data: bool = False,
    **changes: Any,
) -> DataSource:
    """Return the data source that a run was trained on.

    Args:
        run: A run folder or a checkpoint.
        allow: Full names of classes outside this package that may be imported.
        accept_other_data: Return the source also where its data are now others, as a file's that
            was written anew.
        **changes: Arguments of the source in the place of those recorded, such as where the data
            lie now: ``path="..."``.

    Raises:
        CheckpointError: If the run was trained on data that no configuration describes, or they
            are not there any more.
        ValueError: If the data are others than those that the run was trained on.
    """
    known = run_data(run)
    path, description = known.path, known.description
    if description is None:
        raise CheckpointError(f"'{path}' must name its data; it was trained on the caller's own.")
    name = _path_argument(description, allow)
    arguments = known.located(description.get("arguments") or {}, name) | changes
    place = arguments.get(name) if name is not None else None
    if place is not None and not os.path.exists(os.path.expanduser(place)):
        remedy = f"say where they lie now: --data PATH (in Python load_source(run, {name}=...))"
        raise CheckpointError(f"'{path}' was trained on '{place}', which is not there: {remedy}.")
    described = {**description, "arguments": arguments}
    source: DataSource = _build(described, DataSource, path, allow, known.format)
    known.check_same(source, accept_other_data=accept_other_data)
    return source


def run_data(run: str | os.PathLike[str]) -> RunData:
    """Return what a run keeps of its data, which need not be there.

    Args:
        run: A run folder (its last checkpoint is taken: data that were accepted in the place of
            the first ones are the run's) or a checkpoint.

    Raises:
        CheckpointError: If there is no checkpoint, or it cannot be read.
    """
    path = find_checkpoint(run, LAST) or checkpoint_path(run)
    try:
        own = read(path)[SECTION]
    except CheckpointError:
        path = checkpoint_path(run)  # the best says nearly as much
        own = read(path)[SECTION]
    found = own.get("source") or {}
    mark, columns = found.get("fingerprint"), found.get("columns")
    try:
        return RunData(
            path,
            own.get("data"),
            None if mark is None else DataFingerprint(**mark),
            found.get("classes"),
            columns and [Column(c["name"], c["kind"], tuple(c["categories"])) for c in columns],
            found.get("folder"),
            own["format"],
        )
    except (ValueError, TypeError, KeyError) as error:
        what = "one whose account of its data cannot be read"
        raise CheckpointError(_refusal(path, what)) from error


def _path_argument(description: Mapping[str, Any], allow: Collection[str]) -> str | None:
    """Return which argument says where a source's data lie, if one does."""
    try:
        cls = resolve(str(description["class"]), allow=allow)
    except (ValueError, KeyError):
        return None  # an error where it is built
    return cls.path_argument if inspect.isclass(cls) and issubclass(cls, DataSource) else None


def _build(description: Any, kind: type, path: Path, allow: Collection[str], written: int) -> Any:
    try:
        constructors = inherited_constructors(allow)
        made = build(_migration.migrated(description, written, constructors), allow=allow)
        check(isinstance(made, kind), "class", f"be a {kind.__name__}", type(made).__name__)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"'{path}': {error}") from error
    return made


def load_weights(model: GenerativeModel, weights: Any, path: Path) -> None:
    """Load a state dict, or say in one line what does not fit.

    Raises:
        CheckpointError: If keys are missing or left over, or shapes differ.
    """
    check_weights(model, weights, path)
    model.load_state_dict(weights)


def check_resumable(model: GenerativeModel, path: Path, settings: TrainingSettings) -> bool:
    """Check that training of a model can go on from a checkpoint.

    Returns:
        The setting ``standardize`` with which it began; ``settings``'s own, if that is not known.

    Raises:
        ValueError: If it was made by another optimizer, for another objective, with other
            parameters frozen, or has begun more epochs.
        CheckpointError: If the file cannot be read, has no training state or another model's.
    """
    contents = read(path)
    own = contents[SECTION]
    if not contents.keys() >= {"state_dict", "optimizer_states", "epoch"} or "random" not in own:
        raise CheckpointError(_refusal(path, "one without the state of a training"))
    check_weights(model, own["weights"], path)
    for name in ("optimizer", "objective"):
        given = getattr(settings, name)
        before = own.get(name, given)
        check(given == before, name, f"be {before}, as before", given)
    _check_trained(model, own.get("trained"), contents["optimizer_states"])
    begun = int(contents["epoch"]) + 1
    rule = f"be at least {begun}, the epochs that the run has begun"
    check(settings.max_epochs >= begun, "max_epochs", rule, settings.max_epochs)
    return bool(own.get("standardize", settings.standardize))


def trained_parameters(model: GenerativeModel) -> list[str]:
    """Name the parameters that a training changes, as the optimizer counts them."""
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def _check_trained(model: GenerativeModel, before: Any, states: Any) -> None:
    """Raise ``ValueError`` unless the optimizer's states are those of the model's parameters."""
    now = trained_parameters(model)
    rule = "train the parameters that it trained before"
    if before is not None:
        other = sorted(set(now) ^ set(before))
        kind = "with" if other and other[0] in now else "without"
        check(not other, "model", rule, f"one {kind} {', '.join(other[:3])}")
    groups = states[0]["param_groups"] if states else []
    count = sum(len(group["params"]) for group in groups)
    check(not groups or count == len(now), "model", f"{rule}, {count}", len(now))


def check_weights(model: GenerativeModel, weights: Any, path: Path) -> None:
    """Raise ``CheckpointError`` unless a state dict fits a model."""
    tensors = isinstance(weights, Mapping) and all(map(torch.is_tensor, weights.values()))
    if not tensors:
        raise CheckpointError(f"'{path}' must fit its model; got weights that are no tensors.")
    optional = model.optional_keys()
    states = (model.state_dict(), weights)
    own, weights = (
        {k: v for k, v in without_marks(state).items() if k not in optional} for state in states
    )
    problems = {
        "without": sorted(own.keys() - weights.keys()),
        "with unknown": sorted(weights.keys() - own.keys()),
        "with other shapes of": sorted(
            k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape
        ),
    }
    for problem, names in problems.items():
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            raise CheckpointError(f"'{path}' must fit its model; got weights {problem} {shown}.")
