"""What commands share: arguments that name a run, its device and its score."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

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


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what all commands that compress say of the model."""
    parser.add_argument(
        "--labels",
        metavar="DATA",
        help="labels (or vectors, maps) of a conditional model: a .npy or .pt file, or the part "
        "of the run's data that they belong to",
    )
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")


def score(run_folder: str | Path, device: str, allow: list[str], **options: Any) -> Any:
    """Evaluate a run's best weights on its own data."""
    from pyro_genmodels import training

    model = training.load(run_folder, allow=allow).to(torch_device(device))
    return training.evaluate(model, training.load_source(run_folder, allow=allow), **options)


def torch_device(name: str) -> Any:
    """Return the device of that name.

    Raises:
        ValueError: If torch knows none, or it is not there.
    """
    import torch

    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"`device` must be one that torch can use; got '{name}': {reason}"
        ) from error


def save_result(result: Any, folder: Path) -> None:
    """Write ``result.json``."""
    from pyro_genmodels._files import written_whole

    with written_whole(folder / RESULT) as temporary:
        temporary.write_text(json.dumps(result.as_dict(), indent=2) + "\n")
