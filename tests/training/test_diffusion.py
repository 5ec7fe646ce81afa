"""Training and scoring of diffusion models: what differs from models whose weights are cheap."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import pytest
import torch
import torch.multiprocessing as mp
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pyro_genmodels import data, models, nets, plotting, training
from pyro_genmodels.models import ELBOLoss
from pyro_genmodels.training.engine.average import WeightAverage
from pyro_genmodels.training.engine.training_module import TrainingModule
from tests.training.test_resume import KillAt, KilledError, assert_same_run, last

SHAPE = (3,)
QUICK: dict[str, Any] = {
    "max_epochs": 3,
    "batch_size": 16,
    "num_samples": 0,
    "progress": False,
    "accelerator": "cpu",
}


def diffusion(**options: Any) -> models.DiffusionModel:
    torch.manual_seed(0)
    network = models.DenoisingNetwork(hidden=(8,), dropout=0.2)
    given: dict[str, Any] = {"num_levels": 4, "num_steps": 6, "network": network}
    return models.DiffusionModel(SHAPE, **given | options)


def source() -> data.DataSource:
    generator = torch.Generator().manual_seed(1)
    return data.InMemory(torch.randint(4, (80, *SHAPE), generator=generator), num_levels=4)


class Evaluations:
    """What a model's network is given: levels and noised values, call by call."""

    def __init__(self, model: models.DiffusionModel) -> None:
        self.training: list[int] = []
        self.validation: list[tuple[Tensor, Tensor]] = []
        model.estimator.register_forward_pre_hook(self._note)

    def _note(self, module: nn.Module, given: tuple[Any, ...]) -> None:
        z, level = given[:2]
        if module.training:
            self.training.append(z[..., 0].numel())
        else:
            self.validation.append((z.detach().clone(), level.detach().clone()))


def test_validation_is_cheap_and_meets_the_same_levels_and_noise(tmp_path: Path) -> None:
    model, given = diffusion(schedule=nets.LinearLogSNR(-5.0, 4.0, learnable=False)), source()
    seen = Evaluations(model)
    training.fit(model, given, run=tmp_path, **QUICK)
    number: Any = given.validation
    counts = [z[..., 0].numel() for z, _ in seen.validation]
    assert sum(counts) == 2 * len(number) * QUICK["max_epochs"]
    batches = len(counts) // QUICK["max_epochs"]
    for batch in range(batches):
        epochs = seen.validation[batch::batches]
        assert all(torch.equal(z, epochs[0][0]) for z, _ in epochs)
        assert all(torch.equal(level, epochs[0][1]) for _, level in epochs)


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    options = {**QUICK, "ema_decay": 0.9, "checkpoint_every": 3, "resume": True}
    training.fit(diffusion(), source(), run=tmp_path / "whole", **options)
    kill = KillAt("on_train_batch_end", 6)  # within an epoch
    with pytest.raises(KilledError):
        training.fit(diffusion(), source(), run=tmp_path / "part", callbacks=[kill], **options)
    before = last(tmp_path / "part")["state_dict"]["loss.model.step_sampler.counts"]
    assert float(before.min()) > 0
    torch.manual_seed(77)
    training.fit(diffusion(), source(), run=tmp_path / "part", **options)
    assert_same_run(tmp_path / "whole", tmp_path / "part")


def test_averages_hold_the_ends_and_learned_vectors(tmp_path: Path) -> None:
    model = diffusion(encoding="learned")
    training.fit(model, source(), run=tmp_path, ema_decay=0.9, learning_rate=0.1, **QUICK)
    weights = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    weights = weights["pyro_genmodels"]["weights"]
    names = [
        f"estimator.{name}" for name in ("schedule.first", "schedule.log_range", "data.values")
    ]
    for name in names:
        assert torch.equal(model.state_dict()[name], weights[name])
    rest = last(tmp_path)["state_dict"]
    assert not torch.equal(rest[f"loss.model.{names[0]}"], weights[names[0]])
    # Of the last checkpoint, which is written while the model has its own weights.
    averaged = last(tmp_path)["pyro_genmodels"]["weights"]
    for name in names:
        assert not torch.equal(averaged[name], rest[f"loss.model.{name}"]), name


def test_averages_of_a_shared_part_have_all_its_names(tmp_path: Path) -> None:
    module = torch.nn.ModuleDict({"left": torch.nn.Linear(1, 1)})
    module["right"] = module["left"]
    average = WeightAverage(module, 0.5)
    torch.nn.init.constant_(module["left"].weight, 5.0)
    average.update()
    state = average.state_dict()
    assert torch.equal(state["left.weight"], state["right.weight"]), "left.weight is right.weight"


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_weight_decay_leaves_the_ends_alone(tmp_path: Path, optimizer: str) -> None:
    model = diffusion()
    seen: list[list[dict[str, Any]]] = []

    class Groups(lightning.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            seen.append(trainer.optimizers[0].param_groups)

    options = {**QUICK, "max_epochs": 1, "optimizer": optimizer, "callbacks": [Groups()]}
    for decay in (0.0, 0.1):
        training.fit(model, source(), run=tmp_path / str(decay), weight_decay=decay, **options)
    without, (decayed, spared) = seen
    assert [group["weight_decay"] for group in without] == [0.0]
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    ends = {id(model.schedule.first), id(model.schedule.log_range)}
    assert {id(p) for p in spared["params"]} == ends
    assert len(decayed["params"]) + 2 == len(without[0]["params"])


def test_one_group_where_nothing_is_spared() -> None:
    """As earlier versions had it, whose checkpoints resume; of ends that are frozen, too."""
    model = diffusion()
    module = TrainingModule(model, source(), training.TrainingSettings(weight_decay=0.1), float)
    assert len(module.configure_optimizers().param_groups) == 2
    model.schedule.requires_grad_(False)
    assert len(module.configure_optimizers().param_groups) == 1


@pytest.mark.parametrize("how", ["eval", "frozen"])
def test_frozen_step_samplers_keep_their_means(how: str) -> None:
    model, x = diffusion(), source().train[:][0]  # type: ignore[index]
    if how == "eval":
        model.step_sampler.eval()
    else:
        model.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        Trace_ELBO().differentiable_loss(model.model, model.guide, x)
    after = model.state_dict()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    model.requires_grad_(True).train()
    Trace_ELBO().differentiable_loss(model.model, model.guide, x)
    assert float(model.step_sampler.counts.sum()) == len(x)


def test_an_evaluation_scores_both_bounds_by_the_same_chains() -> None:
    model, given = diffusion(), source()
    number = len(given.test)  # type: ignore[arg-type]
    for steps, notes in ((None, "6 steps"), (2, "2 steps instead of 6")):
        seen = Evaluations(model)
        result = training.evaluate(model, given, num_particles=5, num_steps=steps, progress=False)
        rows = sum(z[..., 0].numel() for z, _ in seen.validation)
        assert rows == 5 * number * (steps or 6)
        assert result.bound == f"importance-weighted bound, 5 samples, {notes}"
        assert result.elbo is not None
        assert result.elbo.mean > result.nats.mean
    assert training.evaluate(model, given).bound.startswith("importance-weighted bound, 8 samples")
    with pytest.raises(ValueError, match=r"`num_steps` must be positive; got 0"):
        training.evaluate(model, given, num_steps=0)
    with pytest.raises(ValueError, match=r"`num_steps` must be left out, as VAE has no.*got 3"):
        training.evaluate(models.VAE(SHAPE, num_levels=4), given, num_steps=3)


@pytest.mark.parametrize("objective", ["iwae", "dreg"])
def test_importance_weights_train_whole_chains(tmp_path: Path, objective: str) -> None:
    model, options = diffusion(), {**QUICK, "max_epochs": 1, "num_particles": 2}
    seen = Evaluations(model)
    cost = r"importance weights of DiffusionModel take a whole chain \(6 steps\) per example"
    with pytest.warns(UserWarning, match=cost):
        training.fit(model, source(), run=tmp_path, objective=objective, **options)
    number = len(source().train) // 16 * 16  # type: ignore[arg-type]
    assert sum(seen.training) == 2 * 2 * 6 * number  # again where the gradient needs it
    with pytest.raises(ValueError, match=r"`model` must have beta 1 .*; got simple"):
        training.fit(diffusion(objective="simple"), source(), run=tmp_path / "x", objective="iwae")


def test_pictures_during_training_take_few_steps_and_say_so(tmp_path: Path) -> None:
    drawn: list[tuple[int, str]] = []
    model = diffusion(num_steps=40)
    seen = Evaluations(model)

    def noting(samples: Tensor, *args: Any, title: str, **options: Any) -> None:
        drawn.append((len(seen.validation), title))
        seen.validation.clear()

    options = {**QUICK, "max_epochs": 1, "num_samples": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "save_samples", noting)
        training.fit(model, source(), run=tmp_path, **options)
    (first, during), (final, after) = drawn
    assert first == 32 + 1  # and the validation batch
    assert during == "DiffusionModel on InMemory, epoch 1, 32 steps"
    assert (final, after) == (40, "DiffusionModel on InMemory, epoch 1")


def _train_rank(rank: int, folder: str) -> None:
    """One of two processes, with data and random numbers of its own."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    model, states = diffusion(), []
    ranked = DistributedDataParallel(ELBOLoss(model))
    optimizer = torch.optim.Adam(ranked.parameters(), lr=1e-2)
    torch.manual_seed(rank)
    for _ in range(20):
        optimizer.zero_grad()
        ranked(torch.randint(4, (12 + rank, *SHAPE))).backward()
        optimizer.step()
        # After each step: the next begins with a broadcast of buffers, which hides what differs.
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    torch.save(stacked, f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    # Not through the group's own end: in torch 2.6 gloo can wait for ever for a rank that left.
    os._exit(0)


@pytest.mark.once
def test_ranks_draw_steps_by_the_same_means(tmp_path: Path) -> None:
    mp.spawn(_train_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert float(first["step_sampler.counts"][0].sum()) == 12 + 13
