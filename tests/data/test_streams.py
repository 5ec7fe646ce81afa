"""Data sets and streams of others: items by index, tuples and dictionaries, loaders."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pyro_genmodels import data, models, training
from pyro_genmodels.data.base.items import ItemReader, Tuples
from pyro_genmodels.training.batches import Batches

NUMBER = 100


def item_of(index: int) -> dict[str, Any]:
    return {"image": torch.full((1, 2, 2), index % 4, dtype=torch.uint8), "label": index % 3}


class Table(Dataset[Any]):
    """Items by index, several at once as Hugging Face's."""

    def __init__(self) -> None:
        self.gathered: list[int] = []

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return item_of(index)

    def __getitems__(self, indices: list[int]) -> list[Any]:
        self.gathered += indices
        return [item_of(i) for i in indices]


class Flow(IterableDataset[Any]):
    """A stream, of which each pass begins in the same way unless it is shuffled."""

    def __init__(self, *, shuffled: bool = False, length: int | None = NUMBER) -> None:
        self.shuffled, self.length, self.epoch = shuffled, length, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError
        return self.length

    def __iter__(self) -> Iterator[Any]:
        order = np.arange(NUMBER)
        if self.shuffled:
            np.random.default_rng(self.epoch).shuffle(order)
        return (item_of(int(index)) for index in order)


OPTIONS: dict[str, Any] = {"num_levels": 4, "num_classes": 3}


def labels_of(batches: Any) -> Tensor:
    return torch.cat([context for _, context in batches])


def test_items_are_tuples_or_dictionaries() -> None:
    x, label = ItemReader("train", **OPTIONS)(item_of(2))
    assert (x.shape, int(label)) == ((1, 2, 2), 2)
    x, label = ItemReader("train", keys=("a", "b"), **OPTIONS)({"b": 1, "a": x, "c": "text"})
    assert int(label) == 1
    assert len(ItemReader("train", num_levels=4)((x, 5, "more"))) == 1


ITEMS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "captions": ({"image": 0, "label": 1, "text": "a", "__key__": "b"}, OPTIONS, "text"),
    "labels": (
        {"image": 0, "label": 1},
        {"num_levels": 4},
        "label (labels are used with num_classes)",
    ),
    "keys": ({"a": 0, "b": 1, "image": 2}, {**OPTIONS, "keys": ("a", "b")}, "image"),
    "three": ((0, 1, 2), OPTIONS, "item[2]"),
    "two": ((0, 1), {"num_levels": 4}, "item[1] (labels are used with num_classes)"),
    "nothing": ({"image": 0, "label": 1}, OPTIONS, ""),
}


@pytest.mark.parametrize("kind", ITEMS)
@pytest.mark.parametrize("source", ["items", "stream", "parts"])
def test_what_items_hold_in_vain_is_noted(kind: str, source: str) -> None:
    item, options, expected = ITEMS[kind]
    zero = torch.zeros(1, 2, 2, dtype=torch.uint8)
    if isinstance(item, tuple):
        item = (zero, *item[1:])
    else:
        item = {key: zero if i == 0 else value for i, (key, value) in enumerate(item.items())}
    items = [item] * 20

    class Items(Foreign):
        def __len__(self) -> int:
            return len(items)

        def __getitem__(self, index: int) -> Any:
            return items[index]

    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(items)

    if source == "stream":
        sizes = {"epoch_size": 9, "validation_size": 2, "test_size": 2}
        found: Any = data.Streamed(Endless(), **sizes, **options)
    else:
        found = data.InMemory(*[Items()] * (1 if source == "items" else 3), **options)
    notes = [note for note in found.notes if "left out of items" in note]
    assert notes == ([f"left out of items: {expected}"] if expected else [])


@pytest.mark.parametrize(
    ("item", "keys"),
    [
        ({"picture": torch.zeros(1), "label": 0}, None),
        ({"image": torch.zeros(1), "x": torch.zeros(1)}, None),
        ({"image": torch.zeros(1)}, ("image", "label")),
    ],
)
def test_a_dictionary_without_a_usual_name_is_refused(item: Any, keys: Any) -> None:
    with pytest.raises(ValueError, match="`train` must have items with the data under one usual"):
        ItemReader("train", keys=keys, **OPTIONS)(item)


def test_files_of_a_shard_are_read_without_unpickling() -> None:
    pillow = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    pillow.fromarray(np.full((2, 2), 3, dtype=np.uint8)).save(file, "PNG")
    x, label = ItemReader("train", **OPTIONS)({"png": file.getvalue(), "cls": b"2"})
    assert torch.equal(x, torch.full((1, 2, 2), 3, dtype=torch.uint8))
    assert int(label) == 2


def test_batches_gather_items_at_once() -> None:
    table = Table()
    tuples = Tuples(table, "train", **OPTIONS)
    model = models.pixelcnn((1, 2, 2), num_levels=4, num_classes=3, hidden_channels=4)
    batches = list(Batches(tuples, model, 10, seed=0))
    assert len(batches) == 10
    assert sorted(table.gathered) == list(range(NUMBER))


class Foreign:
    """A data set of another library, which is none of torch's."""

    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, index: int) -> Any:
        return {"photo": np.full((1, 2, 2), index % 4, dtype=np.uint8), "kind": index % 3}


def test_data_sets_of_others_are_in_memory_or_behind_a_loader() -> None:
    for given, keys in ((Foreign(), ["photo", "kind"]), (DataLoader(Table()), None)):
        source = data.InMemory(given, keys=keys, **OPTIONS)
        assert repr(source) == "InMemory(70/10/20 of shape (1, 2, 2), 4 levels, 3 classes)"
    with pytest.raises(ValueError, match="`train` must be given to Streamed"):
        data.InMemory(DataLoader(Flow()), **OPTIONS)


def test_a_stream_begins_with_what_is_held_out() -> None:
    source = data.Streamed(Flow(), validation_size=10, test_size=20, **OPTIONS)
    assert repr(source) == "Streamed(70/10/20 of shape (1, 2, 2), 4 levels, 3 classes)"
    labels = torch.tensor([i % 3 for i in range(NUMBER)])
    validation: Any = source.validation
    assert torch.equal(validation.tensors[1], labels[:10])
    assert torch.equal(torch.stack([label for _, label in source.train]), labels[30:])


def test_a_stream_of_another_order_each_time_needs_data_to_hold_out() -> None:
    with pytest.raises(ValueError, match="`train` must begin with the same items in each pass"):
        data.Streamed(Flow(shuffled=True), validation_size=10, test_size=20, **OPTIONS)
    held = {"validation": Flow(), "test": Flow()}
    source = data.Streamed(Flow(shuffled=True), **held, validation_size=10, **OPTIONS)
    assert [len(part) for part in source.splits.values()] == [100, 10, 100]


def test_a_stream_without_a_length_needs_one() -> None:
    with pytest.raises(ValueError, match="`epoch_size` must be given for a stream without a len"):
        data.Streamed(Flow(length=None), **OPTIONS)
    source = data.Streamed(
        Flow(length=None), epoch_size=200, validation_size=10, test_size=20, **OPTIONS
    )
    assert len(list(source.train)) == 200  # over again: the stream has only 70


def test_a_stream_that_is_used_up_is_refused() -> None:
    """An iterator has one pass: begun again for ever, it would hang."""
    with pytest.raises(ValueError, match="`train` must begin with the same items in each pass"):
        data.Streamed(iter(Flow()), epoch_size=9, validation_size=10, test_size=20, **OPTIONS)
    held = {"validation": Flow(), "test": Flow()}
    source = data.Streamed(iter(Flow()), **held, epoch_size=200, **OPTIONS)
    with pytest.raises(ValueError, match="`train` must have items in each pass"):
        list(source.train)


def test_a_stream_with_too_few_items_is_refused() -> None:
    with pytest.raises(ValueError, match="`epoch_size` must be positive"):
        data.Streamed(Flow(), **OPTIONS)
    with pytest.raises(ValueError, match="`train` must have items after the 2000 held out"):
        data.Streamed(Flow(), epoch_size=5, **OPTIONS)


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_loader_is_taken_apart(batch_size: int | None, num_workers: int) -> None:
    loader: Any = DataLoader(Flow(), batch_size=batch_size, num_workers=num_workers)
    source = data.Streamed(loader, validation_size=10, test_size=20, **OPTIONS)
    plain = data.Streamed(Flow(), validation_size=10, test_size=20, **OPTIONS)
    for item, other in zip(source.train, plain.train, strict=True):
        assert all(map(torch.equal, item, other))


def test_epochs_of_a_stream_resume_where_they_stood() -> None:
    model = models.pixelcnn((1, 2, 2), num_levels=4, num_classes=3, hidden_channels=4)
    held = {"validation": Flow(), "test": Flow()}
    source = data.Streamed(Flow(shuffled=True), **held, **OPTIONS)
    batches = Batches(source.train, model, 16, seed=0)
    whole = [labels_of(batches), labels_of(batches)]
    assert not torch.equal(*whole)
    resumed = Batches(source.train, model, 16, seed=0)
    resumed.load_state_dict({"epoch": 1, "batch": 2})
    assert torch.equal(labels_of(resumed), whole[1][32:])


def test_ranks_share_a_stream() -> None:
    model = models.pixelcnn((1, 2, 2), num_levels=4, num_classes=3, hidden_channels=4)
    train: Any = data.Streamed(Flow(), validation_size=10, test_size=10, **OPTIONS).train
    shares = [
        labels_of(Batches(train, model, 8, seed=0, rank=rank, world_size=2)) for rank in (0, 1)
    ]
    whole = labels_of(Batches(train, model, 16, seed=0))
    assert torch.equal(torch.stack(shares, -1).flatten(), whole)


def test_a_model_trains_on_a_stream_and_resumes(tmp_path: Path) -> None:
    pytest.importorskip("lightning.pytorch")
    source = data.Streamed(Flow(), validation_size=10, test_size=20, **OPTIONS)
    settings: dict[str, Any] = {"batch_size": 16, "progress": False, "num_samples": 0}

    def trained(name: str, *epochs: int) -> models.GenerativeModel:
        torch.manual_seed(0)
        model = models.pixelcnn((1, 2, 2), num_levels=4, num_classes=3, hidden_channels=4)
        for number in epochs:
            run = tmp_path / name
            training.fit(model, source, run=run, resume=True, max_epochs=number, **settings)
        return model

    straight, resumed = trained("straight", 3), trained("resumed", 1, 3)
    for parameter, other in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(parameter, other)
    assert training.evaluate(straight, source).nats.mean > 0
