"""The objective as a setting, and the course of the learning rate down to where it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
import yaml

import pyro_genmodels
from pyro_genmodels import data, models, training
from pyro_genmodels.cli import main
from pyro_genmodels.training.engine.training_module import TrainingModule
from tests.grouped import grouped
from tests.training.tiny import QUICK, Tiny, source


def vae(**options: Any) -> models.VAE:
    return models.VAE(
        (3,), latent_dim=2, network=models.VAENetwork(hidden=(6,)), **grouped(models.VAE, options)
    )


class Watch(lightning.Callback):
    """Notes the optimizer's settings, and the learning rate of each step."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.group: dict[str, Any] = {}
        self.loss: Any = None

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.group = {
            k: v for k, v in trainer.optimizers[0].param_groups[0].items() if k != "params"
        }
        self.rates.append(self.group["lr"])
        self.loss = pl_module.loss


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_the_bound_is_trained_and_kept(tmp_path: Path, objective: str) -> None:
    watch, options = Watch(), {"objective": objective, "num_particles": 4, "max_epochs": 2}
    rows = training.fit(vae(), source(), run=tmp_path, callbacks=[watch], **options, **QUICK)
    assert watch.loss.importance
    assert watch.loss.num_particles == 4
    assert watch.loss.doubly_reparameterized == (objective == "dreg")
    assert rows[-1]["validation_nats"] < rows[0]["validation_nats"]
    own = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)["pyro_genmodels"]
    assert (own["objective"], own["num_particles"]) == (objective, 4)
    assert isinstance(pyro_genmodels.load(tmp_path), models.VAE)
    with pytest.raises(ValueError, match=f"`objective` must be {objective}, as before; got elbo"):
        training.fit(vae(), source(), run=tmp_path, resume=True, max_epochs=3, **QUICK)


def test_validation_is_by_the_bound_that_is_trained() -> None:
    model, x = vae(), torch.randn(40, 3)
    settings = training.TrainingSettings(objective="iwae", num_particles=7)
    loss = TrainingModule(model, source(), settings, lambda: 0.0).loss
    torch.manual_seed(0)
    bound = loss.bound(x)
    torch.manual_seed(0)
    weights = model.log_weights(x, num_particles=7)
    torch.testing.assert_close(bound, weights.exp().mean(0).log())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: models.BetaVAE((3,), latent_dim=2, objective=models.KLObjective(beta=4.0)),
            "got beta 4",
        ),
        (lambda: vae(free_bits=1.0), "got free_bits 1"),
        (lambda: vae(warmup_steps=5), "got warmup_steps 5"),
    ],
)
def test_another_objective_is_named_before_the_run(
    model: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        training.fit(model(), source(), run=tmp_path / "run", objective="iwae", **QUICK)
    assert not (tmp_path / "run").exists()


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "train",
        "vae",
        "--data",
        "digits",
        "--model.network.hidden",
        "[8]",
        "--max_epochs",
        "1",
    ]
    words += ["--objective", "iwae", "--num_particles", "3", "--num_samples", "0"]
    words += ["--progress", "false", "--accelerator", "cpu", "--run", str(tmp_path / "run")]
    assert main(words) == 0
    kept = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (kept["objective"], kept["num_particles"]) == ("iwae", 3)
    assert main([*words[:-1], str(tmp_path / "no"), "--model.objective.free_bits", "1"]) == 1
    assert "free_bits 1" in capsys.readouterr().err


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_a_loss_that_is_not_finite_is_named_with_its_site(objective: str, tmp_path: Path) -> None:
    model = vae()
    torch.nn.init.constant_(model.decoder.mlp.layers[-1].bias, torch.inf)
    with pytest.raises(RuntimeError, match=r"epoch 1, step 1: .*site 'x'"):
        training.fit(model, source(), run=tmp_path, objective=objective, **QUICK)


def test_several_particles_average_the_elbo(tmp_path: Path) -> None:
    watch = Watch()
    options = {"num_particles": 3, "max_epochs": 1}
    training.fit(vae(), source(), run=tmp_path, callbacks=[watch], **options, **QUICK)
    assert watch.loss.num_particles == 3
    assert not watch.loss.importance


@pytest.mark.parametrize(
    ("schedule", "final", "ends"),
    [
        ("cosine", None, 0.0),
        ("cosine", 1e-3, 1e-3),
        ("exponential", None, 1e-4),
        ("exponential", 1e-3, 1e-3),
        ("constant", None, 1e-2),
    ],
)
def test_the_course_ends_where_it_is_to(schedule: Any, final: float | None, ends: float) -> None:
    settings = training.TrainingSettings(
        learning_rate=1e-2, schedule=schedule, final_learning_rate=final
    )
    assert settings.rate(0.0) == pytest.approx(1.0)
    assert 1e-2 * settings.rate(1.0) == pytest.approx(ends)
    halfway = {"cosine": (1e-2 + ends) / 2, "exponential": (1e-2 * ends) ** 0.5}
    assert 1e-2 * settings.rate(0.5) == pytest.approx(halfway.get(schedule, 1e-2))


def test_published_settings_reach_nvaes_optimizer(tmp_path: Path) -> None:
    """By its own defaults: Adamax with these, down to a hundredth of the peak."""
    images = data.InMemory(torch.randint(2, (32, 1, 4, 4)), num_levels=2)
    model = models.NVAE(
        (1, 4, 4),
        num_levels=2,
        network=models.NVAENetwork((1,), num_blocks=0, channels=4, latent_channels=2),
    )
    watch = Watch()
    options = {**QUICK, "batch_size": 8, "max_epochs": 3}
    training.fit(model, images, run=tmp_path, callbacks=[watch], **options)
    assert watch.group["eps"] == 1e-3
    assert watch.group["weight_decay"] == 3e-4
    assert watch.rates[0] > 5e-3
    assert 1e-4 <= watch.rates[-1] < 2e-3


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "adamax", "rmsprop"])
def test_epsilon_reaches_the_optimizer(optimizer: str, tmp_path: Path) -> None:
    watch, options = Watch(), {"optimizer": optimizer, "epsilon": 0.25, "max_epochs": 1}
    training.fit(Tiny(), source(), run=tmp_path, callbacks=[watch], **options, **QUICK)
    assert watch.group["eps"] == 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "vae"}, "`objective` must be one of"),
        ({"num_particles": 0}, "`num_particles` must be positive"),
        ({"epsilon": 0.0}, "`epsilon` must be positive"),
        (
            {"final_learning_rate": 0.1, "schedule": "cosine"},
            r"`final_learning_rate` must lie between 0 and learning_rate, 0.001; got 0.1",
        ),
        ({"final_learning_rate": 0.0, "schedule": "exponential"}, "`final_learning_rate` must lie"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], message: str) -> None:
    # A wrong choice is a type error already where the tests check types.
    with pytest.raises((ValueError, TypeError), match=rf"{message}|Expected type"):
        training.TrainingSettings(**settings)
