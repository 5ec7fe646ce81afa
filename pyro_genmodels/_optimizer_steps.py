"""How many optimizer steps have been taken, by any optimizer of torch's protocol."""

from __future__ import annotations

import itertools
from typing import Any

from torch.optim.optimizer import register_optimizer_step_post_hook

_steps = itertools.count(1)
_latest = 0


def latest_step() -> int:
    """Return the number of the latest optimizer step in this process, of whatever optimizer.

    Versions of tensors do not tell: fused optimizers leave them alone.
    """
    return _latest


def _note_step(*_: Any) -> None:
    global _latest
    _latest = next(_steps)


register_optimizer_step_post_hook(_note_step)
