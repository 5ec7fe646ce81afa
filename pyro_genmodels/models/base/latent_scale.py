"""The weight of the latent terms in the ELBO: beta, and its warm-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_genmodels._checks import check, check_positive, integers_checked


class LatentScale(nn.Module):
    r"""Scales latent sites by :math:`\beta`, warmed up linearly over the first training steps.

    Wrap the latent sites in **both** model and guide in ``with scale():``. The estimators read
    different sides (``TraceMeanField_ELBO`` the guide's, ``Trace_ELBO`` both), so a scale on one
    side alone makes them disagree without an error.

    Args:
        beta: Final weight of the KL term.
        warmup_steps: Training steps over which the weight rises from ``start`` to ``beta``.
        start: Weight of the first step, as a fraction of ``beta``; positive, because Pyro takes
            no zero scale.

    Raises:
        ValueError: If a value is not positive, or ``warmup_steps`` is negative.

    References:
        Higgins et al. (2017), beta-VAE. Sonderby et al. (2016), Ladder VAEs (warm-up).

    Example:
        >>> scale = LatentScale(4.0, warmup_steps=2, start=0.5)
        >>> float(scale.value), float(scale.advance()), float(scale.advance())
        (2.0, 3.0, 4.0)
    """

    step: Tensor

    @integers_checked
    def __init__(self, beta: float = 1.0, *, warmup_steps: int = 0, start: float = 1e-4) -> None:
        super().__init__()
        check_positive(beta=beta, start=start)
        check(warmup_steps >= 0, "warmup_steps", "be at least 0", warmup_steps)
        self.beta, self.warmup_steps, self.start = beta, warmup_steps, start
        self.is_on = True
        # A buffer: a resumed run goes on where it stopped.
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    @property
    def value(self) -> Tensor | float:
        """The weight now: a number, or a tensor on the module's device during warm-up."""
        if self.warmup_steps == 0:
            return self.beta
        progress = (self.step / self.warmup_steps).clamp(max=1.0)
        return self.beta * (self.start + (1 - self.start) * progress)

    def advance(self) -> Tensor | float:
        """Count one training step, unless in eval mode, and return the new weight."""
        if self.warmup_steps and self.training:
            self.step += 1
        return self.value

    def forward(self) -> AbstractContextManager[object]:
        """Return the handler that scales the latent sites inside it."""
        return poutine.scale(scale=self.value if self.is_on else 1.0)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Scale nothing for a while: a true bound, a true posterior."""
        before, self.is_on = self.is_on, False
        try:
            yield
        finally:
            self.is_on = before
