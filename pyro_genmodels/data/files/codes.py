"""Codes of a data set, encoded once and kept on disk as memory-mapped arrays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pyro_genmodels._checks import check, check_finite
from pyro_genmodels.data.base.data_source import SPLITS, DataSource, check_event

MANIFEST = "codes.json"


class Codes(DataSource):
    """The codes that a trained VQ-VAE gives a data set, one vector an example.

    :func:`pyro_genmodels.training.encode_codes` writes them: ``train.npy``, ``validation.npy``
    and ``test.npy`` with the maps' codes side by side, the top first, each in raster order with
    the parts of a code one after another; beside them labels or features, if the model is
    conditional, and ``codes.json``. The arrays are mapped into memory, of which only the batches
    in use take any.

    Args:
        path: The folder.

    Attributes:
        code_shapes: Sizes of the maps, from the top.
        fingerprint: Tells the model and the data that the codes were made by and of.

    Raises:
        ValueError: If the folder is not whole, or its arrays do not fit each other.
    """

    path_argument: ClassVar[str | None] = "path"

    def __init__(self, path: str) -> None:
        folder = Path(path).expanduser()
        facts = read_manifest(folder)
        check(facts is not None, "path", f"be a folder with {MANIFEST}", f"'{path}'")
        assert facts is not None  # narrows the type for the checker
        self.path, self.fingerprint = path, str(facts["fingerprint"])
        self.code_shapes = [torch.Size(shape) for shape in facts["code_shapes"]]
        self.has_contexts = bool(facts["has_contexts"])
        parts: dict[str, Any] = {s: _arrays(folder, s, self.has_contexts) for s in SPLITS}
        # Labels are checked against their number; features have none.
        super().__init__(**parts, num_levels=facts["num_codes"], num_classes=facts["num_classes"])

    def _check_items(self, split: str, dataset: Any) -> None:
        if self.num_classes is not None or not self.has_contexts:
            return super()._check_items(split, dataset)
        codes, contexts = dataset.tensors
        check_finite("context", contexts)
        return check_event(split, codes, self.event_shape, self.num_levels)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what ``codes.json`` says, ``None`` if it is not there or not whole."""
    try:
        facts = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and "fingerprint" in facts else None


def _arrays(folder: Path, name: str, has_contexts: bool) -> TensorDataset:
    names = [name, f"{name}_context"] if has_contexts else [name]
    return TensorDataset(*(_mapped(folder / f"{each}.npy") for each in names))


def _mapped(path: Path) -> Tensor:
    try:
        # Copy on write: torch takes no array that it may not write to.
        return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"`path` must hold whole arrays; got '{path}': {error}.") from error
