"""Minibatches whose order is a function of the seed, and whose place is two integers."""

from __future__ import annotations

import copy
import itertools
import math
from collections import UserDict
from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from pyro_genmodels._checks import check, check_levels, check_trailing
from pyro_genmodels._modules import first_tensor
from pyro_genmodels._progress import tracked
from pyro_genmodels.data import DataSource
from pyro_genmodels.models import Columns, GenerativeModel, NegativeBinomialLikelihood
from pyro_genmodels.nets.layers import check_context, check_finite_context

Batch: TypeAlias = "tuple[Tensor, Tensor | None]"


class Batches:
    """Epoch after epoch of minibatches ``(x, context)``, resumable at any of them.

    Data in memory (a dataset with ``tensors``) are indexed a batch at a time, which costs a
    hundredth of collating single items, and so are data that are mapped (a dataset with
    ``gather``); anything else goes through torch's ``DataLoader``. A stream (an
    ``IterableDataset``) keeps its own order, and is told the epoch by ``set_epoch``.

    Args:
        dataset: Items ``(x,)`` or ``(x, context)``.
        model: Says whether it takes a context, and which data fit it.
        batch_size: Examples a batch, in each of the processes that share an epoch.
        seed: Determines the order of every epoch; ``None`` keeps the order of the data, and a
            last batch that is smaller.
        num_workers: Loader processes for data that are not in memory.
        rank: This process's number among those that share the epoch.
        world_size: How many share it.

    Raises:
        ValueError: If the dataset is empty or does not fit the model.
    """

    def __init__(
        self,
        dataset: Any,
        model: GenerativeModel,
        batch_size: int,
        *,
        seed: int | None = None,
        num_workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_dataset(dataset, model)
        self.dataset, self.model, self.num_workers = dataset, model, num_workers
        self.rank, self.seed = rank, seed
        self.stride = batch_size * world_size
        self.batch_size, self.world_size = batch_size, world_size
        self.epoch = self.batch = 0

    def __len__(self) -> int:
        return max(1, self._count())

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._load(self._indices()[self.batch :]):
            # Before the hand-over: at any later moment the place says what has been handed over.
            self.batch += 1
            if self.batch == len(self):
                self.epoch, self.batch = self.epoch + 1, 0
            yield split(batch, self.model)

    def state_dict(self) -> dict[str, int]:
        """Return the place in the data."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a place in the data."""
        self.epoch, self.batch = state["epoch"], state["batch"]

    def _count(self) -> int:
        per_batch = len(self.dataset) / self.stride
        # A last batch of odd size would weigh its examples more, so training leaves it out.
        return math.ceil(per_batch) if self.seed is None else math.floor(per_batch)

    def _indices(self) -> list[Tensor]:
        batches = self._order().split(self.stride)[: len(self)]
        return [batch[self.rank :: self.world_size] for batch in batches]

    def _order(self) -> Tensor:
        if self.seed is None:
            return torch.arange(len(self.dataset))
        return torch.randperm(len(self.dataset), generator=self._generator())

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed((self.seed or 0) * 2**32 + self.epoch)

    def _load(self, indices: Sequence[Tensor]) -> Iterator[Any]:
        tensors = in_memory(self.dataset)
        if tensors is not None:
            for index in indices:
                yield tuple(tensor[index] for tensor in tensors)
            return
        if isinstance(self.dataset, IterableDataset):
            yield from self._stream()
            return
        gather = getattr(self.dataset, "gather", None)
        if gather is not None:
            for index in indices:
                batch = gather(index)
                check_data(*split(batch, self.model), self.model)
                yield batch
            return
        sampler = [index.tolist() for index in indices]
        for batch in DataLoader(
            self.dataset,
            batch_sampler=sampler,
            num_workers=self.num_workers,
            generator=self._generator(),  # its own, or each epoch would draw from training's
        ):
            check_data(*split(batch, self.model), self.model)
            yield batch

    def _stream(self) -> Iterator[Any]:
        set_epoch = getattr(self.dataset, "set_epoch", None)
        if set_epoch is not None:
            set_epoch(self.epoch)
        # Items of a smaller last batch weigh more; a stream of workers is its own loader's.
        loader = DataLoader(
            self.dataset,
            batch_size=self.stride,
            drop_last=self.seed is not None and self._count() > 0,
            generator=self._generator(),
        )
        for batch in itertools.islice(loader, self.batch, None):
            part = [values[self.rank :: self.world_size] for values in batch]
            check_data(*split(part, self.model), self.model)
            yield part


def in_memory(dataset: Any) -> tuple[Tensor, ...] | None:
    """Return the tensors of a data set that has all its items in them, as a ``TensorDataset``.

    Not those of a data set that gathers batches: they would have to be read whole.
    """
    return None if hasattr(dataset, "gather") else getattr(dataset, "tensors", None)


def split(item: Sequence[Tensor], model: GenerativeModel) -> Batch:
    """Return data and context of a batch; no context for a model that takes none."""
    return item[0], model.context_of(item)


def check_dataset(dataset: Any, model: GenerativeModel) -> None:
    """Check that a dataset is not empty and fits a model; all of it, if it is in memory.

    Raises:
        ValueError: If it does not.
    """
    check(len(dataset) > 0, "data", "hold at least one example", "an empty data set")
    item = dataset[0]
    parts = isinstance(item, tuple | list) and len(item) >= 1 and isinstance(item[0], Tensor)
    check(parts, "data", "have items (x,) or (x, context) of tensors", type(item).__name__)
    tensors = in_memory(dataset)
    check_data(*split(tensors if tensors is not None else item, model), model)
    # Of a label beside features, `check_data` has looked at both.
    if tensors is not None and model.num_classes is not None and not model.takes_pairs:
        known = tensors[1]
        if model.takes_unknown_labels:
            known = known[known != -1]
        if known.numel():
            check_levels("labels", known, model.num_classes)


def whole(dataset: Any, model: GenerativeModel) -> tuple[Tensor, Tensor | None]:
    """Return all data and contexts of a data set, on the model's device."""
    device = first_tensor(model).device
    tensors: Any = getattr(dataset, "tensors", None)
    if tensors is None:
        parts = list(tracked(DataLoader(dataset, batch_size=256), "reading"))
        tensors = [torch.cat(column) for column in zip(*parts, strict=True)]
    x, context = split(tensors, model)
    return x.to(device), None if context is None else context.to(device)


class _Facts(UserDict[str, Any]):
    """Arguments that are copied when they are read, so that models share no likelihood."""

    def __getitem__(self, name: str) -> Any:
        return copy.deepcopy(super().__getitem__(name))


def facts_of(source: DataSource, *, conditional: bool = False) -> MutableMapping[str, Any]:
    """Return the arguments of a model that its data settle.

    Several models may be made of them: each has a likelihood of its own.

    Args:
        source: The data.
        conditional: Whether the model is conditional on the data's labels, their features, or both.

    Raises:
        ValueError: If it is, and there are none.
    """
    facts = _Facts(event_shape=list(source.event_shape))
    facts["num_levels"] = source.num_levels
    if conditional:
        some = source.num_classes is not None or source.context_shape is not None
        check(some, "conditional", "have data with labels", source)
        if source.context_shape is not None:
            facts["context_shape"] = list(source.context_shape)
        if source.num_classes is not None:
            facts["num_classes"] = source.num_classes
    kinds = {column.kind for column in source.columns or ()}
    if kinds == {"count"} and facts.get("context_shape") == [1]:
        facts["likelihood"] = NegativeBinomialLikelihood(source.event_shape, size_factors=True)
    elif kinds == {"count"}:
        facts["likelihood"] = "negative_binomial"
    elif kinds - {"gaussian"}:
        facts["likelihood"] = Columns([len(c.categories) or c.kind for c in source.columns or ()])
    if source.missing:
        facts["missing"] = True
    return facts


def check_source(source: DataSource, model: GenerativeModel) -> None:
    """Check what a source says of all its data against a model.

    Raises:
        ValueError: If data may have missing elements and the model does not take them, or a column
            is of a kind that the model's likelihood does not have.
    """
    name = type(model).__name__
    rule = (
        "have no missing elements for a model that was not made with missing=True, which VAE, "
        "FactorAnalysis, GaussianModel, CategoricalModel and, at the end of the data, "
        "autoregressive models can be"
    )
    check(not source.missing or model.missing, "data", rule, f"{source.name} for {name}")
    kinds = model.column_kinds
    for index, column in enumerate(source.columns or ()):
        expected = "gaussian" if kinds is None else kinds[index]
        rule = f"have {expected} columns there for {name}"
        given = f"the {column.kind} column '{column.name}'"
        check(column.kind == expected, "data", rule, given)


def check_data(x: Tensor, context: Any, model: GenerativeModel) -> None:
    """Check shape, range and finiteness of data, and finiteness of features, against a model.

    Raises:
        ValueError: If they do not fit.
    """
    check_trailing("data", x, model.event_shape)
    model.check_values("data", x)
    if isinstance(context, Tensor):
        check_finite_context(context)
        if model.takes_pairs:
            classes, shape = model.num_classes, model.context_shape
            check_context(context, num_classes=classes, context_shape=shape)
