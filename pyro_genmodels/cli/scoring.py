"""What commands share: arguments that name a run, its device and its score."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pyro_genmodels.cli.usage import UsageError

RESULT = "result.json"


def add_allow(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow``."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CLASS",
        help="full name of a class outside this package that may be imported; repeatable",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add ``RUN`` and what its loading may import."""
    parser.add_argument("run_folder", metavar="RUN", help="run folder, or a checkpoint")
    add_allow(parser)


def add_accept_other_data(parser: argparse.ArgumentParser) -> None:
    """Add ``--accept_other_data``."""
    parser.add_argument(
        "--accept_other_data",
        action="store_true",
        help="go on though the run's data are others than it was trained on",
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add what says which data a command reads in the place of the run's own."""
    parser.add_argument(
        "--data",
        metavar="SOURCE",
        help="other data than the run's, or the place where its own lie now: a file, a folder or a "
        "name (see `list`), with options --data.X as of `train`",
    )
    add_accept_other_data(parser)


def add_steps(parser: argparse.ArgumentParser) -> None:
    """Add what says how a diffusion model walks from noise to data."""
    parser.add_argument(
        "--sampler",
        metavar="NAME",
        help="rule of a diffusion model's steps: ancestral (the model's own, the default), ddim, "
        "pndm, dpm, heun or langevin",
    )
    parser.add_argument(
        "--num_steps", type=int, help="number of a diffusion model's steps (default: its own)"
    )
    parser.add_argument(
        "--guidance",
        type=float,
        help="pull of a diffusion model's labels: 1 is the model, 0 ignores them, above 1 is "
        "stronger; of one that was trained with context_dropout",
    )


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all commands that compress say of the model."""
    parser.add_argument(
        "--labels",
        metavar="DATA",
        help="labels (or vectors, maps) of a conditional model: a .npy or .pt file, or the part "
        "of the run's data that they belong to",
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")


def score(
    run_folder: str | Path, source: Any, device: str, allow: list[str], **options: Any
) -> Any:
    """Evaluate a run's best weights on data."""
    from pyro_genmodels import training

    model = training.load(run_folder, allow=allow).to(torch_device(device))
    return training.evaluate(model, source, **options)


def torch_device(name: str) -> Any:
    """Return the device of that name.

    Raises:
        UsageError: If torch knows none, or it is not there.
    """
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"`device` must be one that torch can use; got '{name}': {reason}"
        ) from error


def save_result(result: Any, folder: Path) -> None:
    """Write ``result.json``."""
    from pyro_genmodels._files import written_whole

    with written_whole(folder / RESULT) as temporary:
        plain = _as_json(result.as_dict())
        temporary.write_text(json.dumps(plain, indent=2, allow_nan=False) + "\n")


def _as_json(value: Any) -> Any:
    """Return plain data with ``None`` for figures that are not finite: JSON has none of them."""
    if isinstance(value, Mapping):
        return {key: _as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
