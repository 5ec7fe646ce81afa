"""Laws of autoregressive networks: nothing sees its future, and all see the past they should."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels._typing import Bool, Int
from pyro_genmodels.testing.probes import error_of, jacobian, seeded
from pyro_genmodels.testing.report import require_law, require_within, tolerance
from pyro_genmodels.testing.sampling import log_table, outcomes


def dependencies(
    network: Callable[[Tensor], Tensor],
    event_shape: Sequence[int],
    *,
    num_levels: int,
    num_probes: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    outputs: Sequence[int] | None = None,
) -> Bool[Tensor, "outputs inputs"]:
    """Find which sub-pixels each sub-pixel's parameters depend on.

    Two probes are united: gradients over all pairs, where zero is exact, and a change of each
    sub-pixel's level in turn, which sees through rounding and embeddings that have no gradient.
    Several random images are probed, since a rectifier hides a dependence at some of them.

    Args:
        network: Map of levels ``(*batch, *event)`` to ``(*batch, *event, parameters)``.
        event_shape: ``(C, H, W)`` or ``(D,)``.
        num_levels: Levels of a sub-pixel.
        num_probes: Number of random images.
        dtype: The network's dtype.
        seed: Seed of the images.
        outputs: Indices of the flattened outputs to probe; all if not given. A large event has
            too many pairs.

    Returns:
        Entry ``(i, j)`` says whether output ``i`` depends on input ``j``, both flattened.

    Example:
        >>> dependencies(lambda x: x.cumsum(-1)[..., None], (3,), num_levels=2).int()
        tensor([[1, 0, 0],
                [1, 1, 0],
                [1, 1, 1]], dtype=torch.int32)
    """
    size = torch.Size(event_shape).numel()
    probed = torch.arange(size) if outputs is None else torch.tensor(outputs)
    found = torch.zeros(len(probed), size, dtype=torch.bool)
    with seeded(seed):
        for _ in range(num_probes):
            x = torch.randint(num_levels, tuple(event_shape)).to(dtype)
            found |= _by_gradient(network, x, probed)
            found |= _by_change(network, x, probed, num_levels)
    return found


def _by_gradient(network: Callable[[Tensor], Tensor], x: Tensor, probed: Tensor) -> Tensor:
    event_dim = x.dim()
    with torch.no_grad():
        weights = torch.randn(network(x[None]).shape[1 + event_dim :]).to(x)

    def projected(values: Tensor) -> Tensor:
        each = (network(values).flatten(values.dim()) * weights.flatten()).sum(-1)
        return each.flatten(each.dim() - event_dim)[..., probed]

    try:
        return jacobian(projected, x, event_dim, 1) != 0
    except RuntimeError as error:  # levels are embedded: there is no gradient at all
        if "does not require grad" not in str(error):
            raise
        return torch.zeros(len(probed), x.numel(), dtype=torch.bool)


def _by_change(
    network: Callable[[Tensor], Tensor], x: Tensor, probed: Tensor, num_levels: int
) -> Tensor:
    size = x.numel()
    images = x.flatten().repeat(size + 1, 1)
    changed = torch.arange(size)
    images[changed + 1, changed] = (
        x.flatten() + torch.randint(1, num_levels, (size,))
    ) % num_levels
    with torch.no_grad():
        outputs = network(images.reshape(-1, *x.shape)).reshape(size + 1, size, -1)[:, probed]
    moves = (outputs[1:] - outputs[:1]).abs().amax(-1)
    # Rows of one batch may be rounded differently, so a move must be more than rounding.
    return (moves > tolerance(x.dtype) * (1 + outputs[0].abs().amax())).T


def raster_order(event_shape: Sequence[int]) -> Int[Tensor, " elements"]:
    """Return each flattened element's place in raster order, channels of a pixel in turn.

    Example:
        >>> raster_order((2, 1, 2))
        tensor([0, 2, 1, 3])
    """
    size = torch.Size(event_shape).numel()
    if len(event_shape) < 3:
        return torch.arange(size)
    channels, height, width = event_shape
    places = torch.arange(size).reshape(height, width, channels)
    return places.permute(2, 0, 1).flatten()


@takes_arguments_of(dependencies, without=["outputs"])
def check_autoregressive(
    network: Callable[[Tensor], Tensor],
    event_shape: Sequence[int],
    *,
    order: Tensor | None = None,
    **options: Any,
) -> None:
    """Check, over all pairs of sub-pixels, that none sees itself or its future.

    A network in training mode may be given too: a leak through batch statistics shows.

    Args:
        network: Map of levels ``(*batch, *event)`` to ``(*batch, *event, parameters)``; to check a
            conditional network, close over the context.
        event_shape: ``(C, H, W)`` or ``(D,)``.
        order: Place of each flattened element in the order of generation; the raster order with
            channels of a pixel in turn if not given.
        options: As for :func:`dependencies`.

    Raises:
        AssertionError: With the number of leaks and the first of them.

    Example:
        >>> check_autoregressive(lambda x: x.cumsum(-1)[..., None], (3,), num_levels=2)
        Traceback (most recent call last):
        ...
        AssertionError: no sub-pixel sees itself or its future: 3 leaks, ... (0,) sees (0,).
    """
    found = dependencies(network, event_shape, **options)
    order = raster_order(event_shape) if order is None else order
    leaks = found & (order[:, None] <= order[None, :])
    law = "no sub-pixel sees itself or its future"
    require_law(not leaks.any(), law, _first("leaks", leaks, event_shape))


def _first(
    what: str, pairs: Tensor, event_shape: Sequence[int], outputs: Sequence[int] | None = None
) -> str:
    if not pairs.any():
        return ""
    row, column = pairs.nonzero()[0].tolist()
    output, source = (
        tuple(int(i) for i in torch.unravel_index(torch.tensor(index), tuple(event_shape)))
        for index in (row if outputs is None else outputs[row], column)
    )
    return f"{int(pairs.sum())} {what}, the first: {output} sees {source}"


@takes_arguments_of(dependencies)
def check_receptive_field(
    network: Callable[[Tensor], Tensor],
    event_shape: Sequence[int],
    expected: Bool[Tensor, "outputs inputs"],
    *,
    outputs: Sequence[int] | None = None,
    **options: Any,
) -> None:
    """Check that each sub-pixel sees exactly what it should: no more, and no less.

    Args:
        network: As for :func:`check_autoregressive`.
        event_shape: ``(C, H, W)`` or ``(D,)``.
        expected: The published receptive field, see :func:`raster_field`.
        outputs: Indices of the flattened sub-pixels to check; all if not given.
        options: As for :func:`dependencies`.

    Raises:
        AssertionError: With the number of missing and of unexpected pairs, and the first.

    Example:
        >>> past = torch.ones(3, 3).tril(-1).bool()
        >>> shifted = lambda x: torch.nn.functional.pad(x, (1, -1)).cumsum(-1)[..., None]
        >>> check_receptive_field(shifted, (3,), past, num_levels=2)
    """
    found = dependencies(network, event_shape, outputs=outputs, **options)
    if outputs is not None:
        expected = expected[list(outputs)]
    extra, missing = found & ~expected, expected & ~found
    law = "the receptive field is the published one"
    require_law(not extra.any(), law, _first("unexpected pairs", extra, event_shape, outputs))
    require_law(not missing.any(), law, _first("missing pairs", missing, event_shape, outputs))


def raster_field(
    event_shape: Sequence[int], offsets: Iterable[tuple[int, int]] | None = None
) -> Bool[Tensor, "outputs inputs"]:
    """Return the receptive field whose pixels see the pixels at some offsets.

    Channels of one pixel see the earlier ones; at another pixel all channels are seen.

    Args:
        event_shape: ``(C, H, W)``.
        offsets: ``(rows, columns)`` to each seen pixel; the whole past if not given.

    Returns:
        Entry ``(i, j)`` says whether output ``i`` sees input ``j``, both flattened.

    Example:
        >>> raster_field((1, 1, 3), [(0, -1)]).int()
        tensor([[0, 0, 0],
                [1, 0, 0],
                [0, 1, 0]], dtype=torch.int32)
    """
    order = raster_order(event_shape)
    past = order[:, None] > order[None, :]
    if offsets is None:
        return past
    grid = [torch.arange(size) for size in event_shape]
    _, row, column = (place.flatten() for place in torch.meshgrid(*grid, indexing="ij"))
    rows, columns = row[None] - row[:, None], column[None] - column[:, None]
    seen = (rows == 0) & (columns == 0)
    for down, right in offsets:
        seen |= (rows == down) & (columns == right)
    return past & seen


def check_missing_suffix(distribution: Any) -> None:
    """Check that what ends early scores as the sum over all that its end may be, by enumeration.

    So for each number of missing elements, in the order of generation. Gradients of the parameters
    must be finite, and elements missing elsewhere an error.

    Args:
        distribution: Autoregressive distribution made with ``missing=True``, with few values.

    Raises:
        AssertionError: With the worst difference of two probabilities, or naming the other law.
        ValueError: If there are more than 2**20 values.

    Example:
        >>> from pyro_genmodels import distributions, nets
        >>> check_missing_suffix(distributions.NGram(nets.NGramNet((3,), 2), missing=True))
    """
    net, ones = distribution.net, (1,) * len(distribution.batch_shape)
    values, table = outcomes(distribution).to(torch.float64), log_table(distribution).exp()
    event, order = distribution.event_shape, net.order
    for length in range(len(order) + 1):
        flat = values.flatten(1).clone()
        flat[:, order[length:]] = 0
        _, group = flat.unique(dim=0, return_inverse=True)
        total = torch.zeros_like(table).index_add_(0, group, table)[group]
        flat[:, order[length:]] = torch.nan
        nats = distribution.log_prob(flat.reshape(-1, *ones, *event))
        law = f"{length} of {len(order)} elements score as the sum over the others"
        require_within(law, (nats.exp() - total).abs(), tolerance(net.dtype))
        parameters = [p for p in net.parameters() if p.requires_grad]
        if nats.requires_grad:
            slopes = torch.autograd.grad(nats.sum(), parameters, allow_unused=True)
            finite = all(bool(slope.isfinite().all()) for slope in slopes if slope is not None)
            require_law(finite, f"gradients of {length} of {len(order)} elements are finite", "NaN")
    if len(order) > 1:
        hole = values[:1].flatten(1).clone()
        hole[:, order[0]] = torch.nan
        error = error_of(distribution.log_prob, hole.reshape(1, *ones, *event))
        law = "a missing element before an observed one is a ValueError"
        require_law(isinstance(error, ValueError), law, f"got {error!r}")
