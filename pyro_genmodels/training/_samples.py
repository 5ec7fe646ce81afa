"""Draws from a model in batches, under contexts where it needs them."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_genmodels._checks import check
from pyro_genmodels.models import GenerativeModel


def draw_samples(
    model: GenerativeModel, num_samples: int, context: Tensor | None = None, *, chunk: int = 256
) -> Tensor:
    """Draw data, a label-conditional model's from each class in turn.

    Args:
        model: The model.
        num_samples: Number of draws.
        context: One context a draw; labels ``0, 1, ...`` by default.
        chunk: Draws at once, which bounds memory.

    Returns:
        Data ``(num_samples, *event)``.

    Raises:
        ValueError: If the model needs a context that is no label, and none is given.
    """
    if model.context_event_dim is None:
        sizes = [len(part) for part in torch.empty(num_samples).split(chunk)]
        return torch.cat([model.sample(size) for size in sizes])
    contexts = _contexts(model, num_samples) if context is None else context[:num_samples]
    return torch.cat([model.sample(1, part)[0] for part in contexts.split(chunk)])


def _contexts(model: GenerativeModel, num_samples: int) -> Tensor:
    rule = "be given to draw from a model conditioned on features"
    check(model.num_classes is not None, "context", rule, None)
    device = next(model.parameters()).device
    return torch.arange(num_samples, device=device) % (model.num_classes or 1)
