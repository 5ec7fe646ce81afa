"""Training: settings, silent failures that are named, averages, evaluation, plain SVI."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pyro
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from pyro_genmodels import data, models, training
from pyro_genmodels.training.batches import Batches
from pyro_genmodels.training.engine.average import WeightAverage
from tests.training.tiny import QUICK, Tiny, source


def test_training_finds_the_mean(tmp_path: Path) -> None:
    model = Tiny()
    data_source = source(count=2000)
    settings = {**QUICK, "max_epochs": 8, "learning_rate": 0.05, "schedule": "cosine"}
    # In the units of the data, its parameter is their mean.
    training.fit(model, data_source, run=tmp_path, standardize=False, **settings)
    assert model.mean.detach().allclose(torch.full((3,), 2.0), atol=0.15)
    result = training.evaluate(model, data_source)
    assert result.bound == "exact log-likelihood"
    assert abs(result.nats.mean - 3 * 1.419) < 0.15
    assert training.evaluate(model, data_source) == result


@pytest.mark.parametrize(
    ("shape", "num_levels", "chunk"),
    [((2,), None, 8192), ((64,), None, 4096), ((8,), 4, 512), ((1, 2, 2), None, 512)],
)
def test_many_short_vectors_are_scored_at_once(
    shape: tuple[int, ...], num_levels: int | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.randint(4, (300, *shape)).float()
    source = data.InMemory(x, x[:3], x, num_levels=num_levels)
    network = models.VAENetwork(hidden=(4,))
    model = models.VAE(shape, num_levels=num_levels, latent_dim=2, network=network)
    drawn: list[int] = []

    def weights(x: torch.Tensor, *_: Any, num_particles: int) -> torch.Tensor:
        drawn.append(len(x) * num_particles)
        return torch.zeros(num_particles, len(x))

    monkeypatch.setattr(model, "log_weights", weights)
    training.evaluate(model, source, num_particles=100)
    assert chunk - 100 < max(drawn) <= chunk
    drawn.clear()
    training.evaluate(model, source, num_particles=100, chunk_size=200)
    assert max(drawn) == 200


@pytest.mark.parametrize("optimizer", ["adamw", "adamax", "rmsprop", "sgd"])
@pytest.mark.parametrize("schedule", ["constant", "exponential"])
def test_every_optimizer_and_schedule_steps(tmp_path: Path, optimizer: str, schedule: str) -> None:
    model = Tiny()
    options = {"optimizer": optimizer, "schedule": schedule, "weight_decay": 0.01, "max_epochs": 1}
    training.fit(model, source(), run=tmp_path, warmup_steps=2, **options, **QUICK)
    assert bool((model.mean != 0).all())


def test_mixed_precision_and_clipping_train(tmp_path: Path) -> None:
    options = {"precision": "bf16-mixed", "gradient_clip": 1.0, "max_epochs": 1}
    rows = training.fit(Tiny(), source(), run=tmp_path, **options, **QUICK)
    assert rows[0]["validation_nats"] < 20


class Interrupt(lightning.Callback):
    def on_train_epoch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


def test_ctrl_c_keeps_the_last_checkpoint_and_the_signal(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        training.fit(Tiny(), source(), run=tmp_path, callbacks=[Interrupt()], **QUICK)
    assert signal.getsignal(signal.SIGINT) is before
    last = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1


def test_patience_stops(tmp_path: Path) -> None:
    options = {**QUICK, "learning_rate": 1e-12, "patience": 2, "max_epochs": 50}
    rows = training.fit(Tiny(), source(), run=tmp_path, **options)
    assert 3 <= len(rows) < 50


def test_a_parameter_that_no_step_reaches_is_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"epoch 1, step 1: .* none reached log_scale"):
        training.fit(Tiny(forgets=True), source(), run=tmp_path, **QUICK)


def test_a_frozen_parameter_need_not_be_reached(tmp_path: Path) -> None:
    model = Tiny(forgets=True)
    model.log_scale.requires_grad_(False)
    training.fit(model, source(), run=tmp_path, max_epochs=1, **QUICK)


def test_a_loss_that_is_not_finite_is_named_with_its_site(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"epoch 1, step 1: .*site 'x'.*NaN"):
        training.fit(Tiny(explodes=True), source(), run=tmp_path, **QUICK)


def test_a_model_without_parameters_is_named(tmp_path: Path) -> None:
    model = Tiny().requires_grad_(False)
    with pytest.raises(ValueError, match="trainable parameter"):
        training.fit(model, source(), run=tmp_path, **QUICK)


class Poisoned(Dataset[tuple[torch.Tensor, ...]]):
    """Not in memory, so seen only batch by batch."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        return (torch.full((3,), torch.nan if index == 40 else 1.0),)


def test_nan_in_a_batch_is_named(tmp_path: Path) -> None:
    poisoned = data.InMemory(Poisoned(), torch.randn(9, 3), torch.randn(9, 3))
    with pytest.raises((ValueError, RuntimeError), match=r"must be finite; got 3 NaN"):
        training.fit(Tiny(), poisoned, run=tmp_path, **QUICK)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(0, 1, 4, 4), "at least one example"),
        (torch.zeros(5, 1, 4, 5), "trailing shape"),
        (torch.zeros(5, 3, 4, 4), "trailing shape"),
        (torch.full((5, 1, 4, 4), 4.0), "integers from 0 to 3"),
        (torch.full((5, 1, 4, 4), -1.0), "integers from 0 to 3"),
        (torch.full((5, 1, 4, 4), 0.5), "integers from 0 to 3"),
        (torch.full((5, 1, 4, 4), torch.nan), "integers from 0 to 3"),
    ],
)
def test_data_that_do_not_fit_are_named(x: torch.Tensor, message: str) -> None:
    model = models.VAE((1, 4, 4), num_levels=4, network=models.VAENetwork(hidden=(4,)))
    with pytest.raises(ValueError, match=message):
        Batches(TensorDataset(x), model, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 0},
        {"learning_rate": -1.0},
        {"optimizer": "lion"},
        {"ema_decay": 1.5},
        {"epochs": 3},
        {"seed": -1},
        {"precision": "8"},
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], tmp_path: Path) -> None:
    # A wrong choice is a type error already where the tests check types.
    with pytest.raises((ValueError, TypeError), match=r"must .* got|Expected type"):
        training.fit(Tiny(), source(), run=tmp_path, **settings)


def test_batches_share_an_epoch_without_overlap() -> None:
    dataset = TensorDataset(torch.arange(103.0).unsqueeze(1).expand(103, 3))
    shares = [Batches(dataset, Tiny(), 8, seed=1, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(2):
        seen = torch.cat([x[:, 0] for share in shares for x, _ in share])
        assert len(seen) == len(seen.unique()) == 96
    first, again = (list(Batches(dataset, Tiny(), 8, seed=1)) for _ in range(2))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))


def test_batches_go_on_at_any_place() -> None:
    dataset = TensorDataset(torch.randn(50, 3))
    batches = Batches(dataset, Tiny(), 8, seed=1)
    whole = [x for _ in range(3) for x, _ in batches]
    for place in range(18):
        resumed = Batches(dataset, Tiny(), 8, seed=1)
        resumed.load_state_dict({"epoch": place // 6, "batch": place % 6})
        assert torch.equal(next(iter(resumed))[0], whole[place])


def test_in_memory_and_itemwise_batches_are_the_same() -> None:
    class Items(Dataset[tuple[torch.Tensor, ...]]):
        def __len__(self) -> int:
            return len(x)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            return (x[index],)

    x = torch.randn(20, 3)
    fast = Batches(TensorDataset(x), Tiny(), 6, seed=2)
    slow = Batches(Items(), Tiny(), 6, seed=2)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(fast, slow, strict=True))


def test_the_average_follows_its_equation_and_gives_the_weights_back() -> None:
    model, expected = Tiny(), 0.0
    average = WeightAverage(model, 0.5)
    for step in range(1, 20):
        with torch.no_grad():
            model.mean.fill_(float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
    with average.in_place():
        assert model.mean.detach().allclose(torch.tensor(expected))
    assert bool((model.mean == 19).all())
    assert average.state_dict()["mean"].allclose(torch.tensor(expected))


def test_bounds_of_a_vae_are_ordered_and_repeat(tmp_path: Path) -> None:
    digits = data.Digits()
    model = models.VAE(
        digits.event_shape, num_levels=17, latent_dim=2, network=models.VAENetwork(hidden=(8,))
    )
    result = training.evaluate(model, digits, split="validation", num_particles=8)
    assert result.elbo is not None
    assert result.importance_weighted is not None
    assert result.importance_weighted.mean <= result.elbo.mean
    assert training.evaluate(model, digits, split="validation", num_particles=8) == result


def test_the_gap_to_a_known_truth_is_reported() -> None:
    truth = data.Sampled(data.EightGaussians(), train=10, validation=10, test=50)
    gap = training.evaluate(Tiny(2), truth).gap
    assert gap is not None
    assert gap.mean > 0.5


def test_plain_svi_trains_the_same_model() -> None:
    model, x = Tiny(), torch.randn(256, 3) + 2
    svi = pyro.infer.SVI(
        model.model, model.guide, pyro.optim.Adam({"lr": 0.05}), pyro.infer.Trace_ELBO()
    )
    losses = [svi.step(x) / len(x) for _ in range(150)]
    assert losses[-1] < 4.6 < losses[0]


def test_a_diverging_model_is_named_though_its_prior_validates(tmp_path: Path) -> None:
    x = torch.randn(50, 3)
    settings = {**QUICK, "batch_size": 16, "learning_rate": 1e30, "max_epochs": 2}
    vae = models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(8,)))
    with pytest.raises(RuntimeError, match=r"epoch 1, step 2: .* site 'z' .* must be finite"):
        training.fit(vae, data.InMemory(x), run=tmp_path, **settings)


def test_a_schedule_by_time_ends_with_the_time(tmp_path: Path) -> None:
    rates: list[float] = []

    class Watch(lightning.Callback):
        def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    settings = {**QUICK, "max_epochs": 10_000, "schedule": "cosine", "schedule_by": "time"}
    training.fit(Tiny(), source(), run=tmp_path, max_time=1.0, callbacks=[Watch()], **settings)
    assert rates[-1] < 0.02 * max(rates)
    assert all(later <= rate for rate, later in itertools.pairwise(rates))


@pytest.mark.parametrize("settings", [{}, {"max_time": 1.0, "devices": 2}], ids=str)
def test_a_schedule_by_time_needs_a_limit_and_one_device(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="`schedule_by` must be 'steps' without max_time"):
        training.TrainingSettings(schedule_by="time", **settings)


def test_the_rate_of_the_latents_is_logged(tmp_path: Path) -> None:
    """Of each site, and how many of its units are in use."""
    model = models.VAE((3,), latent_dim=4, network=models.VAENetwork(hidden=(6,)))
    rows = training.fit(model, source(), run=tmp_path, max_epochs=2, **QUICK)
    assert all(row["rate_z"] > 0 and 0 <= row["active_units_z"] <= 4 for row in rows)
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header.endswith("rate_z,active_units_z")
