"""What a part is conditioned on: labels, vectors, sequences or maps, brought to features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._batching import broadcast_shapes, over_batch, over_event
from pyro_genmodels._checks import (
    check,
    check_event_shape,
    check_finite,
    check_positive,
    check_trailing,
)
from pyro_genmodels._configuration import Configured
from pyro_genmodels._modules import first_tensor
from pyro_genmodels._typing import Float, Int, Num


def context_event_dim(
    num_classes: int | None = None,
    context_shape: Sequence[int] | None = None,
    ranks: Iterable[int] = (1, 3),
) -> int | None:
    """Return the event rank of a context, ``None`` if there is none.

    A label has 0, a vector 1, a sequence 2, a map 3; ``ranks`` are those that are taken. A label
    together with features has the rank of the features: see :func:`join_context`.

    Raises:
        ValueError: If one of them is impossible.
    """
    if num_classes is not None:
        check_positive(num_classes=num_classes)
    if context_shape is None:
        return None if num_classes is None else 0
    return len(check_event_shape(context_shape, ranks=ranks, argument="context_shape"))


def context_event_shape(
    num_classes: int | None = None, context_shape: Sequence[int] | None = None
) -> torch.Size:
    """Return the sizes of one context: none of a label, a channel more of a label with features.

    Example:
        >>> context_event_shape(10, (3, 8, 8)), context_event_shape(10)
        (torch.Size([4, 8, 8]), torch.Size([]))
    """
    if context_shape is None:
        return torch.Size()
    channels, *sizes = context_shape
    return torch.Size((channels + (num_classes is not None), *sizes))


def join_context(
    labels: Num[Tensor, "*batch"], features: Num[Tensor, "*batch_event"], event_dim: int | None
) -> Float[Tensor, "*batch_joint"]:
    """Return a label and features as one context: the label as one more element in front.

    That is what a network, a transform or a distribution takes that is conditional on both. The
    batch shapes broadcast. Features in half precision, which holds few labels exactly, become
    float32, which holds those below 2 ** 24.

    Args:
        labels: Labels ``(*batch,)``.
        features: Vectors ``(*batch, D)``, sequences ``(*batch, C, L)`` or maps
            ``(*batch, C, H, W)``.
        event_dim: Rank of one feature tensor: 1, 2 or 3.

    Returns:
        Vectors ``(*batch, 1 + D)``, or sequences or maps with one more channel, full of the label.

    Raises:
        ValueError: If the labels are not integers, the features have a lower rank, or the batch
            shapes do not broadcast.

    Example:
        >>> join_context(torch.tensor([2, 0]), torch.tensor([0.5, 1.5]), 1)
        tensor([[2.0000, 0.5000, 1.5000],
                [0.0000, 0.5000, 1.5000]])
    """
    rank = event_dim or 0
    check(rank > 0, "event_dim", "be the rank of the features, 1 or more", event_dim)
    integral = not (labels.is_floating_point() or labels.is_complex())
    check(integral, "labels", "be of an integer dtype", labels.dtype)
    fits = features.dim() >= rank
    check(fits, "features", f"have {rank} dimensions or more", tuple(features.shape))
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    batch = broadcast_shapes(labels.shape, features.shape[: features.dim() - rank])
    event = features.shape[features.dim() - rank :]
    label = labels.reshape(*labels.shape, *[1] * rank).to(features.dtype)
    return torch.cat([label.expand(*batch, 1, *event[1:]), features.expand(*batch, *event)], -rank)


def split_context(
    context: Float[Tensor, "*batch_joint"], event_dim: int | None
) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch_event"]]:
    """Return the label and the features of one context: the inverse of :func:`join_context`.

    Args:
        context: What :func:`join_context` returns.
        event_dim: Rank of one feature tensor: 1, 2 or 3.

    Returns:
        Labels ``(*batch,)`` and features ``(*batch, ...)`` of the rank.

    Example:
        >>> labels, features = split_context(torch.tensor([[2.0, 0.5], [0.0, 1.5]]), 1)
        >>> labels.tolist(), features.tolist()
        ([2, 0], [[0.5], [1.5]])
    """
    rank = event_dim or 0
    check(rank > 0, "event_dim", "be the rank of the features, 1 or more", event_dim)
    features = context.narrow(-rank, 1, context.shape[-rank] - 1)
    return _first_elements(context, rank).long(), features


def one_hot_context(
    context: Num[Tensor, "*context"],
    num_classes: int | None,
    context_shape: Sequence[int] | None,
) -> Num[Tensor, "*batch D"]:
    """Return a context as vectors: labels as one-hot vectors, in front of features if it has both.

    Args:
        context: Labels ``(*batch,)``, vectors ``(*batch, D)``, or both as one.
        num_classes: Number of labels, if the context has labels.
        context_shape: Sizes of the features ``(D,)``, if the context has features.

    Raises:
        ValueError: If the label beside features is none.
    """
    if num_classes is None:
        return context
    if context_shape is None:
        return F.one_hot(context.long(), num_classes)
    _check_joint_labels(context, num_classes, 1)
    labels, features = split_context(context, 1)
    return torch.cat([F.one_hot(labels, num_classes).to(features.dtype), features], -1)


def _first_elements(context: Tensor, rank: int) -> Tensor:
    """Return the first element of each event, the label of a joint context."""
    return context.flatten(-rank)[..., 0] if rank > 1 else context[..., 0]


class ContextEmbedding(Configured, nn.Module):
    r"""Maps a context to features that a network adds to its own.

    A label looks up a row, a vector goes through a linear map, a map :math:`(C, H, W)` through a
    3x3 convolution, a sequence :math:`(C, L)` through one of width 3. With both arguments a context
    is a label together with features, as :func:`join_context` makes one tensor of them, and what
    comes of the two is added. With neither there is no context: the only input is ``None``, and so
    is the output, so that a network need not ask whether it is conditional.

    Args:
        features: Number of features to make.
        num_classes: Contexts are labels ``0 .. num_classes - 1`` of shape ``(*batch,)``.
        context_shape: Contexts are vectors ``(*batch, D)``, maps ``(*batch, C, H, W)`` or, where
            ``ranks`` say so, sequences ``(*batch, C, L)``.
        ranks: Ranks that ``context_shape`` may have.

    Raises:
        ValueError: If sizes are not positive.

    Example:
        >>> ContextEmbedding(16, num_classes=10)(torch.tensor([3, 1])).shape
        torch.Size([2, 16])
        >>> ContextEmbedding(16, context_shape=(3, 8, 8))(torch.zeros(2, 3, 8, 8)).shape
        torch.Size([2, 16, 8, 8])
        >>> both = join_context(torch.tensor([3, 1]), torch.zeros(5), 1)
        >>> ContextEmbedding(16, num_classes=10, context_shape=(5,))(both).shape
        torch.Size([2, 16])
    """

    def __init__(
        self,
        features: int,
        *,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        ranks: Iterable[int] = (1, 3),
    ) -> None:
        super().__init__()
        check_positive(features=features)
        self.features = features
        self.num_classes = num_classes
        self.event_dim = context_event_dim(num_classes, context_shape, ranks)
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        self.embed = self._make_embedding()
        # Beside features the label has an embedding of its own, under a further name.
        of_both = num_classes is not None and context_shape is not None
        has_own = of_both and self.embed is not None
        self.embed_labels = nn.Embedding(num_classes or 1, features) if has_own else None

    @property
    def features_event_dim(self) -> int:
        """Rank of one context's features: as the context's, but 1 for a label."""
        return max(1, self.event_dim or 0)

    def _make_embedding(self) -> nn.Module | None:
        if self.context_shape is None:
            labels = self.num_classes
            return None if labels is None else nn.Embedding(labels, self.features)
        if self.event_dim == 1:
            return nn.Linear(self.context_shape[0], self.features)
        convolution = nn.Conv1d if self.event_dim == 2 else nn.Conv2d
        return convolution(self.context_shape[0], self.features, 3, padding=1)

    def forward(
        self, context: Num[Tensor, "*context"] | None, size: Sequence[int] | None = None
    ) -> Float[Tensor, "*features"] | None:
        """Return the features of a context.

        Args:
            context: Labels, vectors, sequences or maps with any leading batch shape; or a label
                and features as one.
            size: Height and width wanted of a map's features, or length of a sequence's,
                resampled by averaging.

        Returns:
            ``(*batch, features)`` for labels and vectors, ``(*batch, features, H, W)`` for maps,
            ``(*batch, features, L)`` for sequences.

        Raises:
            ValueError: If the context is missing, unwanted, out of range or of another shape.
        """
        self.check(context)
        if context is None or self.embed is None:
            return None
        if self.event_dim == 0:
            return cast(Tensor, self.embed(context.long()))
        rank, labels = self.features_event_dim, None
        if self.embed_labels is not None:
            labels, context = split_context(context, rank)
        context = context.to(first_tensor(self.embed).dtype)
        features = over_batch(self.embed, (context, rank))
        if self.event_dim != 1 and size is not None:
            features = _resized(features, size)
        if self.embed_labels is None or labels is None:
            return features
        return features + over_event(self.embed_labels(labels), rank - 1)

    def check(self, context: Tensor | None) -> None:
        """Raise ``ValueError`` unless ``context`` is what this part was declared to take."""
        check_context(context, num_classes=self.num_classes, context_shape=self.context_shape)


def check_context(
    context: Tensor | None,
    *,
    num_classes: int | None = None,
    context_shape: Sequence[int] | None = None,
) -> None:
    """Raise ``ValueError`` unless ``context`` is what a part was declared to take."""
    kind = _described(num_classes, context_shape)
    wanted = num_classes is not None or context_shape is not None
    found = None if context is None else f"a tensor of shape {tuple(context.shape)}"
    check((context is not None) == wanted, "context", f"be {kind}", found)
    if context is None:
        return
    if context_shape is not None:
        check_trailing("context", context, context_event_shape(num_classes, context_shape))
        if num_classes is not None:
            _check_joint_labels(context, num_classes, len(context_shape))
    elif num_classes is not None:
        _check_labels(context, num_classes, kind)


def check_finite_context(context: Tensor | None) -> None:
    """Raise ``ValueError`` if a context of features has NaN or infinite elements.

    Looking at values waits for the device: callers do so under the switch of their data's check.
    """
    if context is not None and context.is_floating_point() and _is_readable(context):
        check_finite("context", context)


def _described(num_classes: int | None, context_shape: Sequence[int] | None) -> str:
    if num_classes is not None and context_shape is not None:
        shape = tuple(context_event_shape(num_classes, context_shape))
        return f"a label and features as one, with trailing shape {shape} (see join_context)"
    if num_classes is not None:
        return f"labels from 0 to {num_classes - 1} of an integer dtype"
    if context_shape is not None:
        return f"a tensor with trailing shape {tuple(context_shape)}"
    return "None (this part takes no context)"


def _check_labels(labels: Tensor, num_classes: int, kind: str) -> None:
    integral = not (labels.is_floating_point() or labels.is_complex())
    check(integral, "context", f"be {kind}", f"dtype {labels.dtype}")
    if labels.numel() and _may_read(labels):
        low, high = int(labels.min()), int(labels.max())
        fits = low >= 0 and high < num_classes
        check(fits, "context", f"be {kind}", f"values from {low} to {high}")


def _check_joint_labels(context: Tensor, num_classes: int, rank: int) -> None:
    if not (context.numel() and _may_read(context)):
        return
    labels = _first_elements(context, rank)
    wrong = labels[~((labels >= 0) & (labels < num_classes) & (labels == labels.floor()))]
    rule = f"begin with labels, whole numbers from 0 to {num_classes - 1}"
    check(not len(wrong), "context", rule, wrong[0].item() if len(wrong) else None)
    if rank > 1:
        alike = bool((context.narrow(-rank, 0, 1) == over_event(labels, rank)).all())
        check(alike, "context", "have one label all over its first channel", "several")


def _may_read(tensor: Tensor) -> bool:
    """Whether looking at values is possible (no tracing) and affordable (no device wait)."""
    # On an accelerator the answer waits for all queued work, so it follows the validation switch.
    free = tensor.device.type == "cpu" or torch.distributions.Distribution._validate_args
    return _is_readable(tensor) and free


def _is_readable(tensor: Tensor) -> bool:
    if torch.compiler.is_compiling() or tensor.device.type == "meta":
        return False
    return not torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _resized(features: Tensor, size: Sequence[int]) -> Tensor:
    rank = len(size)
    if features.shape[-rank:] == tuple(size):
        return features
    resample: Callable[..., Tensor] = F.adaptive_avg_pool1d if rank == 1 else F.adaptive_avg_pool2d
    return over_batch(lambda flat: resample(flat, tuple(size)), (features, 1 + rank))


def add_features(h: Tensor, features: Tensor | None) -> Tensor:
    """Add a context's features to hidden ones, position by position or everywhere alike.

    Args:
        h: Maps ``(N, F, H, W)`` or sequences ``(N, F, L)``.
        features: As many vectors ``(N, F)``, or maps or sequences, which are resampled to the size
            of ``h`` by averaging; ``None`` adds nothing.
    """
    if features is None:
        return h
    if features.dim() == 2:
        return h + features.reshape(*features.shape, *[1] * (h.dim() - 2))
    return h + _resized(features, h.shape[2:])


class ConditionalNet(Configured, nn.Module, Abstract):
    """Base of networks from maps to maps, or sequences to sequences, that a context may shift.

    Their inputs have any leading dimensions, which broadcast against the context's. A subclass
    calls :meth:`_take_context` in its constructor, where the context's parameters shall come in the
    order of all, and writes :meth:`_evaluate`.
    """

    input_event_dim: ClassVar[int] = 3
    """Rank of one input: 3 for maps, 2 for sequences."""

    def _take_context(
        self,
        features: int,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
        ranks: Iterable[int] = (1, 3),
    ) -> None:
        self.context = ContextEmbedding(
            features, num_classes=num_classes, context_shape=context_shape, ranks=ranks
        )

    @property
    def context_event_dim(self) -> int | None:
        """Rank of one context: label 0, vector 1, sequence 2, map 3; ``None`` if there is none."""
        return self.context.event_dim

    @property
    def num_classes(self) -> int | None:
        """Number of labels that the network is conditioned on, if it is."""
        return self.context.num_classes

    @property
    def context_shape(self) -> torch.Size | None:
        """Sizes of one vector, map or sequence that the network is conditioned on, if it is."""
        return self.context.context_shape

    def forward(
        self, x: Float[Tensor, "*batch_event"], context: Num[Tensor, "*context"] | None = None
    ) -> Float[Tensor, "*output"]:
        """Return the output for inputs and contexts whose leading dimensions broadcast.

        Raises:
            ValueError: If the context is missing, unwanted, out of range or of another shape.
        """
        embedding = self.context
        features = (embedding(context), embedding.features_event_dim)
        return over_batch(self._evaluate, (x, self.input_event_dim), features)

    @abstractmethod
    def _evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        """Return the output for one batch dimension, calling :func:`add_features` somewhere."""
