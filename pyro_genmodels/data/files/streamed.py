"""Data that come as a stream: too many to hold, or without an order to look them up by."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from pyro_genmodels._checks import check, check_positive
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.items import ItemReader

_PROBES = 64  # items that stand for the stream in its fingerprint


class Stream(IterableDataset[tuple[Tensor, ...]]):
    """The items of a stream, ``(x,)`` or ``(x, label)``, from a place on and up to a number.

    Each pass begins the stream again; it may shuffle by itself. A stream that knows epochs, by a
    method ``set_epoch``, is given the number of the pass.

    Args:
        stream: An ``IterableDataset``, a ``DataLoader``, or anything else to iterate over.
        read: What becomes of each item.
        skipped: Items at the beginning that are left out.
        size: Items of a pass; a shorter stream is begun over again.

    Attributes:
        first: The first items of the stream, those that are left out among them.
        fingerprint: A digest of the first items that are not.
    """

    def __init__(self, stream: Any, read: ItemReader, *, skipped: int, size: int) -> None:
        super().__init__()
        self.stream, self.read, self.skipped, self.size = stream, read, skipped, size
        self.epoch = 0
        self.first = list(itertools.islice(self._items(), skipped + min(size, _PROBES)))
        own = self.first[skipped:]
        rule = f"have items after the {skipped} held out for validation and test"
        check(len(own) > 0, read.argument, rule, f"{len(self.first)} items")
        digest = hashlib.sha256(f"stream of {size}".encode())
        for part in itertools.chain.from_iterable(own):
            digest.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.first[self.skipped :][index]

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return itertools.islice(self._passes(), self.size)

    def set_epoch(self, epoch: int) -> None:
        """Say which pass comes next."""
        self.epoch = epoch

    def check_order(self) -> None:
        """Raise ``ValueError`` if the next pass begins with other items."""
        self.set_epoch(1)
        again = list(itertools.islice(self._items(), len(self.first)))
        same = len(again) == len(self.first) and all(
            all(map(torch.equal, item, other))
            for item, other in zip(self.first, again, strict=True)
        )
        self.set_epoch(0)
        rule = "begin with the same items in each pass, or come with validation and test data"
        check(same, self.read.argument, rule, f"a {type(self.stream).__name__} that does not")

    def _passes(self) -> Iterator[tuple[Tensor, ...]]:
        while True:
            items = itertools.islice(self._items(), self.skipped, None)
            first = next(items, None)
            # An iterator that is used up would be begun again for ever.
            rule = "have items in each pass, as a data set has and an iterator has not"
            check(first is not None, self.read.argument, rule, f"a {type(self.stream).__name__}")
            assert first is not None  # narrows the type for the checker
            yield first
            yield from items

    def _items(self) -> Iterator[tuple[Tensor, ...]]:
        loader = isinstance(self.stream, DataLoader)
        set_epoch = getattr(self.stream.dataset if loader else self.stream, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.epoch)
        batched = loader and self.stream.batch_sampler is not None
        for item in self.stream:
            yield from map(self.read, _unbatched(item) if batched else [item])


class Streamed(DataSource):
    """Data from an ``IterableDataset`` or a ``DataLoader``, a minibatch of them in memory at once.

    Items are as those of :class:`InMemory`: tuples or dictionaries. Of a ``DataLoader`` its batches
    are taken apart: the batch size is the training's. Validation and test data are held in memory;
    what is not given of them is the stream's beginning, which training then leaves out.

    The order of the items is the stream's own business: shuffle it there. A resumed run passes
    over the items of an epoch that it has seen.

    Args:
        train: The stream, which can be iterated over again and again.
        validation: Validation data, a stream that ends; by default the first items of ``train``.
        test: Test data likewise; by default the items after these.
        epoch_size: Items of an epoch; the stream's length if it has one.
        validation_size: Most items of the validation data.
        test_size: Most items of the test data.
        num_levels: The data are integers ``0 .. num_levels - 1``; ``None``: continuous.
        num_classes: Number of labels; ``None`` leaves labels out.
        keys: Names of the data and of the labels in items that are dictionaries; usual names are
            found without.
        missing: Whether NaN stands for an element that was not observed.

    Raises:
        ValueError: If the stream has no length and none is given, or too few items, begins with
            others in each pass and is to give validation or test data, or an item is refused.

    Example:
        >>> class Rows(torch.utils.data.IterableDataset):
        ...     def __iter__(self):
        ...         return (torch.tensor([n, n**2, 1.0]) for n in range(1000))
        >>> Streamed(Rows(), epoch_size=500, validation_size=50, test_size=100)
        Streamed(500/50/100 of shape (3,), continuous)
    """

    def __init__(
        self,
        train: Any,
        validation: Any | None = None,
        test: Any | None = None,
        *,
        epoch_size: int | None = None,
        validation_size: int = 1_000,
        test_size: int = 1_000,
        num_levels: int | None = None,
        num_classes: int | None = None,
        keys: Sequence[str] | None = None,
        missing: bool = False,
    ) -> None:
        sizes = {"validation": validation_size, "test": test_size}
        check_positive(validation_size=validation_size, test_size=test_size)
        values: dict[str, Any] = {"num_levels": num_levels, "num_classes": num_classes}
        values["missing"] = missing
        held_out = {"validation": validation, "test": test}
        skipped = sum(sizes[name] for name, given in held_out.items() if given is None)
        size = _length(train) - skipped if epoch_size is None else epoch_size
        rule = f"be positive, beside the {skipped} items held out"
        check(size > 0, "epoch_size", rule, size)
        # Recorded in the place of the streams, which are not plain data.
        record = {name: type(given).__name__ for name, given in held_out.items() if given}
        record["train"] = type(train).__name__
        self.__dict__.setdefault("_constructor_arguments", {}).update(record)
        parts: dict[str, Any] = {}
        begun = Stream(train, ItemReader("train", keys=keys, **values), skipped=skipped, size=size)
        if skipped:
            begun.check_order()
        beginning = iter(begun._items())
        for name, given in held_out.items():
            read = ItemReader(name, keys=keys, **values)
            items = beginning if given is None else Stream(given, read, skipped=0, size=1)._items()
            parts[name] = _held(name, itertools.islice(items, sizes[name]))
        super().__init__(begun, **parts, notes=begun.read.notes, **values)


def _held(name: str, items: Iterator[tuple[Tensor, ...]]) -> TensorDataset:
    found = list(items)
    check(len(found) > 0, name, "have at least one example", "none")
    return TensorDataset(*(torch.stack(part) for part in zip(*found, strict=True)))


def _length(stream: Any) -> int:
    dataset: Any = stream.dataset if isinstance(stream, DataLoader) else stream
    try:
        return len(dataset)
    except TypeError:
        check(False, "epoch_size", "be given for a stream without a length", None)
        raise


def _unbatched(batch: Any) -> Iterator[Any]:
    """Yield the items of a loader's batch."""
    if isinstance(batch, Mapping):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))
    elif isinstance(batch, tuple | list):
        yield from zip(*batch, strict=True)
    else:
        yield from batch
