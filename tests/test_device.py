"""Every case on another device: the same values as on the CPU, and the same laws."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_genmodels import testing
from pyro_genmodels.models.base.mean_field_elbo import MeanFieldELBO
from pyro_genmodels.testing.probes import modules_of
from tests import cases
from tests.cases import Case
from tests.test_laws import (
    DENOISERS,
    METHODS,
    batch_for,
    normal,
    prepared,
    prepared_model,
    transform_and_points,
)

pytestmark = pytest.mark.usefixtures("double")
# On the CPU it only shows that the test itself runs; what leaves its device shows on "meta" below.
DEVICES = pytest.mark.parametrize(
    "device",
    [
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ],
)
ALL_TRANSFORMS = cases.TRANSFORMS | cases.CONDITIONAL_TRANSFORMS


def moved(case: Case, device: str) -> Case:
    context = None if case.context is None else case.context.to(device)
    return Case(copy.deepcopy(case.part).to(device), case.event_shape, context)


def assert_same(actual: Tensor, expected: Tensor, device: str) -> None:
    assert actual.device.type == device
    torch.testing.assert_close(actual.cpu(), expected, rtol=1e-9, atol=1e-9)


@DEVICES
@pytest.mark.parametrize("make", ALL_TRANSFORMS.values(), ids=ALL_TRANSFORMS)
def test_transform(make: Callable[[], Case], device: str) -> None:
    case = prepared(make)
    transform, x = transform_and_points(case)
    there, _ = transform_and_points(moved(case, device))
    y, y_there = transform(x), there(x.to(device))
    assert_same(y_there, y, device)
    log_det = there.log_abs_det_jacobian(x.to(device), y_there)
    assert_same(log_det, transform.log_abs_det_jacobian(x, y), device)
    if device != "cpu":
        testing.check_no_stale_value(there, x.to(device))


@DEVICES
@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_autoregressive(make: Callable[[], Case], device: str) -> None:
    distribution: Any = prepared(make).part
    value = distribution.sample((3,))
    expected = distribution.log_prob(value)
    for module in modules_of(distribution):
        module.to(device)
    if distribution.context is not None:
        distribution.context = distribution.context.to(device)
    assert_same(distribution.log_prob(value.to(device)), expected, device)
    assert distribution.sample((2,)).device.type == device


@DEVICES
@pytest.mark.parametrize("make", cases.MODELS.values(), ids=cases.MODELS)
def test_model(make: Callable[[], Case], device: str) -> None:
    case = prepared_model(make)
    x, context = batch_for(case, 3)
    there = moved(case, device).part
    context = None if context is None else context.to(device)
    weights = there.log_weights(x.to(device), context, num_particles=2)
    assert weights.device.type == device
    assert bool(torch.isfinite(weights).all())
    first = None if context is None else context[0]
    assert there.sample(2, first).device.type == device


@pytest.mark.parametrize("make", DENOISERS.values(), ids=DENOISERS)
def test_denoiser_makes_nothing_on_the_cpu(make: Callable[[], Case]) -> None:
    case = moved(prepared(make), "meta")
    keep = torch.tensor(True, device="meta") if case.part.null_context else None
    z, level = normal(2, *case.event_shape).to("meta"), torch.zeros((), device="meta")
    assert case.part(z, level, case.context, keep=keep).device.type == "meta"


@DEVICES
@pytest.mark.parametrize("make", DENOISERS.values(), ids=DENOISERS)
def test_denoiser(make: Callable[[], Case], device: str) -> None:
    case = prepared(make)
    there = moved(case, device)
    z, level = normal(2, *case.event_shape), torch.tensor([0.2, 0.7])
    found = there.part(z.to(device), level.to(device), there.context)
    assert_same(found, case.part(z, level, case.context), device)


# A quantiser and a sum over states switch autocast off, which does not know the meta device; which
# way a sum over states takes, and which labels are unknown, depends on values.
WITH_VALUES = ("VQ", "HiddenMarkov", "MixtureModel/labels", "MixtureModel/some-labels")
VALUELESS = {
    name: make
    for name, make in cases.MODELS.items()
    if not any(part in name for part in WITH_VALUES)
}


@pytest.mark.parametrize("make", VALUELESS.values(), ids=VALUELESS)
def test_model_makes_nothing_on_the_cpu(make: Callable[[], Case]) -> None:
    """The meta device refuses a tensor of the CPU as an accelerator does, and needs none."""
    case = prepared_model(make)
    x, context = batch_for(case, 3)
    there = moved(case, "meta").part
    context = None if context is None else context.to("meta")
    with pyro.validation_enabled(False):
        weights = there.log_weights(x.to("meta"), context, num_particles=2)
        loss = MeanFieldELBO(max_plate_nesting=1).differentiable_loss(
            there.model, there.guide, x.to("meta"), context
        )
    assert weights.shape == (2, 3)
    assert weights.device.type == loss.device.type == "meta"


@pytest.mark.parametrize("make", ALL_TRANSFORMS.values(), ids=ALL_TRANSFORMS)
def test_transform_makes_nothing_on_the_cpu(make: Callable[[], Case]) -> None:
    case = prepared(make)
    _, x = transform_and_points(case)
    with pyro.validation_enabled(False):
        there, _ = transform_and_points(moved(case, "meta"))
        flow = testing.flow_distribution(there, x.to("meta"))
        y = flow.rsample((2,))
        for value in (y, y.clone()):
            assert flow.log_prob(value).device.type == "meta"


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_autoregressive_makes_nothing_on_the_cpu(make: Callable[[], Case]) -> None:
    distribution: Any = prepared(make).part
    value = distribution.sample((3,)).to("meta")
    for module in modules_of(distribution):
        module.to("meta")
    if distribution.context is not None:
        distribution.context = distribution.context.to("meta")
    distribution._validate_args = False
    with pyro.validation_enabled(False):
        assert distribution.log_prob(value).device.type == "meta"
