"""Two hundred broken files: each is one error on one line, in little time and memory.

They are read in a process of their own, whose memory and time are watched: nothing may crash it,
and no code of a file may run.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

COUNT = 200
SECONDS, BYTES = 10.0, 2**30
MAGIC = {
    ".npy": b"\x93NUMPY\x01\x00",
    ".npz": b"PK\x03\x04",
    ".pt": b"PK\x03\x04",
    ".csv": b"a,b\n",
    ".tsv": b"a\tb\n",
    ".parquet": b"PAR1",
    ".mtx": b"%%MatrixMarket matrix coordinate real general\n",
    ".h5ad": b"\x89HDF\r\n\x1a\n",
}
X = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)


class Trap:
    """An object whose pickle would make a file if it were loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.mark,))


def header(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """Return an ``.npy`` file's header, whatever it claims."""
    buffer = io.BytesIO()
    claims = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, claims)  # type: ignore[arg-type]
    return buffer.getvalue()


def archived(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in members.items():
            archive.writestr(name, contents)


def bomb(path: Path, claimed: int) -> None:
    """Write an archive of 64 MB of zeros that claims to be of another size."""
    contents = header((claimed // 4, 1)) + bytes(2**26)
    archived(path, {"train.npy": contents})
    size, claim = struct.pack("<L", len(contents)), struct.pack("<L", claimed)
    path.write_bytes(path.read_bytes().replace(size, claim))


def whole_files(folder: Path) -> dict[str, bytes]:
    """Return the contents of a valid file of each kind."""
    frame = pytest.importorskip("pandas").DataFrame(X, columns=list("abcd"))
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(np.round(np.abs(X)))
    paths = {suffix: folder / f"whole{suffix}" for suffix in MAGIC}
    np.save(paths[".npy"], X)
    np.savez(paths[".npz"], train=X)
    torch.save({"train": torch.from_numpy(X)}, paths[".pt"])
    frame.to_csv(paths[".csv"], index=False)
    frame.to_csv(paths[".tsv"], index=False, sep="\t")
    frame.to_parquet(paths[".parquet"])
    pytest.importorskip("scipy.io").mmwrite(paths[".mtx"], sparse)
    pytest.importorskip("anndata").AnnData(sparse).write_h5ad(paths[".h5ad"])
    return {suffix: path.read_bytes() for suffix, path in paths.items()}


def broken(folder: Path, mark: Path) -> Iterator[Path]:
    """Write broken files of all kinds, at least :data:`COUNT`."""
    random = np.random.default_rng(1)
    files = whole_files(folder)
    number = 0

    def path(suffix: str) -> Path:
        nonlocal number
        number += 1
        return folder / f"broken{number:03d}{suffix}"

    def write(suffix: str, contents: bytes) -> Path:
        place = path(suffix)
        place.write_bytes(contents)
        return place

    for suffix, contents in files.items():
        yield write(suffix, b"")
        yield write(suffix, b"\0" * 1000)
        yield write(suffix, random.bytes(1000))
        yield write(suffix, pickle.dumps(Trap(mark)))
        yield write(suffix, pickle.dumps([Trap(mark)], protocol=0))
        yield write(suffix, MAGIC[suffix] + random.bytes(5000))
        yield write(suffix, MAGIC[suffix] + pickle.dumps(Trap(mark)))
        other = next(s for s in files if s not in (suffix, ".csv", ".tsv"))
        yield write(suffix, files[other])
        yield write(suffix, b"\xef\xbb\xbf\xff\xfe" + random.bytes(100))
        if suffix in (".csv", ".tsv"):
            continue  # what is cut off a table of text may be a table
        for part in (1, 4, 10, 40, 60, 80, 95, 99):
            yield write(suffix, contents[: len(contents) * part // 100])
    yield from _arrays(path, write, mark)
    yield from _tables(path, write)


Write = Callable[[str, bytes], Path]


def _arrays(path: Callable[[str], Path], write: Write, mark: Path) -> Iterator[Path]:
    huge = [(10**12,), (10**6, 10**6), (2**62, 4), (-5, 3), (2**40, 2**40), (0, 3), (), (10**9, 4)]
    for shape in huge:
        yield write(".npy", header(shape) + bytes(64))
        archived(place := path(".npz"), {"train.npy": header(shape) + bytes(64)})
        yield place
    odd = ["|O", "<c8", "<U3", "<M8[s]", "|V7", "|S0", "<x9", "[('a', '<f4')]"]
    for descr in odd:
        yield write(".npy", header((9, 3), descr) + bytes(999))
        archived(place := path(".npz"), {"train.npy": header((9, 3), descr) + bytes(999)})
        yield place
    for descr in (b"__import__('os').abort()", b"{" * 9000, b"9" * 5000):
        yield write(".npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(descr)) + descr)
    structured = np.zeros(9, [("a", "f4"), ("b", "i4")])
    objects = np.array([Trap(mark)] * 9, dtype=object)
    for array in (structured, objects, X.astype(complex), np.array(["a"] * 9)):
        np.save(place := path(".npy"), array, allow_pickle=True)
        yield place
        np.savez(place := path(".npz"), train=array, allow_pickle=True)
        yield place
    archived(place := path(".npz"), {"train.npy": pickle.dumps(Trap(mark)), "x": b"?"})
    yield place
    archived(place := path(".npz"), {})
    yield place
    for claimed in (2**26, 2**31, 2**32 - 2):
        bomb(place := path(".npz"), claimed)
        yield place
    bomb(place := path(".pt"), 2**32 - 2)
    yield place
    one = torch.zeros(1)
    for contents in (
        Trap(mark),
        {"train": Trap(mark)},
        [one, Trap(mark)],
        {"train": one.expand(10**12).reshape(10**6, 10**6)},
        {"train": one.expand(10**10, 4)},
        {"train": one.as_strided((10**6, 10**6), (0, 0))},
        {"train": torch.zeros(9, 3, dtype=torch.complex64)},
        {
            "train": torch.sparse_coo_tensor(
                torch.zeros(2, 1, dtype=torch.long), one, (2**30, 2**30)
            )
        },
        {"train": torch.quantize_per_tensor(torch.zeros(9, 3), 1.0, 0, torch.qint8)},
        {"train": {"train": one}},
        {"encoder.weight": torch.zeros(9, 3), "encoder.bias": torch.zeros(9)},
        {"train": torch.zeros(0, 3)},
        {"train": "text"},
        "text",
        3,
        [],
        {},
    ):
        torch.save(contents, place := path(".pt"))
        yield place
        torch.save(contents, place := path(".pt"), _use_new_zipfile_serialization=False)
        yield place


def _tables(path: Callable[[str], Path], write: Write) -> Iterator[Path]:
    pandas, arrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    parquet, h5py = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("h5py")
    for text in (
        "a,b\n",
        "a,b",
        "\n\n\n",
        "a,a\n1,2\n3,4\n" * 3 + '"',
        'a,b\n"1,2\n3,4\n',
        "a,b\n1,2,3\n" + "1,2,3,4\n" * 9,
        "a,b\n" + "1,\n" * 9,
        "a,b\n" + "1,inf\n" * 9,
        "a,b\n" + "".join(f"1,word{i}\n" for i in range(99)),
        "a,b\n" + "1,2020-01-02\n" * 20,
        "a\n" + "x" * 10**7,
        "a,b\n" + "1," * 10**6,
        "a,b," * 10**6,
        "\0" * 10**6,
    ):
        yield write(".csv", text.encode())
    yield write(".csv", "größe,b\n1,2\n".encode("latin-1") * 9)
    head = "%%MatrixMarket matrix coordinate {} general\n"
    for kind, sizes in (
        ("real", "1000000000000 4 1\n1 1 1.0\n"),
        ("real", "4 1000000000000 1\n1 1 1.0\n"),
        ("real", "60000000 900000 1\n1 1 1.0\n7 7\n"),
        ("real", "9 4 1000000000000\n1 1 1.0\n"),
        ("real", "9 4 2\n1 1 1.0\n10 9 1.0\n"),
        ("real", "-9 4 2\n1 1 1.0\n"),
        ("real", "9 0 0\n"),
        ("complex", "9 4 1\n1 1 1.0 1.0\n"),
        ("real", "9 4 1\n1 1 nan\n"),
        ("real", "9 4 1\n1 1 word\n"),
        ("nonsense", "9 4 1\n1 1 1.0\n"),
    ):
        yield write(".mtx", (head.format(kind) + sizes).encode())
    yield write(".mtx", b"%%MatrixMarket matrix array real general\n1000000 1000000\n1.0\n")
    long = pandas.Categorical.from_codes(np.zeros(10**6, int), ["x" * 10**5])
    for frame in (
        pandas.DataFrame({"a": [[1, 2], [3]] * 9}),
        pandas.DataFrame({"a": [{"b": 1}] * 9}),
        pandas.DataFrame({"a": [1.0] * 9, "b": [None] * 9}),
        pandas.DataFrame({"a": [b"\xff"] * 9}),
        pandas.DataFrame({"a": pandas.date_range("2020", periods=9)}),
        pandas.DataFrame({"a": []}),
        pandas.DataFrame({"a": long}).assign(b=np.nan),
    ):
        frame.to_parquet(place := path(".parquet"), index=False)
        yield place
    sparse = pytest.importorskip("scipy.sparse").csr_matrix(np.ones((9, 4)))
    sparse.indices[3] = 10**9
    pytest.importorskip("scipy.sparse").save_npz(place := path(".npz"), sparse)
    yield place
    pytest.importorskip("anndata").AnnData(sparse).write_h5ad(place := path(".h5ad"))
    yield place
    null = arrow.table({"a": arrow.nulls(9)})
    parquet.write_table(null, place := path(".parquet"))
    yield place
    ones = arrow.array(np.ones(10**6))
    many = arrow.chunked_array([ones] * 200)  # constant columns take a few bytes a page
    parquet.write_table(arrow.table({str(i): many for i in range(1)}), place := path(".parquet"))
    yield place
    for shape in ((10**9, 10**3), (10**6, 10**6), (9,), (0, 4), (9, 4, 4)):
        with h5py.File(place := path(".h5ad"), "w") as file:
            chunks = tuple(min(size, 100) for size in shape) if min(shape) else None
            file.create_dataset("X", shape, "f4", chunks=chunks)
            file.create_group("obs")
            file.create_group("var")
        yield place
    for groups in ([], ["X"], ["X", "obs", "var"]):
        with h5py.File(place := path(".h5ad"), "w") as file:
            for name in groups:
                file.create_group(name)
        yield place


def watch(paths: list[str], results: str) -> None:
    """Read each file, and write down what came of it, with the time and memory that it took."""
    import resource
    import time

    from pyro_genmodels import data

    found = {}
    for path in paths:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, what = time.perf_counter(), "accepted"
        try:
            what = f"accepted: {data.FromFile(path).summary}"
        except BaseException as error:
            what = f"{type(error).__name__}: {error}"
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        found[path] = [what, time.perf_counter() - start, grown * 1024]
        Path(results).write_text(json.dumps(found))


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, tuple[str, float, int]]:
    folder = tmp_path_factory.mktemp("broken")
    paths = [str(path) for path in broken(folder, folder / "mark")]
    results = folder / "results.json"
    script = (
        "import json, sys; from tests.data.test_broken_files import watch; "
        "watch(json.load(sys.stdin), sys.argv[1])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, str(results)],
        input=json.dumps(paths),
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "ignore"},
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    found = json.loads(results.read_text())
    assert done.returncode == 0, f"{paths[len(found)]}: {done.stderr[-500:]}"
    assert not (folder / "mark").exists(), "a file's code has run"
    return {Path(path): tuple(found[path]) for path in paths}


@pytest.mark.once
def test_each_broken_file_is_one_error_on_one_line(
    read: dict[Path, tuple[str, float, int]],
) -> None:
    assert len(read) >= COUNT
    for path, (message, _, _) in read.items():
        assert message.startswith("ValueError: `"), f"{path}: {message}"
        assert path.name in message
        assert message.isprintable(), f"{path}: {message!r}"
        assert len(message) < 1000


@pytest.mark.once
def test_broken_files_take_little_time_and_memory(
    read: dict[Path, tuple[str, float, int]],
) -> None:
    for path, (message, seconds, grown) in read.items():
        assert seconds < SECONDS, f"{path}: {seconds:.1f} s, {message}"
        size = path.stat().st_size
        assert grown < BYTES + size, f"{path} of {size:,} bytes took {grown:,}: {message}"
