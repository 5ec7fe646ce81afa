"""What files and tables may be, row by row of ``docs/own_data/tables.md``."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyro_genmodels import data, models, training
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data.base.rows import Rows, with_size_factors

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(50, 3)).astype(np.float32)
LABELS = np.arange(50) % 3
IMAGES = RANDOM.integers(0, 256, (30, 5, 4, 3), dtype=np.uint8)
SPECIES = np.array(["cat", "ant", "dog"])[LABELS]


def frame(**columns: Any) -> Any:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"age": np.arange(50) % 9, "height": X[:, 0], "species": SPECIES})
    return table.assign(smoker=LABELS > 1, **columns)


def rows_of(source: data.DataSource) -> torch.Tensor:
    parts: list[Any] = list(source.splits.values())
    return torch.cat([torch.stack([part[i][0] for i in range(len(part))]) for part in parts])


def same_rows(one: torch.Tensor, other: Any) -> bool:
    expected = torch.as_tensor(np.asarray(other)).to(one.dtype).flatten(1)
    return torch.equal(one.flatten(1).unique(dim=0), expected.unique(dim=0))


# --- each row of the table of accepted inputs


def _npy(folder: Path) -> Path:
    np.save(folder / "x.npy", X)
    return folder / "x.npy"


def _npz(folder: Path) -> Path:
    np.savez(folder / "x.npz", x=X, y=LABELS)
    return folder / "x.npz"


def _sparse_npz(folder: Path) -> Path:
    sparse = pytest.importorskip("scipy.sparse")
    sparse.save_npz(folder / "x.npz", sparse.csr_matrix(np.round(np.abs(X))))
    return folder / "x.npz"


def _pt(folder: Path) -> Path:
    torch.save(
        {"train": torch.from_numpy(X), "train_labels": torch.from_numpy(LABELS)}, folder / "x.pt"
    )
    return folder / "x.pt"


def _csv(folder: Path) -> Path:
    frame().to_csv(folder / "x.csv", index=False)
    return folder / "x.csv"


def _tsv(folder: Path) -> Path:
    frame().to_csv(folder / "x.tsv", index=False, sep="\t")
    return folder / "x.tsv"


def _parquet(folder: Path) -> Path:
    frame().to_parquet(folder / "x.parquet")
    return folder / "x.parquet"


def _mtx(folder: Path) -> Path:
    sparse = pytest.importorskip("scipy.sparse")
    pytest.importorskip("scipy.io").mmwrite(
        folder / "x.mtx", sparse.csr_matrix(np.round(np.abs(X)))
    )
    return folder / "x.mtx"


def _h5ad(folder: Path) -> Path:
    obs = frame().set_axis(map(str, range(50)), axis=0)
    counts = pytest.importorskip("scipy.sparse").csr_matrix(np.round(np.abs(X)))
    pytest.importorskip("anndata").AnnData(counts, obs=obs).write_h5ad(folder / "x.h5ad")
    return folder / "x.h5ad"


KINDS = {"gaussian": 3, "count": 0, "categorical": 0}


@pytest.mark.parametrize(
    ("write", "shape", "classes", "kinds"),
    [
        (_npy, (3,), None, None),
        (_npz, (3,), 3, None),
        (_sparse_npz, (3,), None, ["count"] * 3),
        (_pt, (3,), 3, None),
        (_csv, (4,), None, ["gaussian", "gaussian", "categorical", "categorical"]),
        (_tsv, (4,), None, ["gaussian", "gaussian", "categorical", "categorical"]),
        (_parquet, (4,), None, ["gaussian", "gaussian", "categorical", "categorical"]),
        (_mtx, (3,), None, ["count"] * 3),
        (_h5ad, (3,), None, ["count"] * 3),
    ],
)
def test_each_kind_of_file(
    tmp_path: Path,
    write: Callable[[Path], Path],
    shape: tuple[int, ...],
    classes: int | None,
    kinds: list[str] | None,
) -> None:
    path = write(tmp_path)
    source = data.open_source(path)
    assert isinstance(source, data.FromFile)
    assert (tuple(source.event_shape), source.num_classes) == (shape, classes)
    assert source.num_levels is None
    found = None if source.columns is None else [column.kind for column in source.columns]
    assert found == kinds
    assert [len(part) for part in source.splits.values()] == [35, 5, 10]  # type: ignore[arg-type]
    if kinds is None:
        assert same_rows(rows_of(source), X)
    again = build(configuration(source))
    assert torch.equal(rows_of(again), rows_of(source))
    assert path.name in source.summary
    assert "\n" not in source.summary


def test_the_splits_are_those_of_arrays_in_memory(tmp_path: Path) -> None:
    reference = data.InMemory(torch.from_numpy(X))
    for write in (_npy, _npz, _pt):
        assert torch.equal(rows_of(data.FromFile(str(write(tmp_path)))), rows_of(reference))


def test_frames_and_sparse_matrices_in_memory() -> None:
    source = data.InMemory(frame(), label="species")
    assert source.classes == ["ant", "cat", "dog"]
    assert [column.name for column in source.columns or ()] == ["age", "height", "smoker"]
    polars = pytest.importorskip("polars")
    again = data.InMemory(polars.from_pandas(frame()), label="species")
    assert torch.equal(rows_of(again), rows_of(source))
    counts = pytest.importorskip("scipy.sparse").coo_matrix(np.round(np.abs(X)))
    source = data.InMemory((counts, SPECIES))
    assert source.classes == ["ant", "cat", "dog"]
    assert {column.kind for column in source.columns or ()} == {"count"}
    assert same_rows(rows_of(source), counts.toarray())
    assert same_rows(
        rows_of(data.InMemory(frame()[:20], frame()[20:30], frame()[30:])),
        rows_of(data.InMemory(frame())),
    )
    with pytest.raises(ValueError, match="given again: a run folder keeps"):
        build(configuration(source))


# --- arrays by name


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("train", "val"), "validation"),
        (("train", "valid"), "validation"),
        (("train", "validation"), "validation"),
        (("Train", "VAL_DATA"), "validation"),
        (("x_train", "x_dev"), "validation"),
        (("train", "tst"), "test"),
        (("X_train", "X_test"), "test"),
        (("train_images", "test_images"), "test"),
        (("trainX", "testX"), "test"),
        (("x", "x_test"), "test"),
    ],
)
@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_splits_by_any_usual_name(
    tmp_path: Path, names: tuple[str, str], split: str, suffix: str
) -> None:
    path = tmp_path / f"own{suffix}"
    arrays = dict(zip(names, (X[:40], X[40:]), strict=True))
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        torch.save({k: torch.from_numpy(v) for k, v in arrays.items()}, path)
    source = data.FromFile(str(path))
    assert same_rows(source.splits[split].tensors[0], X[40:])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "names",
    [
        ("x", "y"),
        ("train", "train_labels"),
        ("x_train", "y_train"),
        ("images", "labels"),
        ("train_images", "train_labels"),
        ("data", "target"),
        ("trainX", "trainY"),
    ],
)
def test_labels_by_any_usual_name(tmp_path: Path, names: tuple[str, str]) -> None:
    for labels in (LABELS, LABELS[:, None], SPECIES):
        np.savez(tmp_path / "own.npz", **dict(zip(names, (X, labels), strict=True)))
        source = data.FromFile(str(tmp_path / "own.npz"))
        assert source.num_classes == 3
        x, codes = source.test.tensors  # type: ignore[attr-defined]
        for row, code in zip(x, codes, strict=True):
            index = int((torch.from_numpy(X) == row).all(1).nonzero())
            name = str(LABELS[index]) if source.classes is None else source.classes[code]
            assert name == str(labels.reshape(-1)[index])


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"train": X, "extra": X}, {}, "'extra' among train, extra"),
        ({"encoder.weight": X}, {}, "'encoder.weight'"),
        ({"test": X}, {}, "an array `train`"),
        ({"train": X, "val": X, "valid": X}, {}, "'val' is the same part"),
        ({"train": X, "test_labels": LABELS}, {}, "labels alone for test"),
        ({"train": X, "y": LABELS[:9]}, {}, "one label for each of its 50"),
        ({"train": X, "y": X}, {}, "one label for each example, not a vector"),
        ({"train": X, "y": X[:, 0]}, {}, "integer labels, or names"),
        ({"train": X, "y": -LABELS}, {}, "`labels` must be -1, where unknown, or integers from 0"),
        ({"train": X, "y": LABELS, "test": X}, {}, "all splits or none"),
        ({"train": X, "test": X[:, :2]}, {}, "trailing shape"),
        ({"train": X}, {"drop": ["other"]}, "`drop` must name arrays of the file"),
        ({"train": X}, {"label": "y"}, "`label` must be left out"),
        ({"train": X}, {"kinds": {"age": "count"}}, "`kinds` must name columns"),
        ({"train": X}, {"kinds": "categorical"}, "no names of categories"),
        ({"train": IMAGES}, {"kinds": "count"}, "given for vectors"),
        ({"train": np.full((9, 3), np.nan)}, {}, "must be finite"),
        ({"train": np.arange(-9, 9).reshape(6, 3)}, {}, "`num_levels` must be given for integers"),
        ({"train": X.astype("c8")}, {}, "real numbers"),
        ({"train": SPECIES}, {}, "real numbers"),
    ],
)
def test_what_arrays_are_not_is_one_clear_error(
    tmp_path: Path, arrays: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "own.npz", **arrays)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        data.FromFile(str(tmp_path / "own.npz"), **options)
    assert "own.npz" in str(error.value)
    assert str(error.value).isprintable()


def test_names_left_out_are_left_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", train=X, extra=np.array(["a"]))
    assert data.FromFile(str(tmp_path / "own.npz"), drop=["extra"]).event_shape == (3,)
    np.savez(
        tmp_path / "own.npz", x=X, y=LABELS, class_names=["a", "b", "c"], feature_names=list("uvw")
    )
    source = data.FromFile(str(tmp_path / "own.npz"))
    assert source.classes == ["a", "b", "c"]
    assert [column.name for column in source.columns or ()] == ["u", "v", "w"]


# --- layout and levels


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((16, 16, 3), (3, 16, 16)),
        ((16, 12, 3), (3, 16, 12)),
        ((16, 16, 1), (1, 16, 16)),
        ((16, 16, 4), (4, 16, 16)),
        ((4, 4, 3), (3, 4, 4)),
        ((3, 16, 16), (3, 16, 16)),
        ((1, 4, 4), (1, 4, 4)),
        ((3, 4, 4), (3, 4, 4)),
        ((16, 8, 8), (16, 8, 8)),
        ((1, 1, 4), (1, 1, 4)),
        ((3, 3, 3), None),
        ((3, 8, 4), None),
    ],
)
def test_channels_come_first(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    images = RANDOM.random((10, *shape)).astype(np.float32)
    np.save(tmp_path / "own.npy", images)

    def sources(**options: Any) -> list[data.DataSource]:
        own = data.FromFile(str(tmp_path / "own.npy"), **options)
        return [
            own,
            data.InMemory(images, **options),
            data.InMemory(torch.tensor(images), **options),
        ]

    if expected is None:
        with pytest.raises(ValueError, match="`channels_last` must be given"):
            sources()
    for source in sources() if expected is not None else []:
        assert tuple(source.event_shape) == expected
        moved = images if expected == shape else np.moveaxis(images, -1, 1)
        assert same_rows(rows_of(source), np.ascontiguousarray(moved))
        assert ("channels_last" in source.summary) == (expected != shape)
    assert all(each.event_shape == (shape[2], *shape[:2]) for each in sources(channels_last=True))
    assert all(each.event_shape == shape for each in sources(channels_last=False))


def test_images_without_a_channel_are_grey(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", IMAGES[..., 0])
    assert data.FromFile(str(tmp_path / "own.npy")).event_shape == (1, 5, 4)


@pytest.mark.parametrize(
    ("dtype", "most", "levels"),
    [
        ("?", 1, 2),
        ("u1", 1, 2),
        ("u1", 200, 256),
        ("<u2", 300, 301),
        (">i4", 9, 10),
        ("<i8", 9, 10),
        ("<f4", 9, None),
        (">f8", 9, None),
        ("<f2", 9, None),
        ("<g", 9, None),
    ],
)
def test_levels_and_dtypes_of_arrays(
    tmp_path: Path, dtype: str, most: int, levels: int | None
) -> None:
    x = (np.arange(60).reshape(20, 3) % (most + 1)).astype(np.dtype(dtype))
    x[0] = most
    np.save(tmp_path / "own.npy", x)
    source = data.FromFile(str(tmp_path / "own.npy"))
    assert source.num_levels == levels
    assert same_rows(rows_of(source), x.astype(float))
    if levels is not None:
        assert f"{levels} levels inferred" in source.summary
        assert data.FromFile(str(tmp_path / "own.npy"), num_levels=500).num_levels == 500
        counts = data.FromFile(str(tmp_path / "own.npy"), kinds="count")
        assert counts.num_levels is None
        assert counts.columns == [data.Column(f"x{i}", "count") for i in range(3)]
        assert rows_of(counts).dtype == torch.float32


# --- tables


def test_kinds_of_columns_and_the_way_back(tmp_path: Path) -> None:
    table = frame(colour=pytest.importorskip("pandas").Categorical(["red", "blue"] * 25))
    table.to_parquet(tmp_path / "own.parquet")
    options: dict[str, Any] = {"kinds": {"age": "count"}, "label": "species"}
    source = data.FromFile(str(tmp_path / "own.parquet"), **options)
    assert source.columns == [
        data.Column("age", "count"),
        data.Column("height"),
        data.Column("smoker", "categorical", ("False", "True")),
        data.Column("colour", "categorical", ("blue", "red")),
    ]
    assert "2 categorical" in source.summary
    (x, labels) = source.test.tensors  # type: ignore[attr-defined]
    back = source.to_frame(x)
    for row, code in zip(back.itertuples(), labels, strict=True):
        own = table[np.isclose(table.height, row.height, atol=1e-6)].iloc[0]
        assert (row.age, str(own.smoker), row.colour) == (own.age, row.smoker, own.colour)
        assert (source.classes or [])[code] == own.species
    assert back.age.dtype.kind == "i"
    back.to_csv(tmp_path / "back.csv", index=False)
    assert data.FromFile(str(tmp_path / "back.csv"), kinds={"age": "count"}).columns is not None


def test_missing_values(tmp_path: Path) -> None:
    table = frame()
    table.loc[3:5, "height"], table.loc[7, "species"] = np.nan, None
    table.to_csv(tmp_path / "own.csv", index=False)
    found = r"missing=True \(--data.missing true\); got 3 of 50 in 'height', 1 of 50 in 'species'"
    with pytest.raises(ValueError, match=found):
        data.FromFile(str(tmp_path / "own.csv"))
    source = data.FromFile(str(tmp_path / "own.csv"), missing=True)
    assert source.missing
    assert int(rows_of(source).isnan().sum()) == 4
    back = source.to_frame(rows_of(source))
    assert back.isna().sum().to_dict() == {"age": 0, "height": 3, "species": 1, "smoker": 0}
    with pytest.raises(ValueError, match="`label: species` must have a label in every row; got 1"):
        data.FromFile(str(tmp_path / "own.csv"), missing=True, label="species")
    assert data.FromFile(str(tmp_path / "own.csv"), drop=["height", "species"]).event_shape == (2,)


@pytest.mark.parametrize(
    "names", ["A1 B2", "Mar Apr", "Mon Tue", "T1 Z3", "10-20 20-30", "now today"]
)
def test_names_that_are_almost_dates_are_categories(names: str) -> None:
    columns = data.InMemory(frame(kind=names.split() * 25)).columns
    assert columns is not None
    assert columns[-1] == data.Column("kind", "categorical", tuple(sorted(names.split())))


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"note": [f"word {i}" for i in range(50)]},
            {},
            "`table: note` must hold numbers or categ",
        ),
        ({"day": ["2020-01-02", "2021-01-02"] * 25}, {}, "`table: day` must hold numbers or categ"),
        ({"day": ["1.2.2020", "2.2.2020"] * 25}, {}, "got dates, '1.2.2020'"),
        ({"day": ["3 Mar 2024", "14 Apr 2024"] * 25}, {}, "got dates, '3 Mar 2024'"),
        ({"day": ["March 3, 2024", None] * 25}, {"missing": True}, "got dates, 'March 3, 2024'"),
        ({"day": ["03-Mar-24", "04-Apr-24"] * 25}, {}, "got dates, '03-Mar-24'"),
        ({"day": ["Mar 2024", "Apr 2024"] * 25}, {}, "got dates, 'Mar 2024'"),
        ({"day": ["Sun, 3 Mar 2024 10:00:00 GMT"] * 50}, {}, "got dates, 'Sun, 3 Mar"),
        ({"day": ["Sun Mar 3 10:00:00 EST 2024"] * 50}, {}, "got dates, 'Sun Mar 3"),
        ({"at": ["12:30", "3:30 PM"] * 25}, {}, "got dates, '12:30'"),
        ({"day": ["3 Mar 2024"] * 50}, {}, "leave it out: drop=['day'], --data.drop '[day]'"),
        ({"big": [np.inf, 1.0] * 25}, {}, "`table: big` must be finite"),
        ({"none": [None] * 50}, {"missing": True}, "none in none"),
        ({}, {"label": "kind"}, "`label` must be of the table's columns (age, height"),
        ({}, {"drop": ["kind"]}, "`drop` must be of the table's columns"),
        ({}, {"kinds": {"kind": "count"}}, "`kinds` must be of the table's columns"),
        ({}, {"kinds": {"age": "counts"}}, "`kinds` must be one of 'gaussian'"),
        ({}, {"kinds": {"height": "count"}}, "`table: height` must hold whole numbers"),
        ({}, {"kinds": {"species": "gaussian"}}, "`table: species` must hold numbers"),
        ({}, {"label": "height"}, "`label: height` must hold integers or names"),
        ({}, {"drop": ["age", "height", "species", "smoker"]}, "must have a column of data"),
        ({}, {"channels_last": True}, "`channels_last` must be left out for a table"),
    ],
)
def test_what_a_table_is_not_is_one_clear_error(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    frame(**columns).to_csv(tmp_path / "own.csv", index=False)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        data.FromFile(str(tmp_path / "own.csv"), **options)
    assert "own.csv" in str(error.value)
    assert str(error.value).isprintable()


def test_what_spreadsheets_write(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    frame().to_csv(path)
    source = data.FromFile(str(path))
    assert source.event_shape == (4,)
    assert "row numbers" in source.summary
    frame().to_csv(path, index=False, sep=";")
    assert data.FromFile(str(path)).event_shape == (4,)
    np.savetxt(path, X, delimiter=",")
    source = data.FromFile(str(path))
    assert [column.name for column in source.columns or ()] == ["x0", "x1", "x2"]
    assert same_rows(rows_of(source).float(), X)
    parts = ["train"] * 30 + ["val"] * 12 + ["test"] * 8
    frame(split=parts).to_csv(path, index=False)
    assert [len(part) for part in data.FromFile(str(path)).splits.values()] == [30, 12, 8]  # type: ignore[arg-type]


def _lines(row: Callable[[int], str], head: str) -> str:
    return "\n".join([head, *map(row, range(40))]) + "\n"


@pytest.mark.parametrize(
    ("text", "columns", "halves"),
    [
        (_lines(lambda i: f"{i % 4},5;{i % 3},25", "a;b"), ["a", "b"], True),
        (_lines(lambda i: f"{i};{i}{',5' if i > 30 else ''}", "a;b"), ["a", "b"], True),
        (_lines(lambda i: f"{i % 4},5;{i % 3},25", "7,5;8,25"), ["x0", "x1"], True),
        (_lines(lambda i: f"{i},5;{i}", '"size, cm";b'), ["size, cm", "b"], True),
        (_lines(lambda i: f"{i}.5\t{i}", "a\tb"), ["a", "b"], True),
        (_lines(lambda i: f"{i}|{i}", "a|b"), ["a", "b"], False),
        (_lines(lambda i: f"{i}, {i / 2}", "a, b"), ["a", "b"], True),
        (_lines(lambda i: f"{i},{i}", "\ufeffa,b"), ["a", "b"], False),
        (_lines(lambda i: f'"{i + 1}",{i},{i}', '"","a","b"'), ["a", "b"], False),  # R's
        (
            _lines(lambda i: f"{(7 * i) % 41},{i},{i}", ",a,b"),
            ["a", "b"],
            False,
        ),  # of a shuffled frame
    ],
)
def test_numbers_as_people_write_them(
    tmp_path: Path, text: str, columns: list[str], halves: bool
) -> None:
    (tmp_path / "own.csv").write_text(text, encoding="utf-8")
    source = data.FromFile(str(tmp_path / "own.csv"))
    assert [column.name for column in source.columns or ()] == columns
    assert {column.kind for column in source.columns or ()} == {"gaussian"}
    # A field that is cut at its comma would be whole.
    assert bool((rows_of(source) % 1 == 0.5).any()) == halves


@pytest.mark.parametrize(
    "texts", [["1%", "2%"], ["1,100", "900"], ["€ 2", "€ 3"], ["1", "?"], ["1.5", "-"], ["3", ""]]
)
def test_numbers_with_signs_are_no_categories(texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"`table: odd` must hold .*numbers written as text"):
        data.InMemory(frame(odd=texts * 25))
    odd = data.InMemory(frame(odd=texts * 25), kinds={"odd": "categorical"}).columns or []
    assert odd[-1].categories == tuple(sorted(texts))
    categories = ["18-25", "26-40", "3+", "many"]
    assert data.InMemory(frame(odd=(categories * 13)[:50])).columns is not None


def test_numbers_in_other_dtypes_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    sparse = pandas.arrays.SparseArray(LABELS)
    source = data.InMemory(frame(n=sparse, m=pandas.Series([1, 2.5] * 25, dtype=object)))
    assert [column.kind for column in source.columns or ()][-2:] == ["gaussian"] * 2
    order = data.InMemory(frame(n=pandas.Categorical([10, 9] * 25)), label="n")
    assert order.classes == ["9", "10"]
    with pytest.raises(ValueError, match="`train` must be a table with columns"):
        data.InMemory(frame()["age"])


def test_features_beside_tables_and_matrices() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    factors = np.ones((50, 1), np.float32)
    for x in (frame(), sparse.csr_matrix(np.eye(50, 3))):
        source = data.InMemory((x, factors))
        assert (source.context_shape, source.num_classes) == ((1,), None)


def test_integer_labels_of_a_table_keep_their_names() -> None:
    source = data.InMemory(frame(grade=LABELS * 10 + 5), label="grade", drop=["species"])
    assert source.classes == ["5", "15", "25"]
    assert data.InMemory(frame(grade=LABELS), label="grade", num_classes=5).num_classes == 5


def test_labels_of_cells(tmp_path: Path) -> None:
    source = data.FromFile(str(_h5ad(tmp_path)), label="species")
    assert source.classes == ["ant", "cat", "dog"]
    with pytest.raises(ValueError, match=r"`label` must be a column of obs \(age, height"):
        data.FromFile(str(tmp_path / "x.h5ad"), label="kind")


def test_what_a_file_of_cells_holds_beside_is_noted(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    _h5ad(tmp_path)
    assert "left out: obs (age, height, species and 1 more)" in source_of(tmp_path / "x.h5ad")
    cells = anndata.read_h5ad(tmp_path / "x.h5ad")
    cells.obs = cells.obs[["species"]]
    cells.write_h5ad(tmp_path / "x.h5ad")
    assert "left out" not in source_of(tmp_path / "x.h5ad", label="species")
    cells.layers["raw_counts"], cells.obsm["X_pca"] = cells.X, X
    cells.raw = cells.copy()
    cells.write_h5ad(tmp_path / "x.h5ad")
    expected = "left out: layers (raw_counts), obsm (X_pca), raw"
    assert source_of(tmp_path / "x.h5ad", label="species").endswith(expected)


def source_of(path: Path, **options: Any) -> str:
    return data.FromFile(str(path), **options).summary


def test_an_index_of_parquet_is_noted(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frame(name=[f"n{i}" for i in range(50)]).set_index("name").to_parquet(tmp_path / "x.parquet")
    assert "index left out: name" in source_of(tmp_path / "x.parquet")
    assert "index" not in source_of(_parquet(tmp_path))


def test_nothing_lies_beside_a_sparse_matrix(tmp_path: Path) -> None:
    path = _sparse_npz(tmp_path)
    with np.load(path) as stored:
        np.savez(path, **stored, y=LABELS)
    with pytest.raises(ValueError, match=r"hold nothing beside a sparse matrix .*; got 'y'"):
        data.FromFile(str(path))


# --- memory


def test_arrays_are_not_copied(tmp_path: Path) -> None:
    source = data.FromFile(str(_npy(tmp_path)))
    for part in source.splits.values():
        assert isinstance(part, Rows)
        assert isinstance(part.arrays[0], np.memmap)
    train: Any = source.train
    batches = torch.utils.data.DataLoader(train, batch_size=10)
    assert torch.equal(torch.cat([x for (x,) in batches]), train.tensors[0])
    sorted_rows = torch.cat([x for (x,) in train.chunks()])
    assert torch.equal(sorted_rows.unique(dim=0), train.tensors[0].unique(dim=0))
    mapped = data.InMemory(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert torch.equal(rows_of(mapped), rows_of(source))


def test_mapped_data_train_as_data_in_memory(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    settings: dict[str, Any] = {
        "max_epochs": 2,
        "num_samples": 0,
        "progress": False,
        "batch_size": 8,
    }
    losses = []
    for name, source in (
        ("mapped", data.FromFile(str(_npy(tmp_path)))),
        ("memory", data.InMemory(torch.from_numpy(X))),
    ):
        torch.manual_seed(0)
        model = models.FactorAnalysis((3,), latent_dim=1)
        training.fit(model, source, run=tmp_path / name, accelerator="cpu", **settings)
        losses.append(training.evaluate(model, source).nats.mean)
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_size_factors_go_by_the_training_data_in_any_order_of_parts() -> None:
    counts = np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [8.0, 8.0]])
    rows = Rows([counts])
    parts = with_size_factors({"test": rows.subset([3]), "train": rows.subset([2, 0, 1])})
    assert parts["test"].tensors[1].tolist() == [[4.0]]
    assert parts["train"].tensors[1].tolist() == [[1.5], [0.5], [1.0]]


def test_counts_come_with_their_size_factors(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(3.0, (50, 4)) + 1
    pytest.importorskip("scipy")
    import scipy.io
    import scipy.sparse

    scipy.io.mmwrite(tmp_path / "counts.mtx", scipy.sparse.csr_matrix(counts))
    source = data.FromFile(str(tmp_path / "counts.mtx"), size_factors=True)
    totals = source.train.tensors[0].sum(1)  # type: ignore[attr-defined]
    for part in source.splits.values():
        x, factors = part.tensors  # type: ignore[attr-defined]
        expected = x.sum(1, keepdim=True).double() / np.median(totals)
        assert torch.allclose(factors.double(), expected)
    assert source.context_shape == (1,)
    facts = training.facts_of(source, conditional=True)
    model = models.VAE(**facts, latent_dim=2)
    assert training.evaluate(model, source, num_particles=2).nats.mean > 0
    counts[3] = 0
    scipy.io.mmwrite(tmp_path / "empty.mtx", scipy.sparse.csr_matrix(counts))
    with pytest.raises(ValueError, match="must have a count in every example; got none in 1 exam"):
        data.FromFile(str(tmp_path / "empty.mtx"), size_factors=True)
    np.save(tmp_path / "real.npy", X)
    with pytest.raises(ValueError, match="`size_factors` must be false unless all columns"):
        data.FromFile(str(tmp_path / "real.npy"), size_factors=True)
