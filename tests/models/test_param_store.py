"""Saving and loading in Pyro's way: training goes on where it was, or one error says why not."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn

from pyro_genmodels import metrics, models, optim
from pyro_genmodels.models.base import param_registration

pytestmark = pytest.mark.once  # Pyro 1.9.1 cannot load its own store under torch 2.6
X = torch.linspace(-1, 1, 48).reshape(8, 6)
OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "PyroOptim": lambda: pyro.optim.Adam({"lr": 1e-2}),
    "JointOptim": lambda: optim.JointOptim(torch.optim.Adam, {"lr": 1e-2}),
}


@pytest.fixture
def new_process(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Forget what a process that begins does not know."""

    def forget() -> None:
        pyro.clear_param_store()
        monkeypatch.setattr(param_registration, "_owners", type(param_registration._owners)())
        monkeypatch.setattr(param_registration, "_counters", copy.copy(COUNTERS))

    return forget


COUNTERS = type(param_registration._counters)(param_registration._counters.default_factory)


def vae() -> models.VAE:
    return models.VAE((6,), latent_dim=2, network=models.VAENetwork(hidden=(5,)))


def steps(model: Any, optimizer: Any, number: int) -> list[float]:
    torch.manual_seed(7)
    svi = SVI(model.model, model.guide, optimizer, Trace_ELBO())
    return [svi.step(X) for _ in range(number)]


def saved(model: Any, optimizer: Any, folder: Path) -> list[float]:
    """Train, save the store and the optimizer, and return the losses that would come next."""
    steps(model, optimizer, 20)
    pyro.get_param_store().save(str(folder / "store.pt"))
    optimizer.save(str(folder / "optimizer.pt"))
    torch.save(model.state_dict(), folder / "model.pt")
    return steps(model, optimizer, 3)


def load(folder: Path, optimizer: Any) -> None:
    pyro.get_param_store().load(str(folder / "store.pt"))
    optimizer.load(str(folder / "optimizer.pt"))


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("with_state_dict", [False, True])
def test_training_goes_on_where_it_was(
    make: Callable[[], Any],
    with_state_dict: bool,
    tmp_path: Path,
    new_process: Callable[[], None],
) -> None:
    model, optimizer = vae(), make()
    model.pyro_name = "mine"
    expected = saved(model, optimizer, tmp_path)
    new_process()
    other, again, optimizer = vae(), vae(), make()
    other.model(X)  # takes a serial number
    load(tmp_path, optimizer)
    again.pyro_name = "mine"
    if with_state_dict:
        again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert steps(again, optimizer, 3) == expected


def test_it_does_in_a_process_of_its_own(tmp_path: Path) -> None:
    model, optimizer = vae(), pyro.optim.Adam({"lr": 1e-2})
    model.pyro_name = "mine"
    expected = saved(model, optimizer, tmp_path)
    program = f"""
import pathlib, torch
from tests.models.test_param_store import OPTIMIZERS, load, steps, vae
torch.set_num_threads(1)
optimizer, model = OPTIMIZERS["PyroOptim"](), vae()
load(pathlib.Path({str(tmp_path)!r}), optimizer)
model.pyro_name = "mine"
print(steps(model, optimizer, 3))
"""
    command = [sys.executable, "-c", program]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    torch.testing.assert_close(torch.tensor(json.loads(shown)), torch.tensor(expected))


@pytest.mark.parametrize("name", ["mine", None])
@pytest.mark.parametrize("others", [0, 1])
def test_an_automatic_name_is_an_error_that_gives_the_right_one(
    name: str | None, others: int, tmp_path: Path, new_process: Callable[[], None]
) -> None:
    model, optimizer = vae(), pyro.optim.Adam({"lr": 1e-2})
    if name:
        model.pyro_name = name
    expected = saved(model, optimizer, tmp_path)
    name = model.pyro_name
    new_process()
    for _ in range(others):
        models.VAE((6,), latent_dim=3, network=models.VAENetwork(hidden=(5,))).model(X)
    again, optimizer = vae(), pyro.optim.Adam({"lr": 1e-2})
    load(tmp_path, optimizer)
    for use in (again.model, again.guide, again.log_weights, lambda x: again.sample(2)):
        with pytest.raises(ValueError, match=rf"`pyro_name` must be set .* to '{name}' to go on"):
            use(X)
    again.pyro_name = name
    assert steps(again, optimizer, 3) == expected


def test_a_new_name_or_an_empty_store_begins_anew(
    tmp_path: Path, new_process: Callable[[], None]
) -> None:
    saved(vae(), pyro.optim.Adam({"lr": 1e-2}), tmp_path)
    new_process()
    fresh = vae()
    before = copy.deepcopy(fresh.state_dict())
    load(tmp_path, pyro.optim.Adam({"lr": 1e-2}))
    fresh.pyro_name = "another"
    fresh.model(X)
    assert all(torch.equal(before[name], value) for name, value in fresh.state_dict().items())
    pyro.clear_param_store()
    vae().model(X)


def test_whatever_is_used_first_has_the_loaded_values(
    tmp_path: Path, new_process: Callable[[], None]
) -> None:
    model = vae()
    model.pyro_name = "mine"
    saved(model, pyro.optim.Adam({"lr": 1e-2}), tmp_path)
    pyro.get_param_store().load(str(tmp_path / "store.pt"))  # takes the last three steps back
    model.model(X)
    torch.manual_seed(0)
    expected = metrics.elbo(model, X)
    new_process()
    pyro.get_param_store().load(str(tmp_path / "store.pt"))
    again = vae()
    again.pyro_name = "mine"
    torch.manual_seed(0)
    assert torch.equal(torch.as_tensor(metrics.elbo(again, X)), torch.as_tensor(expected))


def test_a_store_that_is_loaded_in_training_replaces_what_was_learned(tmp_path: Path) -> None:
    model, optimizer = vae(), pyro.optim.SGD({"lr": 1e-2})
    expected = saved(model, optimizer, tmp_path)
    pyro.get_param_store().load(str(tmp_path / "store.pt"))
    assert steps(model, optimizer, 3) == expected


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_that_is_loaded_in_training_does_too(tmp_path: Path, assign: bool) -> None:
    model, optimizer = vae(), pyro.optim.SGD({"lr": 1e-2})
    expected = saved(model, optimizer, tmp_path)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    model.load_state_dict(state, assign=assign)
    assert steps(model, optimizer, 3) == expected


def test_what_the_store_does_not_hold_is_named(
    tmp_path: Path, new_process: Callable[[], None]
) -> None:
    """Buffers: an averaged codebook, running statistics, random orders of a flow."""
    flow = models.realnvp((6,), width=4, num_couplings=2)
    flow.pyro_name = "flow"
    flow.register_buffer("statistics", torch.ones(2))
    expected = saved(flow, pyro.optim.Adam({"lr": 1e-2}), tmp_path)
    new_process()
    again, optimizer = models.realnvp((6,), width=4, num_couplings=2), OPTIMIZERS["PyroOptim"]()
    again.register_buffer("statistics", torch.zeros(2))
    load(tmp_path, optimizer)
    again.pyro_name = "flow"
    before = copy.deepcopy(again.state_dict())
    with pytest.raises(ValueError, match=r"must have loaded its state dict too.*statistics"):
        again.model(X)
    assert all(torch.equal(before[name], value) for name, value in again.state_dict().items())
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert steps(again, optimizer, 3) == expected


def test_values_of_another_model_are_refused_and_nothing_is_copied(
    tmp_path: Path, new_process: Callable[[], None]
) -> None:
    model = vae()
    model.pyro_name = "mine"
    saved(model, pyro.optim.Adam({"lr": 1e-2}), tmp_path)
    for other in (models.VAE((6,), latent_dim=3, network=models.VAENetwork(hidden=(5,))), vae()):
        new_process()
        other.extra = nn.Parameter(torch.zeros(2))
        pyro.get_param_store().load(str(tmp_path / "store.pt"))
        other.pyro_name = "mine"
        before = copy.deepcopy(other.state_dict())
        with pytest.raises(ValueError, match=r"must have the trainable parameters .* 'mine'"):
            other.guide(X)
        assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def test_two_live_models_cannot_share_a_name() -> None:
    first, second = vae(), vae()
    first.pyro_name = "mine"
    with pytest.raises(ValueError, match="`pyro_name` must not be that of another live model"):
        second.pyro_name = "mine"
    assert second.pyro_name.startswith("VAE_")
    first.model(X)
    with pytest.raises(ValueError, match="`pyro_name` must not be that of another live model"):
        second.pyro_name = "mine"
    first.loop = first  # a cycle does not keep the name
    del first
    second.pyro_name = "mine"


def test_a_name_is_set_before_the_first_use() -> None:
    model = vae()
    model.pyro_name = "a"
    model.pyro_name = "b"
    model.model(X)
    model.pyro_name = "b"
    with pytest.raises(ValueError, match="`pyro_name` must be set before the first use; got 'c'"):
        model.pyro_name = "c"
    for wrong in ("", "a$$$b"):
        with pytest.raises(ValueError, match=r"`pyro_name` must be a name without '\$\$\$'"):
            vae().pyro_name = wrong


def test_a_copy_has_a_name_of_its_own_and_a_pickle_keeps_it() -> None:
    model = vae()
    model.pyro_name = "mine"
    assert copy.deepcopy(model).pyro_name != "mine"
    pickled = pickle.dumps(model)
    assert pickle.loads(pickled).pyro_name != "mine"
    del model
    assert pickle.loads(pickled).pyro_name == "mine"


def test_a_model_in_a_users_module_is_not_taken_for_a_loaded_one() -> None:
    class Mine(pyro.nn.PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.part = vae()

        def forward(self, x: Tensor) -> Tensor:
            return self.part.model(x)

    for _ in range(2):
        Mine()(X)


def test_a_model_without_parameters_to_train_is_not_taken_for_a_loaded_one() -> None:
    """Whatever else the store holds: a frozen model, or one whose weights are all random."""
    pyro.param("loc", torch.zeros(3))
    pyro.module("linear", nn.Linear(2, 3))
    vae().requires_grad_(False).model(X)


def test_a_param_of_the_users_is_not_taken_for_a_loaded_model() -> None:
    pyro.param("AutoNormal.locs.weight", torch.zeros(3))
    vae().requires_grad_(False).guide(X)


class Scaled(PyroModule):
    """A decoder with a parameter of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = PyroModule[nn.Linear](2, 12)
        self.size = PyroParam(torch.ones(12), constraint=dist.constraints.positive)

    def forward(self, z: Tensor) -> Tensor:
        result: Tensor = self.linear(z) * self.size
        return result


def converted() -> models.VAE:
    model = vae()
    to_pyro_module_(model)
    return model


def with_pyro_param() -> models.VAE:
    return models.VAE((6,), latent_dim=2, network=models.VAENetwork(hidden=(5,), decoder=Scaled()))


PARTS: dict[str, Callable[[], models.VAE]] = {
    "converted": converted,
    "PyroParam": with_pyro_param,
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("model_of", PARTS.values(), ids=PARTS)
def test_parts_that_are_pyro_modules_keep_their_moments(
    model_of: Callable[[], models.VAE],
    make: Callable[[], Any],
    tmp_path: Path,
    new_process: Callable[[], None],
) -> None:
    model, optimizer = model_of(), make()
    model.pyro_name = "mine"
    expected = saved(model, optimizer, tmp_path)
    assert all(site.startswith("mine$$$") for site in pyro.get_param_store())
    new_process()
    again, optimizer = model_of(), make()
    load(tmp_path, optimizer)
    again.pyro_name = "mine"
    assert steps(again, optimizer, 3) == expected


@pytest.mark.parametrize("model_of", PARTS.values(), ids=PARTS)
def test_parts_that_are_pyro_modules_are_of_one_instance(
    model_of: Callable[[], models.VAE],
) -> None:
    first = model_of()
    steps(first, pyro.optim.Adam({"lr": 1e-2}), 2)
    before = copy.deepcopy(first.state_dict())
    for other in (model_of(), copy.deepcopy(first)):
        own = copy.deepcopy(other.state_dict())
        steps(other, pyro.optim.Adam({"lr": 1e-2}), 2)
        assert all(not torch.equal(own[n], p) for n, p in other.named_parameters())
        assert all(torch.equal(before[n], p) for n, p in first.named_parameters())


def test_frozen_parameters_get_loaded_values_too(
    tmp_path: Path, new_process: Callable[[], None]
) -> None:
    model = vae()
    model.pyro_name = "mine"
    saved(model, pyro.optim.Adam({"lr": 1e-2}), tmp_path)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    for again in (model, vae()):
        if again is not model:
            new_process()
            again.pyro_name = "mine"
        again.encoder.requires_grad_(False)
        pyro.get_param_store().load(str(tmp_path / "store.pt"))
        again.model(X)
        assert all(torch.equal(state[name], p) for name, p in again.named_parameters())


def test_weights_that_were_frozen_are_asked_for(
    tmp_path: Path, new_process: Callable[[], None]
) -> None:
    """They are not in the store: a fresh encoder would be left beside a trained decoder."""
    model = vae()
    model.pyro_name = "mine"
    model.encoder.requires_grad_(False)
    expected = saved(model, pyro.optim.Adam({"lr": 1e-2}), tmp_path)
    new_process()
    again, optimizer = vae(), pyro.optim.Adam({"lr": 1e-2})
    again.encoder.requires_grad_(False)
    again.pyro_name = "mine"
    load(tmp_path, optimizer)
    with pytest.raises(ValueError, match=r"lacks buffers and frozen weights; got encoder.* more"):
        again.model(X)
    again.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert steps(again, optimizer, 3) == expected


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_moments_roll_back_with_the_weights(make: Callable[[], Any], tmp_path: Path) -> None:
    model, optimizer = vae(), make()
    expected = saved(model, optimizer, tmp_path)
    load(tmp_path, optimizer)
    assert steps(model, optimizer, 3) == expected


@pytest.mark.parametrize("used", [False, True])
def test_a_model_made_again_in_one_process_is_not_silently_fresh(
    used: bool, tmp_path: Path
) -> None:
    model = vae()
    saved(model, pyro.optim.Adam({"lr": 1e-2}), tmp_path)
    name = model.pyro_name
    del model
    again = vae()
    pyro.clear_param_store()
    if used:
        again.model(X)
    pyro.get_param_store().load(str(tmp_path / "store.pt"))
    with pytest.raises(ValueError, match=rf"`pyro_name` must be set .* to '{name}' to go on"):
        again.model(X)


def test_torchs_way_takes_loaded_values_too(
    tmp_path: Path, new_process: Callable[[], None]
) -> None:
    model = vae()
    model.pyro_name = "mine"
    saved(model, pyro.optim.Adam({"lr": 1e-2}), tmp_path)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    pyro.get_param_store().load(str(tmp_path / "store.pt"))
    model.sample(2)
    assert all(torch.equal(state[name], p) for name, p in model.named_parameters())
    new_process()
    pyro.get_param_store().load(str(tmp_path / "store.pt"))
    again = vae()
    again.pyro_name = "mine"
    loss = models.ELBOLoss(again)
    assert all(torch.equal(state[name], p) for name, p in loss.model.named_parameters())
