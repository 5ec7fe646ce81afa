"""Arrays and tables in a file, which a run folder and the command line can name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pyro_genmodels._checks import check
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.rows import with_size_factors
from pyro_genmodels.data.files.in_memory import assembled, complete
from pyro_genmodels.data.files.readers import read
from pyro_genmodels.data.files.tables import TableOptions


class FromFile(DataSource):
    """Arrays or a table in a file, which a run folder and the command line can name.

    ============================  ==================================================================
    ``.npy``                      one array, mapped into memory: only the batches in use are read
    ``.npz``, ``.pt``             arrays by name, no pickled objects: ``train``, ``validation`` (or
                                  ``valid``, ``val``) and ``test`` with ``train_labels`` or
                                  ``x_train``, ``y_train`` and so on; or ``x``, ``y``
    ``.csv``, ``.tsv``,           a table with named columns: numbers are Gaussian, strings,
    ``.parquet``                  booleans and categories categorical
    ``.mtx``, ``.h5ad``           a matrix, sparse or not: whole numbers from zero are counts
    ============================  ==================================================================

    Missing splits are drawn at random from the training data. Images may have their channels first
    or last, or none. What is inferred is in :attr:`summary`, and each argument overrides it.

    Args:
        path: The file.
        num_levels: The data are integers ``0 .. num_levels - 1``. By default floating-point data
            are continuous; integers have two levels if they are 0 and 1, 256 if they are bytes,
            else one more than the largest. Columns of a table have kinds instead.
        num_classes: Number of labels; by default one more than the largest, or the number of names.
        label: Column of a table (of ``obs`` in a ``.h5ad`` file) that holds labels.
        drop: Columns of a table, or arrays, to leave out.
        kinds: ``"gaussian"``, ``"categorical"`` or ``"count"`` for columns by name, or for all.
        missing: Whether NaN, or an empty cell, stands for a value that was not observed.
        size_factors: Whether each example has its size factor, the total of its counts over the
            median total of the training data, as the feature that a model is conditioned on.
        channels_last: Whether images are ``(n, H, W, C)``; found out by default.
        series: Whether an array ``(n, T, D)`` holds series of T vectors each; by default its items
            are grey images without a channel.
        validation_fraction: Part of the training data to split off if there is no validation.
        test_fraction: Part of the training data to split off if there is no test.
        seed: Seed of the split.

    Raises:
        ValueError: If the file is missing, of another kind or damaged, or its data are refused; the
            message names the file.
        ImportError: If the package that reads the file is not installed.
    """

    path_argument: ClassVar[str | None] = "path"

    def __init__(
        self,
        path: str,
        *,
        num_levels: int | None = None,
        num_classes: int | None = None,
        label: str | None = None,
        drop: Sequence[str] = (),
        kinds: Mapping[str, str] | str | None = None,
        missing: bool = False,
        size_factors: bool = False,
        channels_last: bool | None = None,
        series: bool = False,
        validation_fraction: float = 0.1,
        test_fraction: float = 0.2,
        seed: int = 0,
    ) -> None:
        self.path = self._place = path
        options = TableOptions(label, tuple(drop), kinds, missing, num_classes, num_levels)
        with _naming(path):
            contents = read(Path(path).expanduser(), options)
            facts = assembled(contents, options, channels_last, series=series)
            fractions = {"validation": validation_fraction, "test": test_fraction}
            parts = complete(facts.pop("parts"), seed, **fractions)
            if size_factors:
                found = {column.kind for column in facts["columns"] or ()}
                alone = facts["num_classes"] is None and not missing
                rule = "be false unless all columns are counts, without labels or missing values"
                check(found == {"count"} and alone, "size_factors", rule, size_factors)
                parts = with_size_factors(parts)
            super().__init__(**parts, **facts)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Add the file's name to an error that does not have it."""
    try:
        yield
    except ValueError as error:
        if Path(path).name in str(error):
            raise
        raise ValueError(f"{str(error).rstrip('.')}, in '{path}'.") from error
