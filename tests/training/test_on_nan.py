"""A batch whose loss or gradient is not finite: named, and skipped or stopped on, as asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("lightning.pytorch")

from pyro_genmodels import models, training
from pyro_genmodels.training._module import TrainingError
from tests.training.tiny import QUICK, source


class Fragile(models.GenerativeModel):
    """A mean with a running statistic, of which the third step makes something not finite."""

    count: Tensor

    def __init__(self, breaks: str = "loss") -> None:
        super().__init__((3,))
        self.mean, self.breaks, self.calls = nn.Parameter(torch.zeros(3)), breaks, 0
        self.register_buffer("count", torch.zeros(()))

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        mean = self.mean
        if self.training and torch.is_grad_enabled():
            self.calls += 1
            bad = self.calls == 3
            self.count += torch.nan if bad else 1.0
            if bad and self.breaks == "loss":
                mean = mean * torch.nan
            elif bad:  # finite itself; its derivative is not
                mean = mean + (mean - mean.detach()).abs().sqrt()
        return pyro.sample("x", dist.Normal(mean, 1.0, validate_args=False).to_event(1), obs=x)


def fit(model: Fragile, run: Path, **settings: Any) -> list[dict[str, float]]:
    with pyro.validation_enabled(False):
        return training.fit(model, source(), run=run, max_epochs=1, **QUICK, **settings)


def test_it_stops(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="epoch 1, step 3"):
        fit(Fragile(), tmp_path)


@pytest.mark.parametrize("breaks", ["loss", "gradient"])
def test_it_skips_and_goes_on(tmp_path: Path, breaks: str) -> None:
    model = Fragile(breaks)
    with pytest.warns(UserWarning, match="epoch 1, step 3 is skipped"):
        rows = fit(model, tmp_path, on_nan="skip")
    assert bool(torch.isfinite(model.mean).all())
    assert bool((model.mean != 0).all())
    assert model.calls > 3
    assert torch.isfinite(torch.tensor(rows[-1]["validation_nats"]))
    if breaks == "loss":
        assert float(model.count) == model.calls - 1


def test_several_devices_stop() -> None:
    with pytest.raises(ValueError, match="`on_nan` must be 'stop' on several devices"):
        training.TrainingSettings(on_nan="skip", devices=2)
