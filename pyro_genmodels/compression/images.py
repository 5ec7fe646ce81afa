"""Images to bytes and back with a model: without loss, or as the codes of a vector quantiser."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pyro_genmodels._checks import check, integers_checked
from pyro_genmodels._typing import GivenContext, Num
from pyro_genmodels.compression.deterministic_evaluation import (
    NO_CONTEXT,
    fingerprint,
    in_float64,
    one_path,
    plain_digest,
)
from pyro_genmodels.compression.format import (
    SEAL_SIZE,
    Header,
    check_end,
    check_seal,
    sealed,
    unpack,
)
from pyro_genmodels.compression.sources import source_of
from pyro_genmodels.compression.streams import (
    check_options,
    compress,
    decompress,
    read_stream,
    write_stream,
)
from pyro_genmodels.metrics import elbo
from pyro_genmodels.models import GenerativeModel, VectorQuantizedModel
from pyro_genmodels.nets.layers import check_finite_context

MAGIC = b"PGMV"
VERSION = 1
_FIXED = struct.Struct("<BB8s")
_PREFIX = len(MAGIC) + SEAL_SIZE + _FIXED.size


@integers_checked
def compress_codes(
    model: VectorQuantizedModel,
    codes: Num[Tensor, ...] | Sequence[Num[Tensor, ...]],
    context: GivenContext = None,
    *,
    chunk_size: int = 256,
    threads: int = 1,
) -> bytes:
    """Compress codes without loss, each map under its prior given the maps above.

    Args:
        model: A :class:`~pyro_genmodels.models.VQVAE` or the like, with a uniform or learned prior.
        codes: What ``model.encode_codes`` returned.
        context: Labels or features, if the model is conditional.
        chunk_size: As for :func:`compress`.
        threads: As for :func:`compress`.

    Returns:
        A mark of the model, then for each map from the top what :func:`compress` makes of it.

    Raises:
        ValueError: If the codes do not fit, or a prior is one that cannot be coded with.
        ImportError: If constriction is not installed.

    Example:
        >>> import torch
        >>> from pyro_genmodels.models import VQVAE
        >>> model = VQVAE((1, 8, 8), num_levels=17, codebook=32)
        >>> codes = model.encode_codes(torch.randint(17, (100, 1, 8, 8)))
        >>> data = compress_codes(model, codes)
        >>> torch.equal(decompress_codes(model, data), codes)
        True
    """
    context = model.joined_context(context)
    maps = [codes] if isinstance(codes, Tensor) else list(codes)
    check_options(threads=threads, chunk_size=chunk_size)
    priors = model.code_priors
    check(len(maps) == len(priors), "codes", f"be {len(priors)} maps", len(maps))
    body = _FIXED.pack(VERSION, len(maps), fingerprint(model))
    streams = []
    with one_path(model, threads):
        for index, each in enumerate(maps):
            source = source_of(_law(priors[index], maps[:index], context))
            streams.append(write_stream(source, each, chunk_size, threads, _mark(context)))
    return MAGIC + sealed(body) + b"".join(streams)


def decompress_codes(model: VectorQuantizedModel, data: bytes, context: GivenContext = None) -> Any:
    """Return the codes that :func:`compress_codes` was given.

    Args:
        model: The model that they were compressed with.
        data: What :func:`compress_codes` returned.
        context: The same labels or features.

    Returns:
        ``int64`` codes as ``model.encode_codes`` gives them: a map, or a list of them.

    Raises:
        ValueError: If the data are damaged, or belong to another model or context.
        ImportError: If constriction is not installed.
    """
    context = model.joined_context(context)
    streams = _streams(data)
    (header, _), *_ = streams
    _, _, mark = _FIXED.unpack_from(data, _PREFIX - _FIXED.size)
    rule = "be written with this model"
    check(mark == fingerprint(model), "data", rule, "the mark of another")
    maps: list[Tensor] = []
    with one_path(model, header.environment.threads):
        for prior, (header, payload) in zip(model.code_priors, streams, strict=True):
            source = source_of(_law(prior, maps, context))
            maps.append(read_stream(source, header, payload, _mark(context)))
    return maps[0] if model.has_one_map else maps


@integers_checked
def compress_images(
    model: GenerativeModel,
    x: Num[Tensor, ...],
    context: GivenContext = None,
    *,
    chunk_size: int = 256,
    threads: int = 1,
) -> bytes:
    """Compress images with a model.

    Args:
        model: An :class:`~pyro_genmodels.models.AutoregressiveModel`, which loses nothing, or a
            :class:`~pyro_genmodels.models.VectorQuantizedModel`, which keeps the codes; or another
            that says by ``compresses`` which of both it does.
        x: Images ``(*batch, *event_shape)``.
        context: Labels or features, if the model is conditional.
        chunk_size: As for :func:`compress`.
        threads: As for :func:`compress`.

    Returns:
        Bytes for :func:`decompress_images`.

    Raises:
        ValueError: If the model is of another kind, or the images or context do not fit.
        ImportError: If constriction is not installed.

    Example:
        >>> import torch
        >>> from pyro_genmodels.models import pixelcnn
        >>> model = pixelcnn((1, 4, 4), num_levels=17, hidden_channels=8)
        >>> x = torch.randint(17, (10, 1, 4, 4))
        >>> torch.equal(decompress_images(model, compress_images(model, x)), x)
        True
    """
    able, context = _checked(model), model.joined_context(context)
    options = {"chunk_size": chunk_size, "threads": threads}
    if model.compresses == "codes":
        return compress_codes(able, able.encode_codes(x, context), context, **options)
    return compress(able.distribution(context), x, **options)


def decompress_images(
    model: GenerativeModel, data: bytes, context: GivenContext = None
) -> Num[Tensor, ...]:
    """Return the images that :func:`compress_images` was given, or what their codes keep of them.

    Args:
        model: The model that they were compressed with.
        data: What :func:`compress_images` returned.
        context: The same labels or features.

    Returns:
        ``int64`` levels; of a vector-quantised model the expected images given the codes.

    Raises:
        ValueError: If the data are damaged, or belong to another model or context.
        ImportError: If constriction is not installed.
    """
    able, context = _checked(model), model.joined_context(context)
    if model.compresses == "codes":
        return able.decode_codes(decompress_codes(able, data, context), context)
    return decompress(able.distribution(context), data)


@integers_checked
def ideal_bits(
    model: GenerativeModel,
    x: Num[Tensor, ...],
    context: GivenContext = None,
    *,
    chunk_size: int = 512,
) -> float:
    r"""Return :math:`-\log_2 p` of images, or of their codes: what no coder can go below.

    Args:
        model: As for :func:`compress_images`.
        x: Images ``(*batch, *event_shape)``.
        context: Labels or features ``(*batch, ...)``, if the model is conditional.
        chunk_size: Images that are scored at once.
    """
    if x.numel() == 0:
        return 0.0
    able, context = _checked(model), model.joined_context(context)
    scored = _Codes(able) if model.compresses == "codes" else able
    nats = elbo(scored, x, context, chunk_size=chunk_size)
    return -float(nats.double().sum()) / math.log(2)


class _Codes:
    """A vector-quantised model as one of its codes alone, for the scores that take a model."""

    def __init__(self, model: VectorQuantizedModel) -> None:
        self.model = model
        self.event_shape, self.context_event_dim = model.event_shape, model.context_event_dim

    def log_weights(self, x: Tensor, context: Tensor | None, *, num_particles: int) -> Tensor:
        """Return the codes' log-probability, which is the same for each particle."""
        nats = self.model.code_log_prob(x, context)
        return nats.expand(num_particles, *nats.shape)


def headers(data: bytes) -> list[Header]:
    """Return the headers of what :func:`compress_images` made."""
    return [header for header, _ in _streams(data)]


def _law(prior: Any, above: Sequence[Tensor], context: Tensor | None) -> Any:
    """Return a prior's law in float64, whatever conditions it included."""
    check_finite_context(context)
    if context is not None and context.is_floating_point():
        context = context.double()
    return in_float64(prior)(above, context)


def _streams(data: bytes) -> list[tuple[Header, bytes]]:
    """Take the streams apart: one of its own, or those of the maps."""
    if not data.startswith(MAGIC):
        header, payload, end = unpack(data)
        check_end(data, end)
        return [(header, payload)]
    check(len(data) >= _PREFIX, "data", "be whole", f"{len(data)} bytes")
    check_seal(data, len(MAGIC), _PREFIX)
    version, number, _ = _FIXED.unpack_from(data, _PREFIX - _FIXED.size)
    check(version == VERSION, "data", f"be of format {VERSION}", f"format {version}")
    found, end = list[tuple[Header, bytes]](), _PREFIX
    for _ in range(number):
        header, payload, end = unpack(data, end)
        found.append((header, payload))
    check_end(data, end)
    return found


def _checked(model: GenerativeModel) -> Any:
    """Return a model whose data or codes can be compressed, with the methods for it."""
    rule = "be an AutoregressiveModel or a VectorQuantizedModel, or another that `compresses`"
    check(model.compresses is not None, "model", rule, type(model).__name__)
    return model


def _mark(context: Tensor | None) -> bytes:
    return NO_CONTEXT if context is None else plain_digest(context)[:4]
