"""What a compressed stream is made of: a header of some fifty bytes, then the coder's words."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, NoReturn

from pyro_genmodels._checks import check
from pyro_genmodels._typing import EventShape

MAGIC = b"PGMZ"
VERSION = 1
DEVICES = ("cpu", "cuda", "mps", "another device")
SEAL_SIZE = 4
# Of these sizes nothing but the shapes and the payload's length varies; those follow.
_FIXED = struct.Struct("<BBB3B2BHI8s4s8s")
_PREFIX = len(MAGIC) + SEAL_SIZE
# A damaged length must not be taken for a number of any size.
_LONGEST_NUMBER, _HIGHEST_RANK = 9, 32


@dataclass(frozen=True)
class Environment:
    """What a network's rounding can depend on, beside the order of its operations.

    Attributes:
        torch: Version of torch.
        constriction: Version of the coder.
        device: Type of the device.
        threads: Threads that the CPU's kernels were shared out to.
    """

    torch: tuple[int, int, int]
    constriction: tuple[int, int]
    device: str
    threads: int

    def __str__(self) -> str:
        """Name versions and device."""
        torch, coder = (".".join(map(str, part)) for part in (self.torch, self.constriction))
        return f"torch {torch} on {self.device} with constriction {coder}"


@dataclass(frozen=True)
class Header:
    """What a stream says of itself.

    Attributes:
        batch_shape: Leading sizes of the array.
        event_shape: Sizes of one data point.
        num_levels: Elements are integers ``0 .. num_levels - 1``.
        chunk_size: Data points that the network was evaluated on at once.
        environment: Where it was written.
        network: Fingerprint of the distribution.
        context: Fingerprint of what it was conditioned on.
        levels: Fingerprint of the array.
        payload_size: Bytes after the header.
        size: Bytes of the header itself.
    """

    batch_shape: EventShape
    event_shape: EventShape
    num_levels: int
    chunk_size: int
    environment: Environment
    network: bytes
    context: bytes
    levels: bytes
    payload_size: int
    size: int = 0

    @property
    def num_bits(self) -> int:
        """Bits of header and payload together."""
        return 8 * (self.size + self.payload_size)


def pack(header: Header, payload: bytes) -> bytes:
    """Return the stream; ``header``'s sizes in bytes are taken from what is written."""
    made_by = header.environment
    body = _FIXED.pack(
        VERSION,
        DEVICES.index(made_by.device),
        made_by.threads,
        *made_by.torch,
        *made_by.constriction,
        header.chunk_size,
        header.num_levels,
        header.network,
        header.context,
        header.levels,
    )
    for shape in (header.batch_shape, header.event_shape):
        body += b"".join(map(_number, (len(shape), *shape)))
    body += _number(len(payload)) + payload
    return MAGIC + sealed(body)


def sealed(body: bytes) -> bytes:
    """Return bytes behind their checksum."""
    return zlib.crc32(body).to_bytes(SEAL_SIZE, "little") + body


def check_seal(data: bytes, start: int, end: int) -> None:
    """Raise ``ValueError`` unless what lies there is what :func:`sealed` made."""
    body = start + SEAL_SIZE
    intact = zlib.crc32(data[body:end]) == int.from_bytes(data[start:body], "little")
    check(intact, "data", "be as it was written", "another checksum: it is damaged")


def unpack(data: bytes, start: int = 0) -> tuple[Header, bytes, int]:
    """Read one stream.

    Args:
        data: Bytes that hold it.
        start: Where in them it begins.

    Returns:
        Its header, its payload, and where it ends.

    Raises:
        ValueError: If the bytes are no stream, one of a later format, cut short or altered.
    """
    magic = data[start : start + len(MAGIC)]
    # A stream cut within its first bytes is cut short, not foreign.
    check(MAGIC.startswith(magic) and bool(magic), "data", f"begin with {MAGIC!r}", magic)
    reader = _Reader(data, start + _PREFIX)
    version, device, *numbers, network, context, levels = reader.fixed()
    check(version == VERSION, "data", f"be of format {VERSION}", f"format {version}")
    threads, *versions, chunk_size, num_levels = numbers
    shapes = reader.shape(), reader.shape()
    payload = reader.bytes(reader.number())
    check_seal(data, start + len(MAGIC), reader.position)
    where = DEVICES[min(device, len(DEVICES) - 1)]
    made_by = Environment(tuple(versions[:3]), tuple(versions[3:]), where, threads)
    header = Header(
        *shapes,
        num_levels,
        chunk_size,
        made_by,
        network,
        context,
        levels,
        len(payload),
        reader.position - start - len(payload),
    )
    return header, payload, reader.position


def read_header(data: bytes) -> Header:
    """Return what a stream says of itself; the payload is checked for damage, but not decoded.

    Args:
        data: What :func:`compress` returned.

    Raises:
        ValueError: If it is no such stream, or was cut short or altered.
    """
    header, _, end = unpack(data)
    check_end(data, end)
    return header


def check_end(data: bytes, end: int) -> None:
    """Raise ``ValueError`` if bytes follow the stream."""
    rule = f"end with the stream, after {end} bytes"
    check(end == len(data), "data", rule, f"{len(data)} bytes")


def _number(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    digits = [value >> 7 * i & 127 for i in range(max(1, -(-value.bit_length() // 7)))]
    return bytes([digit | 128 for digit in digits[:-1]] + digits[-1:])


class _Reader:
    """Takes the parts of a stream, none of which may reach beyond its end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self.position = data, position

    def fixed(self) -> tuple[Any, ...]:
        return _FIXED.unpack(self.bytes(_FIXED.size))

    def bytes(self, number: int) -> bytes:
        part = self._data[self.position : self.position + number]
        if len(part) < number:
            self._fail(f"{len(self._data)} bytes where at least {self.position + number} belong")
        self.position += number
        return part

    def number(self) -> int:
        value = 0
        for i in range(_LONGEST_NUMBER):
            (digit,) = self.bytes(1)
            value |= (digit & 127) << 7 * i
            if digit < 128:
                return value
        return self._fail("a size without end")

    def shape(self) -> tuple[int, ...]:
        rank = self.number()
        if rank > _HIGHEST_RANK:
            self._fail(f"an array of rank {rank}")
        return tuple(self.number() for _ in range(rank))

    def _fail(self, found: str) -> NoReturn:
        raise ValueError(f"`data` must be whole and as it was written; got {found}.")
