"""``fit`` standardises continuous data: the same result in any units, saved with the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import pyro
import pytest
import torch
from pyro import distributions as dist
from torch import Tensor
from torch.utils.data import Dataset

from pyro_genmodels import data, models, training
from pyro_genmodels.cli import main
from tests.training.tiny import QUICK, Tiny

NAME = "tests.training.tiny.Tiny"


def normal(count: int, *shape: int) -> Tensor:
    """Correlated data of mean zero and deviation about one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, *shape, generator=generator, dtype=torch.float64)
    return (x + x.roll(1, -1)) / 2**0.5


def fitted(
    make: Callable[[], models.GenerativeModel], x: Any, run: Path, **settings: Any
) -> models.GenerativeModel:
    torch.manual_seed(0)
    model = make()
    classes = model.num_classes
    given = x if classes is None else (x, torch.arange(len(x)) % classes)
    source = data.InMemory(given, num_classes=classes)
    training.fit(model, source, run=run, **{"max_epochs": 2, **QUICK, **settings})
    return model


FAMILIES: dict[str, Callable[[], models.GenerativeModel]] = {
    "vae": lambda: models.VAE((4,), latent_dim=2, network=models.VAENetwork(hidden=(16,))),
    "vae of labels": lambda: models.VAE(
        (4,), latent_dim=2, network=models.VAENetwork(hidden=(16,)), num_classes=2
    ),
    "shared noise": lambda: models.VAE(
        (4,),
        latent_dim=2,
        network=models.VAENetwork(hidden=(16,)),
        likelihood=models.GaussianLikelihood((4,), scale="shared"),
    ),
    "factors": lambda: models.FactorAnalysis((4,), latent_dim=2),
    "ppca": lambda: models.FactorAnalysis((4,), latent_dim=2, noise="shared"),
    "maf of labels": lambda: models.maf((4,), num_layers=2, hidden=(16,), num_classes=2),
    "spline": lambda: models.spline_flow((4,), width=16),
    "glow": lambda: models.glow((1, 2, 4), num_steps=2, width=8),
    "vqvae": lambda: models.VQVAE(
        (1, 4, 4),
        codebook=models.Codebook(4, dim=2),
        network=models.VQVAENetwork(reduction=2, hidden_channels=4),
    ),
}
UNITS = [(1.0, 0.0), (1e-6, 1e-2), (1e6, 1e10)]


LONG = {"glow", "spline", "vqvae", "maf of labels"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n in FAMILIES],
)
def test_training_gives_the_same_in_any_units(tmp_path: Path, name: str) -> None:
    make = FAMILIES[name]
    shape = make().event_shape
    dims, x = shape.numel(), normal(400, *shape)
    nats = []
    for index, (scale, shift) in enumerate(UNITS):
        moved = (scale * x + shift).float()
        model = fitted(make, moved, tmp_path / str(index))
        source = data.InMemory(
            moved if model.num_classes is None else (moved, torch.arange(400) % 2),
            num_classes=model.num_classes,
        )
        found = training.evaluate(model, source, num_particles=3).nats.mean
        nats.append(found / dims - math.log(scale))
    assert max(nats) - min(nats) < 0.01, nats


def test_told_not_to_it_leaves_the_data_as_they_are(tmp_path: Path) -> None:
    model = fitted(Tiny, 5 * normal(100, 3), tmp_path, standardize=False)
    assert not model.standardization.is_set
    assert not [name for name in model.state_dict() if "standardization" in name]


class Positive(Tiny):
    """A Gamma distribution, as a user writes it."""

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        law = dist.Gamma(self.mean.exp(), self.log_scale.exp())
        value: Tensor = pyro.sample("x", law.to_event(1), obs=x)
        return value


def test_a_bounded_support_is_fitted_as_it_is(tmp_path: Path) -> None:
    x = 30 * torch.rand(100, 3) + 1e-3
    x[:, 1] = 7.0
    model = fitted(Positive, x, tmp_path)
    assert not model.standardization.is_set
    assert training.evaluate(model, data.InMemory(x)).nats.mean < 1e3


def test_a_run_keeps_its_units(tmp_path: Path) -> None:
    x = 1000 + 50 * normal(100, 3).float()
    model = fitted(Tiny, x, tmp_path, ema_decay=0.9)
    loaded = training.load(tmp_path, allow=[NAME])
    assert torch.equal(loaded.log_weights(x), model.log_weights(x))
    assert abs(loaded.sample(500).mean() - 1000) < 20
    source = data.InMemory(x)
    assert training.evaluate(loaded, source) == training.evaluate(model, source)
    into = training.load(tmp_path, model=Tiny())
    assert torch.equal(into.log_weights(x), model.log_weights(x))


@pytest.mark.parametrize("standardize", [True, False])
def test_a_resumed_run_goes_on_in_its_units(tmp_path: Path, standardize: bool) -> None:
    x = 4 + 2 * normal(100, 3).float()
    options = {"standardize": standardize, "ema_decay": 0.9}
    whole = fitted(Tiny, x, tmp_path / "whole", max_epochs=3, **options)
    fitted(Tiny, x, tmp_path / "parts", max_epochs=1, **options)
    # Not asked again: the checkpoint has them, or has none.
    parts = fitted(Tiny, x, tmp_path / "parts", max_epochs=3, resume=True, ema_decay=0.9)
    assert parts.standardization.is_set == standardize
    assert whole.state_dict().keys() == parts.state_dict().keys()
    for name, value in whole.state_dict().items():
        assert torch.equal(parts.state_dict()[name], value), name


@pytest.mark.parametrize("before", [True, False])
def test_a_resumed_run_refuses_the_other_setting(tmp_path: Path, before: bool) -> None:
    x = 4 + 2 * normal(100, 3).float()
    fitted(Tiny, x, tmp_path, max_epochs=1, standardize=before)
    # Left out it is the run's, also in the checkpoints that follow.
    fitted(Tiny, x, tmp_path, max_epochs=2, resume=True)
    fitted(Tiny, x, tmp_path, max_epochs=3, resume=True, standardize=before)
    message = f"`standardize` must be {before}, as before, or left out; got {not before}"
    with pytest.raises(ValueError, match=message):
        fitted(Tiny, x, tmp_path, max_epochs=4, resume=True, standardize=not before)


@pytest.mark.parametrize("before", ["loaded", "trained"])
def test_trained_parameters_keep_the_units_they_have(tmp_path: Path, before: str) -> None:
    x = 4 + 2 * normal(100, 3).float()
    model = fitted(Tiny, x, tmp_path / "first", standardize=False)
    if before == "loaded":
        model = training.load(tmp_path / "first", model=Tiny())
    again = data.InMemory(x)
    training.fit(model, again, run=tmp_path / "again", max_epochs=1, **QUICK)
    assert not model.standardization.is_set
    found = models.FactorAnalysis.fit_ppca(x, latent_dim=1)
    training.fit(found, again, run=tmp_path / "ppca", max_epochs=1, **QUICK)
    assert not found.standardization.is_set


def test_a_trained_model_may_meet_a_constant_column(tmp_path: Path) -> None:
    x = 4 + 2 * normal(100, 3).float()
    model = fitted(Tiny, x, tmp_path / "first", standardize=False)
    x[:, 1] = 7.0
    training.fit(model, data.InMemory(x), run=tmp_path / "again", max_epochs=1, **QUICK)
    with pytest.raises(ValueError, match="`model` must be standardised before"):
        model.standardize(x)
    with pytest.raises(ValueError, match="`model` must be standardised before"):
        training.load(tmp_path / "first", model=Tiny()).standardize(x)


@pytest.mark.parametrize("look", ["eval", "no_grad", "backward", "others"])
def test_who_looks_at_a_loss_before_gets_the_scale(tmp_path: Path, look: str) -> None:
    x = 4 + 2 * normal(100, 3).float()
    pair = [Tiny(), Tiny()]
    losses = [models.ELBOLoss(model) for model in pair]
    for loss in losses:
        with torch.set_grad_enabled(look != "no_grad"):
            value = loss.train(look != "eval")(x)
        if look in ("backward", "others"):
            value.backward()
    for index, model in enumerate(pair if look == "others" else pair[:1]):
        run = tmp_path / str(index)
        training.fit(model, data.InMemory(x), run=run, max_epochs=1, **QUICK)
        assert model.standardization.is_set
        assert model.is_trained


class Rows(Dataset[Any]):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> Tensor:
        return self.x[index]


def test_data_that_are_not_in_memory_are_read_once(tmp_path: Path) -> None:
    x = 1000 + 50 * normal(100, 3).float()
    source = data.InMemory(Rows(x), Rows(x), Rows(x))
    model = Tiny()
    training.fit(model, source, run=tmp_path, max_epochs=1, **QUICK)
    assert model.standardization.shift is not None
    torch.testing.assert_close(model.standardization.shift, x.double().mean(0))


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_constant_column_is_named_before_the_run_begins(tmp_path: Path, in_memory: bool) -> None:
    x = normal(100, 3).float()
    x[:, 1] = 7.0
    source = data.InMemory(x) if in_memory else data.InMemory(Rows(x), Rows(x), Rows(x))
    message = r"`x` must vary .*`standardize=False`.* column 1 constant at 7"
    with pytest.raises(ValueError, match=message):
        training.fit(Tiny(), source, run=tmp_path / "run", max_epochs=1, **QUICK)
    assert not (tmp_path / "run").exists()
    training.fit(Tiny(), source, run=tmp_path / "run", standardize=False, max_epochs=1, **QUICK)


class Stop(lightning.Callback):
    """Fails before or after the first step."""

    def __init__(self, when: str) -> None:
        self.when = when

    def on_train_start(self, *_: Any) -> None:
        if self.when == "before":
            raise KeyboardInterrupt

    def on_train_batch_end(self, *_: Any) -> None:
        if self.when == "after":
            raise OSError("no space")


@pytest.mark.parametrize("failure", ["a run is there", "not writable", "before", "after"])
def test_a_fit_that_fails_leaves_no_scale_of_its_data(tmp_path: Path, failure: str) -> None:
    x = 4 + 2 * normal(100, 3).float()
    fitted(Tiny, x, tmp_path / "first")
    run = tmp_path / ("first" if failure == "a run is there" else "other")
    if failure == "not writable":
        run.write_text("a file")
    model, source = Tiny(), data.InMemory(x)
    with pytest.raises((OSError, KeyboardInterrupt)):
        training.fit(model, source, run=run, max_epochs=1, callbacks=[Stop(failure)], **QUICK)
    assert model.standardization.is_set == (failure == "after")
    assert model.is_trained == (failure == "after")
    assert model.standardization.awaits_batch == (failure != "after")
    kept = model.standardize(100 * x).standardization
    assert kept.scale is not None
    assert bool((kept.scale > 100).all()) == (failure != "after")


WORDS = ["--max_epochs", "1", "--progress", "false", "--num_samples", "0", "--accelerator", "cpu"]


def test_the_command_line_standardizes_unless_told_not_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jsonargparse")
    np.save(tmp_path / "x.npy", (1000 + 50 * normal(100, 3)).numpy().astype(np.float32))
    words = ["train", "FactorAnalysis", "--data", "FromFile", "--data.path", tmp_path / "x.npy"]
    words += ["--model.latent_dim", "1", *WORDS]
    for index, more in enumerate([[], ["--standardize", "false"]]):
        run = tmp_path / str(index)
        capsys.readouterr()
        assert main([*map(str, words), "--run", str(run), *more]) == 0
        assert training.load(run).standardization.is_set == (not more)
        line = next(line for line in capsys.readouterr().out.splitlines() if "nats" in line)
        assert main(["evaluate", str(run)]) == 0
        assert line in capsys.readouterr().out
        again = ["train", "--run", str(run), "--resume", "--max_epochs", "2"]
        assert main([*again, "--standardize", str(bool(more))]) != 0
        assert "`standardize` must be" in capsys.readouterr().err
        assert main(again) == 0
        assert training.load(run).standardization.is_set == (not more)
