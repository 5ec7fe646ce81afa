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
from pyro_genmodels.training.engine.training_module import TrainingError
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


@pytest.mark.parametrize("breaks", ["loss", "gradient"])
def test_it_stops(tmp_path: Path, breaks: str) -> None:
    model = Fragile(breaks)
    with pytest.raises(TrainingError, match="epoch 1, step 3"):
        fit(model, tmp_path)
    assert bool(torch.isfinite(model.mean).all())


class Lapsing(models.GenerativeModel):
    """A mean whose validation is infinite or not a number in chosen epochs."""

    epoch: Tensor

    def __init__(self, lapses: dict[int, float]) -> None:
        super().__init__((3,))
        self.mean, self.lapses = nn.Parameter(torch.zeros(3)), lapses
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        mean = self.mean
        if self.training and torch.is_grad_enabled():
            self.epoch += 1
        elif x is not None:
            mean = mean + self.lapses.get(int(self.epoch), 0.0)
            if self.lapses.get(int(self.epoch)) == -torch.inf:  # a density without end
                pyro.factor("lapse", torch.full((len(x),), torch.inf))
                mean = self.mean
        return pyro.sample("x", dist.Normal(mean, 1.0, validate_args=False).to_event(1), obs=x)


@pytest.mark.parametrize(
    ("lapses", "best"),
    [
        ({2: torch.nan}, 4),
        ({4: torch.nan}, 3),
        ({4: torch.inf}, 3),
        ({4: -torch.inf}, 3),
        ({1: torch.nan, 2: torch.nan, 3: 100.0, 4: 200.0}, 3),
        ({1: torch.nan, 2: torch.nan, 3: torch.nan, 4: torch.nan}, 4),
    ],
)
def test_a_lapsed_validation_is_never_the_best(
    tmp_path: Path, lapses: dict[int, float], best: int
) -> None:
    model, run = Lapsing(lapses), tmp_path / "run"
    options = {**QUICK, "batch_size": 10_000, "max_epochs": 4, "learning_rate": 0.1}
    options["standardize"] = False  # or the first mean, zero, would be the best
    with pyro.validation_enabled(False):
        training.fit(model, source(), run=run, **options)
    assert int(model.epoch) == best


@pytest.mark.parametrize("breaks", ["loss", "gradient"])
def test_it_skips_and_goes_on(tmp_path: Path, breaks: str) -> None:
    model = Fragile(breaks)
    with pytest.warns(UserWarning, match="epoch 1, step 3 is skipped"):
        rows = fit(model, tmp_path, on_nan="skip")
    assert bool(torch.isfinite(model.mean).all())
    assert bool((model.mean != 0).all())
    assert model.calls > 3
    assert torch.isfinite(torch.tensor(rows[-1]["validation_nats"]))
    assert float(model.count) == model.calls - 1


def test_several_devices_stop() -> None:
    with pytest.raises(ValueError, match="`on_nan` must be 'stop' on several devices"):
        training.TrainingSettings(on_nan="skip", devices=2)
