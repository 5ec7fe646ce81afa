"""Text files as sequences of symbols."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from pyro_genmodels import data
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data import Text, lengths, open_source

BOOK = "It was a dark night;\nthe rain fell.\n\nÄrgerlich, ça va?\n" * 30


def written(folder: Path, text: str = BOOK, name: str = "book.txt") -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def whole(source: data.DataSource) -> dict[str, torch.Tensor]:
    return {
        name: torch.stack([part[i][0] for i in range(len(part))])  # type: ignore[arg-type]
        for name, part in source.splits.items()
    }


def test_windows_are_the_text_in_order(tmp_path: Path) -> None:
    source = Text(written(tmp_path), length=16)
    assert source.symbols == sorted(set(BOOK))
    assert source.num_levels == len(set(BOOK))
    assert (source.event_shape, source.missing, source.end_symbol) == ((16,), False, None)
    pieces = [source.decode(x) for x in whole(source).values()]
    text = "".join(window for part in pieces for window in part)
    assert text == BOOK[: len(BOOK) // 16 * 16]
    assert len(source.test) == len(source.validation) == round(len(BOOK) // 16 / 10)


def test_windows_do_not_span_files(tmp_path: Path) -> None:
    written(tmp_path, "a" * 9, "b/one.txt")
    written(tmp_path, "b" * 13, "a.txt")
    written(tmp_path, "ignored", "notes.md")
    written(tmp_path, "hidden", ".ipynb_checkpoints/a.txt")
    source = Text(str(tmp_path), length=4)
    assert [path.name for path in source.files] == ["a.txt", "one.txt"]
    text = [row for part in whole(source).values() for row in source.decode(part)]
    assert text == ["bbbb"] * 3 + ["aaaa"] * 2


def test_lines_end_in_their_symbol(tmp_path: Path) -> None:
    lines = ["ada", "", "emmy", "sofia", "mary", "marie", "ada lovelace"]
    source = Text(written(tmp_path, "\r\n".join(lines)), unit="line")
    assert source.event_shape == (12,)
    assert source.end_symbol == len(source.symbols or ()) == source.num_levels - 1  # type: ignore[operator]
    assert source.missing
    assert "\n" not in (source.symbols or ())
    found = whole(source)
    back = [line for part in found.values() for line in source.decode(part)]
    assert sorted(back) == sorted(filter(None, lines))
    for part in found.values():
        for row, length in zip(part, lengths(part).tolist(), strict=True):
            ended = int((row == source.end_symbol).sum())
            assert ended == (0 if length == 12 and not (row == source.end_symbol).any() else 1)
            assert row[length:].isnan().all()


def test_longer_lines_are_cut_and_that_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, "abc\nabcdefgh\nab\nabcd\n")
    source = Text(path, unit="line", length=4)
    assert "1 of 4 lines cut, the longest of 8 symbols" in source.summary
    back = [line for part in whole(source).values() for line in source.decode(part)]
    assert sorted(back) == ["ab", "abc", "abcd", "abcd"]


def test_bytes_of_any_file(tmp_path: Path) -> None:
    raw = bytes(range(256)) * 3
    (tmp_path / "program.bin").write_bytes(raw)
    source = Text(str(tmp_path / "program.bin"), bytes=True, length=32)
    assert (source.num_levels, source.symbols) == (256, None)
    assert torch.cat(list(whole(source).values())).flatten().tolist() == list(raw)
    text = Text(written(tmp_path, "ein Bär\nzwei Bären\ndrei\n"), bytes=True, unit="line")
    assert (text.num_levels, text.end_symbol) == (257, 256)
    assert sorted(line for p in whole(text).values() for line in text.decode(p)) == [
        "drei",
        "ein Bär",
        "zwei Bären",
    ]


def test_prompts_are_encoded(tmp_path: Path) -> None:
    source = Text(written(tmp_path), length=16)
    x = source.encode("the rain")
    assert x.shape == (16,)
    assert lengths(x) == 8
    assert source.decode(x) == "the rain"
    with pytest.raises(ValueError, match="`text` must have only characters of the data; got QZ"):
        source.encode("QZ")
    with pytest.raises(ValueError, match="`text` must have at most 16 symbols; got 40"):
        source.encode("a" * 40)


def test_samples_are_written_as_text(tmp_path: Path) -> None:
    path = written(tmp_path, "ada\nemmy\nsofia\n")
    lines, out = Text(path, unit="line"), tmp_path / "samples.txt"
    end = float(lines.end_symbol or 0)
    a, d = ((lines.symbols or []).index(c) for c in "ad")
    # What a model draws behind the end symbol means nothing.
    lines.write(torch.tensor([[a, d, a, end, d], [a, a, a, a, d], [end, a, a, a, a]]), out)
    assert out.read_text() == "ada\naaaad\n\n"
    windows = Text(path, length=4)
    windows.write(whole(windows)["train"], out)
    assert out.read_text().startswith("ada\n")


def test_the_split_is_recorded_and_the_same(tmp_path: Path) -> None:
    source = Text(written(tmp_path), unit="line", seed=3)
    again = build(configuration(source))
    for part, other in zip(whole(source).values(), whole(again).values(), strict=True):
        assert torch.equal(part.nan_to_num(-1), other.nan_to_num(-1))


def test_many_symbols_are_exact(tmp_path: Path) -> None:
    text = "".join(map(chr, range(0x4E00, 0x4E00 + 5000)))
    source = Text(written(tmp_path, text), length=50)
    assert "".join(row for p in whole(source).values() for row in source.decode(p)) == text
    lines = "\n".join(text[i : i + 50] for i in range(0, 5000, 50))
    source = Text(written(tmp_path, lines), unit="line", length=60)
    back = {row for p in whole(source).values() for row in source.decode(p)}
    assert back == set(lines.split("\n"))


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "two different symbols"),
    "one symbol": (b"a" * 1000, "two different symbols"),
    "short": (b"abc", "three windows of length=128"),
    "latin-1": ("Ärger".encode("latin-1") * 100, r"byte 0xc4 at offset 0"),
    "utf-16": ("text".encode("utf-16") * 100, r"byte 0xff at offset 0"),
    "cut in a character": ("ä".encode() * 500 + b"\xc3", "byte 0xc3 at offset 1000"),
    "a pickle": (b"\x80\x04\x95" + os.urandom(0) + b"\xffcos\nsystem\n", "byte 0x80 at offset 0"),
    "PNG": (b"\x89PNG\r\n\x1a\n" * 50, "byte 0x89 at offset 0"),
    "surrogate": (b"ok " * 100 + b"\xed\xa0\x80", "byte 0xed at offset 300"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_text_is_one_line(name: str, tmp_path: Path) -> None:
    content, match = BROKEN[name]
    (tmp_path / "broken.txt").write_bytes(content)
    with pytest.raises(ValueError, match=match) as caught:
        open_source(tmp_path / "broken.txt")
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=match):
        open_source(tmp_path)


def test_random_bytes_are_text_or_an_error(tmp_path: Path) -> None:
    stream = random.Random(0)
    for case in range(40):
        content = bytes(stream.choices(range(256 if case % 2 else 128), k=stream.randrange(2000)))
        (tmp_path / "random.txt").write_bytes(content)
        for options in ({}, {"unit": "line"}, {"bytes": True}, {"length": 3}):
            try:
                source: Any = Text(str(tmp_path / "random.txt"), **options)
                assert len(source.decode(whole(source)["train"])) > 0
            except ValueError as error:
                assert "\n" not in str(error)  # noqa: PT017


def test_wrong_arguments(tmp_path: Path) -> None:
    path = written(tmp_path)
    for options, match in (
        ({"length": 0}, "`length`"),
        ({"validation_fraction": 1.0}, "`validation_fraction`"),
        ({"test_fraction": 0.95, "validation_fraction": 0.5}, "must number more"),
    ):
        with pytest.raises(ValueError, match=match):
            Text(path, **options)
    for missing in (tmp_path / "nothing.txt", tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="`path` must be a file or a folder"):
            Text(str(missing))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"hold files that end in \.txt"):
        Text(str(tmp_path / "empty"))
