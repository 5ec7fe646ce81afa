"""Float32, bfloat16 and values far from the data, of flows after some training."""

from __future__ import annotations

import functools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_genmodels import models, transforms

LEVELS = 17
IMAGE = (1, 8, 8)


def images(count: int, channels: int, size: int, levels: int) -> Tensor:
    """Smooth noise: neighbours are alike, as in photographs."""
    coarse = torch.randn(count, channels, 4, 4)
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return (levels * (0.5 + 0.2 * smooth)).round().clamp(0, levels - 1)


def train(model: models.FlowModel, steps: int, *make: int) -> models.FlowModel:
    loss_of = models.ELBOLoss(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 50)
        optimizer.zero_grad()
        loss_of(images(*make)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        optimizer.step()
    return model.eval()


MODELS: dict[str, Any] = {
    "glow": lambda: models.glow(IMAGE, num_levels=LEVELS, num_steps=2, width=16),
    "glow-additive": lambda: models.glow(
        IMAGE, num_levels=LEVELS, num_steps=2, width=16, coupling="additive"
    ),
    "glow-spline": lambda: models.glow(
        IMAGE, num_levels=LEVELS, num_steps=1, width=16, coupling="spline"
    ),
    "realnvp": lambda: models.realnvp(IMAGE, num_levels=LEVELS, width=8),
    "realnvp-batch-norm": lambda: models.realnvp(
        IMAGE, num_levels=LEVELS, width=8, num_couplings=1, batch_norm=True, num_blocks=1
    ),
    "nice": lambda: models.nice(IMAGE, num_levels=LEVELS, width=32),
    "spline": lambda: models.FlowModel(
        IMAGE, transforms.NeuralSplineFlow(IMAGE, width=8), num_levels=LEVELS
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


@functools.cache
def trained(name: str) -> models.FlowModel:
    torch.manual_seed(0)
    return train(MODELS[name](), 30, 16, 1, 8, LEVELS)


# The second is torch's own, of what is no number.
REFUSALS = "must have a finite image and log-determinant in torch.float32", "within the support"


def outcome(score: Any, x: Tensor) -> Tensor | str:
    """Return what a function gives, or what its error says."""
    try:
        result: Tensor = score(x)
    except ValueError as error:
        return str(error)
    return result


def density(flow: Any) -> dist.TransformedDistribution:
    zeros = torch.zeros(IMAGE)
    return dist.TransformedDistribution(dist.Normal(zeros, 1.0).to_event(3), [flow])


@every_model
def test_bfloat16_changes_little(name: str) -> None:
    model = trained(name)
    x = images(64, 1, 8, LEVELS)
    v = x + torch.rand_like(x)
    exact = model.density().log_prob(v)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.density().log_prob(v)
    assert half.dtype == torch.float32
    bits = (half - exact).mean() / (64 * math.log(2))
    assert abs(float(bits.detach())) < 0.01


@every_model
def test_single_precision_round_trips(name: str) -> None:
    flow = trained(name).transforms[0]
    y = (images(16, 1, 8, LEVELS) + 0.5) / LEVELS
    torch.testing.assert_close(flow(flow.inv(y).clone()), y, atol=1e-3, rtol=0)
    x = torch.randn(16, *IMAGE)
    torch.testing.assert_close(flow.inv(flow(x).clone()), x, atol=1e-3, rtol=0)


@pytest.mark.parametrize("factor", [1e2, 1e4, 1e8, 1e20, math.inf, -math.inf, math.nan])
@every_model
def test_far_from_the_data_nothing_is_silent(name: str, factor: float) -> None:
    """A finite density, or one clear error; of samples from far noise likewise."""
    flow = trained(name).transforms[0]
    x = torch.randn(3, *IMAGE).abs()
    for score in (density(flow).log_prob, flow, lambda v: flow.log_abs_det_jacobian(v, v)):
        found = outcome(score, factor * x)
        if isinstance(found, str):
            assert any(reason in found for reason in REFUSALS)
        else:
            assert bool(torch.isfinite(found).all())


def test_the_error_names_the_values() -> None:
    flow = transforms.DiagonalScale((2,))
    message = r"`y` must have a finite image .* in torch.float32, .*; got values up to 3e\+38"
    with pytest.raises(ValueError, match=message):
        flow.inv(torch.tensor([0.0, 3e38]))
    with pytest.raises(ValueError, match="got values up to nan"):
        flow.inv(torch.tensor([0.0, math.nan]))


class Stretch(transforms.FlowTransform):
    """Multiplies each event by its own power of ten."""

    def __init__(self, exponents: Tensor) -> None:
        super().__init__(1)
        self.exponents = torch.nn.Parameter(exponents)

    def forward_and_log_det(self, x: Tensor, context: None = None) -> tuple[Tensor, Tensor]:
        return x * 10 ** self.exponents[:, None], x.shape[-1] * math.log(10) * self.exponents

    def inverse_and_log_det(self, y: Tensor, context: None = None) -> tuple[Tensor, Tensor]:
        return y / 10 ** self.exponents[:, None], -y.shape[-1] * math.log(10) * self.exponents


def test_a_draw_that_is_far_but_finite_spoils_no_other() -> None:
    flow = Stretch(torch.tensor([0.0, 0.0, 30.0, 37.0]))
    assert bool(flow(torch.ones(4, 6)).isfinite().all())
    # All together would overflow; each density does not.
    flow = Stretch(torch.full((1000,), -18.0))
    assert bool(flow.inv(torch.full((1000, 6), 5.0)).isfinite().all())


def test_a_transform_that_overflows_is_at_fault_and_its_draws_are_counted() -> None:
    flow = Stretch(torch.tensor([0.0, 39.0, 0.0, 45.0]))
    message = (
        r"`transform` must give ordinary values a finite image and log-determinant in "
        r"torch.float32; got none for 2 of 4 draws, of values up to 1, in Stretch"
    )
    with pytest.raises(ValueError, match=message):
        flow(torch.ones(4, 6))
    flow = Stretch(-torch.tensor([0.0, 25.0, 0.0]))
    with pytest.raises(ValueError, match=r"`transform` .* got none for 1 of 3 events"):
        flow.inv(torch.ones(3, 6))
    flow = Stretch(torch.tensor([0.0, math.nan]))
    with pytest.raises(ValueError, match="`transform` must have finite parameters; got exponents"):
        flow(torch.ones(2, 6))


def test_values_that_overflow_are_at_fault_and_counted() -> None:
    flow, x = Stretch(torch.zeros(3)), torch.ones(3, 6)
    x[1, 2], x[2, 0] = math.inf, 5.0
    with pytest.raises(ValueError, match=r"`x` .* got values up to inf in 1 of 3 draws"):
        flow(x)
    x[1, 2], x[0, 0] = 1e30, math.nan
    with pytest.raises(ValueError, match=r"`y` .* got values up to nan in 2 of 3 events"):
        flow.inv(x)


def set_extreme(flow: torch.nn.Module, value: float, seed: int) -> None:
    """Give the networks' last layers such outputs, of either sign, and huge weights."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in flow.named_parameters():
        if ".net." in name or ".prior." in name or "embedding" in name:
            signs = torch.randn(parameter.shape, generator=generator).sign()
            with torch.no_grad():
                parameter.copy_(signs * (1.0 if "log_scale" in name else value))


@pytest.mark.parametrize("value", [1.0, 1e2, 1e5])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        (IMAGE, {}),
        (IMAGE, {"num_steps": 32, "num_scales": 2}),
        (IMAGE, {"coupling": "spline"}),
        (IMAGE, {"num_steps": 1, "num_scales": 1}),
        ((5,), {"num_steps": 32}),
    ],
    ids=str,
)
def test_a_glow_of_any_networks_draws_finite_data(
    shape: tuple[int, ...], options: dict[str, Any], value: float
) -> None:
    flow = models.glow(shape, width=4, **options).eval().transforms[0]
    for seed in range(3):
        set_extreme(flow, value, seed)
        with torch.no_grad():
            x = 5 * torch.randn(256, *shape)
            y = flow(x)
        bound = flow.largest_value(float(x.abs().max()))
        assert float(y.abs().max()) <= bound < float(torch.finfo(torch.float32).max)
        with torch.no_grad():
            assert bool(flow.log_abs_det_jacobian(x, y).isfinite().all())


def test_the_bound_of_a_glow_is_shared_among_its_steps() -> None:
    flow = models.glow(IMAGE, num_steps=4, num_scales=2, width=4).transforms[0]
    bounds = [
        m.max_amplification
        for m in flow.modules()
        if isinstance(m, transforms.AffineCoupling) and m.scale == "sigmoid"
    ]
    priors = [m for m in flow.modules() if isinstance(m, transforms.FactorOut)]
    assert len(bounds) == 8
    total = math.prod(bounds) * priors[0].prior.max_amplification
    assert total == pytest.approx(1e12)
    unbounded = models.glow(
        IMAGE, width=4, coupling=transforms.GlowCoupling(max_amplification=None)
    ).transforms[0]
    assert math.isinf(unbounded.largest_value(6.0))
    with pytest.raises(ValueError, match="`max_amplification` must be a finite number above 1"):
        transforms.GlowCoupling(max_amplification=1.0)


@pytest.mark.parametrize("scale", ["tanh", "exp", "sigmoid"])
def test_a_bounded_coupling_amplifies_no_more(scale: str) -> None:
    net = torch.nn.Linear(2, 4)
    flow = transforms.AffineCoupling(
        transforms.HalfMask(), net, scale=scale, max_amplification=10.0
    )
    x = torch.randn(50, 4)
    for output in (-1e30, -3.0, 0.0, 3.0, 1e30):
        net.requires_grad_(False)
        net.weight.zero_()
        net.bias.fill_(output)
        change = flow(x + torch.tensor([0.0, 0.0, 1e3, 1e3])) - flow(x)
        assert float(change[:, 2:].abs().max()) <= 1e4 * (1 + 1e-3)
        assert bool(flow.inv(x).isfinite().all())


def test_no_look_without_validation() -> None:
    flow, y = transforms.DiagonalScale((2,)), torch.tensor([0.0, math.inf])
    with pyro.validation_enabled(False):
        assert bool(flow.inv(y).isinf().any())
    mapped = torch.vmap(flow.inv)(y.expand(3, 2))
    assert bool(mapped.isinf().any())


def test_ordinary_values_pass_in_every_precision() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        flow = transforms.DiagonalScale((2,))
        assert bool(flow.inv(torch.tensor([1e4, -1e4], dtype=dtype)).isfinite().all())


@pytest.mark.slow
def test_a_deep_glow_round_trips_in_single_precision() -> None:
    make = 8, 3, 32, 256
    model = models.glow((3, 32, 32), num_levels=256, num_scales=3, num_steps=32, width=64)
    train(model, 8, *make)
    flow = model.transforms[0]
    with torch.no_grad():
        x = images(*make)
        y, noise = (x + torch.rand_like(x)) / 256, torch.randn(8, 3, 32, 32)
        assert float((flow(flow.inv(y).clone()) - y).abs().max()) < 1e-3
        assert float((flow.inv(flow(noise).clone()) - noise).abs().max()) < 1e-3
        exact = model.density().log_prob(x + 0.5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model.density().log_prob(x + 0.5)
    bits = (half - exact).mean() / (3072 * math.log(2))
    assert abs(float(bits)) < 0.01
