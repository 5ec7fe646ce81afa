"""A range coder, of which both directions are driven by one and the same program.

What codes an array asks ``coder.code(weights, symbols)`` for each batch of elements: writing, it
returns the symbols it was given, reading, those it finds (and is given none). So encoder and
decoder cannot evaluate a network in different ways.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_genmodels._checks import check, require
from pyro_genmodels._typing import Float, Int
from pyro_genmodels.compression.masses import run_masses
from pyro_genmodels.distributions.autoregressive import OutputLaw

# Weights keep so many binary digits, whatever their size: the rounding costs 10^-7 bits an
# element, and two evaluations that differ in the 14th digit seldom lie on two sides of an edge.
_DIGITS = 10
# The coder gives each symbol 2^-24 at least. What is far smaller is not asked how small.
_NO_WEIGHT = 2.0**-32
# An alphabet that is larger is coded in two steps, lest those 2^-24 add up.
_LARGEST_ALPHABET = 1024
_LARGEST_UNIFORM = 2**24 - 1


class Coder(ABC):
    """Writes or reads symbols."""

    def __init__(self) -> None:
        self._library = require("constriction", extra="compression").stream
        # Both options are spelled out: their defaults changed between versions.
        self._categorical = self._library.model.Categorical(lazy=True, perfect=False)

    def code(self, weights: np.ndarray, symbols: np.ndarray | None) -> np.ndarray:
        """Code a symbol for each row of weights."""
        return self._code(symbols, self._categorical, weights)

    def code_uniform(self, size: int, count: int, symbols: np.ndarray | None) -> np.ndarray:
        """Code symbols all of which are equally likely."""
        if size == 1:  # the library has no model of a single symbol
            return np.zeros(count, dtype=np.int32)
        return self._code(symbols, self._library.model.Uniform(size), count)

    @abstractmethod
    def _code(self, symbols: np.ndarray | None, model: Any, rows: np.ndarray | int) -> np.ndarray:
        """Code symbols by a model, one for each row of its weights, or so many without weights."""


class Writer(Coder):
    """Writes."""

    def __init__(self) -> None:
        super().__init__()
        self._coder = self._library.queue.RangeEncoder()

    def _code(self, symbols: np.ndarray | None, model: Any, rows: np.ndarray | int) -> np.ndarray:
        assert symbols is not None  # who writes knows them
        weights = [] if isinstance(rows, int) else [rows]
        self._coder.encode(symbols.astype(np.int32), model, *weights)
        return symbols

    def payload(self) -> bytes:
        """Return what was written."""
        words: np.ndarray = self._coder.get_compressed()
        return words.astype("<u4").tobytes()


class Reader(Coder):
    """Reads.

    Raises:
        ValueError: If the bytes are no whole words, or no weights like these can have led to them.
    """

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        check(len(payload) % 4 == 0, "data", "hold whole words", f"{len(payload)} bytes")
        words = np.frombuffer(payload, dtype="<u4").astype(np.uint32)
        self._coder = self._library.queue.RangeDecoder(words)

    def _code(self, symbols: np.ndarray | None, model: Any, rows: np.ndarray | int) -> np.ndarray:
        try:
            found: np.ndarray = self._coder.decode(model, rows)
        except AssertionError as error:  # the library's word for it
            raise AstrayError from error
        return found


class AstrayError(Exception):
    """The network that reads gives other probabilities than the one that wrote."""


def code_uniform(
    coder: Coder, num_levels: int, count: int, levels: Int[Tensor, " count"] | None
) -> Int[Tensor, " count"]:
    """Code elements that are uniform over their levels, ``log2(num_levels)`` bits each."""
    rule = f"be at most {_LARGEST_UNIFORM} to be coded"
    check(num_levels <= _LARGEST_UNIFORM, "num_levels", rule, num_levels)
    given = None if levels is None else levels.cpu().numpy()
    return torch.from_numpy(coder.code_uniform(num_levels, count, given)).long()


def code_element(
    coder: Coder,
    law: OutputLaw,
    parameters: Float[Tensor, "batch parameters"],
    num_levels: int,
    level: Int[Tensor, " batch"] | None,
) -> Int[Tensor, " batch"]:
    """Code the same element of a batch; where there are many levels, first a run of them."""
    start = torch.zeros(len(parameters), dtype=torch.long, device=parameters.device)
    count, width = num_levels, 1
    if num_levels > _LARGEST_ALPHABET:
        width = 1 << ((num_levels - 1).bit_length() + 1) // 2
        runs = -(-num_levels // width)
        run = None if level is None else level // width
        start = _coded(coder, law, parameters, start, runs, width, num_levels, run) * width
        count = width
    inside = None if level is None else level - start
    return start + _coded(coder, law, parameters, start, count, 1, num_levels, inside)


def _coded(
    coder: Coder,
    law: OutputLaw,
    parameters: Tensor,
    start: Tensor,
    count: int,
    width: int,
    num_levels: int,
    symbol: Tensor | None,
) -> Tensor:
    masses = run_masses(law, parameters, start, count, width, num_levels)
    given = None if symbol is None else symbol.cpu().numpy()
    coded = coder.code(rounded(masses.cpu().numpy()), given)
    return torch.from_numpy(np.asarray(coded)).to(start)


def rounded(masses: np.ndarray) -> np.ndarray:
    """Return weights with few binary digits, in proportion to masses, a row at a time.

    From here on nothing is rounded in a way that depends on the machine.

    Raises:
        ValueError: If some are not finite.

    Example:
        >>> rounded(np.array([[0.5, 1 / 3, 1e-30]]))
        array([[1.        , 0.66699219, 0.        ]])
    """
    check(bool(np.isfinite(masses).all()), "net", "give finite parameters", "NaN or infinite ones")
    top = masses.max(-1, keepdims=True)
    # Where all vanish each is as likely: such a run is coded once in a lifetime.
    relative = np.where(top > 0, masses, 1.0) / np.where(top > 0, top, 1.0)
    mantissa, exponent = np.frexp(relative)
    weights = np.ldexp(np.rint(np.ldexp(mantissa, _DIGITS)), exponent - _DIGITS)
    weights[relative < _NO_WEIGHT] = 0.0
    return np.ascontiguousarray(weights)
