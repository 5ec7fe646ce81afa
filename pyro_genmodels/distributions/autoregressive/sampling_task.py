"""A batch of images to sample: the network, its output distribution, and the noise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pyro_genmodels.distributions.autoregressive.output_distributions import OutputLaw
from pyro_genmodels.nets import AutoregressiveNet


@dataclass
class SamplingTask:
    """A batch of images to sample; one task is one batch of noise.

    Attributes:
        net: The network, in eval mode.
        law: The law of an element.
        batch_size: Number of images.
        num_given: Number of elements of each image that are given and kept, ``(batch,)``.
        given: Their values ``(batch, elements)`` in the order of generation, zero behind them.
        features: Context features for each image, or ``None``.
        temperature: Factor of the noise.
        progress: Whether to show a progress bar; ``None`` for one after some seconds.
        window: Number of elements, from the first unsettled one, that a round of parallel sampling
            draws anew; all by default.
    """

    net: AutoregressiveNet
    law: OutputLaw
    batch_size: int
    num_given: Tensor
    given: Tensor | None = None
    features: Tensor | None = None
    temperature: float = 1.0
    progress: bool | None = None
    window: int | None = None
    seed: int = field(default_factory=lambda: int(torch.randint(2**62, ())))

    @property
    def size(self) -> int:
        """Number of elements of an image."""
        return self.net.event_shape.numel()

    def noise(self) -> Iterator[Tensor]:
        """Yield the noise row by row; each call yields the same, so that none need be kept."""
        generator = torch.Generator(self.net.device).manual_seed(self.seed)
        for start in range(0, self.size, self.net.row_length):
            length = min(self.net.row_length, self.size - start)
            yield self.law.noise(self.batch_size, length, generator).mul_(self.temperature)

    def is_given(self, images: Tensor) -> Tensor:
        """Return which elements of some images are given, in the order of generation."""
        places = torch.arange(self.size, device=self.num_given.device)
        return places < self.num_given[images, None]

    def in_order(self, parameters: Tensor) -> Tensor:
        """Return ``(batch, elements, parameters)``, in the order of generation."""
        return parameters.flatten(1, -2)[:, self.net.order]

    def in_event_order(self, x: Tensor) -> Tensor:
        """Return what is in the order of generation as images."""
        flat = torch.empty_like(x)
        flat[:, self.net.order] = x
        return flat.view(-1, *self.net.event_shape)
