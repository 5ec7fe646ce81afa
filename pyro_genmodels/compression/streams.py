"""Arrays to bytes and back, without loss."""

from __future__ import annotations

import contextlib
import math
import os
import re
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._checks import check, integers_checked, require
from pyro_genmodels._files import written_whole
from pyro_genmodels._typing import Int, Num
from pyro_genmodels.compression.coder import AstrayError, Reader, Writer
from pyro_genmodels.compression.deterministic_evaluation import digest, one_path
from pyro_genmodels.compression.format import DEVICES, Environment, Header, check_end, pack, unpack
from pyro_genmodels.compression.sources import Source, source_of

_MOST_THREADS, _LARGEST_CHUNK = 255, 2**16 - 1
# No symbol of two or more has a probability above 1 - 2^-24 with this coder.
_MOST_SYMBOLS_PER_BIT = 2**24


@integers_checked
def compress(
    distribution: Any, x: Num[Tensor, ...], *, chunk_size: int = 256, threads: int = 1
) -> bytes:
    r"""Compress an array without loss, to nearly :math:`-\log_2 p(x)` bits.

    The network is evaluated element by element, as for sampling, in float64. :func:`decompress`
    takes the same steps with the same distribution: network, context and all.

    Args:
        distribution: An :class:`~pyro_genmodels.distributions.AutoregressiveDistribution`, or
            :class:`~pyro_genmodels.distributions.UniformLevels`.
        x: Levels ``(*batch, *event_shape)`` of any dtype, whose leading dimensions end with the
            distribution's batch shape.
        chunk_size: Data points that the network is evaluated on at once, on both sides.
        threads: Threads of a CPU that evaluate it, on both sides.

    Returns:
        A header of about fifty bytes, and the coder's words of four bytes.

    Raises:
        ValueError: If the distribution is another, or ``x`` no array of levels that fits it.
        ImportError: If constriction is not installed.

    Example:
        >>> from pyro_genmodels.compression import read_header
        >>> from pyro_genmodels.distributions import UniformLevels
        >>> law = UniformLevels((8, 8), 512)
        >>> codes = law.sample((100,))
        >>> data = compress(law, codes)
        >>> read_header(data).size, len(data), 100 * 64 * 9 // 8
        (49, 7253, 7200)
        >>> torch.equal(decompress(law, data), codes)
        True
    """
    source = source_of(distribution)
    check_options(threads=threads, chunk_size=chunk_size)
    with one_path(source.network, threads):
        return write_stream(source, x, chunk_size, threads, source.context_fingerprint())


def decompress(distribution: Any, data: bytes) -> Int[Tensor, ...]:
    """Return the array that :func:`compress` was given.

    Args:
        distribution: The one that it was compressed with.
        data: What :func:`compress` returned.

    Returns:
        Levels ``(*batch, *event_shape)``, ``int64``, on the network's device.

    Raises:
        ValueError: If the data are damaged, or belong to another network or context, or rounding
            differs so much that the array did not come back.
        ImportError: If constriction is not installed.
    """
    source = source_of(distribution)
    header, payload, end = unpack(data)
    check_end(data, end)
    with one_path(source.network, header.environment.threads):
        return read_stream(source, header, payload, source.context_fingerprint())


@integers_checked
def write(
    path: str | os.PathLike[str],
    distribution: Any,
    x: Num[Tensor, ...],
    *,
    chunk_size: int = 256,
    threads: int = 1,
) -> None:
    """Compress an array into a file, which is written whole or not at all.

    Args:
        path: The file.
        distribution: As for :func:`compress`.
        x: As for :func:`compress`.
        chunk_size: As for :func:`compress`.
        threads: As for :func:`compress`.

    Raises:
        ValueError: As :func:`compress` does.
        OSError: If the file cannot be written.
    """
    data = compress(distribution, x, chunk_size=chunk_size, threads=threads)
    with written_whole(path) as temporary:
        temporary.write_bytes(data)


def read(path: str | os.PathLike[str], distribution: Any) -> Int[Tensor, ...]:
    """Return the array that :func:`write` was given.

    Raises:
        ValueError: As :func:`decompress` does.
        OSError: If the file cannot be read.
    """
    return decompress(distribution, Path(path).read_bytes())


def write_stream(source: Source, x: Tensor, chunk_size: int, threads: int, context: bytes) -> bytes:
    """Compress within :func:`one_path`."""
    batch_shape = source.check(x)
    coder, levels = Writer(), source.in_order(x)
    source.code(coder, batch_shape, chunk_size, levels)
    payload = coder.payload()
    header = Header(
        batch_shape,
        source.event_shape,
        source.num_levels,
        chunk_size,
        _here(source.device, threads),
        source.fingerprint(),
        context,
        _levels_fingerprint(levels),
        len(payload),
    )
    return pack(header, payload)


def read_stream(source: Source, header: Header, payload: bytes, context: bytes) -> Tensor:
    """Decompress within :func:`one_path`."""
    _check_fits(source, header, context)
    here = _here(source.device, header.environment.threads)
    if source.fingerprint() != b"uniform " and here != header.environment:
        text = f"the data were written by {header.environment}; this is {here}"
        warnings.warn(f"{text}, which may round otherwise", stacklevel=4)
    coder, levels = Reader(payload), None
    with contextlib.suppress(AstrayError):
        levels = source.code(coder, header.batch_shape, header.chunk_size, None)
    rule = f"come back by the rounding that wrote them, that of {header.environment}"
    whole = levels is not None and _levels_fingerprint(levels) == header.levels
    check(whole, "data", rule, f"other levels by {here}")
    assert levels is not None  # narrows the type for the checker
    return source.in_event_order(levels).view(*header.batch_shape, *header.event_shape)


def _check_fits(source: Source, header: Header, context: bytes) -> None:
    own = f"{source.num_levels} levels of shape {source.event_shape}"
    found = f"{header.num_levels} levels of shape {tuple(header.event_shape)}"
    check(found == own, "data", f"hold {own}, as the distribution does", found)
    source.check_batch("data", header.batch_shape)
    rule = "be written with this distribution's network and parameters"
    check(header.network == source.fingerprint(), "data", rule, "the mark of another")
    rule = "be written with this distribution's context"
    check(header.context == context, "data", rule, "the mark of another")
    check(header.chunk_size > 0 and header.environment.threads > 0, "data", "be as written", "zero")
    most = (8 * header.payload_size + 64) * _MOST_SYMBOLS_PER_BIT
    fits = math.prod((*header.batch_shape, *header.event_shape)) <= most or source.num_levels == 1
    check(fits, "data", "be as large as their header says", f"{header.payload_size} bytes")


def check_options(*, threads: int, chunk_size: int) -> None:
    """Raise ``ValueError`` unless a header can hold the options."""
    rule = f"be from 1 to {_MOST_THREADS}"
    check(1 <= threads <= _MOST_THREADS, "threads", rule, threads)
    rule = f"be from 1 to {_LARGEST_CHUNK}"
    check(1 <= chunk_size <= _LARGEST_CHUNK, "chunk_size", rule, chunk_size)


def _here(device: torch.device, threads: int) -> Environment:
    require("constriction", extra="compression")
    kind = device.type if device.type in DEVICES else DEVICES[-1]
    coder = metadata.version("constriction")
    return Environment(_version(torch.__version__, 3), _version(coder, 2), kind, threads)


def _version(text: str, length: int) -> Any:
    numbers = [int(found) for found in re.findall(r"\d+", text.partition("+")[0])]
    return tuple(min(number, 255) for number in (*numbers, 0, 0)[:length])


def _levels_fingerprint(levels: Int[Tensor, "rows elements"]) -> bytes:
    return digest(levels.cpu().numpy().astype("<i4").tobytes())[:8]
