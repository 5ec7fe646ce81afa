"""Text, or bytes, as sequences of symbols."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from pyro_genmodels._checks import check, check_choice, check_positive, check_trailing
from pyro_genmodels._files import written_whole
from pyro_genmodels._typing import Int, Num
from pyro_genmodels.data.base.data_source import DataSource, Items
from pyro_genmodels.data.base.splits import blocks, fraction_of, split
from pyro_genmodels.data.files.listing import check_no_parts, listed_files
from pyro_genmodels.data.sequences import missing_dtype, pad_sequences

TextUnit = Literal["window", "line"]
TEXT_SUFFIXES = (".txt",)
WINDOW = 128


class Lines(Dataset[tuple[Tensor, ...]]):
    """Lines as sequences of one length: symbols, the end symbol, and NaN from there on.

    Args:
        codes: The symbols of all lines, one after another.
        places: First place of each line among them, and its length, ``(n, 2)``.
        length: Length of all sequences. A line that fills it has no end symbol; a longer one ends
            there.
        end_symbol: What stands behind a line.
    """

    def __init__(
        self, codes: Tensor, places: Int[Tensor, "n two"], length: int, end_symbol: int
    ) -> None:
        self.codes, self.places, self.length, self.end_symbol = codes, places, length, end_symbol
        self.dtype = missing_dtype(end_symbol + 1)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        first, size = self.places[index].tolist()
        size = min(size, self.length)
        x = torch.full((self.length,), torch.nan, dtype=self.dtype)
        x[:size] = self.codes[first : first + size]
        x[size : size + 1] = self.end_symbol
        return (x,)


class Text(DataSource):
    r"""Text files as sequences of characters, or any files as sequences of bytes.

    Symbols are numbered in the order of their code points. Windows are pieces of one length, one
    after another, and what remains behind the last of a file is left out; of all of them in order,
    the first are for training, then come validation and test. Lines are sequences of different
    lengths, split at random, empty ones left out: a further level, :attr:`end_symbol`, stands
    behind a line that is shorter than ``length``, and what comes after it is missing. So a model
    has one distribution over all lines up to that length. In its samples what comes after the end
    symbol means nothing; :meth:`decode` and :meth:`write` cut it off.

    Args:
        path: A file of text, or a folder: all ``.txt`` files in it and in its folders.
        unit: ``"window"`` for pieces of one length, ``"line"`` for lines.
        length: Symbols of a sequence: 128 of a window; of lines by default as many as the longest
            has. Longer lines are cut.
        bytes: Whether symbols are the 256 bytes, of files of any kind, in the place of characters.
        validation_fraction: Part of the sequences for validation.
        test_fraction: Part of the sequences for test.
        seed: Seed of the split of lines.

    Attributes:
        symbols: The characters, in the order of their levels; ``None`` for bytes.
        end_symbol: The level that ends a line; ``None`` for windows.
        files: The files.

    Raises:
        ValueError: If there is no text, or too little, or it is not UTF-8.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "names.txt"
        >>> _ = path.write_text("ada\nemmy\nsofia\nmary\nmarie\n")
        >>> names = Text(str(path), unit="line")
        >>> names
        names.txt(3/1/1 of shape (5,), 11 levels)
        >>> names.decode(names.encode("emmy"))
        'emmy'
    """

    path_argument: ClassVar[str | None] = "path"
    sample_suffixes: ClassVar[tuple[str, ...]] = (*DataSource.sample_suffixes, ".txt")

    def __init__(
        self,
        path: str,
        *,
        unit: TextUnit = "window",
        length: int | None = None,
        bytes: bool = False,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        check_choice("unit", unit, get_args(TextUnit))
        if length is not None:
            check_positive(length=length)
        self._place = path
        self.files = _files(Path(path).expanduser())
        texts: list[Any] = [_read(each, bytes) for each in self.files]
        if unit == "line":
            newline = b"\n" if bytes else "\n"
            texts = [line for text in texts for line in text.split(newline) if line]
        self.symbols = None if bytes else sorted(set().union(*texts))
        count = 256 if self.symbols is None else len(self.symbols)
        check(count > 1, "path", "hold text of at least two different symbols", repr(path))
        self._levels = {symbol: level for level, symbol in enumerate(self.symbols or ())}
        self.end_symbol = count if unit == "line" else None
        fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
        parts: list[Items]
        notes = ["bytes" if bytes else f"{count} characters"]
        if self.end_symbol is None:
            length = length or WINDOW
            windows = torch.cat([_windows(self._coded(text), length) for text in texts])
            rule = f"hold at least three windows of length={length}"
            check(len(windows) >= 3, "path", rule, f"{len(windows)} in {path!r}")
            sizes = [fraction_of(len(windows), f, name) for name, f in fractions.items()]
            parts = [TensorDataset(windows[part]) for part in blocks(len(windows), sizes)]
        else:
            check(len(texts) >= 3, "path", "hold at least three lines", f"{len(texts)} in {path!r}")
            sizes = [fraction_of(len(texts), f, name) for name, f in fractions.items()]
            lengths = torch.tensor([len(line) for line in texts])
            places = torch.stack([lengths.cumsum(0) - lengths, lengths], 1)
            codes = self._coded((b"" if bytes else "").join(texts))
            longest = int(lengths.max())
            length = length or longest
            if longest > length:
                cut = int((lengths > length).sum())
                notes.append(f"{cut} of {len(lengths)} lines cut, the longest of {longest} symbols")
            parts = [
                Lines(codes, places[rows], length, self.end_symbol)
                for rows in split(len(texts), sizes, seed)
            ]
            notes.append(f"level {count} ends a line")
        levels, missing = count + (unit == "line"), unit == "line"
        super().__init__(*parts, num_levels=levels, missing=missing, notes=notes)

    def encode(self, text: str, *, argument: str = "text") -> Tensor:
        """Return one sequence of symbols, NaN from where the text ends, for a model to complete.

        Args:
            text: At most as long as the data are; characters that occur in them.
            argument: What an error calls it.

        Returns:
            ``(length,)``, without an end symbol.

        Raises:
            ValueError: If the text is longer, or has another character.
        """
        unknown = set() if self.symbols is None else set(text) - self._levels.keys()
        shown = repr("".join(sorted(unknown)))[1:-1]  # one line whatever they are
        check(not unknown, argument, "have only characters of the data", shown)
        # A byte of a command line that is not UTF-8 comes as a surrogate.
        raw = text.encode(errors="surrogateescape") if self.symbols is None else text
        codes = self._coded(raw)
        most = self.event_shape[0]
        check(len(codes) <= most, argument, f"have at most {most} symbols", len(codes))
        return pad_sequences([codes], most)[0]

    def decode(self, x: Num[Tensor, "*batch length"]) -> str | list[str]:
        """Return sequences as text, cut where each ends.

        Args:
            x: Levels ``(length,)`` or ``(n, length)``.

        Returns:
            One text, or a list of them. Bytes that are no UTF-8 become replacement characters.

        Raises:
            ValueError: If ``x`` has another shape.
        """
        check_trailing("x", x, self.event_shape)
        if x.dim() > 1:
            return [str(self.decode(row)) for row in x]
        end = -1 if self.end_symbol is None else self.end_symbol
        ends = (x.isnan() | (x == end)).nonzero()
        levels = x[: int(ends[0])] if len(ends) else x
        if self.symbols is None:
            return levels.to(torch.uint8).numpy().tobytes().decode("utf-8", "replace")
        return "".join(self.symbols[level] for level in levels.long().tolist())

    def _write(self, x: Tensor, path: Path) -> None:
        if path.suffix != ".txt":
            return super()._write(x, path)
        between = "\n\n" if self.end_symbol is None else "\n"
        with written_whole(path) as temporary:
            text = between.join([*self.decode(x), ""])
            temporary.write_text(text, encoding="utf-8", newline="\n")
        return None

    def _coded(self, text: str | memoryview | bytearray | bytes) -> Tensor:
        """Return the levels of characters or bytes."""
        if not isinstance(text, str):
            return torch.from_numpy(np.frombuffer(text, np.uint8).copy())
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        kind = np.uint8 if len(self._levels) < 2**8 else np.int32
        table = np.zeros(1 + max(map(ord, self._levels)), kind)
        table[[ord(symbol) for symbol in self._levels]] = range(len(self._levels))
        return torch.from_numpy(table[points])


def _files(place: Path) -> list[Path]:
    check(place.exists(), "path", "be a file or a folder", repr(str(place)))
    found = listed_files(place, TEXT_SUFFIXES) if place.is_dir() else [place]
    if place.is_dir():
        check_no_parts(found, place)
    check(bool(found), "path", f"hold files that end in {TEXT_SUFFIXES[0]}", repr(str(place)))
    return found


def _read(path: Path, as_bytes: bool) -> str | bytes:
    raw = path.read_bytes()
    if as_bytes:
        return raw
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        rule = "hold UTF-8 text (files of another kind can be read as bytes)"
        given = f"byte 0x{raw[error.start]:02x} at offset {error.start} of {str(path)!r}"
        raise ValueError(f"`path` must {rule}; got {given}.") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _windows(codes: Tensor, length: int) -> Tensor:
    number = len(codes) // length
    return codes[: number * length].view(number, length)
