"""A model outside the package, and data for it."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

from pyro_genmodels import data
from pyro_genmodels.models import GenerativeModel


class Tiny(GenerativeModel):
    """A Gaussian around a learned mean, with a parameter that may be left out."""

    def __init__(self, size: int = 3, *, forgets: bool = False, explodes: bool = False) -> None:
        super().__init__((size,))
        self.mean = nn.Parameter(torch.zeros(size))
        self.log_scale = nn.Parameter(torch.zeros(size))
        self.forgets, self.explodes = forgets, explodes

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        scale = torch.ones_like(self.mean) if self.forgets else self.log_scale.exp()
        if self.explodes:
            scale = scale * (self.mean - self.mean.detach()) / 0.0 + scale
        law = dist.Normal(self.mean, scale, validate_args=False)
        value: Tensor = pyro.sample("x", law.to_event(1), obs=x)
        return value


def source(size: int = 3, count: int = 200) -> data.DataSource:
    return data.InMemory(torch.randn(count, size) + 2.0)


QUICK = {"progress": False, "num_samples": 0, "accelerator": "cpu", "batch_size": 32}
