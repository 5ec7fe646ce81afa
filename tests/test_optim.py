"""One optimizer for all parameters takes Pyro's very steps, whatever comes late or stays away."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from jaxtyping import TypeCheckError
from pyro.infer import SVI, Trace_ELBO
from pyro.optim import PyroOptim
from pyro.optim.clipped_adam import ClippedAdam
from pyro.optim.dct_adam import DCTAdam
from pyro.optim.lr_scheduler import PyroLRScheduler
from torch import Tensor
from torch.optim import lr_scheduler

from pyro_genmodels import models
from pyro_genmodels.optim import JointLRScheduler, JointOptim

OPTIMIZERS: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "Adam": (torch.optim.Adam, {"lr": 0.1}),
    "Adam, foreach": (torch.optim.Adam, {"lr": 0.1, "foreach": True}),
    "Adam, fused": (torch.optim.Adam, {"lr": 0.1, "fused": True}),
    "AMSGrad": (torch.optim.Adam, {"lr": 0.1, "amsgrad": True, "betas": (0.8, 0.9)}),
    "AdamW": (torch.optim.AdamW, {"lr": 0.1, "weight_decay": 0.1}),
    "Adamax": (torch.optim.Adamax, {"lr": 0.1}),
    "RMSprop": (torch.optim.RMSprop, {"lr": 0.01, "momentum": 0.9, "centered": True}),
    "SGD": (torch.optim.SGD, {"lr": 0.01}),
    "momentum": (torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "tensor rate": (torch.optim.Adam, {"lr": torch.tensor(0.1)}),
    "ClippedAdam": (ClippedAdam, {"lr": 0.1, "lrd": 0.9, "clip_norm": 0.5}),
    "DCTAdam": (DCTAdam, {"lr": 0.1}),
}
START = {
    "a": torch.tensor([1.0, -2.0]),
    "b": torch.tensor([[0.3, -0.1, 0.7]]),
    "c": torch.tensor(0.5),
    "late": torch.tensor([2.0, 0.2]),
    "now and then": torch.tensor([1.0, -1.0, 0.4]),
}


def names_at(step: int) -> list[str]:
    """Sites of a step: one comes late, one comes and goes."""
    late = ["late"] if step >= 2 else []
    return ["a", "b", "c", *late, *(["now and then"] if step % 3 != 1 else [])]


def program(step: int) -> None:
    for name in names_at(step):
        value = pyro.param(name, START[name].clone())
        pyro.factor(f"term {name}", -(value.sin() + value.square() * len(name)).sum())


def after(optimizer: Any, steps: range, *, schedule: bool = False) -> dict[str, Tensor]:
    """Every parameter after these steps; what the store held before goes on."""
    svi = SVI(program, lambda _: None, optimizer, Trace_ELBO())
    for step in steps:
        svi.step(step)
        if schedule:
            optimizer.step()
    return {n: p.detach().clone() for n, p in pyro.get_param_store().named_parameters()}


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        # Implementations over many tensors round otherwise: some units of float32's last place.
        assert torch.allclose(one[name], other[name], rtol=1e-6, atol=1e-7), name


def fresh(optimizer: Any, steps: range, **options: Any) -> dict[str, Tensor]:
    pyro.clear_param_store()
    return after(optimizer, steps, **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_pyros(name: str) -> None:
    constructor, options = OPTIMIZERS[name]
    joint = JointOptim(constructor, options)
    ours = fresh(joint, range(8))
    assert_same(fresh(PyroOptim(constructor, options), range(8)), ours)
    moved = [not torch.equal(ours[site], START[site]) for site in START]
    assert all(moved)
    assert len(joint.optim_objs) == 3  # what is always there, what came late, what comes and goes


def test_an_absent_parameter_stays() -> None:
    # With momentum, and with the gradient of zeros that Pyro leaves behind, it would move.
    joint = JointOptim(torch.optim.SGD, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1})
    before = fresh(joint, range(1))
    now = after(joint, range(1, 2))
    assert torch.equal(before["now and then"], now["now and then"])
    assert not torch.equal(before["a"], now["a"])
    sizes = [len(shared.param_groups[0]["params"]) for shared in joint.optim_objs.values()]
    assert sizes == [3, 1]


def lists(name: str) -> dict[str, Any]:
    return {"lr": {"a": 0.1}.get(name, 0.02), "betas": [0.9, {"b": 0.9}.get(name, 0.99)]}


def tensors(name: str) -> dict[str, Any]:
    return {"lr": torch.tensor({"a": 0.1, "b": 0.05}.get(name, 0.02))}


def more(name: str) -> dict[str, Any]:
    decay = {"b": {"weight_decay": 0.1}, "c": {"weight_decay": 0.2}}
    return {"lr": 0.1, **decay.get(name, {})}


def arrays(name: str) -> dict[str, Any]:
    return {"lr": {"a": 0.1, "b": 0.05}.get(name, 0.02), "betas": np.array([0.9, 0.99])}


@pytest.mark.parametrize("of_name", [lists, tensors, more, arrays])
def test_arguments_may_be_of_the_parameter(of_name: Any) -> None:
    joint = JointOptim(torch.optim.AdamW, of_name)
    theirs = fresh(PyroOptim(torch.optim.AdamW, of_name), range(5))
    assert_same(theirs, fresh(joint, range(5)))
    # Three sets of arguments; then what is not always there is parted, and what comes late.
    assert len(joint.optim_objs) == 5


CLIPS: list[Any] = [
    {"clip_norm": 0.3},
    {"clip_value": 0.1},
    lambda module, name: {"clip_norm": 0.2} if name == "a" else {},
]


@pytest.mark.parametrize("clip", CLIPS)
def test_clips_each_parameter_as_pyro_does(clip: Any) -> None:
    options = (torch.optim.SGD, {"lr": 0.1}, clip)
    ours = fresh(JointOptim(*options), range(4))
    assert_same(fresh(PyroOptim(*options), range(4)), ours)
    unclipped = fresh(JointOptim(torch.optim.SGD, {"lr": 0.1}), range(4))
    assert not torch.allclose(unclipped["a"], ours["a"])


def test_clips_the_gradient_of_all() -> None:
    # Of a step without momentum the change is the gradient.
    before = {name: START[name] for name in names_at(0)}
    unclipped = fresh(JointOptim(torch.optim.SGD, {"lr": 0.1}), range(1))
    ours = fresh(JointOptim(torch.optim.SGD, {"lr": 0.1}, max_norm=0.5), range(1))
    step = torch.cat([(ours[name] - before[name]).flatten() for name in before])
    full = torch.cat([(unclipped[name] - before[name]).flatten() for name in before])
    assert full.norm() > 0.5
    assert torch.allclose(step, full * (0.05 / full.norm()), atol=1e-6)
    loose = fresh(JointOptim(torch.optim.SGD, {"lr": 0.1}, max_norm=1e6), range(1))
    assert_same(unclipped, loose)


INNER = {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.1}}
SCHEDULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "exponential": (lr_scheduler.ExponentialLR, {**INNER, "gamma": 0.7}),
    "cosine": (lr_scheduler.CosineAnnealingLR, {**INNER, "T_max": 6}),
    "cycle": (lr_scheduler.OneCycleLR, {**INNER, "max_lr": 0.2, "total_steps": 20}),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_are_pyros_also_of_what_comes_late(name: str) -> None:
    constructor, options = SCHEDULES[name]
    joint = JointLRScheduler(constructor, options)
    assert options.keys() >= {"optimizer", "optim_args"}  # not taken out of the caller's
    ours = fresh(joint, range(6), schedule=True)
    store = pyro.get_param_store()
    rates = {store.param_name(p): s.get_last_lr()[0] for p, s in joint.optim_objs.items()}
    assert_same(fresh(PyroLRScheduler(constructor, dict(options)), range(6), schedule=True), ours)
    assert rates["a"] != rates["late"]


def test_a_plateau_is_one_of_the_whole() -> None:
    options = {**INNER, "patience": 0, "factor": 0.5}
    joint = JointLRScheduler(lr_scheduler.ReduceLROnPlateau, options)
    fresh(joint, range(1))
    joint.step(1.0)
    joint.step(2.0)
    (scheduler,) = joint.optim_objs.values()
    assert scheduler.optimizer.param_groups[0]["lr"] == 0.05


def test_a_schedule_clips_too() -> None:
    options = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1}, "gamma": 1.0}
    ours = fresh(JointLRScheduler(lr_scheduler.ExponentialLR, options, max_norm=0.5), range(1))
    assert_same(fresh(JointOptim(torch.optim.SGD, {"lr": 0.1}, max_norm=0.5), range(1)), ours)


Make = Callable[[], Any]
ADAM: tuple[Make, Make] = (
    lambda: PyroOptim(torch.optim.Adam, {"lr": 0.1}),
    lambda: JointOptim(torch.optim.Adam, {"lr": 0.1}),
)
SCHEDULED: tuple[Make, Make] = (
    lambda: PyroLRScheduler(SCHEDULES["cycle"][0], dict(SCHEDULES["cycle"][1])),
    lambda: JointLRScheduler(*SCHEDULES["cycle"]),
)


@pytest.mark.parametrize("makers", [ADAM, SCHEDULED], ids=["Adam", "schedule"])
@pytest.mark.parametrize("source", [0, 1], ids=["from Pyro's", "from ours"])
@pytest.mark.parametrize("target", [0, 1], ids=["to Pyro's", "to ours"])
def test_a_saved_state_goes_on_in_either(
    makers: tuple[Make, Make], source: int, target: int, tmp_path: Path
) -> None:
    schedule = makers is SCHEDULED
    straight = fresh(makers[source](), range(9), schedule=schedule)
    pyro.clear_param_store()
    stopped = makers[source]()
    after(stopped, range(5), schedule=schedule)
    stopped.save(str(tmp_path / "state"))
    resumed = makers[target]()
    resumed.load(str(tmp_path / "state"))
    assert_same(straight, after(resumed, range(5, 9), schedule=schedule))


def test_a_state_is_the_same_as_pyros() -> None:
    states = []
    for make in ADAM:
        optimizer = make()
        fresh(optimizer, range(4))
        states.append(optimizer.get_state())
    theirs, ours = states
    assert theirs.keys() == ours.keys()
    for name, state in theirs.items():
        assert state["param_groups"] == ours[name]["param_groups"]
        for key, value in state["state"][0].items():
            other = ours[name]["state"][0][key]
            assert value.shape == other.shape, (name, key)
            assert torch.allclose(value, other), (name, key)


def test_a_state_set_while_running_is_taken_up() -> None:
    joint = JointOptim(torch.optim.Adam, {"lr": 0.1})
    fresh(joint, range(3))
    kept = copy.deepcopy(joint.get_state())
    store = pyro.get_param_store().get_state()
    values = {name: p.detach().clone() for name, p in store["params"].items()}
    once = after(joint, range(3, 8))
    for name, p in pyro.get_param_store().named_parameters():
        p.data.copy_(values[name])
    joint.set_state(kept)
    assert set(joint.get_state()) == set(START)  # not lost before the next step
    assert_same(once, after(joint, range(3, 8)))


def test_a_part_of_a_state_leaves_the_rest() -> None:
    joint = JointOptim(torch.optim.Adam, {"lr": 0.1})
    fresh(joint, range(3))
    before = copy.deepcopy(joint.get_state())
    changed = copy.deepcopy(before["a"])
    changed["param_groups"][0]["lr"] = 0.7
    joint.set_state({"a": changed})
    after(joint, range(3, 4))
    state = joint.get_state()
    assert [state[name]["param_groups"][0]["lr"] for name in "abc"] == [0.7, 0.1, 0.1]
    assert [float(state[name]["state"][0]["step"]) for name in "abc"] == [4, 4, 4]


def by_hand(optimizer: Any, *names: str, gradient: float = 1.0) -> dict[str, Tensor]:
    """A step with this gradient, as SVI makes it; every parameter after it."""
    store = pyro.get_param_store()
    parameters = [store[name].unconstrained() for name in names]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, gradient)
    optimizer(parameters)
    return {name: parameter.detach().clone() for name, parameter in store.named_parameters()}


def zeros(*names: str, dtype: torch.dtype | None = None) -> None:
    pyro.clear_param_store()
    for name in names:
        pyro.param(name, torch.zeros(2, dtype=dtype))


def rate_by_name(name: str) -> dict[str, float]:
    return {"lr": 0.1}


@pytest.mark.parametrize("arguments", [rate_by_name, {"lr": 0.1}])
def test_a_parameter_removed_from_the_store_is_parted(arguments: Any) -> None:
    joint = JointOptim(torch.optim.Adam, arguments)
    zeros("a", "b", "c")
    by_hand(joint, "a", "b", "c")
    del pyro.get_param_store()["b"]
    by_hand(joint, "a", "c")
    assert joint.get_state().keys() == {"a", "c"}
    pyro.param("b", torch.zeros(2))  # a new tensor under the old name
    after_three = by_hand(joint, "a", "b", "c")
    # Of gradients that are all one, each step of Adam is its rate.
    expected = {"a": -0.3, "b": -0.1, "c": -0.3}
    assert_same(after_three, {name: torch.full((2,), value) for name, value in expected.items()})
    steps = {name: float(s["state"][0]["step"]) for name, s in joint.get_state().items()}
    assert steps == {"a": 3, "b": 1, "c": 3}


@pytest.mark.parametrize("arguments", [rate_by_name, {"lr": 0.1}])
def test_a_store_made_anew_trains_on(arguments: Any) -> None:
    """The module's tensors stay the same while their names are away."""
    joint = JointOptim(torch.optim.Adam, arguments)
    modules = {"dec": torch.nn.Linear(2, 2), "enc": torch.nn.Linear(2, 2)}

    def step(*names: str) -> None:
        for name in names:
            pyro.module(name, modules[name])
        held = [f"{name}$$${part}" for name in names for part in ("weight", "bias")]
        by_hand(joint, *held)

    step("dec", "enc")
    pyro.clear_param_store()
    step("enc")
    before = modules["dec"].bias.detach().clone()
    for _ in range(3):
        step("dec", "enc")
    assert torch.allclose(modules["dec"].bias, before - 0.3, atol=1e-6)


@pytest.mark.parametrize("size", [2, 5])
def test_a_value_replaced_in_the_store_starts_anew(size: int) -> None:
    joint, store = JointOptim(torch.optim.Adam, {"lr": 0.1}), pyro.get_param_store()
    zeros("a", "b")
    for _ in range(5):
        by_hand(joint, "a", "b")
    store["a"] = torch.zeros(size)
    by_hand(joint, "a", "b")
    state = joint.get_state()
    assert {name: float(s["state"][0]["step"]) for name, s in state.items()} == {"a": 1, "b": 6}
    joint.set_state(state)
    by_hand(joint, "a", "b")
    assert joint.get_state()["a"]["state"][0]["exp_avg"].shape == (size,)


def test_a_state_is_taken_up_once() -> None:
    joint, store = JointOptim(torch.optim.Adam, {"lr": 0.1}), pyro.get_param_store()
    zeros("a")
    by_hand(joint, "a")
    resumed = JointOptim(torch.optim.Adam, {"lr": 0.1})
    resumed.set_state(joint.get_state())
    by_hand(resumed, "a")
    store["a"] = torch.zeros(5)
    by_hand(resumed, "a")
    assert float(resumed.get_state()["a"]["state"][0]["step"]) == 1


def test_setting_states_of_others_changes_nothing() -> None:
    options = {"optimizer": torch.optim.SGD, "optim_args": {"lr": 0.1, "momentum": 0.5}}
    results = []
    for given in (None, {}, "far"):
        zeros("a", "b")
        loose = torch.zeros(2, requires_grad=True)  # not in the store
        loose.grad = torch.ones(2)
        joint = JointLRScheduler(lr_scheduler.ExponentialLR, {**options, "gamma": 0.5})
        by_hand(joint, "a", "b")
        joint([loose])
        if given is not None:
            far = {"far": joint.get_state()["a"]} if given else {}
            joint.set_state(far)
            assert joint.get_state().keys() == {"a", "b", *far}
        for _ in range(2):
            joint.step()
        by_hand(joint, "a")
        joint([loose])
        results.append({**by_hand(joint, "a", "b"), "loose": loose.detach().clone()})
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_a_tensor_rate_is_moved_once_by_a_schedule() -> None:
    results = []
    for rate in (0.1, torch.tensor(0.1)):
        zeros("a", "b", "late")
        inner = {"optimizer": torch.optim.SGD, "optim_args": {"lr": rate}}
        joint = JointLRScheduler(lr_scheduler.ExponentialLR, {**inner, "gamma": 0.5})
        for names in (["a", "b"], ["a"], ["a", "b", "late"], ["a", "b", "late"]):
            last = by_hand(joint, *names)
            joint.step()
        results.append(last)
        assert float(rate) == pytest.approx(0.1)  # the caller's own
    assert_same(*results)


PRESENCE = {
    "Adam": torch.optim.Adam,
    "NAdam": torch.optim.NAdam,  # whose state has a number beside tensors of the parameter's kind
    "ASGD": torch.optim.ASGD,
    "Adafactor": torch.optim.Adafactor,
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", PRESENCE)
def test_any_pattern_of_presence_is_pyros(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    names = [f"p{index}" for index in range(6)]
    for seed in range(3):
        results = []
        for kind in (PyroOptim, JointOptim):
            generator = torch.Generator().manual_seed(seed)
            optimizer = kind(PRESENCE[name], {"lr": 0.03})
            zeros(*names, dtype=dtype)
            for step in range(20):
                here = [n for n in names if torch.rand((), generator=generator) < 0.6]
                gradient = torch.randn((), generator=generator).item()
                last = by_hand(optimizer, *here, gradient=gradient)
                if step == 12:
                    optimizer.save(str(tmp_path / "state"))
                    optimizer = kind(PRESENCE[name], {"lr": 0.03})
                    optimizer.load(str(tmp_path / "state"))
            results.append(last)
        assert all(torch.equal(results[0][n], results[1][n]) for n in names)


def test_a_model_trains() -> None:
    torch.manual_seed(0)
    model = models.VAE((4,))
    joint = JointOptim(torch.optim.Adamax, {"lr": 1e-2}, max_norm=100.0)
    svi = SVI(model.model, model.guide, joint, model.make_elbo(max_plate_nesting=1))
    x = torch.randn(64, 4) * 0.1
    losses = [svi.step(x) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    (shared,) = joint.optim_objs.values()
    assert len(shared.param_groups[0]["params"]) == len(list(model.parameters()))


def test_runs_are_repeated_to_the_bit() -> None:
    # Of many parameters a set's order, and with it the rounding of the norm, varies.
    def run() -> list[Tensor]:
        pyro.clear_param_store()
        generator = torch.Generator().manual_seed(0)
        start = [torch.randn(3, generator=generator) for _ in range(40)]

        def many() -> None:
            for index, value in enumerate(start):
                pyro.factor(f"term {index}", pyro.param(f"p{index:02}", value).sin().sum())

        joint = JointOptim(torch.optim.Adam, {"lr": 0.1}, max_norm=0.5)
        svi = SVI(many, lambda: None, joint, Trace_ELBO())
        for _ in range(3):
            svi.step()
        (shared,) = joint.optim_objs.values()
        names = [pyro.get_param_store().param_name(p) for p in shared.param_groups[0]["params"]]
        assert names == sorted(names)
        return [pyro.param(name).detach() for name in names]

    first = run()
    assert all(torch.equal(a, b) for a, b in zip(first, run(), strict=True))


def test_says_what_is_wrong() -> None:
    # The tests' own type checker is the first to refuse some.
    for options in ({"optim_args": 0.1}, {"optim_args": {"lr": 0.1}, "clip_args": 5.0}):
        with pytest.raises((ValueError, TypeCheckError), match=list(options)[-1]):
            JointOptim(torch.optim.Adam, **options)
    made = torch.optim.Adam([torch.zeros(1, requires_grad=True)])
    with pytest.raises((ValueError, TypeCheckError), match="optim_constructor"):
        JointOptim(made, {"lr": 0.1})
    with pytest.raises(ValueError, match=r"`max_norm` must be positive; got 0"):
        JointOptim(torch.optim.Adam, {"lr": 0.1}, max_norm=0.0)
    rule = "must be torch's optimizer, not Pyro's wrapper of it: torch.optim.Adam; got pyro.optim"
    with pytest.raises(ValueError, match=rule):
        JointOptim(pyro.optim.Adam, {"lr": 0.1})
    plain = JointOptim(torch.optim.Adam, {"lr": 0.1})
    zeros("a")
    by_hand(plain, "a")
    scheduled = JointLRScheduler(*SCHEDULES["cosine"])
    with pytest.raises(ValueError, match="`state_dict` must be of an optimizer with a schedule"):
        scheduled.set_state(plain.get_state())
    by_hand(scheduled, "a")
    with pytest.raises(ValueError, match="`state_dict` must be of an optimizer without a sched"):
        plain.set_state(scheduled.get_state())
    with pytest.raises((ValueError, TypeCheckError), match="scheduler_constructor"):
        JointLRScheduler(3, INNER)
    with pytest.raises(ValueError, match=r"`optim_args` must have the keys 'optimizer' and"):
        JointLRScheduler(lr_scheduler.ExponentialLR, {"gamma": 0.1})


@pytest.mark.gpu
def test_states_follow_to_the_device() -> None:
    joint = JointOptim(torch.optim.Adam, {"lr": 0.1})
    with torch.device("cuda"):
        model = models.VAE((4,))
        svi = SVI(model.model, model.guide, joint, Trace_ELBO())
        x = torch.randn(8, 4)
        svi.step(x)
        saved = io.BytesIO()
        torch.save(joint.get_state(), saved)
        saved.seek(0)
        joint.set_state(torch.load(saved, map_location="cpu"))
        svi.step(x)
    moments = [s["state"][0]["exp_avg"] for s in joint.get_state().values()]
    assert all(m.is_cuda for m in moments)


def test_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        constructor, options = SCHEDULES["exponential"]
        fresh(JointLRScheduler(constructor, options), range(4), schedule=True)
        # A schedule of epochs, in the first of which something was absent once.
        joint = JointLRScheduler(constructor, options)
        fresh(joint, range(2))
        joint.step()
