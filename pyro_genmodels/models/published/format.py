"""What published configurations are made of."""

from __future__ import annotations

from typing import Any

Options = dict[str, Any]
Preset = dict[str, Options]
Table = dict[str, dict[str, Preset]]

# A preset says all that a family's own defaults would otherwise say for it.
_PLAIN: Options = {
    "schedule": "constant",
    "warmup_steps": 0,
    "gradient_clip": None,
    "ema_decay": None,
    "weight_decay": 0.0,
    "epsilon": None,
    "final_learning_rate": None,
}


def published(model: Options, **training: Any) -> Preset:
    """Return the options of a model with the settings of its training."""
    return {"model": model, "training": {**_PLAIN, **training}}
