"""Weights in half precision: they work, or one sentence at the conversion says what to use."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_genmodels import distributions, models, nets, transforms
from pyro_genmodels.testing.probes import modules_of
from tests import cases
from tests.cases import Case
from tests.cases.nets import as_network
from tests.test_laws import batch_for, normal, run

pytestmark = pytest.mark.one_each
REFUSES = "^`dtype` must be float32 or float64 for weights .*autocast.*got torch.bfloat16"


def dtype_of(module: nn.Module) -> torch.dtype:
    return next((p.dtype for p in module.parameters()), torch.float32)


def cast(context: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return context.to(dtype) if context is not None and context.is_floating_point() else context


@pytest.mark.parametrize("name", cases.NETS)
def test_network(name: str) -> None:
    case = cases.NETS[name]()

    def use(net: Any) -> Any:
        dtype = dtype_of(net)
        levels = getattr(net, "num_levels", None)
        shape = (1, *case.event_shape)
        x = normal(*shape) if levels is None else torch.zeros(shape)
        contexts = () if case.context is None else (cast(case.context[:1], dtype),)
        return as_network(nn.Module.eval(net))(x.to(dtype), *contexts)

    run("check_half_precision", case.part, use)


ALL_TRANSFORMS = cases.TRANSFORMS | cases.CONDITIONAL_TRANSFORMS


@pytest.mark.parametrize("name", ALL_TRANSFORMS)
def test_transform(name: str) -> None:
    """Nothing but one without parameters takes them, which then are none."""
    for module in modules_of(ALL_TRANSFORMS[name]().part):
        tensors = [*module.parameters(), *module.buffers()]
        if any(tensor.is_floating_point() for tensor in tensors):
            with pytest.raises(ValueError, match=REFUSES):
                module.bfloat16()
        run("check_half_precision", module, lambda _: torch.zeros(()))


AUTOREGRESSIVE = {n: m for n, m in cases.DISTRIBUTIONS.items() if hasattr(m().part, "net")}


@pytest.mark.parametrize("name", AUTOREGRESSIVE)
def test_distribution(name: str) -> None:
    """A softmax or a mixture over levels, in single precision from whatever the network gives."""
    law = AUTOREGRESSIVE[name]().part

    def use(net: Any) -> Tensor:
        converted = type(law)(net.eval(), cast(law.context, net.dtype))
        nats: Tensor = converted.log_prob(converted.sample((2,)))
        assert nats.dtype == torch.float32
        return nats

    run("check_half_precision", law.net, use)


MODELS = cases.MODELS | {f"{name}/features": make for name, make in cases.FEATURE_MODELS.items()}


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    case = MODELS[name]()
    if not isinstance(case.part, models.AutoregressiveModel):
        with pytest.raises(ValueError, match=REFUSES):
            case.part.to(torch.bfloat16)
    run("check_half_precision", case.part, lambda model: _training_loss(model, case))


def _training_loss(model: Any, case: Case) -> Tensor:
    x, context = batch_for(case, 2)
    loss = models.ELBOLoss(model)(x, cast(context, model.dtype))
    loss.backward()
    assert loss.dtype == torch.float32
    return torch.cat([loss.detach()[None], model.eval().sample(2, case.context).flatten()])


class Holder(nn.Module):
    """A user's module with one of ours inside."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"inner": nn.Sequential(part)})


@pytest.mark.parametrize(
    "part",
    [
        models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(4,))),
        transforms.conditional_affine_coupling(3, 2),
        nets.VectorQuantizer(3, 5),
        models.ELBOLoss(models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(4,)))),
    ],
    ids=lambda part: type(part).__name__,
)
def test_inside_a_module_of_the_users(part: nn.Module) -> None:
    with pytest.raises(ValueError, match=REFUSES):
        Holder(part).bfloat16()
    assert all(p.dtype == torch.float32 for p in part.parameters())
    # What else goes the same way.
    holder = Holder(part).double().to("meta").float().to_empty(device="cpu")
    assert all(p.dtype == torch.float32 for p in holder.parameters())
    holder.share_memory()


def test_complex_weights_and_autocast_are_left_alone() -> None:
    flow = transforms.affine_coupling(4, hidden=(5,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert flow(torch.randn(3, 4)).dtype == torch.float32
    with pytest.warns(UserWarning, match="[Cc]omplex"):
        assert next(flow.to(torch.complex64).parameters()).is_complex()


def test_a_density_in_half_precision_is_the_one_in_single_up_to_rounding() -> None:
    torch.manual_seed(0)
    net = nets.PixelCNNNet((1, 4, 4), 17, hidden_channels=8)
    law = distributions.PixelCNN(net.eval())
    x = law.sample((50,))
    exact = law.log_prob(x)
    net.bfloat16()
    assert float((law.log_prob(x) - exact).abs().max()) < 0.02 * float(exact.abs().mean())
