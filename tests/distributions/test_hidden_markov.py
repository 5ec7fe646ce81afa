"""Hidden Markov models against sums over all paths."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor, nn

from pyro_genmodels import distributions
from pyro_genmodels.distributions.hidden_markov import log_space
from tests.distributions.hidden_markov_oracles import (
    ALGORITHMS,
    all_paths,
    close,
    enumerate_all,
    factors,
    law_of_enumeration,
    law_of_spread,
    left_to_right,
    use,
)

pytestmark = pytest.mark.usefixtures("double")
EACH = pytest.mark.parametrize("algorithm", ALGORITHMS)


@pytest.mark.parametrize("algorithm", [None, *ALGORITHMS])
def test_all_is_what_sums_over_paths_are(
    algorithm: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    law_of_enumeration(algorithm, monkeypatch)


@EACH
@pytest.mark.parametrize("frames", [1, 2, 3, 4, 6, 7, 8])
def test_lengths(algorithm: str, frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, algorithm)
    args = factors(2, frames)
    expected = [all_paths(args[0], args[1], logs) for logs in args[2]]
    close(distributions.log_partition(*args), [paths.log_partition for paths in expected])
    close(distributions.posterior_marginals(*args), [paths.marginals(3) for paths in expected])
    close(distributions.expected_counts(*args), [paths.counts(3) for paths in expected])


@EACH
@pytest.mark.parametrize("states", [1, 2, 9, 20])
def test_numbers_of_states(algorithm: str, states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the loop in log space, at lengths with and without a remainder."""
    use(monkeypatch, algorithm)
    for frames in (40, 64, 101):
        args = factors(3, frames, states, spread=3.0)
        initial, transition, logs = args
        forward = log_space.log_forward(
            initial.expand(3, -1), transition[None, None], logs.transpose(0, 1)
        )
        expected = log_space.log_sum(forward[-1], -1)
        torch.testing.assert_close(distributions.log_partition(*args), expected, rtol=1e-12, atol=0)
        chain = (initial.expand(3, -1), transition[None, None], logs.transpose(0, 1))
        marginals, pairs = log_space.log_posterior(*chain)
        actual = distributions.posterior_marginals(*args)
        torch.testing.assert_close(actual, marginals.transpose(0, 1), rtol=0, atol=1e-10)
        counts = distributions.expected_counts(*args)
        torch.testing.assert_close(counts, sum(pairs, 0 * counts), rtol=0, atol=1e-9)


@EACH
def test_time_varying_transitions(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, algorithm)
    initial, _, logs = factors(2)
    for steps in (torch.randn(4, 3, 3), torch.randn(2, 4, 3, 3)):
        args = (initial, steps, logs)
        each = steps.expand(2, 4, 3, 3)
        expected = [all_paths(initial, a, e) for a, e in zip(each, logs, strict=True)]
        log_z = distributions.log_partition(*args, time_varying=True)
        close(log_z, [paths.log_partition for paths in expected])
        marginals = distributions.posterior_marginals(*args, time_varying=True)
        close(marginals, [paths.marginals(3) for paths in expected])
        counts = distributions.expected_counts(*args, time_varying=True)
        close(counts, [paths.counts(3) for paths in expected])
        _, nats = distributions.most_probable_path(*args, time_varying=True)
        close(nats, [paths.nats.max() for paths in expected])


@EACH
@pytest.mark.parametrize("shapes", [((), (), (4,)), ((2, 1), (4,), ()), ((4,), (2, 1), (2, 4))])
def test_batch_shapes_broadcast(
    algorithm: str, shapes: tuple[tuple[int, ...], ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, algorithm)
    ends = (3,), (3, 3), (5, 3)
    args = [torch.randn(*batch, *end) for batch, end in zip(shapes, ends, strict=True)]
    batch = torch.broadcast_shapes(*shapes)
    wide = [
        x.expand(*batch, *end).flatten(0, -1 - len(end)) for x, end in zip(args, ends, strict=True)
    ]
    expected = [all_paths(*each).log_partition for each in zip(*wide, strict=True)]
    actual = distributions.log_partition(*args)
    assert actual.shape == batch
    close(actual.flatten(), expected)


@EACH
@pytest.mark.parametrize("time_varying", [False, True])
def test_gradients(algorithm: str, time_varying: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of gradients, and those of a batch of transitions."""
    use(monkeypatch, algorithm)
    initial, transition, logs = (x.requires_grad_() for x in factors(2, 4))
    steps = torch.randn(3, 3, 3, requires_grad=True) if time_varying else transition

    def log_z(*args: Tensor) -> Tensor:
        return distributions.log_partition(*args, time_varying=time_varying)

    for each in (steps, torch.randn(2, *steps.shape, requires_grad=True)):
        assert torch.autograd.gradcheck(log_z, (initial, each, logs))
        assert torch.autograd.gradgradcheck(log_z, (initial, each, logs))


def test_functional_transforms() -> None:
    initial, transition, logs = factors()

    def log_z(emission_logs: Tensor) -> Tensor:
        return distributions.log_partition(initial, transition, emission_logs)

    marginals = distributions.posterior_marginals(initial, transition, logs)
    torch.testing.assert_close(torch.vmap(log_z)(logs), log_z(logs))
    torch.testing.assert_close(torch.vmap(torch.func.grad(log_z))(logs), marginals)
    torch.testing.assert_close(torch.func.grad(lambda e: log_z(e).sum())(logs), marginals)
    by_steps = torch.vmap(lambda a: distributions.log_partition(initial, a, logs))
    steps = torch.randn(2, 3, 3)
    expected = torch.stack([distributions.log_partition(initial, a, logs) for a in steps])
    torch.testing.assert_close(by_steps(steps), expected)
    hessian = torch.func.jacrev(torch.func.jacrev(log_z))(logs[0])
    torch.testing.assert_close(hessian, torch.autograd.functional.hessian(log_z, logs[0]))


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_any_spread(algorithm: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    law_of_spread(algorithm, dtype, monkeypatch)


@EACH
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spread", [10.0, 50.0, 100.0, 400.0, 1e4])
def test_random_spreads_over_sparse_transitions(
    algorithm: str, dtype: torch.dtype, spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is lost to underflow at one frame may be all that is left at a later one."""
    use(monkeypatch, algorithm)
    for seed in range(4):
        initial, transition, logs = factors(3, 6, 4, seed=seed, spread=spread)
        sparse = transition > 0.8 * torch.rand(4, 4) - 0.6
        transition = torch.where(sparse | torch.eye(4).bool(), transition, -torch.inf)
        initial = torch.where(torch.arange(4) == seed % 4, initial, -torch.inf)
        args = [x.to(dtype).double() for x in (initial, transition, logs)]
        expected = [all_paths(args[0], args[1], each) for each in args[2]]
        nats = torch.stack([paths.log_partition for paths in expected])
        actual = distributions.log_partition(*(x.to(dtype) for x in args)).double()
        tolerance = 20 * torch.finfo(dtype).eps
        torch.testing.assert_close(actual, nats, rtol=tolerance, atol=tolerance)
        marginals = distributions.posterior_marginals(*(x.to(dtype) for x in args)).double()
        error = (marginals - torch.stack([p.marginals(4) for p in expected])).abs().max()
        assert error < 2e4 * torch.finfo(dtype).eps * max(1, spread / 1000)


@EACH
def test_steps_that_are_impossible(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minus infinity, and gradients of zero, of the sequences that are and no others."""
    use(monkeypatch, algorithm)
    for initial, transition in (left_to_right(3), (torch.zeros(3), torch.zeros(3, 3))):
        logs = torch.randn(3, 6, 3)
        logs[0, 2] = -torch.inf
        logs[1, 0, 0] = logs[1, 3, 1:] = -torch.inf
        args = [x.clone().requires_grad_() for x in (initial, transition, logs)]
        nats = distributions.log_partition(*args)
        assert nats[0] == -torch.inf
        assert bool(nats[2].isfinite())
        gradients = torch.autograd.grad(nats.sum(), args)
        assert all(bool(gradient.isfinite().all()) for gradient in gradients)
        assert gradients[2][0].abs().sum() == 0
        torch.testing.assert_close(gradients[2][2].sum(-1), torch.ones(6))
        assert distributions.posterior_marginals(initial, transition, logs)[0].abs().sum() == 0
        assert distributions.most_probable_path(initial, transition, logs)[1][0] == -torch.inf
        assert distributions.draw_paths(initial, transition, logs, (2,)).shape == (2, 3, 6)


def normal_series(duration: int = 5, **options: object) -> distributions.HiddenMarkov:
    noise = dist.Normal(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.5, 1.0, 0.7]))
    initial, transition, _ = factors()
    return distributions.HiddenMarkov(initial, transition, noise, duration=duration, **options)


def test_posterior_paths_have_their_frequencies() -> None:
    series = normal_series()
    x = series.sample()
    expected = enumerate_all(series, x)
    torch.manual_seed(0)
    drawn = series.sample_states(x, (20_000,))
    codes = (drawn * 3 ** torch.arange(4, -1, -1)).sum(-1)
    frequencies = torch.bincount(codes, minlength=3**5) / 20_000
    error = (frequencies - expected.posterior).abs()
    assert bool((error <= 5 * (expected.posterior / 20_000).sqrt() + 2e-4).all())


def test_filtering_is_smoothing_of_what_is_there_so_far() -> None:
    series = normal_series(6)
    x = series.sample((3,))
    filtered = series.filter(x)
    for frames in range(1, 7):
        smoothed = normal_series(frames).marginals(x[:, :frames])[:, -1]
        torch.testing.assert_close(filtered[:, frames - 1], smoothed)


def test_a_forecast_is_the_conditional_distribution() -> None:
    series, longer = normal_series(4), normal_series(7)
    x = longer.sample((3,))
    forecast = series.forecast(x[:, :4], 3)
    assert forecast.batch_shape == (3,)
    expected = longer.log_prob(x) - series.log_prob(x[:, :4])
    torch.testing.assert_close(forecast.log_prob(x[:, 4:]), expected)
    assert forecast.sample((2,)).shape == (2, 3, 3)


def test_a_forecast_of_what_varies_is_refused() -> None:
    steps = torch.zeros(4, 3, 3)
    noise = dist.Normal(torch.zeros(3), 1.0)
    series = distributions.HiddenMarkov(
        torch.zeros(3), steps, noise, duration=5, time_varying_transitions=True
    )
    with pytest.raises(ValueError, match=r"^`time_varying_transitions` must be False, to forecast"):
        series.forecast(torch.zeros(5), 2)


def law_of_masks() -> None:
    """Masked frames count for nothing, whatever they hold; gradients are finite."""
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]]).bool()
    series = normal_series(mask=mask)
    x = normal_series().sample((3,))
    spoilt = torch.where(mask, x, torch.nan).requires_grad_()
    series.initial_logits.requires_grad_()
    nats = series.log_prob(spoilt)
    short = normal_series(3).log_prob(x[0, :3])
    torch.testing.assert_close(nats[0], short)
    logs = series.components.log_probs(x[1]) * mask[1, :, None]
    expected = all_paths(series.initial_logits, series.transition_logits, logs)
    torch.testing.assert_close(nats[1], expected.log_partition)
    torch.testing.assert_close(nats[2], torch.zeros(()))
    torch.testing.assert_close(series.marginals(spoilt)[1], expected.marginals(3).detach())
    for gradient in torch.autograd.grad(nats.sum(), (spoilt, series.initial_logits)):
        assert bool(gradient.isfinite().all())


def test_masks() -> None:
    law_of_masks()


def test_masks_of_levels_and_lengths() -> None:
    """Levels under a mask may be out of range, or NaN, and a mask broadcasts with a batch."""
    table = dist.Categorical(logits=torch.randn(3, 4))
    lengths = torch.tensor([2, 5])
    mask = torch.arange(5) < lengths[:, None]
    series = distributions.HiddenMarkov(
        torch.zeros(3), torch.randn(3, 3), table, duration=5, mask=mask
    )
    x = torch.tensor([1.0, 3.0, torch.nan, -7.0, 99.0])
    whole = torch.tensor([1.0, 3.0, 0.0, 2.0, 2.0])
    nats = series.log_prob(torch.stack([x, whole]))
    short = distributions.HiddenMarkov(
        torch.zeros(3), series.transition_logits, table, duration=2
    ).log_prob(whole[:2])
    torch.testing.assert_close(nats[0], short)
    assert series.sample((4,)).shape == (4, 2, 5)
    with pytest.raises(ValueError, match=r"^`value` must"):
        series.log_prob(torch.stack([whole, x]))


class CountedNormals(distributions.Components):
    """Normals that count what they draw."""

    def __init__(self, loc: Tensor) -> None:
        law = dist.Normal(loc, 1.0)
        super().__init__(loc.shape[-1], loc.shape[:-1], torch.Size(), law.support)
        self.loc, self.drawn = loc, 0

    def log_probs(self, value: Tensor) -> Tensor:
        return dist.Normal(self.loc, 1.0).log_prob(value.unsqueeze(-1))

    def sample(self, labels: Tensor) -> Tensor:
        self.drawn += labels.numel()
        loc = self.loc.expand(*labels.shape, -1).gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return torch.normal(loc, 1.0)


def test_one_emission_is_drawn_for_each_frame() -> None:
    parts = CountedNormals(torch.randn(2, 3))
    series = distributions.HiddenMarkov(torch.zeros(3), torch.randn(3, 3), parts, duration=7)
    assert series.sample((5,)).shape == (5, 2, 7)
    assert parts.drawn == 5 * 2 * 7
    x = series.sample()
    other = distributions.HiddenMarkov(
        torch.zeros(3), series.transition_logits, dist.Normal(parts.loc, 1.0), duration=7
    )
    torch.testing.assert_close(series.log_prob(x), other.log_prob(x))
    assert series.expand((4, 2)).sample().shape == (4, 2, 7)


def test_emissions_that_vary() -> None:
    """A time dimension is one that is said to be, whatever the sizes."""
    loc = torch.randn(5, 3)
    args = (torch.zeros(3), torch.zeros(3, 3))
    steps = distributions.HiddenMarkov(
        *args, dist.Normal(loc, 1.0), duration=5, time_varying_emissions=True
    )
    batch = distributions.HiddenMarkov(*args, dist.Normal(loc, 1.0), duration=5)
    assert steps.batch_shape == ()
    assert batch.batch_shape == (5,)
    x = steps.sample()
    expected = all_paths(
        steps.initial_logits, steps.transition_logits, dist.Normal(loc, 1.0).log_prob(x[:, None])
    )
    torch.testing.assert_close(steps.log_prob(x), expected.log_partition)
    assert batch.log_prob(x).shape == (5,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_logits": torch.zeros(2)}, r"`initial_logits` must have trailing shape \(3,\)"),
        ({"transition_logits": torch.zeros(3, 2)}, r"`transition_logits` must have trailing"),
        ({"mask": torch.ones(4).bool()}, r"`mask` must be boolean with trailing shape \(5,\)"),
        ({"mask": torch.ones(5)}, r"`mask` must be boolean"),
        ({"duration": 0}, "`duration` must be positive"),
        ({"duration": 2.5}, "`duration` must be an integer"),
        ({"transition_logits": torch.full((3, 3), -torch.inf)}, "a state in each row"),
        ({"time_varying_emissions": True}, "`emissions` must have 5 frames last"),
        ({"time_varying_transitions": True}, r"`transition_logits` must have trailing shape \(4"),
    ],
)
def test_mistakes_are_named(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "initial_logits": torch.zeros(3),
        "transition_logits": torch.zeros(3, 3),
        "emissions": dist.Normal(torch.zeros(3), 1.0),
        "duration": 5,
        "validate_args": True,
    }
    with pytest.raises(ValueError, match=message):
        distributions.HiddenMarkov(**{**arguments, **change})


def test_values_whose_batch_does_not_fit_are_named() -> None:
    series = normal_series(validate_args=True).expand((3,))
    with pytest.raises(ValueError, match=r"^`value` must broadcast with batch shape"):
        series.log_prob(torch.zeros(2, 5))


def test_emissions_train() -> None:
    """Gradients reach a network's parameters through the emissions."""
    net = nn.Linear(1, 3)
    series = distributions.HiddenMarkov(
        torch.zeros(3), torch.zeros(3, 3), dist.Normal(net(torch.ones(1)), 1.0), duration=4
    )
    series.log_prob(torch.ones(2, 4)).sum().backward()
    assert bool((net.weight.grad != 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_the_sums(dtype: torch.dtype) -> None:
    args = [x.float().requires_grad_() for x in factors(2, 40, 3)]
    expected = distributions.log_partition(*args)
    gradients = torch.autograd.grad(expected.sum(), args)
    with torch.autocast("cpu", dtype):
        nats = distributions.log_partition(*args)
        again = torch.autograd.grad(nats.sum(), args)
    assert torch.equal(nats, expected)
    assert all(map(torch.equal, again, gradients))
