"""A two-layer hierarchy with everything the model contract speaks of, as small as can be."""

from __future__ import annotations

import pyro
import torch
from pyro import distributions as dist
from torch import Tensor, nn

from pyro_genmodels.models import GenerativeModel


class Counted(nn.Linear):
    """A layer that counts its evaluations."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


class Ladder(GenerativeModel):
    """z_2 -> z_1 -> x, whose guide makes the model's own top-down pass and hands it over."""

    def __init__(
        self, *, beta: float = 1.0, warmup_steps: int = 0, auxiliary: bool = False
    ) -> None:
        super().__init__((3,), beta=beta, warmup_steps=warmup_steps)
        self.auxiliary = auxiliary
        self.encoder, self.top_down, self.decoder = Counted(3, 4), Counted(2, 2), Counted(2, 3)

    def _posterior(self, features: Tensor) -> dist.TorchDistribution:
        return dist.Normal(features, 1.0).to_event(1)

    def _prior(self, loc: Tensor) -> dist.TorchDistribution:
        return dist.Normal(loc, 1.0).to_event(1)

    def infer(self, x: Tensor, context: Tensor | None) -> None:
        features = self.encoder(x)
        record = self.shared_pass.begin(x)
        with self.latent_scale():
            z_2 = pyro.sample("z_2", self._posterior(features[..., :2]))
            record.add_work(None)
            record.add_latent(z_2)
            loc = self.top_down(z_2)
            record.add_work(loc)
            pyro.sample("z_1", self._posterior(features[..., 2:] + loc))
        if self.auxiliary and self.training and not self.is_bounding:
            pyro.factor("auxiliary", -features.square().sum(-1), has_rsample=True)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        record = self.shared_pass.take(x)
        with self.latent_scale():
            z_2 = pyro.sample("z_2", self._prior(self.decoder.weight.new_zeros(2)))
            loc = self.shared_pass.look_up(record, [z_2])
            loc = self.top_down(z_2) if loc is None else loc
            z_1 = pyro.sample("z_1", self._prior(loc))
        return pyro.sample("x", dist.Normal(self.decoder(z_1), 1.0).to_event(1), obs=x)


def linear_evidence(model: Ladder, x: Tensor) -> Tensor:
    """Exact log p(x) of the ladder, which is linear and Gaussian throughout."""
    top, bottom = model.top_down, model.decoder
    loc = bottom(top.bias)
    through = bottom.weight @ top.weight
    eye = torch.eye(3, dtype=x.dtype)
    covariance = through @ through.T + bottom.weight @ bottom.weight.T + eye
    return dist.MultivariateNormal(loc, covariance).log_prob(x)
