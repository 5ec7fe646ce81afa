"""Adding a component is its file and two lines; these tests name whichever line is missing."""

from __future__ import annotations

import doctest
import importlib
import inspect
from typing import Any

import pytest
from pyro.distributions import ConditionalTransform
from torch import nn
from torch.distributions import Distribution, Transform

from pyro_genmodels.models import GenerativeModel
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
DOCUMENTED += ["compression", "optim"]


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
    assert not missing, f"add a line to tests/cases.py for pyro_genmodels.{module}: {missing}"


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


@pytest.mark.parametrize("module", GROUPS)
def test_each_public_class_is_exported(module: str) -> None:
    """A component that is defined without an underscore, but not exported, reaches nobody."""
    namespace = importlib.import_module(f"pyro_genmodels.{module}")
    _, kinds = GROUPS[module]
    prefix = namespace.__name__
    found: dict[str, str] = {}
    for file in sorted(_submodules(namespace)):
        submodule = importlib.import_module(f"{prefix}.{file}")
        found |= {
            name: file
            for name, part in vars(submodule).items()
            if inspect.isclass(part)
            and part.__module__ == submodule.__name__
            and issubclass(part, kinds)
            and not name.startswith("_")
            and not inspect.isabstract(part)
        }
    missing = {n: f for n, f in found.items() if n not in exports(module)}
    missing = {n: f for n, f in missing.items() if f"{module}.{n}" not in cases.INTERNAL}
    assert not missing, f"add to __all__ of pyro_genmodels/{module}/__init__.py: {missing}"


def _is_shown(module: str, name: str) -> bool:
    """Components and laws show their use; what trains or downloads shows it in the docs."""
    return module == "testing" or (module in GROUPS and name in components(module))


def _submodules(namespace: Any) -> list[str]:
    import pkgutil

    return [info.name for info in pkgutil.iter_modules(namespace.__path__)]


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


@pytest.mark.parametrize("key", sorted(set(cases.NO_CASE) | set(cases.INTERNAL)))
def test_exemptions_are_of_things_that_exist(key: str) -> None:
    module, _, name = key.rpartition(".")
    group, _ = GROUPS[module]
    assert name not in {k.partition("/")[0] for k in group}, f"{key} has a case: no exemption"
    if key in cases.NO_CASE:
        assert name in exports(module), f"{key} is not exported"


def test_exceptions_name_laws_and_cases_that_exist() -> None:
    from pyro_genmodels import testing

    keys = set().union(*(group for group, _ in GROUPS.values()))
    for law, case in cases.EXCEPTIONS:
        assert law in testing.__all__, law
        assert case in keys, case
