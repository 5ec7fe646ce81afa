"""Every module can be a ``PyroModule``, whole or as a part, and abstract bases stay abstract."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.distributions import ConditionalTransform, ConditionalTransformModule
from pyro.nn import PyroModule
from pyro.nn.module import to_pyro_module_
from torch import Tensor, nn

import pyro_genmodels
from pyro_genmodels import transforms
from pyro_genmodels._abstract import is_abstract
from pyro_genmodels.testing import randomize_parameters
from tests import cases
from tests.cases import Case

pytestmark = [pytest.mark.usefixtures("double"), pytest.mark.once, pytest.mark.one_each]
PARTS = ("nets", "transforms", "models", "data")
TRANSFORMS = cases.TRANSFORMS | cases.CONDITIONAL_TRANSFORMS
# A part of Pyro's own whose metaclass conflicts with that of Pyro's own PyroModule.
OF_PYRO = {"VAE/iaf"}


def module_cases(group: cases.Cases) -> Any:
    return pytest.mark.parametrize("make", [pytest.param(m, id=n) for n, m in group.items()])


def parts_of(part: Any) -> list[nn.Module]:
    return list(part.modules()) if isinstance(part, nn.Module) else []


@module_cases(cases.NETS | TRANSFORMS | cases.MODELS)
def test_each_class_can_be_mixed_with_it(make: Callable[[], Case]) -> None:
    for kind in {type(module) for module in parts_of(make().part)}:
        if kind.__module__.startswith("pyro_genmodels"):
            mixed = PyroModule[kind]
            assert issubclass(mixed, kind)
            assert issubclass(mixed, PyroModule)


@module_cases(TRANSFORMS)
def test_a_converted_transform_maps_as_before(make: Callable[[], Case]) -> None:
    case = make()
    if not isinstance(case.part, nn.Module):
        pytest.skip("not a module")
    randomize_parameters(case.part.double())
    keys, x = list(case.part.state_dict()), torch.randn(2, *case.event_shape)
    before = _mapped(case, x)
    to_pyro_module_(case.part)
    assert list(case.part.state_dict()) == keys
    torch.testing.assert_close(_mapped(case, x), before, rtol=0, atol=0)


def _mapped(case: Case, x: Tensor) -> Tensor:
    torch.manual_seed(0)
    transform = case.part
    if isinstance(transform, ConditionalTransform):
        assert case.context is not None
        transform = transform.condition(case.context)
    transform.eval() if isinstance(transform, nn.Module) else None
    y = torch.randn(transform.forward_shape(x.shape), generator=torch.Generator().manual_seed(0))
    y = torch.distributions.transform_to(transform.codomain)(y.to(x.dtype))
    result: Tensor = transform.inv(y)  # data first, for layers that take their scale from them
    return result


@module_cases({n: m for n, m in cases.MODELS.items() if n not in OF_PYRO})
def test_a_converted_model_scores_as_before(make: Callable[[], Case]) -> None:
    case = make()
    model, context = case.part, case.context
    model.eval()
    torch.manual_seed(0)
    x = model.sample(1, context)[0] if context is not None else model.sample(2)
    keys, before = list(model.state_dict()), _scored(model, x, context)
    to_pyro_module_(model)
    assert list(model.state_dict()) == keys
    torch.testing.assert_close(_scored(model, x, context), before, rtol=0, atol=0)


def _scored(model: Any, x: Tensor, context: Tensor | None) -> Tensor:
    torch.manual_seed(1)
    with torch.no_grad():
        weights: Tensor = model.log_weights(x, context)
    return weights


def bases() -> dict[str, type]:
    found = {}
    for part in PARTS:
        package = importlib.import_module(f"pyro_genmodels.{part}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, kind in vars(module).items():
                own = inspect.isclass(kind) and kind.__module__ == module.__name__
                if own and is_abstract(kind) and getattr(kind, "__abstractmethods__", ()):
                    found[f"{module.__name__}.{name}"] = kind
    return found


@pytest.mark.parametrize("name", bases())
def test_an_abstract_base_is_refused_by_name(name: str) -> None:
    """Also one that is mixed with ``PyroModule``."""
    kind = bases()[name]
    kinds = [kind, PyroModule[kind]] if issubclass(kind, nn.Module) else [kind]
    for abstract in kinds:
        assert inspect.isabstract(abstract)
        with pytest.raises(TypeError, match=rf"abstract class '?{abstract.__name__}"):
            abstract.__new__(abstract)


def test_there_are_abstract_bases_in_each_part() -> None:
    assert {name.split(".")[1] for name in bases()} == set(PARTS)


def test_a_class_is_concrete_again_when_it_has_every_method() -> None:
    class Own(transforms.FlowTransform):
        pass

    assert inspect.isabstract(Own)
    complete = type("Complete", (Own,), dict.fromkeys(Own.__abstractmethods__))
    assert not inspect.isabstract(complete)


def test_a_conditional_flow_is_one_to_pyro() -> None:
    flow = transforms.ConditionalFlow(transforms.affine_coupling(3, num_classes=2))
    assert isinstance(flow, ConditionalTransform | ConditionalTransformModule | nn.Module)
    assert list(flow.inv.parameters())
    to_pyro_module_(flow)
    assert isinstance(flow, PyroModule)
    conditioned = pyro.distributions.ConditionalTransformedDistribution(
        pyro.distributions.Normal(torch.zeros(3), 1.0).to_event(1), [flow]
    ).condition(torch.tensor([0, 1]))
    assert conditioned.log_prob(torch.zeros(2, 3)).shape == (2,)


def test_a_users_module_of_our_parts() -> None:
    class Mine(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.flow = PyroModule[transforms.RealNVP](4, num_couplings=2, width=5)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.flow(x)
            return result

    module, x = Mine(), torch.randn(3, 4)
    assert pyro_genmodels.transforms.RealNVP in type(module.flow).__mro__
    trace = pyro.poutine.trace(module).get_trace(x)
    assert {name for name in trace.nodes if name.startswith("flow.")}
    names = {name for name, _ in module.named_parameters()}
    assert names == {f"flow.{name}" for name, _ in module.flow.named_parameters()}
