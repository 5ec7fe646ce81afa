"""Readers of files, by their suffix. None runs code from a file or trusts the sizes it claims."""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_genmodels._checks import check, check_choice, listed, require
from pyro_genmodels.data.base.separators import separator_of
from pyro_genmodels.data.files.arrays import Contents, by_name
from pyro_genmodels.data.files.tables import (
    TableOptions,
    from_frames,
    from_sparse,
    is_number,
    label_codes,
)

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_FREE = 2**30  # bytes that any file may expand to
_MOST_EXPANSION = 100
_MOST_ROWS, _MOST_COLUMNS = 2**26, 2**20
_MOST_FIELDS = 2**16  # of a line of text: pandas takes seconds over more


def read(path: Path, options: TableOptions) -> Contents:
    """Read a file of arrays or a table.

    Raises:
        ValueError: If the file is missing, of another kind or damaged, or its contents are refused.
        ImportError: If the package that reads it is not installed.
    """
    check(path.is_file(), "path", "be a file", repr(str(path)))
    check_choice("path's suffix", path.suffix.lower(), tuple(READERS))
    check(path.stat().st_size > 0, "path", "be a file with contents", f"{str(path)!r}, empty")
    return READERS[path.suffix.lower()](path, options)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever a library raises over a damaged file into one line that names the file."""
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # each format fails in many ways of its own
        reason = f"{str(path)!r}: {_first_line(error)}"
        rule = f"be a readable {path.suffix} file"
        raise ValueError(f"`path` must {rule}; got {reason}") from error


def _first_line(error: Exception) -> str:
    text = _ANSI.sub("", str(error)).strip()
    if "eights only load failed" in text or "weights_only" in text:
        return "it holds more than tensors, or is damaged; objects are never unpickled"
    if isinstance(error, UnicodeDecodeError):
        text += " (save it as UTF-8)"
    if isinstance(error, MemoryError):
        return "it claims more memory than there is"
    line = "".join(c if c.isprintable() else " " for c in text.split("\n")[0])
    return line[:200] or type(error).__name__


def check_expansion(path: Path, claimed: int) -> None:
    """Raise ``ValueError`` for a file whose contents are huge beside it, as a bomb's are.

    Args:
        path: The file.
        claimed: Bytes that its contents take by its own account.
    """
    size = os.path.getsize(path)
    rule = f"not expand to over {_MOST_EXPANSION} times its size (save it without compression)"
    found = f"{str(path)!r}: {size:,} bytes that claim to be {claimed:,}"
    check(claimed <= max(_FREE, _MOST_EXPANSION * size), "path", rule, found)


def _read_npy(path: Path, options: TableOptions) -> Contents:
    with readable(path):
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    return _named(path, {"train": array}, options)


def _read_npz(path: Path, options: TableOptions) -> Contents:
    with readable(path), zipfile.ZipFile(path) as archive:
        claimed = sum(member.file_size for member in archive.infolist())
    check_expansion(path, claimed)
    with readable(path), np.load(path, allow_pickle=False) as stored:
        if {"indptr", "indices", "data", "shape"} <= set(stored.files):  # SciPy's save_npz
            own = {"indptr", "indices", "data", "shape", "format", "_is_array"}
            others = [repr(name) for name in stored.files if name not in own]
            rule = "hold nothing beside a sparse matrix (a .h5ad file may have labels)"
            check(not others, "path", rule, listed(others))
            check_shape(stored["shape"])
            matrix = require("scipy.sparse", extra="tables").load_npz(path)
            return from_sparse({"train": matrix}, options)
        arrays = {name: stored[name] for name in stored.files if name not in options.drop}
        left_out = {name: np.empty(0) for name in stored.files if name in options.drop}
    return _named(path, {**arrays, **left_out}, options)


def _read_pt(path: Path, options: TableOptions) -> Contents:
    mapped = zipfile.is_zipfile(path)
    if mapped:
        with readable(path), zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        check_expansion(path, sum(member.file_size for member in members))
        # torch maps what is stored as it is, and would map compressed bytes too.
        mapped = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    with readable(path):
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    if isinstance(found, tuple | list) and 1 <= len(found) <= 2:
        found = dict(zip(("train", "train_labels"), found, strict=False))
    found = found if isinstance(found, Mapping) else {"train": found}
    arrays = {
        str(k): v if k in options.drop else _from_torch(path, str(k), v) for k, v in found.items()
    }
    return _named(path, arrays, options)


def _from_torch(path: Path, name: str, value: Any) -> Any:
    if isinstance(value, list | tuple) and all(isinstance(each, str) for each in value):
        return np.asarray(value)
    rule = "hold dense real tensors by name, or lists of strings"
    dense = isinstance(value, Tensor) and value.layout is torch.strided
    dense = dense and value.device.type == "cpu" and not value.is_quantized
    kind = f"a {value.layout} tensor" if isinstance(value, Tensor) else type(value).__name__
    check(dense, "path", rule, f"{str(path)!r} with '{name}', {kind}")
    value = value.detach()
    held = value.untyped_storage().nbytes()
    # An expanded tensor is small in the file and as large as it likes in memory.
    claims = f"{str(path)!r} with '{name}' of {tuple(value.shape)} in {held:,} bytes"
    whole = value.numel() * value.element_size() <= held
    check(whole, "path", "hold every element that it claims", claims)
    try:
        return value.resolve_conj().resolve_neg().numpy()
    except TypeError:  # bfloat16 and smaller, which NumPy does not have
        return value.float().numpy()


def _named(path: Path, arrays: Mapping[str, Any], options: TableOptions) -> Contents:
    for name, array in arrays.items():
        kind = getattr(getattr(array, "dtype", None), "kind", "O")
        if name not in options.drop:
            rule = "hold arrays of real numbers, or names as strings"
            check(kind in "biufUS", "path", rule, f"{str(path)!r} with '{name}', {_dtype(array)}")
    return by_name(arrays, options.drop)


def _dtype(array: Any) -> str:
    return f"dtype {array.dtype}" if hasattr(array, "dtype") else type(array).__name__


def _read_csv(path: Path, options: TableOptions) -> Contents:
    pandas = require("pandas", extra="tables")
    notes = []
    with readable(path):
        with path.open(encoding="utf-8-sig") as file:
            lines = [file.readline(2**20) for _ in range(5)]
        if "\0" in lines[0]:
            raise ValueError("it holds zero bytes, so it is not text")
        usual = "\t" if path.suffix.lower() == ".tsv" else ","
        separator = separator_of(lines, usual)
        if separator != usual:
            notes.append(f"columns separated by {separator!r}")
        if max(line.count(separator) for line in lines) >= _MOST_FIELDS:
            raise ValueError(f"it has more than {_MOST_FIELDS:,} columns")
        read_csv = partial(pandas.read_csv, path, sep=separator, skipinitialspace=True)
        first = read_csv(header=None, nrows=1, dtype=str).iloc[0]
        # A number with a decimal comma is no column's name either; an empty cell is NaN.
        comma = "," if separator == "," else "."
        bare = all(isinstance(v, str) and is_number(v.replace(",", comma)) for v in first)
        with warnings.catch_warnings():
            # Rows longer than the header: pandas would cut them, or take what is left for an index.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            read_csv = partial(read_csv, header=None if bare else "infer", index_col=False)
            frame = read_csv()
            if separator != "," and _has_decimal_commas(frame):
                frame = read_csv(decimal=",")
                notes.append("decimal commas")
    if bare:
        frame = frame.set_axis([f"x{i}" for i in range(frame.shape[1])], axis=1)
        notes.append("no header: the first line holds numbers")
    contents = from_frames({"train": frame}, options)
    contents.notes += notes
    return contents


def _has_decimal_commas(frame: Any) -> bool:
    """Whether a column of text holds numbers that have a comma for a point."""
    for _, column in frame.select_dtypes(exclude=["number", "bool"]).items():
        texts = column.dropna().astype(str)
        if texts.str.contains(",").any() and texts.str.fullmatch(r"[-+]?\d*(,\d+)?\s*").all():
            return True
    return False


def _read_parquet(path: Path, options: TableOptions) -> Contents:
    parquet = require("pyarrow.parquet", extra="tables")
    arrow = require("pyarrow", extra="tables")
    with readable(path), parquet.ParquetFile(path) as file:
        schema, rows = file.schema_arrow, file.metadata.num_rows
        groups = (file.metadata.row_group(i) for i in range(file.metadata.num_row_groups))
        claimed = sum(group.total_byte_size for group in groups)
    check_expansion(path, max(claimed, rows * len(schema.names) * 8))
    about = schema.pandas_metadata or {}
    index = {name for name in about.get("index_columns", []) if isinstance(name, str)}
    names = [name for name in schema.names if name not in {*index, *options.drop}]
    nested = [name for name in names if arrow.types.is_nested(schema.field(name).type)]
    rule = "have columns of single values (leave others out with drop)"
    check(not nested, "table", rule, f"{listed(nested)} in {str(path)!r}")
    texts = [name for name in names if _is_text(arrow.types, schema.field(name).type)]
    options.check_names(schema.names)
    with readable(path):
        # As codes, since a text that occurs a million times would be decoded a million times.
        table = parquet.read_table(path, columns=names, read_dictionary=texts, partitioning=None)
        frame = table.to_pandas(ignore_metadata=True)
    left = [name for name in options.drop if name not in names]
    frame = frame.assign(**dict.fromkeys(left, 0))
    contents = from_frames({"train": frame}, options)
    if unused := [name for name in schema.names if name in index and name not in options.drop]:
        contents.notes.append(f"index left out: {listed(unused)}")
    return contents


def _is_text(types: Any, kind: Any) -> bool:
    return types.is_string(kind) or types.is_large_string(kind)


def _read_mtx(path: Path, options: TableOptions) -> Contents:
    io = require("scipy.io", extra="tables")
    with readable(path):
        rows, columns, entries, layout, kind, _ = io.mminfo(path)
    size = path.stat().st_size
    # An entry takes at least two bytes of text: a digit and the end of its line.
    fits = 0 <= entries * 2 <= size and rows <= _MOST_ROWS and columns <= _MOST_COLUMNS
    found = f"{str(path)!r}: {rows} x {columns} with {entries} entries in {size:,} bytes"
    rule = f"hold what it claims, of at most {_MOST_COLUMNS:,} columns"
    check(fits and columns > 0 and kind != "complex", "path", rule, found)
    with readable(path):
        matrix = io.mmread(path)
        matrix = matrix.tocsr() if layout == "coordinate" else np.asarray(matrix)
    check(options.label is None, "label", "be left out: an .mtx file has no labels", options.label)
    return from_sparse({"train": matrix}, options)


def _read_h5ad(path: Path, options: TableOptions) -> Contents:
    h5py = require("h5py", extra="single-cell")
    require("anndata", extra="single-cell")
    try:
        from anndata.io import read_elem
    except ImportError:  # before anndata 0.11
        from anndata.experimental import read_elem
    from anndata.utils import make_index_unique

    sizes: list[int] = []

    def add_size(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            sizes.append(int(np.prod(item.shape, dtype=float)) * max(item.dtype.itemsize, 1))

    with readable(path), h5py.File(path, "r") as file:
        for part in ("X", "obs", "var"):
            if part not in file:
                raise ValueError(f"it has no '{part}', as files of anndata's do")
            item = file[part]
            add_size(part, item) if isinstance(item, h5py.Dataset) else item.visititems(add_size)
            if "shape" in item.attrs:  # a sparse matrix's own account
                check_shape(item.attrs["shape"])
    check_expansion(path, sum(sizes))
    with readable(path), h5py.File(path, "r") as file:
        x, obs, var = (read_elem(file[part]) for part in ("X", "obs", "var"))
        if len(obs) != x.shape[0] or len(var) != x.shape[1]:
            raise ValueError(f"X of {x.shape} does not fit {len(obs)} obs and {len(var)} var")
        genes = make_index_unique(var.index.astype(str))  # genes often share a symbol
        contents = from_sparse({"train": x}, options, list(genes))
        names = {part: list(file.get(part, ())) for part in ("layers", "obsm")}
        unused = [f"{part} ({listed(found)})" for part, found in names.items() if found]
        unused += ["raw"] if "raw" in file else []
    if columns := [str(name) for name in obs.columns if name != options.label]:
        unused.append(f"obs ({listed(columns)})")
    if unused:
        contents.notes.append(f"left out: {', '.join(unused)}")
    if options.label is not None:
        rule = f"be a column of obs ({listed(list(map(str, obs.columns)), most=12)})"
        check(options.label in obs.columns, "label", rule, options.label)
        codes, contents.classes = label_codes(obs[options.label], options.num_classes)
        contents.labels = {"train": codes}
    return contents


def check_shape(shape: Any) -> None:
    """Raise ``ValueError`` for a sparse matrix whose very shape would fill memory."""
    rows, columns = (int(size) for size in shape)
    fits = 0 <= rows <= _MOST_ROWS and 0 < columns <= _MOST_COLUMNS
    check(fits, "shape", f"be at most {_MOST_ROWS:,} x {_MOST_COLUMNS:,}", f"{rows} x {columns}")


READERS: dict[str, Callable[[Path, TableOptions], Contents]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".pt": _read_pt,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
    ".mtx": _read_mtx,
    ".h5ad": _read_h5ad,
}
"""Suffixes and what reads them."""
