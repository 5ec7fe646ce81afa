"""Sound files as sequences of levels."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data import Audio, lengths, mu_law_encode, open_source

soundfile = pytest.importorskip("soundfile")
signal = pytest.importorskip("scipy.signal")

RATE = 8000


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0, channels: int = 1) -> Any:
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hertz * time)
    return np.stack([wave * (1 + i) / channels for i in range(channels)], 1)


def written(path: Path, sound: Any = None, rate: int = RATE, subtype: str = "PCM_16") -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    subtype = "VORBIS" if path.suffix == ".ogg" else subtype
    soundfile.write(path, tone(rate=rate) if sound is None else sound, rate, subtype=subtype)
    return str(path)


def every(source: Audio) -> torch.Tensor:
    parts: Any = source.splits.values()
    return torch.stack([part[i][0] for part in parts for i in range(len(part))])


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_windows_are_the_file_in_order(subtype: str, tmp_path: Path) -> None:
    source = Audio(written(tmp_path / "a.wav", subtype=subtype), length=100)
    assert (source.sample_rate, source.num_levels) == (RATE, 256)
    sound, _ = soundfile.read(tmp_path / "a.wav", dtype="float32")
    assert torch.equal(every(source).flatten().long(), mu_law_encode(torch.from_numpy(sound)))
    assert [len(part) for part in source.splits.values()] == [64, 8, 8]  # type: ignore[arg-type]


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".aiff"])
def test_other_formats(suffix: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"a{suffix}")
    source = Audio(path, length=100, num_levels=None)
    sound, _ = soundfile.read(path, dtype="float32")
    torch.testing.assert_close(every(source).flatten(), torch.from_numpy(sound))


def test_channels_are_averaged(tmp_path: Path) -> None:
    sound = tone(channels=3)
    source = Audio(written(tmp_path / "a.wav", sound), length=100, num_levels=None)
    torch.testing.assert_close(
        every(source).flatten().double(), torch.from_numpy(sound.mean(1)), rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("rates", [(44100, 16000), (8000, 22050), (48000, 8000), (16000, 16000)])
def test_windows_are_those_of_the_whole_file_resampled(
    rates: tuple[int, int], tmp_path: Path
) -> None:
    """So no window begins or ends with what a filter makes of an edge."""
    before, after = rates
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, before // 2)
    path = written(tmp_path / "a.wav", sound, before, subtype="FLOAT")
    source = Audio(path, length=97, sample_rate=after, num_levels=None, missing=True)
    whole = signal.resample_poly(sound.astype(np.float32), after, before)
    found = every(source).flatten()
    assert lengths(found) == len(whole) == after // 2
    torch.testing.assert_close(
        found[: len(whole)], torch.from_numpy(whole).float(), rtol=0, atol=2e-6
    )


def test_rates_that_differ_need_one(tmp_path: Path) -> None:
    for index, rate in enumerate((8000, 16000, 8000)):
        written(tmp_path / f"{index}.wav", rate=rate)
    with pytest.raises(ValueError, match=r"`sample_rate` must be given.*16000 Hz in '.*1.wav'"):
        Audio(str(tmp_path))
    source = Audio(str(tmp_path), sample_rate=8000)
    assert len(every(source)) == 3 * 7


def test_folders_are_classes_and_no_file_is_in_two_parts(tmp_path: Path) -> None:
    for name in ("dog", "cat", ".cache", "__MACOSX"):
        for index in range(10):
            hertz = 100.0 * index + (1000 if name == "dog" else 100)
            written(tmp_path / name / "deep" / f"{index}.wav", tone(hertz=hertz))
    source = Audio(str(tmp_path), length=500)
    assert (source.classes, source.num_classes) == (["cat", "dog"], 2)
    assert len(source.files) == 20
    seen: list[set[int]] = []
    for part in source.splits.values():
        items: Any = part
        for i in range(len(items)):
            label = items[i][1]
            file = source.files[int(items.places[i, 0])]
            assert (source.classes or [])[int(label)] == file.relative_to(tmp_path).parts[0]
        seen.append(set(items.places[:, 0].tolist()))
    assert [len(files) for files in seen] == [16, 2, 2]
    assert len(set.union(*seen)) == 20
    again = build(configuration(source))
    assert torch.equal(every(again), every(source))
    written(tmp_path / "more.wav")
    with pytest.raises(ValueError, match="either sound files or folders of them"):
        Audio(str(tmp_path))


def test_the_rest_of_a_file_is_dropped_or_missing(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav", tone(0.5))
    source = Audio(path, length=300)
    assert "0.0125 of 0.5 s behind the last whole windows left out" in source.summary
    assert len(every(source)) == 13
    assert source.train[0][0].dtype == torch.uint8
    source = Audio(path, length=300, missing=True)
    assert source.notes == ["8000 Hz, windows of 0.0375 s"]
    x = every(source)
    assert (source.missing, x.dtype, len(x)) == (True, torch.float16, 14)
    assert lengths(x).tolist() == [300] * 13 + [100]
    with pytest.raises(ValueError, match="at least length=9000 steps"):
        Audio(path, length=9000)


def test_short_files_are_padded(tmp_path: Path) -> None:
    for index in range(5):
        written(tmp_path / f"{index}.wav", tone(0.01 * (index + 1)))
    source = Audio(str(tmp_path), length=400, missing=True)
    assert sorted(lengths(every(source)).tolist()) == [80, 160, 240, 320, 400]


def test_samples_are_written_as_sound(tmp_path: Path) -> None:
    source = Audio(written(tmp_path / "a.wav"), length=100, missing=True)
    x = every(source)[:3].float()
    x[1, 50:] = torch.nan
    source.write(x, tmp_path / "samples.wav")
    sound, rate = soundfile.read(tmp_path / "samples.wav")
    assert rate == RATE
    assert len(sound) == 100 + 50 + 100 + 2 * RATE // 4
    expected = source.decode(x)[0].numpy()
    np.testing.assert_allclose(sound[:100], expected, atol=1e-4)


def test_a_table_of_labels_is_not_ignored_without_a_word(tmp_path: Path) -> None:
    for index in range(4):
        written(tmp_path / f"{index}.wav")
    (tmp_path / "labels.csv").write_text("file,label\n0.wav,a\n")
    summary = Audio(str(tmp_path), length=1000).summary
    assert "labels.csv left out: classes of sounds are folders" in summary
    assert "labels.csv" not in Audio(str(tmp_path / "0.wav"), length=1000).summary


def test_bad_files_are_all_named_or_skipped(tmp_path: Path) -> None:
    for index in range(4):
        written(tmp_path / f"{index}.wav")
    (tmp_path / "junk.wav").write_bytes(b"junk" * 30)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "0.wav").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"cut.wav: it breaks off after.*junk.wav: Format not"):
        Audio(str(tmp_path))
    source = Audio(str(tmp_path), on_bad="skip", length=1000)
    assert "2 of 6 files left out" in source.summary
    assert sorted(source.skipped) == ["cut.wav", "junk.wav"]
    assert len(source.files) == 4
    for index in range(4):
        (tmp_path / f"{index}.wav").unlink()
    with pytest.raises(ValueError, match="readable sound files"):
        Audio(str(tmp_path), on_bad="skip")


def test_what_is_not_read_is_named(tmp_path: Path) -> None:
    for index in range(3):
        written(tmp_path / f"{index}.wav", tone() * 3, subtype="FLOAT")
    assert "amplitudes up to 1.5 clipped at 1" in Audio(str(tmp_path)).summary
    assert "clipped" not in Audio(str(tmp_path), num_levels=None).summary
    (tmp_path / "3.MP3").write_bytes(b"ID3")
    with pytest.raises(ValueError, match=r"3.MP3: .MP3 files are not read: convert to WAV"):
        open_source(tmp_path)
    assert len(open_source(tmp_path, on_bad="skip").skipped) == 1  # type: ignore[attr-defined]


def test_folders_of_parts_are_not_mixed(tmp_path: Path) -> None:
    for part in ("Train", "test"):
        written(tmp_path / "sounds" / part / "yes" / "0.wav")
        (tmp_path / "texts" / part).mkdir(parents=True)
        (tmp_path / "texts" / part / "0.txt").write_text("a text" * 500)
    for kind in ("sounds", "texts"):
        with pytest.raises(
            ValueError, match=r"`path` must hold the data of all parts.*Train, test"
        ):
            open_source(tmp_path / kind)
        open_source(tmp_path / kind / "Train")


def test_a_stream_of_unknown_length_is_whole(tmp_path: Path) -> None:
    raw = bytearray(Path(written(tmp_path / "a.wav")).read_bytes())
    raw[4:8] = raw[40:44] = b"\xff" * 4
    (tmp_path / "a.wav").write_bytes(raw)
    assert len(every(Audio(str(tmp_path / "a.wav"), length=1000))) == 8


def broken_files() -> dict[str, tuple[str, bytes]]:
    """Forty broken files, each with its suffix."""
    folder = Path(__import__("tempfile").mkdtemp())
    whole = Path(written(folder / "a.wav")).read_bytes()
    flac = Path(written(folder / "a.flac")).read_bytes()
    ogg = Path(written(folder / "a.ogg")).read_bytes()
    found: dict[str, tuple[str, bytes]] = {}
    for size in (0, 4, 8, 12, 20, 30, 36, 40, 44, 45, 100, 5000, len(whole) - 1):
        found[f"WAV cut at {size}"] = (".wav", whole[:size])
    for size in (0, 4, 40, 100, len(flac) // 2, len(flac) - 30):
        found[f"FLAC cut at {size}"] = (".flac", flac[:size])
    for size in (0, 30, 100, 1000):
        found[f"Ogg cut at {size}"] = (".ogg", ogg[:size])
    fields = {"format": (20, "<H"), "channels": (22, "<H"), "rate": (24, "<I"), "bits": (34, "<H")}
    for name, (place, kind) in fields.items():
        for value in (0, 7, 2 ** (8 * struct.calcsize(kind)) - 1):
            raw = bytearray(whole)
            struct.pack_into(kind, raw, place, value)
            found[f"WAV with {name} {value}"] = (".wav", bytes(raw))
    huge = bytearray(whole)
    struct.pack_into("<I", huge, 40, 2**31 - 2)
    found["WAV with a huge length"] = (".wav", bytes(huge))
    found["a pickle"] = (".wav", b"\x80\x04\x95cos\nsystem\n")
    found["text"] = (".wav", b"no sound at all\n" * 20)
    found["a PNG"] = (".flac", b"\x89PNG\r\n\x1a\n" * 20)
    stream = random.Random(1)
    for index in range(4):
        raw = bytearray(whole)
        for place in stream.sample(range(44), 6):
            raw[place] = stream.randrange(256)
        found[f"WAV with a scrambled header {index}"] = (".wav", bytes(raw))
    return found


def test_broken_sounds_are_one_line_each(tmp_path: Path) -> None:
    refused = 0
    cases = broken_files()
    for index, (name, (suffix, content)) in enumerate(cases.items()):
        path = tmp_path / f"{index}{suffix}"
        path.write_bytes(content)
        try:
            source: Any = Audio(str(path), length=64)
            assert source.train[0][0].shape == (64,), name
        except ValueError as error:
            refused += 1
            assert "\n" not in str(error), name  # noqa: PT017
            assert str(path) in str(error), name  # noqa: PT017
    # Some fields say nothing that a reader needs: such a file is read.
    assert refused >= len(cases) - 12


def test_amplitudes_that_are_not_finite(tmp_path: Path) -> None:
    sound = tone()
    sound[5] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite amplitudes"):
        open_source(written(tmp_path / "a.wav", sound, subtype="FLOAT"))


def test_wrong_arguments(tmp_path: Path) -> None:
    path = written(tmp_path / "a.wav")
    for options, match in (
        ({"length": 0}, "`length`"),
        ({"sample_rate": 0}, "`sample_rate` must be from 1"),
        ({"num_levels": 1}, "`num_levels`"),
        ({"length": 3000}, "three windows"),
    ):
        with pytest.raises(ValueError, match=match):
            Audio(path, **options)
    with pytest.raises(ValueError, match="`path` must be a file or a folder"):
        Audio(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"none of \.wav"):
        Audio(str(tmp_path / "empty"))
