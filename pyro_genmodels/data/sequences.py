"""Sequences of different lengths: NaN from where each ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pyro_genmodels._checks import check, check_trailing, integers_checked
from pyro_genmodels._typing import Bool, Float, Int, Num, Tensor

MOST_IN_HALF = 2048
"""Levels that float16 holds, besides NaN."""


def missing_dtype(num_levels: int | None) -> torch.dtype:
    """Return the least floating dtype that holds some levels and NaN."""
    few = num_levels is not None and num_levels <= MOST_IN_HALF
    return torch.float16 if few else torch.float32


@integers_checked
def pad_sequences(
    sequences: Sequence[Num[Tensor, "..."]], length: int | None = None
) -> Float[Tensor, "n length"]:
    """Put sequences of different lengths into one tensor, with NaN from where each ends.

    Models that were made with ``missing=True`` take it: they score what is there.

    Args:
        sequences: The sequences, each ``(steps,)``.
        length: Length of all of them; that of the longest by default.

    Returns:
        ``(n, length)`` in the sequences' dtype if that is floating, else the default one.

    Raises:
        ValueError: If there are none, or one is longer or no vector.

    Example:
        >>> pad_sequences([torch.tensor([3, 1, 2]), torch.tensor([4])])
        tensor([[3., 1., 2.],
                [4., nan, nan]])
    """
    check(len(sequences) > 0, "sequences", "hold at least one", len(sequences))
    for each in sequences:
        check(each.dim() == 1, "sequences", "be vectors", f"shape {tuple(each.shape)}")
    longest = max(len(each) for each in sequences)
    length = longest if length is None else length
    check(length >= max(1, longest), "length", f"be at least {max(1, longest)}", length)
    floating = sequences[0].is_floating_point()
    dtype = sequences[0].dtype if floating else torch.get_default_dtype()
    padded = torch.full((len(sequences), length), torch.nan, dtype=dtype)
    for row, each in zip(padded, sequences, strict=True):
        row[: len(each)] = each
    return padded


def with_lengths(
    x: Num[Tensor, "*batch length"], lengths: Int[Tensor, "..."]
) -> Float[Tensor, "*batch length"]:
    """Return sequences with NaN from where each ends.

    Args:
        x: Sequences ``(*batch, length)``, padded with anything.
        lengths: Number of steps of each that were observed.

    Raises:
        ValueError: If a length is out of range, or they are not one for each sequence.

    Example:
        >>> with_lengths(torch.tensor([[3, 1, 2], [4, 0, 0]]), torch.tensor([3, 1]))
        tensor([[3., 1., 2.],
                [4., nan, nan]])
    """
    fits = lengths.shape == x.shape[:-1]
    check(fits, "lengths", f"have shape {tuple(x.shape[:-1])}", tuple(lengths.shape))
    within = bool(((lengths >= 0) & (lengths <= x.shape[-1])).all())
    check(within, "lengths", f"be from 0 to {x.shape[-1]}", lengths.tolist())
    places = torch.arange(x.shape[-1], device=x.device)
    return with_mask(x, places < lengths[..., None])


def with_mask(
    x: Num[Tensor, "*batch_event"], mask: Bool[Tensor, "..."]
) -> Float[Tensor, "*batch_event"]:
    """Return data with NaN where a mask is false.

    Args:
        x: Data of any shape.
        mask: Which elements were observed; broadcast against the data.

    Raises:
        ValueError: If the mask does not fit.

    Example:
        >>> with_mask(torch.tensor([3, 1]), torch.tensor([True, False]))
        tensor([3., nan])
    """
    check_trailing("mask", mask, x.shape[x.dim() - mask.dim() :])
    x = x if x.is_floating_point() else x.to(torch.get_default_dtype())
    return x.masked_fill(~mask, torch.nan)


def lengths(x: Num[Tensor, "*batch length"]) -> Int[Tensor, "*batch"]:
    """Return how many steps of each sequence were observed, those before its last NaNs.

    Args:
        x: Sequences ``(*batch, length)``.

    Example:
        >>> lengths(torch.tensor([[3.0, 1.0, 2.0], [4.0, torch.nan, torch.nan]]))
        tensor([3, 1])
    """
    if not x.is_floating_point():
        return torch.full(x.shape[:-1], x.shape[-1], device=x.device)
    places = torch.arange(1, x.shape[-1] + 1, device=x.device)
    return torch.where(x.isnan(), 0, places).amax(-1)
