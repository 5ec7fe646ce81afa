"""Chains of diffusion models against oracles: closed forms, quadrature, other precision, counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from pyro_genmodels import testing
from pyro_genmodels.distributions import (
    Denoised,
    ForwardDiffusion,
    ReverseDiffusion,
    draw_log_ratio,
    step_between,
    step_divergence,
)
from pyro_genmodels.distributions.diffusion import reverse as reverse_module
from pyro_genmodels.nets import (
    Cosine,
    Geometric,
    LinearBeta,
    LinearLogSNR,
    NoiseSchedule,
    signal_and_noise,
)
from pyro_genmodels.testing.sampling import standard_error
from tests.distributions.diffusion_oracles import (
    MixtureDenoiser,
    exact_elbo,
    gaussian,
    gaussian_evidence,
    last_state_density,
    step_costs,
    two_modes,
)

pytestmark = pytest.mark.usefixtures("double")
DATA = {"gaussian": gaussian, "mixture": two_modes}
FIRST, LAST = -5.0, 6.0


def grid(num_steps: int, first: float = FIRST, last: float = LAST) -> Tensor:
    return torch.linspace(first, last, num_steps + 1)


def within(values: Tensor, expected: Tensor | float) -> None:
    """The means over the first dimension are the expected ones, to 3 standard errors."""
    deviation = (values.mean(0) - expected).abs() / (standard_error(values) + 1e-9)
    # Of many means the largest deviation is larger.
    bound = math.sqrt(9 + 2 * math.log(deviation.numel()))
    assert deviation.max() < bound, (values.mean(0), expected, deviation)


def weights_of(data: MixtureDenoiser, levels: Tensor, x: Tensor, number: int) -> Tensor:
    """Log-weights of whole chains under a Gaussian decoder."""
    chain = ReverseDiffusion(data, levels, x.shape[-1:])
    with torch.no_grad():
        first, ratio = draw_log_ratio(x.expand(number, *x.shape), chain)
    alpha, _ = signal_and_noise(levels[0])
    decoder = Normal(first / alpha, (levels[0] / 2).exp())
    return ratio + decoder.log_prob(x).sum(-1)


# Bounds and evidence


@pytest.mark.parametrize("num_steps", [2, 8, 32, 128])
@pytest.mark.parametrize("name", DATA)
def test_bound_is_that_of_the_chain_of_these_steps(name: str, num_steps: int) -> None:
    data = DATA[name]()
    x = data.sample(3)
    nats = weights_of(data, grid(num_steps), x, 2000 if num_steps < 100 else 400)
    within(nats, exact_elbo(data, grid(num_steps), x))


@pytest.mark.parametrize("name", DATA)
def test_bound_rises_with_the_number_of_steps_towards_the_evidence(name: str) -> None:
    data = DATA[name]()
    x = data.sample(3)
    bounds = torch.stack([exact_elbo(data, grid(n, -9.0, 9.0), x) for n in (8, 32, 128, 512)])
    assert (bounds.diff(dim=0) > 0).all()
    gaps = data.log_prob(x, math.exp(-9.0)) - bounds
    assert (gaps > -1e-3).all()
    # In proportion to the size of the steps.
    ratios = gaps[:-1] / gaps[1:]
    assert ratios[1:].sub(4).abs().max() < 0.7
    assert ratios[2].sub(4).abs().max() < 0.2


@pytest.mark.parametrize("num_steps", [2, 8, 32])
def test_weights_average_to_the_chains_own_evidence(num_steps: int) -> None:
    data, levels = gaussian(2), grid(num_steps, -2.0, 4.0)
    x = torch.tensor([[-1.2, 0.3], [-0.6, 1.4]])
    nats = weights_of(data, levels, x, 20_000)
    evidence = gaussian_evidence(data, levels, x)
    within((nats - evidence).exp(), 1.0)
    assert (nats.mean(0) < evidence).all()
    # Which is another one than that of the data, even with noise that blurs them alike.
    assert num_steps > 2 or (evidence - data.log_prob(x, math.exp(-2.0))).abs().max() > 0.1


@pytest.mark.parametrize("variance", ["posterior", "forward", "learned"])
def test_weights_average_to_the_evidence_by_quadrature(variance: str) -> None:
    """Of two modes, and of each variance of the steps."""

    class WithVariance(MixtureDenoiser):
        def forward(self, *arguments: Tensor | None) -> Denoised:
            found = super().forward(*arguments)  # type: ignore[arg-type]
            return Denoised(found.x, torch.sigmoid(found.x))

    like = two_modes()
    data = WithVariance(like.means, like.variances, like.log_weights.exp())
    levels, x = grid(6, -3.0, 4.0), torch.tensor([[-1.0], [0.2], [1.5]])
    z, mass = last_state_density(data, levels, variance)
    alpha, _ = signal_and_noise(levels[0])
    decoder = Normal(z / alpha, (levels[0] / 2).exp())
    evidence = (decoder.log_prob(x).exp() @ mass).log()
    chain = ReverseDiffusion(data, levels, (1,), variance=variance)  # type: ignore[arg-type]
    with torch.no_grad():
        first, ratio = draw_log_ratio(x.expand(20_000, 3, 1), chain)
    nats = ratio + Normal(first / alpha, (levels[0] / 2).exp()).log_prob(x).sum(-1)
    within((nats - evidence).exp(), 1.0)


# The terms of the bound


@pytest.mark.parametrize("name", DATA)
def test_log_ratio_kl_sum_and_enumerated_terms_have_one_mean(name: str) -> None:
    data, levels = DATA[name](), grid(16)
    x = data.sample(2)
    costs = torch.stack([step_costs(data, levels, row) for row in x])
    number = 4000
    with torch.no_grad():
        _, ratio = draw_log_ratio(
            x.expand(number, *x.shape), ReverseDiffusion(data, levels, x[0].shape)
        )
        z = ForwardDiffusion(x, levels, event_dim=1).sample((number,))
        step = step_between(levels[:-1], levels[1:], 1)
        errors = x[..., None, :] - data(z[..., 1:, :], levels[1:].expand(number, 2, 16)).x
        each = step_divergence(step, errors, 1)
    within(each, costs)
    prior = torch.stack([0.5 * _prior(levels[-1], row) for row in x])
    within(-ratio - prior, costs.sum(-1))
    # Along a chain the densities change alike; single divergences keep the noise.
    assert (ratio.var(0) < each.sum(-1).var(0)).all()


def _prior(level: Tensor, x: Tensor) -> Tensor:
    alpha, sigma = signal_and_noise(level)
    return ((alpha * x) ** 2 + sigma**2 - 1 - 2 * sigma.log()).sum()


SHARES = {"posterior": 0.0, "forward": 1.0, "between": 0.5}


@pytest.mark.parametrize("name", SHARES)
def test_learned_variance_lies_between_its_ends(name: str) -> None:
    """Geometrically; the divergence is that of torch's Gaussians."""
    low, high = torch.tensor([-4.0, -0.5]), torch.tensor([-3.0, 2.0])
    step, error = step_between(low, high, 1), torch.randn(2, 3)
    share = torch.full((2, 3), SHARES[name])
    posterior, forward = step.log_variance.exp(), step.log_added.exp()
    variance = posterior ** (1 - SHARES[name]) * forward ** SHARES[name]
    expected = kl_divergence(
        Normal(step.data_factor * error, posterior.sqrt().expand(2, 3)),
        Normal(torch.zeros(2, 3), variance.sqrt().expand(2, 3)),
    ).sum(-1)
    found = step_divergence(step, error, 1, "learned", share)
    assert torch.allclose(found, expected, rtol=1e-12)
    if name != "between":
        assert torch.allclose(step_divergence(step, error, 1, name), expected, rtol=1e-12)  # type: ignore[arg-type]
    # And a chain draws and scores by it.
    levels = torch.tensor([-4.0, -3.0])
    chain = ReverseDiffusion(
        lambda z, *_: Denoised(0 * z, 0 * z + SHARES[name]), levels, (1,), variance="learned"
    )
    z = chain.sample((20_000,))
    step = step_between(*levels)
    variance = step.log_variance.exp() ** (1 - SHARES[name]) * step.log_added.exp() ** SHARES[name]
    rest = (z[:, 0] - step.noise_factor * z[:, 1]) / variance.sqrt()
    assert abs(float(rest.square().mean()) - 1) < 0.03
    scored = (
        Normal(0.0, 1.0).log_prob(z[:, 1]) + Normal(0.0, 1.0).log_prob(rest) - variance.log() / 2
    )
    assert torch.allclose(chain.log_prob(z), scored[:, 0], rtol=1e-12)


# Drawn and scored at once


class Small(nn.Module):
    """A denoiser with parameters, whose gradients and calls are looked at."""

    def __init__(self, dims: int = 2) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dims + 1, 8), nn.Tanh(), nn.Linear(8, dims))
        self.rows: list[int] = []

    def forward(self, z: Tensor, level: Tensor, context: Tensor | None = None) -> Denoised:
        self.rows.append(level.numel())
        return Denoised(self.layers(torch.cat([z, level[..., None]], -1)))


@pytest.mark.parametrize("rows", [512, 7, 1])
def test_ratio_is_that_of_both_distributions(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the same draws, however the steps are parted."""
    monkeypatch.setattr(reverse_module, "_ROWS", rows)
    levels, x, seen = grid(9), torch.randn(3, 2), {}
    chain = ReverseDiffusion(Small(), levels, (2,))
    original = ReverseDiffusion.log_prob_of_steps

    def kept(self: ReverseDiffusion, states: Tensor, within: Tensor) -> Tensor:
        seen.update(zip(within.tolist(), states.unbind(), strict=True))
        return original(self, states, within)

    with monkeypatch.context() as patch:
        patch.setattr(ReverseDiffusion, "log_prob_of_steps", kept)
        first, ratio = draw_log_ratio(x, chain)
    z = torch.stack([seen[level] for level in levels.tolist()], -2)
    assert torch.equal(z[..., 0, :], first)
    forward = ForwardDiffusion(x, levels, event_dim=1)
    assert torch.allclose(ratio, chain.log_prob(z) - forward.log_prob(z), rtol=1e-10, atol=1e-9)


def test_states_of_the_ratio_are_drawn_from_the_forward_chain() -> None:
    levels, x, states = grid(5), torch.tensor([0.7, -1.3]), []

    def denoise(z: Tensor, level: Tensor, context: Tensor | None) -> Denoised:
        states.append(z)
        return Denoised(z)

    with torch.no_grad():
        first, _ = draw_log_ratio(x.expand(50_000, 2), ReverseDiffusion(denoise, levels, (2,)))
    z = torch.stack([first, *torch.cat(states)], -2)
    expected = ForwardDiffusion(x, levels, event_dim=1)
    assert torch.allclose(z.mean(0), expected.mean, atol=0.03)
    assert torch.allclose(z.var(0), expected.variance, rtol=0.04)
    drawn = expected.sample((50_000,))
    for these in (z, drawn):
        correlations = torch.corrcoef(these[..., 0].T)[:-1, 1:].diagonal()
        step = step_between(levels[:-1], levels[1:])
        _, sigma = signal_and_noise(levels)
        assert torch.allclose(correlations, step.decay * sigma[:-1] / sigma[1:], atol=0.02)


@pytest.mark.parametrize("number", [1, 3, 100, 600])
def test_steps_take_as_few_calls_as_memory_allows(number: int) -> None:
    denoise, steps = Small(), 40
    chain = ReverseDiffusion(denoise, grid(steps), (2,))
    calls = math.ceil(steps / max(1, 512 // number))
    z = ForwardDiffusion(torch.randn(number, 2), grid(steps), event_dim=1).sample()
    with torch.no_grad():
        for score in (
            lambda: draw_log_ratio(torch.randn(number, 2), chain),
            lambda: chain.log_prob(z),
        ):
            denoise.rows.clear()
            score()
            assert len(denoise.rows) == calls
            assert sum(denoise.rows) == steps * number
    denoise.rows.clear()
    chain.sample((number,))
    assert denoise.rows == [number] * steps


class _Memory(torch.utils._python_dispatch.TorchDispatchMode):
    """The largest number of elements that one operation gives."""

    largest = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):  # type: ignore[no-untyped-def]
        result = function(*arguments, **(keywords or {}))
        for each in result if isinstance(result, tuple | list) else (result,):
            if isinstance(each, Tensor):
                self.largest = max(self.largest, each.numel())
        return result


def test_memory_does_not_grow_with_the_number_of_steps() -> None:
    sizes = []
    for steps in (64, 1024):
        chain = ReverseDiffusion(Small(), grid(steps), (2,))
        with torch.no_grad(), _Memory() as memory:
            draw_log_ratio(torch.randn(100, 2), chain)
        sizes.append(memory.largest)
    assert sizes[1] <= 1.05 * sizes[0]


def test_gradients_keep_one_state_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """And are those of a chain that keeps all activations."""
    denoise, x = Small(), torch.randn(60, 2)

    def gradients(steps: int) -> tuple[int, list[Tensor]]:
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            kept[tensor.data_ptr()] = tensor.numel()
            return tensor

        torch.manual_seed(0)
        levels = grid(steps).requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _, ratio = draw_log_ratio(x, ReverseDiffusion(denoise, levels, (2,)))
        slopes = torch.autograd.grad(ratio.sum(), [*denoise.parameters(), levels])
        return sum(kept.values()), list(slopes)

    (few, expected), (many, _) = gradients(16), gradients(64)
    per_step = (many - few) / 48 / x.numel()
    with monkeypatch.context() as patch:
        patch.setattr(
            reverse_module, "checkpointed", lambda function, *arguments: function(*arguments)
        )
        (plain, slopes), (more, _) = gradients(16), gradients(64)
    for found, due in zip(slopes, expected, strict=True):
        assert torch.allclose(found, due, rtol=1e-9)
    assert plain > few
    # A few copies of each state, in float64, beside which the activations do not count.
    assert per_step < 12 < (more - plain) / 48 / x.numel()


def test_expanded_chains_and_contexts_score_alike() -> None:
    class Conditional(nn.Module):
        def forward(self, z: Tensor, level: Tensor, context: Tensor | None = None) -> Denoised:
            assert context is not None
            return Denoised(z * torch.sigmoid(-level)[..., None] + context[..., None])

    context = torch.randn(3)
    chain = ReverseDiffusion(Conditional(), grid(4), (2,), (3,), context=context)
    testing.check_distribution(chain)
    wide = chain.expand((5, 3))
    z = wide.sample()
    alone = [
        ReverseDiffusion(Conditional(), grid(4), (2,), (), context=context[i]).log_prob(z[:, i])
        for i in range(3)
    ]
    assert torch.allclose(wide.log_prob(z), torch.stack(alone, -1), rtol=1e-12)
    testing.check_distribution(ForwardDiffusion(torch.randn(3, 2), grid(4), event_dim=1))


# Precision


@pytest.mark.parametrize("num_steps", [256, 1000])
def test_steps_near_each_other_in_float32(num_steps: int) -> None:
    """Factors made from differences of levels; the squares of alpha lose all digits there."""
    single = torch.linspace(-13.3, 5.0, num_steps + 1, dtype=torch.float32)
    double = torch.linspace(-13.3, 5.0, num_steps + 1, dtype=torch.float64)
    found, exact = (step_between(g[:-1], g[1:]) for g in (single, double))
    error = (found.log_removed.double() - exact.log_removed).abs()
    assert error.max() < 1e-4
    for name in ("noise_factor", "data_factor", "decay", "log_variance", "log_added"):
        a, b = getattr(found, name).double(), getattr(exact, name)
        if name.startswith("log"):
            a, b = a.exp(), b.exp()
        assert ((a - b) / b).abs().max() < 2e-4, name


SCHEDULES = {
    "LinearLogSNR": LinearLogSNR,
    "Cosine": Cosine,
    "LinearBeta": LinearBeta,
    "Geometric": Geometric,
}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_schedules_rise_and_are_finite_also_under_autocast(name: str, dtype: torch.dtype) -> None:
    torch.set_default_dtype(torch.float32)
    schedule: NoiseSchedule = SCHEDULES[name]().to(dtype)
    for number in (1, 7, 999, 4000):
        levels = schedule.grid(number)
        assert levels.dtype == dtype
        assert bool(levels.isfinite().all())
        assert bool((levels.diff() > 0).all()), number
        with torch.autocast("cpu", torch.bfloat16):
            again = schedule.grid(number)
            ends = schedule.ends
            step = step_between(again[:-1], again[1:])
        assert again.dtype == dtype
        assert torch.equal(again, levels)
        assert torch.equal(torch.stack(ends), levels[[0, -1]])
        assert torch.equal(step.log_variance, step_between(levels[:-1], levels[1:]).log_variance)
    for time in (-0.01, 1.01, math.nan):
        with pytest.raises(ValueError, match="`time` must lie between 0 and 1"):
            schedule(torch.tensor([0.5, time]))


@pytest.mark.parametrize("name", SCHEDULES)
def test_chains_under_autocast_are_those_without(name: str) -> None:
    levels = SCHEDULES[name]().double().grid(20).detach()
    data = gaussian()
    x = data.sample(2)

    def scores() -> tuple[Tensor, Tensor]:
        torch.manual_seed(0)
        with torch.no_grad():
            _, ratio = draw_log_ratio(x, ReverseDiffusion(data, levels, (3,)))
            z = ForwardDiffusion(x, levels, event_dim=1).sample()
            return ratio, ReverseDiffusion(data, levels, (3,)).log_prob(z)

    expected = scores()
    with torch.autocast("cpu", torch.bfloat16):
        found = scores()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_ratio_in_float32_is_that_in_float64() -> None:
    """Of a long chain that begins with very little noise."""
    data = gaussian()
    levels, x = torch.linspace(-13.3, 5.0, 1001), data.sample(200)
    means = []
    for dtype in (torch.float64, torch.float32):
        torch.manual_seed(1)
        chain = ReverseDiffusion(data.to(dtype), levels.to(dtype), (3,))
        with torch.no_grad():
            _, ratio = draw_log_ratio(x.to(dtype), chain)
        assert ratio.dtype == torch.float64
        means.append(ratio)
    error = standard_error(means[0]) + standard_error(means[1])
    assert (means[1].mean() - means[0].mean()).abs() < 3 * error
    assert error < 0.5


def test_contexts_with_more_dimensions_than_chains_do_not_meet_the_steps() -> None:
    """As enumerated labels have them: three contexts, and by chance three steps."""
    levels = torch.linspace(-3, 3, 4)

    def denoise(z: Tensor, level: Tensor, context: Tensor | None) -> Denoised:
        assert context is not None
        return Denoised(z * context[..., None])

    contexts = torch.tensor([0.1, 0.5, 0.9])
    z = torch.randn(2, 4, 2)
    chain = ReverseDiffusion(denoise, levels, (2,), (3, 1), context=contexts[:, None])
    each = [ReverseDiffusion(denoise, levels, (2,), context=c).log_prob(z) for c in contexts]
    assert torch.allclose(chain.log_prob(z), torch.stack(each))
