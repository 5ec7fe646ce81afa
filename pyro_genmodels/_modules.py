"""What a module computes in."""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn


def first_tensor(module: nn.Module) -> Tensor:
    """Return a tensor of the module, for its dtype and device.

    The first floating-point parameter or buffer; a module that has none, since all its weights are
    random or it has no weights, is on the default device and in the default dtype.
    """
    for tensor in chain(module.parameters(), module.buffers()):
        if tensor.is_floating_point():
            return tensor
    return torch.empty(0)
