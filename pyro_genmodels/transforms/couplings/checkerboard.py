"""A mask of pixels: the two colours of a checkerboard."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_genmodels._typing import Float
from pyro_genmodels.transforms.couplings.mask_base import Mask, interleave


class Checkerboard(Mask):
    """Passes the pixels whose row and column add up to an even number.

    The network sees the whole image, with zeros in place of the pixels that change.

    References:
        Dinh et al. (2017), RealNVP, section 3.4. https://arxiv.org/abs/1605.08803

    Example:
        >>> Checkerboard()((1, 2, 3)).int()
        tensor([[[1, 0, 1],
                 [0, 1, 0]]], dtype=torch.int32)
    """

    event_dim = 3
    changed_dim = 2  # channels, and the changing pixels in one row

    def _divisible(self, event_shape: Sequence[int]) -> int:
        return event_shape[-2] * event_shape[-1]

    def _passes(self, event_shape: Sequence[int], device: torch.device) -> Tensor:
        rows = torch.arange(event_shape[-2], device=device)[:, None]
        columns = torch.arange(event_shape[-1], device=device)
        return ((rows + columns) % 2 == 0)[None]

    def sizes(self, event_shape: Sequence[int]) -> tuple[int, int]:
        """Return the number of channels, twice."""
        return event_shape[-3], event_shape[-3]

    def seen(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*event"]:
        """Return the image with zeros in place of the pixels that change."""
        return x * self(x.shape[-3:], x.device).to(x.dtype)

    def changed(self, x: Float[Tensor, "*event"]) -> Float[Tensor, "*channels pixels"]:
        """Return the pixels that change: those of the even rows, then those of the odd rows."""
        parts = [x[..., row::2, self._column(row) :: 2].flatten(-2) for row in (0, 1)]
        return torch.cat(parts, dim=-1)

    def answers(self, output: Float[Tensor, "*output"]) -> Float[Tensor, "*answers"]:
        """Return the output at the pixels that change."""
        return self.changed(output)

    def merge(
        self, seen: Float[Tensor, "*event"], changed: Float[Tensor, "*channels pixels"]
    ) -> Float[Tensor, "*event"]:
        """Return the image with other values of the pixels that change."""
        height, width = seen.shape[-2:]
        sizes = [(height - row + 1) // 2 * ((width - self._column(row) + 1) // 2) for row in (0, 1)]
        parts = changed.split(sizes, dim=-1)
        rows = [self._merge_rows(seen[..., row::2, :], parts[row], row) for row in (0, 1)]
        return interleave(*rows, dim=-2)

    def _merge_rows(self, rows: Tensor, changed: Tensor, row: int) -> Tensor:
        first = self._column(row)
        width = (rows.shape[-1] - first + 1) // 2
        changed = changed.unflatten(-1, (rows.shape[-2], width))
        passed = rows[..., 1 - first :: 2]
        pair = (changed, passed) if first == 0 else (passed, changed)
        return interleave(*pair, dim=-1)

    def _column(self, row: int) -> int:
        """Return the first column that changes in an even (0) or odd (1) row."""
        return row if self.inverted else 1 - row
