"""Adding a component is its file and two lines; these tests name whichever line is missing."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import types
from typing import Any

import pytest
from pyro.distributions import ConditionalTransform
from torch import nn
from torch.distributions import Distribution, Transform

from pyro_genmodels._abstract import is_abstract
from pyro_genmodels._configuration import Configured
from pyro_genmodels.models import GenerativeModel
from pyro_genmodels.transforms import FlowTransform
from tests import cases

pytestmark = pytest.mark.once
GROUPS: dict[str, tuple[cases.Cases, tuple[type, ...]]] = {
    "nets": (cases.NETS, (nn.Module,)),
    "transforms": (
        cases.TRANSFORMS | cases.CONDITIONAL_TRANSFORMS,
        (Transform, ConditionalTransform),
    ),
    "distributions": (cases.DISTRIBUTIONS, (Distribution,)),
    "models": (cases.MODELS, (GenerativeModel,)),
    "data": (cases.DATA_DISTRIBUTIONS, (Distribution,)),
}
DOCUMENTED = [*GROUPS, "testing", "metrics", "disentanglement", "training", "plotting"]
DOCUMENTED += ["compression", "optim", "mcmc"]


def exports(module: str) -> dict[str, Any]:
    namespace = importlib.import_module(f"pyro_genmodels.{module}")
    return {name: getattr(namespace, name) for name in getattr(namespace, "__all__", ())}


def components(module: str) -> list[str]:
    """Concrete exported classes of the kind that the module is about."""
    _, kinds = GROUPS[module]
    return [
        name
        for name, part in exports(module).items()
        if inspect.isclass(part) and issubclass(part, kinds) and not inspect.isabstract(part)
    ]


@pytest.mark.parametrize("module", GROUPS)
def test_each_export_has_a_case(module: str) -> None:
    group, _ = GROUPS[module]
    with_case = {key.partition("/")[0] for key in group}
    missing = [
        name
        for name in components(module)
        if name not in with_case and f"{module}.{name}" not in cases.NO_CASE
    ]
    assert not missing, f"add a line to tests/cases/{module}.py: {missing}"


@pytest.mark.parametrize("module", GROUPS)
def test_each_case_is_exported(module: str) -> None:
    group, _ = GROUPS[module]
    names = {key.partition("/")[0] for key in group}
    unknown = sorted(names - exports(module).keys())
    assert not unknown, f"add to __all__ of pyro_genmodels/{module}/__init__.py: {unknown}"


@pytest.mark.parametrize("module", GROUPS)
def test_each_case_makes_what_it_is_named_after(module: str) -> None:
    group, _ = GROUPS[module]
    for key, make in group.items():
        name = key.partition("/")[0]
        made = make().part
        assert isinstance(made, exports(module)[name]), f"case {key!r} makes {type(made).__name__}"
        assert made is not make().part, f"case {key!r} must make a new part each time"


def unexported(module: str) -> dict[str, str]:
    """Return concrete components, at any depth below a part, that its face does not export."""
    namespace = importlib.import_module(f"pyro_genmodels.{module}")
    kind: type = Distribution if module in ("distributions", "data") else Configured
    found: dict[str, str] = {}
    for info in pkgutil.walk_packages(namespace.__path__, f"{namespace.__name__}."):
        submodule = importlib.import_module(info.name)
        found |= {
            name: info.name
            for name, part in vars(submodule).items()
            if inspect.isclass(part)
            and part.__module__ == submodule.__name__
            and issubclass(part, kind)
            and not is_abstract(part)
        }
    return {name: file for name, file in found.items() if name not in exports(module)}


@pytest.mark.parametrize("module", GROUPS)
def test_each_component_is_exported(module: str) -> None:
    """One that is not can neither be found nor be rebuilt from a checkpoint."""
    found = unexported(module)
    missing = {n: f for n, f in found.items() if f"{module}.{n}" not in cases.UNEXPORTED}
    assert not missing, f"add to __all__ of pyro_genmodels/{module}/__init__.py: {missing}"


@pytest.mark.parametrize(
    ("file", "base"),
    [
        ("nets.gated_pixelcnn.stack", nn.Module),
        ("transforms.flows.glow", FlowTransform),
        ("models.vae.vae", GenerativeModel),
        ("distributions.autoregressive.images", Distribution),
    ],
)
def test_a_forgotten_component_is_found(
    file: str, base: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mutant: a concrete class in a file three levels deep that no face exports."""
    module, name = file.partition(".")[0], f"pyro_genmodels.{file}"
    bases = (base,) if issubclass(base, Configured | Distribution) else (Configured, base)
    abstract = getattr(base, "__abstractmethods__", ())
    body = {"__module__": name, **dict.fromkeys(abstract, None)}
    forgotten = types.new_class("Forgotten", bases, exec_body=lambda space: space.update(body))
    monkeypatch.setattr(importlib.import_module(name), "Forgotten", forgotten, raising=False)
    assert unexported(module)["Forgotten"] == name


def _is_shown(module: str, name: str) -> bool:
    """Components and laws show their use; what trains or downloads shows it in the docs."""
    return module == "testing" or (module in GROUPS and name in components(module))


@pytest.mark.parametrize("module", DOCUMENTED)
def test_each_export_is_documented_with_an_example(module: str) -> None:
    try:
        found = exports(module)
    except ModuleNotFoundError:
        pytest.skip(f"no pyro_genmodels.{module} yet")
    parser, problems = doctest.DocTestParser(), []
    for name, part in found.items():
        if not (inspect.isclass(part) or inspect.isfunction(part)):
            continue
        docstring = part.__doc__ or ""
        if not docstring:
            problems.append(f"{name}: no docstring")
        elif _is_shown(module, name) and not parser.get_examples(docstring):
            problems.append(f"{name}: no doctest Example")
    assert not problems, f"pyro_genmodels.{module}: {problems}"


@pytest.mark.parametrize("key", sorted(cases.NO_CASE))
def test_exemptions_from_a_case_are_of_exports_without_one(key: str) -> None:
    module, _, name = key.rpartition(".")
    group, _ = GROUPS[module]
    assert name not in {k.partition("/")[0] for k in group}, f"{key} has a case: no exemption"
    assert name in exports(module), f"{key} is not exported"


@pytest.mark.parametrize("key", sorted(cases.UNEXPORTED))
def test_exemptions_from_the_export_are_of_components_that_exist(key: str) -> None:
    module, _, name = key.rpartition(".")
    assert name in unexported(module), f"{key} is exported, or gone: no exemption"


def test_exceptions_name_laws_and_cases_that_exist() -> None:
    from pyro_genmodels import testing

    keys = set().union(*(group for group, _ in GROUPS.values()))
    for law, case in cases.EXCEPTIONS:
        assert law in testing.__all__, law
        assert case in keys, case
