"""A part made on the meta device, given memory, then a state dict is the part that it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels.testing.probes import modules_of
from tests import cases
from tests.cases import Case
from tests.cases.nets import as_network
from tests.test_laws import _network_input, prepared

pytestmark = pytest.mark.usefixtures("double")
ALL = cases.TRANSFORMS | cases.CONDITIONAL_TRANSFORMS | cases.MODELS
# Parts of nflows and of Pyro that ask a tensor for its value as they are made.
FOREIGN = {"ConditionalFlow/nflows", "VAE/iaf", "VAE/low-rank"}
OWN = {n: make for n, make in ALL.items() if n not in FOREIGN and "NFlowsTransform/" not in n}
NETS = {name: make for name, make in cases.NETS.items() if name != "MaskedConv2d"}  # one batch dim
UNREAD = {"_like", "_anchor"}  # of which only dtype and device are asked


@pytest.fixture(autouse=True)
def _empty_is_nan() -> Iterator[None]:
    """New memory holds NaN and the largest integers, not what chance left there."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def materialized(make: Callable[[], Case], like: Any) -> Any:
    with torch.device("meta"):
        part = make().part
    for module, original in zip(modules_of(part), modules_of(like), strict=True):
        module.to_empty(device="cpu").load_state_dict(original.state_dict())
        module.eval()
    return part


def first(output: Any) -> Tensor:
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


@pytest.mark.parametrize("make", NETS.values(), ids=NETS)
def test_network(make: Callable[[], Case]) -> None:
    case = prepared(make)
    given = () if case.context is None else (case.context[0],)
    x = _network_input(case)
    expected = first(as_network(case.part)(x, *given))
    again = as_network(materialized(make, case.part))
    assert torch.equal(first(again(x, *given)), expected)


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_every_tensor(make: Callable[[], Case]) -> None:
    like = make().part
    for made, original in zip(modules_of(materialized(make, like)), modules_of(like), strict=True):
        for kind in ("named_parameters", "named_buffers"):
            expected = dict(getattr(original, kind)())
            for name, tensor in getattr(made, kind)():
                assert torch.equal(tensor, expected[name]) or name.split(".")[-1] in UNREAD, name
