"""The conditional cases once more, each conditional on a label together with features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from pyro_genmodels._configuration import Configured, build, configuration
from pyro_genmodels.distributions import AutoregressiveDistribution
from pyro_genmodels.nets import join_context
from tests.cases.case import LABELS, Case, Cases, features
from tests.cases.distributions import DISTRIBUTIONS
from tests.cases.models import FEATURE_MODELS, MODELS
from tests.cases.nets import NETS
from tests.cases.transforms import CONDITIONAL_TRANSFORMS

NUM_CLASSES = 3
BESIDE_LABELS = (2,)


def paired(make: Callable[[], Case]) -> Case:
    """A case with a label beside its features, or with features beside its label.

    Raises:
        ValueError: If the part has no configuration, or none that names its context.
    """
    case = make()
    given = case.context if case.context is not None else case.part.context
    assert isinstance(given, Tensor)
    by_labels = not given.is_floating_point()
    shape = BESIDE_LABELS if by_labels else tuple(given.shape[1:])
    labels, others = (given, features(*shape)) if by_labels else (LABELS, given)
    joint = join_context(labels, others, len(shape))
    if isinstance(case.part, AutoregressiveDistribution):
        net = _rebuilt(case.part.net, shape, by_labels=by_labels)
        return replace(case, part=type(case.part)(net, joint))
    return replace(case, part=_rebuilt(case.part, shape, by_labels=by_labels), context=joint)


def _rebuilt(part: Any, shape: tuple[int, ...], *, by_labels: bool) -> Any:
    changed: list[Any] = []
    if not isinstance(part, Configured):
        raise ValueError(f"no configuration of {type(part).__name__}")
    description = _with_both(configuration(part), shape, by_labels, changed)
    if not changed:
        raise ValueError(f"no context in the configuration of {type(part).__name__}")
    return build(description)


def _with_both(value: Any, shape: tuple[int, ...], by_labels: bool, changed: list[Any]) -> Any:
    if isinstance(value, list):
        return [_with_both(each, shape, by_labels, changed) for each in value]
    if not isinstance(value, dict):
        return value
    own = {key: _with_both(each, shape, by_labels, changed) for key, each in value.items()}
    one = value.get("num_classes") if by_labels else value.get("context_shape")
    if one is not None and (by_labels or tuple(one) == shape):
        changed.append(value)
        own |= {"num_classes": NUM_CLASSES, "context_shape": list(shape)}
    return own


def _is_conditional(case: Case) -> bool:
    context = case.context if case.context is not None else getattr(case.part, "context", None)
    return isinstance(context, Tensor)


def pairs_of(group: Cases) -> Cases:
    """Those of a group's conditional cases that can be made with both."""
    found: Cases = {}
    for name, make in group.items():
        if _is_conditional(make()):
            try:
                paired(make)
            except ValueError:
                continue  # the test that counts the classes tells which
            found[name] = partial(paired, make)
    return found


PAIR_NETS = pairs_of(NETS)
PAIR_TRANSFORMS = pairs_of(CONDITIONAL_TRANSFORMS)
PAIR_DISTRIBUTIONS = pairs_of(DISTRIBUTIONS)
PAIR_MODELS = pairs_of(MODELS) | {
    f"{name}/features": make for name, make in pairs_of(FEATURE_MODELS).items()
}
