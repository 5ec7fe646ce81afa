"""Sound files as sequences, read window by window."""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels._checks import check, check_choice, check_positive, check_trailing, require
from pyro_genmodels._files import written_whole
from pyro_genmodels._typing import Float, Int, Num
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.splits import blocks, fraction_of, split
from pyro_genmodels.data.files.listing import check_no_parts, listed_files
from pyro_genmodels.data.mu_law import mu_law_decode, mu_law_encode
from pyro_genmodels.data.sequences import missing_dtype

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aif", ".aiff")
UNREADABLE_AUDIO = (".mp3", ".m4a", ".aac", ".wma", ".opus", ".amr")
"""Suffixes of sounds that are not read: such a file is an error, and never left out."""
MOST_HERTZ = 768_000
# Samples of all channels read at once while a file is verified.
_BLOCK = 2**18
# What a stream writes for a length that it does not know is about 2**32.
_UNKNOWN_LENGTH = 2**31
_PAUSE_SECONDS = 0.25
# Lists of files and labels, which folders of images may have.
_TABLES = ("metadata.csv", "labels.csv")


class Windows(Dataset[tuple[Tensor, ...]]):
    """Windows of sound files, each read from its file when it is asked for.

    Args:
        files: The files.
        places: File, and first step at the common rate, of each window, ``(n, 2)``.
        labels: One a file, if any.
        length: Steps of a window; what lies behind the end of a file is NaN.
        sample_rate: Common rate, in Hz.
        num_levels: Levels of the mu-law; ``None`` for amplitudes.
        missing: Whether windows may be short.
    """

    def __init__(
        self,
        files: Sequence[Path],
        places: Int[Tensor, "n two"],
        labels: Sequence[int] | None,
        *,
        length: int,
        sample_rate: int,
        num_levels: int | None,
        missing: bool,
    ) -> None:
        self.files, self.places, self.labels = files, places, labels
        self.length, self.sample_rate, self.num_levels = length, sample_rate, num_levels
        few = torch.uint8 if num_levels is not None and num_levels <= 256 else torch.int32
        exact = missing or num_levels is None
        self.dtype = missing_dtype(num_levels) if exact else few

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        file, first = self.places[index].tolist()
        sound = torch.from_numpy(_resampled(self.files[file], first, self.length, self.sample_rate))
        if self.num_levels is not None:
            sound = mu_law_encode(sound, self.num_levels)
        short = self.length - len(sound)
        x = torch.nn.functional.pad(
            sound.to(self.dtype), (0, short), value=torch.nan if short else 0
        )
        return (x,) if self.labels is None else (x, torch.tensor(self.labels[file]))


class Audio(DataSource):
    """Sound files as sequences of levels: windows of one length, at one rate, in one channel.

    A folder holds sound files, or folders of them, which are the classes. Channels are averaged,
    files of another rate are resampled, and amplitudes in [-1, 1] become levels by the mu-law.
    Three files or more are split at random, so that no file is in two parts; fewer are cut into
    three blocks each. Files are decoded once when the source is made, which finds those that cannot
    be read, and again window by window.

    Args:
        path: A sound file (WAV, FLAC, Ogg Vorbis, AIFF), or a folder.
        length: Steps of a window.
        sample_rate: Steps a second; by default that of the files, which must be the same in all.
        num_levels: Levels of the mu-law; ``None`` leaves amplitudes as they are.
        missing: Whether the rest behind a file's last whole window is a window too, whose end is
            missing, as NaN; if not, it is left out.
        on_bad: ``"error"`` if files cannot be read; ``"skip"`` leaves them out.
        validation_fraction: Part of the files for validation.
        test_fraction: Part of the files for test.
        seed: Seed of the split.

    Attributes:
        files: The files that are read.
        skipped: The names of those that were left out, with the reason of each.

    Raises:
        ValueError: If there are no sound files, some cannot be read, their rates differ, or they
            are too short.
        ImportError: If soundfile is not installed.
    """

    path_argument: ClassVar[str | None] = "path"
    sample_suffixes: ClassVar[tuple[str, ...]] = (*DataSource.sample_suffixes, ".wav")

    def __init__(
        self,
        path: str,
        *,
        length: int = 1024,
        sample_rate: int | None = None,
        num_levels: int | None = 256,
        missing: bool = False,
        on_bad: Literal["error", "skip"] = "error",
        validation_fraction: float = 0.1,
        test_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        check_choice("on_bad", on_bad, ("error", "skip"))
        check_positive(length=length)
        if sample_rate is not None:
            within = 0 < sample_rate <= MOST_HERTZ
            check(within, "sample_rate", f"be from 1 to {MOST_HERTZ} Hz", sample_rate)
        self._place = path
        place = Path(path).expanduser()
        files, labels, classes = _listed(place)
        found = list(zip(files, labels, _facts(files), strict=True))
        # By their names in the folder: wherever it lies, what was left out is the same.
        root = place if place.is_dir() else place.parent
        bad = {os.path.relpath(file, root): fact for file, _, fact in found}
        self.skipped = {name: fact for name, fact in bad.items() if isinstance(fact, str)}
        reasons = "; ".join(f"{name}: {reason}" for name, reason in self.skipped.items())
        allowed = len(files) - 1 if on_bad == "skip" else 0
        rule = "hold readable sound files (on_bad='skip' leaves others out)"
        check(len(self.skipped) <= allowed, "path", rule, f"in '{place}': {reasons}")
        good = [(file, label, *fact) for file, label, fact in found if isinstance(fact, tuple)]
        self.files = [file for file, *_ in good]
        self.sample_rate = sample_rate or _common_rate(
            self.files, [rate for *_, rate, _, _ in good]
        )
        sizes = [-(-frames * self.sample_rate // rate) for *_, rate, frames, _ in good]
        counts = [-(-size // length) if missing else size // length for size in sizes]
        rule = f"hold sound of at least length={length} steps (missing=True takes shorter ones)"
        check(max(counts) > 0, "path", rule, f"{max(sizes)} at most")
        notes = [f"{self.sample_rate} Hz, windows of {length / self.sample_rate:.3g} s"]
        if self.skipped:
            notes.append(f"{len(self.skipped)} of {len(files)} files left out ({reasons})")
        tables = [name for name in _TABLES if place.is_dir() and (place / name).is_file()]
        notes += [f"{name} left out: classes of sounds are folders" for name in tables]
        if num_levels is not None and (peak := max(peak for *_, peak in good)) > 1:
            notes.append(f"amplitudes up to {peak:.3g} clipped at 1")
        if dropped := sum(max(0, size - n * length) for size, n in zip(sizes, counts, strict=True)):
            seconds, whole = dropped / self.sample_rate, sum(sizes) / self.sample_rate
            rest = "behind the last whole windows left out, kept by missing=True"
            notes.append(f"{seconds:.3g} of {whole:.3g} s {rest}")
        fractions = {"validation_fraction": validation_fraction, "test_fraction": test_fraction}
        options: dict[str, Any] = {"num_levels": num_levels, "missing": missing}
        parts = [
            Windows(
                self.files,
                torch.tensor(places) * torch.tensor([1, length]),
                [label for _, label, *_ in good] if classes else None,
                length=length,
                sample_rate=self.sample_rate,
                **options,
            )
            for places in _split(counts, fractions, seed)
        ]
        options |= {"num_classes": len(classes) or None, "classes": classes or None, "notes": notes}
        super().__init__(*parts, **options)

    def decode(self, x: Num[Tensor, "*batch length"]) -> Float[Tensor, "*batch length"]:
        """Return sequences as amplitudes in [-1, 1], NaN where they are missing.

        Args:
            x: Data ``(*batch, length)``.

        Raises:
            ValueError: If ``x`` has another shape.
        """
        check_trailing("x", x, self.event_shape)
        sound = x.to(torch.promote_types(x.dtype, torch.float32))
        return sound if self.num_levels is None else mu_law_decode(sound, self.num_levels)

    def _write(self, x: Tensor, path: Path) -> None:
        """Write; of several sounds one after another, with a pause between them."""
        if path.suffix != ".wav":
            return super()._write(x, path)
        pause, sounds = torch.zeros(round(_PAUSE_SECONDS * self.sample_rate)), self.decode(x)
        pieces = [piece for sound in sounds for piece in (sound[~sound.isnan()], pause)][:-1]
        whole = torch.cat(pieces).clamp(-1, 1).numpy()
        with written_whole(path) as temporary:
            require("soundfile", extra="audio").write(temporary, whole, self.sample_rate)
        return None


def _listed(place: Path) -> tuple[list[Path], list[int], list[str]]:
    """Return the sound files, the label of each, and the classes, if they lie in folders."""
    check(place.exists(), "path", "be a file or a folder", repr(str(place)))
    if not place.is_dir():
        return [place], [0], []
    files = listed_files(place, (*AUDIO_SUFFIXES, *UNREADABLE_AUDIO))
    check_no_parts(files, place)
    rule = "hold sound files, or folders of them"
    check(bool(files), "path", rule, f"none of {', '.join(AUDIO_SUFFIXES)} in {str(place)!r}")
    folders = [file.relative_to(place).parts[:-1] for file in files]
    flat = sum(not parts for parts in folders)
    rule = "hold either sound files or folders of them, the classes"
    check(flat in (0, len(files)), "path", rule, f"{flat} files beside the folders")
    if flat:
        return files, [0] * len(files), []
    classes = sorted({parts[0] for parts in folders})
    return files, [classes.index(parts[0]) for parts in folders], classes


def _facts(files: Sequence[Path]) -> list[tuple[int, int, float] | str]:
    """Return rate, number of frames and peak of each file, or why it cannot be read."""
    from tqdm.auto import tqdm

    require("soundfile", extra="audio")
    # Decoding leaves Python's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        found = pool.map(_facts_of, files)
        return list(tqdm(found, "sound files", len(files), delay=5, disable=None, leave=False))


def _facts_of(path: Path) -> tuple[int, int, float] | str:
    soundfile = require("soundfile", extra="audio")
    if path.suffix.lower() in UNREADABLE_AUDIO:
        return f"{path.suffix} files are not read: convert to WAV or FLAC"
    try:
        with soundfile.SoundFile(path) as file:
            frames, peak, size = 0, 0.0, max(1, _BLOCK // file.channels)
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                frames += len(block)
                peak = max(peak, float(np.abs(block).max()))
                if not np.isfinite(block).all():
                    return "NaN or infinite amplitudes"
            rate, log = file.samplerate, file.extra_info
    except (OSError, RuntimeError) as error:
        return str(error).partition(": ")[2].rstrip(".") or str(error)
    # The library reads what is there of a file that breaks off, and says so in its log alone.
    sizes = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    if sizes is not None and int(sizes[2]) < int(sizes[1]) < _UNKNOWN_LENGTH:
        return f"it breaks off after {sizes[2]} of {sizes[1]} bytes"
    if frames == 0 or not 0 < rate <= MOST_HERTZ:
        return f"{frames} steps at {rate} Hz"
    return rate, frames, peak


def _common_rate(files: Sequence[Path], rates: Sequence[int]) -> int:
    given = {rate: f"{rate} Hz in {str(file)!r}" for file, rate in zip(files, rates, strict=True)}
    rule = "be given for files of different rates"
    check(len(given) == 1, "sample_rate", rule, ", ".join(given.values()))
    return rates[0]


def _split(
    counts: Sequence[int], fractions: Mapping[str, float], seed: int
) -> list[list[tuple[int, int]]]:
    """Return the windows of each part, as file and number in it."""
    files = [file for file, count in enumerate(counts) if count]
    if len(files) >= 3:
        sizes = [fraction_of(len(files), fraction, name) for name, fraction in fractions.items()]
        chosen = split(len(files), sizes, seed)
        return [[(files[i], n) for i in part for n in range(counts[files[i]])] for part in chosen]
    rule = "hold at least three files, or three windows in each"
    check(min(counts[file] for file in files) >= 3, "path", rule, f"{[*counts]} windows")
    parts = [
        blocks(counts[file], [fraction_of(counts[file], f, name) for name, f in fractions.items()])
        for file in files
    ]
    return [
        [(file, n) for file, part in zip(files, parts, strict=True) for n in _range(part[which])]
        for which in range(3)
    ]


def _range(part: slice) -> range:
    return range(part.start, part.stop)


def _resampled(path: Path, first: int, length: int, sample_rate: int) -> Any:
    """Return steps of a file at a rate, in one channel; fewer behind its end.

    With as much around them as the filter sees, so that they are those of the whole file resampled.
    """
    with require("soundfile", extra="audio").SoundFile(path) as file:
        common = math.gcd(sample_rate, file.samplerate)
        up, down = sample_rate // common, file.samplerate // common
        reach = 0 if up == down else 2 + 10 * max(up, down) // down
        # What is read begins at a step of both rates.
        periods = max(0, first - reach) // up
        file.seek(min(periods * down, file.frames))
        size = -(-(first + length + reach) * down // up) - periods * down
        sound = file.read(size, dtype="float32", always_2d=True).mean(1)
    if up != down:
        signal = require("scipy.signal", extra="audio")
        sound = signal.resample_poly(sound, up, down, window=_filter(up, down))
    start = first - periods * up
    return sound[start : start + length]


@functools.lru_cache
def _filter(up: int, down: int) -> Any:
    """Return SciPy's default filter, of which the design takes longer than a window's reading."""
    signal = require("scipy.signal", extra="audio")
    largest = max(up, down)
    taps = signal.firwin(2 * 10 * largest + 1, 1 / largest, window=("kaiser", 5.0))
    return taps.astype(np.float32)
