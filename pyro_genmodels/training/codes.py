"""A data set through a trained quantiser once: its codes, on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_genmodels._checks import integers_checked
from pyro_genmodels._configuration import configuration
from pyro_genmodels._files import written_whole
from pyro_genmodels._migration import FORMAT
from pyro_genmodels._modules import first_tensor, without_marks
from pyro_genmodels._progress import tracked
from pyro_genmodels.data import Codes, DataSource
from pyro_genmodels.data.files import MANIFEST, read_manifest
from pyro_genmodels.models import VectorQuantizedModel
from pyro_genmodels.nets.autoregressive import image_shape, raster_indices
from pyro_genmodels.training.batches import Batches
from pyro_genmodels.training.data_fingerprint import DataFingerprint, add_data, add_tensor

_FORMAT = 2


@integers_checked
def encode_codes(
    model: VectorQuantizedModel,
    source: DataSource,
    folder: str | os.PathLike[str],
    *,
    batch_size: int = 256,
    written: Mapping[str, Any] | None = None,
) -> Codes:
    """Encode a data set to files, unless they are there already.

    A file is never half-written. The codes carry a fingerprint of the model (its priors aside) and
    of the data: of another model or other data new codes are made.

    Args:
        model: A trained VQ-VAE, on the device to encode on.
        source: Data that fit it.
        folder: Where the arrays go.
        batch_size: Examples encoded at once.
        written: The model's description as an older version wrote it into its checkpoint: codes
            of that version stay.

    Returns:
        The codes as a data source.

    Raises:
        ValueError: If the data do not fit the model.
    """
    folder = Path(folder)
    mark = fingerprint(model, source)
    if not are_codes_of(model, source, folder, written):
        folder.mkdir(parents=True, exist_ok=True)
        # Without it nobody takes the arrays for whole.
        (folder / MANIFEST).unlink(missing_ok=True)
        for name, dataset in source.splits.items():
            _encode(model, dataset, folder, name, batch_size)
        with written_whole(folder / MANIFEST) as temporary:
            temporary.write_text(json.dumps(_facts(model, mark), indent=2) + "\n")
    return Codes(os.fspath(folder))


def are_codes_of(
    model: VectorQuantizedModel,
    source: DataSource,
    folder: Path,
    written: Mapping[str, Any] | None,
) -> bool:
    """Return whether a folder holds the codes that a model gives a data set.

    Args:
        model: The model.
        source: The data.
        folder: The folder.
        written: The model's description as an older version wrote it.
    """
    facts = read_manifest(folder)
    if facts is None:
        return False
    # From the mark of now to those of before, each of which takes another pass over the data.
    ways = ((None, False), (written, False), (None, True), (written, True))
    return any(
        facts["fingerprint"] == fingerprint(model, source, description, by_time=by_time)
        for description, by_time in ways
    )


def _facts(model: VectorQuantizedModel, mark: str) -> dict[str, Any]:
    priors = model.code_priors
    return {
        "format": FORMAT,
        "fingerprint": mark,
        "code_shapes": [list(prior.code_shape) for prior in priors],
        "num_codes": max(prior.num_codes for prior in priors),
        # A label with features is one tensor beside the codes, and no label alone.
        "num_classes": None if model.takes_pairs else model.num_classes,
        "has_contexts": model.context_event_dim is not None,
    }


def _encode(
    model: VectorQuantizedModel, dataset: Any, folder: Path, name: str, batch_size: int
) -> None:
    priors, device = model.code_priors, first_tensor(model).device
    size = sum(prior.code_shape.numel() for prior in priors)
    dtype = _smallest(max(prior.num_codes for prior in priors))
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {name: ((size,), dtype)}
    if model.context_event_dim is not None:
        first = torch.as_tensor(dataset[0][1])
        shapes[f"{name}_context"] = (tuple(first.shape), _context_dtype(first))
    with _memory_maps(folder, shapes, len(dataset)) as arrays:
        start = 0
        batches = Batches(dataset, model, batch_size)
        for x, context in tracked(batches, f"encoding {name}"):
            given = None if context is None else context.to(device)
            stop = start + len(x)
            arrays[name][start:stop] = flat_codes(model, x.to(device), given).cpu().numpy()
            if context is not None:
                arrays[f"{name}_context"][start:stop] = context.cpu().numpy()
            start = stop


@contextmanager
def _memory_maps(
    folder: Path, shapes: Mapping[str, tuple[tuple[int, ...], Any]], length: int
) -> Iterator[dict[str, Any]]:
    """Open ``.npy`` files to write to, which take their names once all is written."""
    with ExitStack() as stack:
        arrays = {}
        for name, (shape, dtype) in shapes.items():
            temporary = stack.enter_context(written_whole(folder / f"{name}.npy"))
            options: dict[str, Any] = {"dtype": dtype, "shape": (length, *shape)}
            arrays[name] = np.lib.format.open_memmap(temporary, mode="w+", **options)
        yield arrays
        for array in arrays.values():
            array.flush()


def flat_codes(model: VectorQuantizedModel, x: Tensor, context: Tensor | None) -> Tensor:
    """Return the codes of all maps side by side, each in raster order."""
    maps = model.code_maps(x, context)
    flat = [
        each.flatten(each.dim() - len(prior.code_shape))[..., raster_order(prior.code_shape)]
        for each, prior in zip(maps, model.code_priors, strict=True)
    ]
    return torch.cat(flat, -1)


def raster_order(code_shape: torch.Size) -> Tensor:
    """Return the places of a map's codes, flattened, in the order of generation."""
    return raster_indices(image_shape(code_shape) if len(code_shape) > 1 else code_shape)


def _smallest(num_codes: int) -> Any:
    if num_codes <= 256:
        return np.uint8
    return np.int16 if num_codes <= 2**15 else np.int32


def _context_dtype(context: Tensor) -> Any:
    return np.float32 if context.is_floating_point() else np.int64


def fingerprint(
    model: VectorQuantizedModel,
    source: DataSource,
    written: Mapping[str, Any] | None = None,
    *,
    by_time: bool = False,
) -> str:
    """Return a digest of all that codes depend on.

    Args:
        model: The model.
        source: The data.
        written: The model's description, its own as of now by default.
        by_time: Whether files count by their times, as in codes of before 2026-12, and not by
            their content.
    """
    digest = hashlib.sha256(f"format {_FORMAT}".encode())
    description = (written or configuration(model))["arguments"]
    assert isinstance(description, dict)
    kept = {k: v for k, v in description.items() if k not in ("prior", "priors")}
    digest.update(json.dumps([type(model).__qualname__, kept], sort_keys=True).encode())
    for name, tensor in sorted(without_marks(model.state_dict()).items()):
        if not name.startswith(("prior.", "priors.")):
            add_tensor(digest, name, tensor)
    if by_time:
        for name, dataset in source.splits.items():
            add_data(digest, name, dataset)
    else:
        digest.update(json.dumps(DataFingerprint.of(source).digests).encode())
    return digest.hexdigest()
