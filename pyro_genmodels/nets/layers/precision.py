"""Where autocast must not reach, and which weights must not be rounded."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Switch autocast off on the device of ``x``; the meta device has none.

    Args:
        x: A tensor of the computation.
    """
    if x.device.type == "meta":
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)


class FullPrecisionWeights(nn.Module):
    """A module that refuses weights in half precision, also as a part of another module.

    Log-determinants, KL divergences and matrix factorisations are too coarse in half precision, or
    torch has none: bfloat16 counts nats between 256 and 512 by twos. Autocast keeps what needs it
    in single precision.
    """

    takes_half_precision: ClassVar[bool] = False
    """Whether weights may be half precision all the same: where only networks compute in it."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # What `half`, `bfloat16` and `to` of this module, and of any that holds it, go through.
        return super()._apply(fn if self.takes_half_precision else _in_full_precision(fn), recurse)


def _in_full_precision(fn: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def applied(tensor: Tensor) -> Tensor:
        result = fn(tensor)
        coarse = result.is_floating_point() and result.element_size() < 4
        rule = (
            "be float32 or float64 for weights (to compute in half precision keep them, and use "
            "torch.autocast or training.fit(precision='bf16-mixed'))"
        )
        check(not coarse, "dtype", rule, result.dtype)
        return result

    return applied
