"""Hidden Markov models against the sum over all paths, and what frames they take."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import Predictive
from torch import Tensor

from pyro_genmodels import data, models, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.nets import PixelCNNNet, join_context
from tests.cases.nets import made
from tests.cases.transforms import conditional_real_nvp

pytestmark = pytest.mark.usefixtures("double")
STATES, DURATION = 3, 5


def tables(size: int = 2, **options: Any) -> models.AutoregressiveModel:
    """Binary vectors with a label."""
    return models.AutoregressiveModel(made(size, num_levels=2, num_classes=STATES), **options)


def flow(size: int = 2) -> models.FlowModel:
    part = conditional_real_nvp(size, num_classes=STATES).part
    return models.FlowModel((size,), part, num_classes=STATES)


def image() -> models.AutoregressiveModel:
    net = PixelCNNNet((1, 2, 2), 2, hidden_channels=4, num_blocks=1, num_classes=STATES)
    return models.AutoregressiveModel(net)


def mixture() -> models.MixtureModel:
    return models.MixtureModel(
        models.GaussianModel((2,), num_classes=2 * STATES), num_groups=STATES
    )


def hidden_markov(conditional: Any, **options: Any) -> models.HiddenMarkovModel:
    torch.manual_seed(0)
    model = models.HiddenMarkovModel(conditional, **{"duration": DURATION, **options})
    testing.randomize_parameters(model.double(), 0.8)
    return model.eval()


MAKERS: dict[str, Callable[[], models.HiddenMarkovModel]] = {
    "tables": lambda: hidden_markov(tables(), chunk_size=2),
    "one number": lambda: hidden_markov(flow(1)),
    "flow, left to right": lambda: hidden_markov(flow(), topology="left_to_right"),
    "images, banded": lambda: hidden_markov(image(), topology="banded", initial="uniform"),
    "mask": lambda: hidden_markov(
        tables(), topology=[[0, 1, 1], [1, 0, 0], [0, 1, 1]], initial="first"
    ),
    "missing": lambda: hidden_markov(tables(missing=True)),
    "mixture": lambda: hidden_markov(mixture()),
}
every = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def scores(model: models.HiddenMarkovModel, x: Tensor) -> Tensor:
    """Log-probability of each frame under each state, zero where it is missing, ``(n, T, K)``."""
    frames = model.frames.of(x)
    gone = frames.isnan().flatten(2).all(-1)
    filled = torch.where(
        frames.isnan() & gone.reshape(*gone.shape, *[1] * (frames.dim() - 2)), 0.0, frames
    )
    each = [
        model.conditional.distribution(torch.full(frames.shape[:2], k)).log_prob(filled)
        for k in range(model.num_states)
    ]
    return torch.where(gone.unsqueeze(-1), 0.0, torch.stack(each, -1))


def joint_of_paths(model: models.HiddenMarkovModel, emitted: Tensor) -> tuple[Tensor, Tensor]:
    """All paths ``(P, T)``, and the log-probability of each with each sequence, ``(n, P)``."""
    steps = emitted.shape[1]
    paths = torch.tensor(list(itertools.product(range(model.num_states), repeat=steps)))
    chain = model.initial_log_probs()[paths[:, 0]]
    for t in range(1, steps):
        chain = chain + model.transition_log_probs()[paths[:, t - 1], paths[:, t]]
    return paths, chain + sum(emitted[:, t, paths[:, t]] for t in range(steps))


def of_states(paths: Tensor, weights: Tensor, states: int) -> Tensor:
    """Probability of each state at each step, ``(n, T, K)``."""
    at = torch.nn.functional.one_hot(paths, states).to(weights)  # (P, T, K)
    return torch.einsum("np,ptk->ntk", weights, at)


@every
@torch.no_grad()
def test_it_sums_over_all_paths(make: Callable[[], models.HiddenMarkovModel]) -> None:
    model = make()
    x = model.sample(4)
    if model.missing:
        x[1, 2], x[2, 3:], x[3] = torch.nan, torch.nan, torch.nan
    emitted = scores(model, x)
    paths, joint = joint_of_paths(model, emitted)
    close = {"rtol": 0, "atol": 1e-10}
    evidence = joint.logsumexp(-1)
    torch.testing.assert_close(model.log_prob(x), evidence, **close)
    posterior = (joint - evidence.unsqueeze(-1)).exp()
    marginals = of_states(paths, posterior, STATES)
    torch.testing.assert_close(model.posterior(x), marginals, **close)
    best = paths[joint.argmax(-1)]
    found = model.most_probable_states(x)
    picked = [(paths == row).all(-1).nonzero().item() for row in found]
    torch.testing.assert_close(joint[torch.arange(4), picked], joint.amax(-1), **close)
    assert found.shape == best.shape
    for t in range(1, DURATION + 1):
        shorter, nats = joint_of_paths(model, emitted[:, :t])
        filtered = of_states(shorter, nats.softmax(-1), STATES)[:, -1]
        torch.testing.assert_close(model.filter(x)[:, t - 1], filtered, **close)
    drawn = model.sample_states(x, num_samples=4000)
    assert drawn.shape == (4000, 4, DURATION)
    shares = torch.nn.functional.one_hot(drawn, STATES).double().mean(0)
    error = (marginals * (1 - marginals) / 4000).clamp_min(0).sqrt()
    assert bool(((shares - marginals).abs() <= 5 * error + 1e-9).all())


@every
def test_it_has_gradients_and_round_trips(make: Callable[[], models.HiddenMarkovModel]) -> None:
    model = make()
    x = model.sample(3)
    if model.missing:
        x[1, 2:] = torch.nan
    loss = -model.log_prob(x).mean()
    loss.backward()
    torch.testing.assert_close(models.ELBOLoss(model)(x), loss)
    gradients = {name: p.grad for name, p in model.named_parameters()}
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients.values())
    again = build(configuration(model)).double().eval()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.log_prob(x), model.log_prob(x))
    frozen = [n for n, g in gradients.items() if g is not None and not bool(g.any())]
    assert "transition_logits" not in frozen


def test_excluded_transitions_stay_out() -> None:
    model = hidden_markov(flow(), topology="left_to_right")
    states = model.sample_states(10 * torch.randn(50, DURATION, 2), num_samples=20)
    assert bool((states.diff(dim=-1) >= 0).all())
    assert bool((states[..., 0] == 0).all())
    assert "initial_logits" not in dict(model.named_parameters())
    assert model.transition_log_probs().exp().sum(-1).allclose(torch.ones(STATES))


def test_shorter_sequences_are_those_alone() -> None:
    """The frames behind the end of a sequence have no say, whatever lies there."""
    model = hidden_markov(tables(), missing=True, duration=4)
    alone = models.HiddenMarkovModel(model.conditional, duration=2).double()
    alone.load_state_dict(model.state_dict())
    x = alone.sample(5)
    padded = data.pad_sequences(list(x.flatten(1)), length=8).reshape(5, 4, 2)
    torch.testing.assert_close(model.log_prob(padded), alone.log_prob(x), rtol=0, atol=1e-12)


@torch.no_grad()
def test_imputing_keeps_what_was_seen_and_draws_the_rest() -> None:
    model = hidden_markov(tables(), missing=True, duration=3)
    whole = model.sample(1)[0]
    x = whole.clone()
    x[1] = torch.nan
    drawn = model.impute(x, num_samples=4000)
    assert drawn.shape == (4000, 3, 2)
    assert torch.equal(drawn[:, [0, 2]], whole[[0, 2]].expand(4000, 2, 2))
    values = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)))
    options = whole.expand(4, 3, 2).clone()
    options[:, 1] = values
    expected = (model.log_prob(options) - model.log_prob(x)).exp()
    shares = (drawn[:, 1].unsqueeze(1) == values).all(-1).double().mean(0)
    assert bool(((shares - expected).abs() < 5 * (expected * (1 - expected) / 4000).sqrt()).all())


@torch.no_grad()
def test_forecasts_have_the_longer_models_probabilities() -> None:
    model = hidden_markov(tables(1), duration=2)
    longer = models.HiddenMarkovModel(model.conditional, duration=4).double()
    longer.load_state_dict(model.state_dict())
    x = model.sample(1)[0]
    drawn = model.forecast(x, 2, 6000)
    assert drawn.shape == (6000, 2)
    values = torch.tensor(list(itertools.product([0.0, 1.0], repeat=2)))
    ended = torch.cat([x.expand(4, 2), values], -1)
    expected = (longer.log_prob(ended) - model.log_prob(x)).exp()
    shares = (drawn.unsqueeze(1) == values).all(-1).double().mean(0)
    assert bool(((shares - expected).abs() < 5 * (expected * (1 - expected) / 6000).sqrt()).all())


def test_mixtures_as_emissions_train_by_gradients_alone() -> None:
    torch.manual_seed(0)
    model = models.HiddenMarkovModel(mixture().double(), duration=DURATION).double()
    x = torch.randn(40, DURATION, 2) + 3 * torch.randn(40, DURATION, 1).sign()
    loss = models.ELBOLoss(model)
    optimizer = torch.optim.Adam(model.parameters(), 2e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < losses[0] - DURATION
    assert not model.fits_by_em
    with pytest.raises(
        ValueError, match=r"`model` must have a maximum in closed form.*MixtureModel"
    ):
        model.fit_em(x)


@pytest.mark.parametrize("topology", ["full", "left_to_right", "banded"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_emissions_that_differ_by_many_nats(topology: Any, dtype: torch.dtype) -> None:
    """Up to 45,000 nats between states, of which a bad one may be all that can be reached."""
    torch.manual_seed(0)
    conditional = models.GaussianModel((1,), num_classes=3, covariance="spherical").to(dtype)
    conditional.set_moments(torch.tensor([[0.0], [140.0], [300.0]]), torch.ones(3))
    model = models.HiddenMarkovModel(conditional, duration=50, topology=topology).to(dtype)
    x = torch.zeros(2, 50, dtype=dtype)
    x[1, 25:] = 300.0
    found = model.log_prob(x)
    found.sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    model.double()
    emitted = conditional.class_log_probs(x.double().unsqueeze(-1))
    nats = model.initial_log_probs() + emitted[:, 0]
    for each in emitted[:, 1:].unbind(1):
        moved = nats.unsqueeze(-1) + model.transition_log_probs()
        nats = moved.logsumexp(-2) + each
    close = {"rtol": 1e-6 if dtype == torch.float32 else 1e-12, "atol": 0}
    torch.testing.assert_close(found.double(), nats.logsumexp(-1), **close)


def test_standardised_by_frames() -> None:
    """Far from zero, in other units for each element, with frames missing."""
    model = hidden_markov(flow(), missing=True)
    scale = torch.tensor([3.0, 1e4])
    x = 1e6 + scale * torch.randn(40, DURATION, 2)
    x[0, 2:] = torch.nan
    plain = model.log_prob((x - 1e6) / scale)
    model.standardize(x)
    units = model.standardization
    frames = x.flatten(0, 1)
    frames = frames[~frames.isnan().any(-1)]
    torch.testing.assert_close(units.shift, frames.mean(0))
    torch.testing.assert_close(units.scale, frames.std(0, correction=0))
    model.standardization.shift.fill_(1e6)
    model.standardization.scale.copy_(scale)
    present = (~x.isnan()).all(-1).sum(-1)
    expected = plain - present * scale.log().sum()
    torch.testing.assert_close(model.log_prob(x), expected, rtol=1e-9, atol=1e-9)
    assert model.sample(3).mean() > 1e5


def test_one_number_is_standardised() -> None:
    model = hidden_markov(flow(1))
    x = 50 + 7 * torch.randn(100, DURATION)
    model.standardize(x)
    torch.testing.assert_close(model.standardization.shift, x.mean()[None])
    assert model.sample(3).shape == (3, DURATION)


def test_it_is_a_site_of_another_program() -> None:
    model = hidden_markov(tables())
    x = model.sample(6)

    def program(x: Tensor | None = None) -> Tensor:
        with pyro.plate("sequences", 6):
            value: Tensor = pyro.sample("observed", model.distribution(), obs=x)
        return value

    trace = pyro.poutine.trace(program).get_trace(x)
    torch.testing.assert_close(trace.log_prob_sum(), model.log_prob(x).sum())
    with torch.no_grad():
        drawn = Predictive(program, num_samples=3)()["observed"]
    assert drawn.shape == (3, 6, DURATION, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"topology": torch.eye(3, dtype=torch.bool).tolist()},
            "state 1 not reached within 5 steps",
        ),
        ({"topology": [[1, 1, 0], [0, 0, 0], [0, 0, 1]]}, "state 1 with no successor"),
        (
            {"topology": [[1, 1, 0], [0, 0, 0], [1, 0, 1]], "initial": "first"},
            "state 1 with no successor, state 2 not reached",
        ),
        (
            {"topology": "banded", "duration": 2, "initial": "first"},
            "state 2 not reached within 2 steps",
        ),
        ({"topology": [[1, 1], [1, 1]]}, "`topology` must be one of"),
        ({"duration": 0}, "`duration` must be positive"),
        ({"chunk_size": 0}, "`chunk_size` must be positive"),
        ({"autoregressive": True}, "`conditional` must take features of a frame's shape"),
    ],
)
def test_what_cannot_be_is_named(options: dict[str, Any], message: str) -> None:
    given = {"duration": DURATION, "initial": "first", **options}
    with pytest.raises(ValueError, match=message):
        models.HiddenMarkovModel(tables(), **given)


@pytest.mark.parametrize(
    ("conditional", "message"),
    [
        (lambda: models.VAE((2,), latent_dim=1), "be conditional on labels"),
        (
            lambda: models.VAE((2,), latent_dim=1, num_classes=3),
            "`conditional` must have a distribution over data in closed form; got VAE",
        ),
        (
            lambda: models.realnvp((2,), num_levels=3, num_classes=3),
            "`conditional` must have a distribution over data in closed form; got FlowModel",
        ),
    ],
)
def test_only_exact_models_with_labels_emit(conditional: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.HiddenMarkovModel(conditional(), duration=3)


def test_partly_missing_frames_are_refused_by_name() -> None:
    model = hidden_markov(tables(), missing=True)
    x = model.sample(2)
    x[0, 1, 0] = torch.nan
    with pytest.raises(ValueError, match="`x` must be missing in whole frames"):
        model.log_prob(x)
    with pytest.raises(ValueError, match="`model` must be made with missing=True to impute"):
        hidden_markov(tables()).impute(x)


def test_observed_whole_a_model_without_missing_names_nan() -> None:
    model = hidden_markov(tables())
    x = model.sample(2)
    x[0, 1] = torch.nan
    with pytest.raises(ValueError, match="`x` must hold integers"):
        model.log_prob(x)


def on_frame_before(**options: Any) -> models.HiddenMarkovModel:
    """Binary vectors that depend on the state and on the vector before."""
    net = made(2, num_levels=2, num_classes=STATES, context_shape=(2,))
    return hidden_markov(models.AutoregressiveModel(net), autoregressive=True, **options)


@torch.no_grad()
def test_a_frame_may_depend_on_the_one_before() -> None:
    model = on_frame_before(missing=True, duration=4)
    x = model.sample(3)
    earlier = torch.cat([torch.zeros(3, 1, 2), x[:, :-1]], 1)
    each = []
    for k in range(STATES):
        context = join_context(torch.full((3, 4), k), earlier, 1)
        each.append(model.conditional.distribution(context).log_prob(x))
    _, joint = joint_of_paths(model, torch.stack(each, -1))
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(model.log_prob(x), joint.logsumexp(-1), **close)
    shorter = models.HiddenMarkovModel(model.conditional, duration=2, autoregressive=True).double()
    shorter.load_state_dict(model.state_dict())
    ended = x.clone()
    ended[:, 2:] = torch.nan
    torch.testing.assert_close(model.log_prob(ended), shorter.log_prob(x[:, :2]), **close)
    ended[0, 3] = x[0, 3]
    with pytest.raises(ValueError, match=r"`x` must be missing at the end alone.*1 sequences"):
        model.log_prob(ended)


@torch.no_grad()
def test_draws_of_frames_that_depend_on_the_one_before() -> None:
    """Samples, completions and forecasts have the probabilities of the whole."""
    net = made(1, num_levels=2, num_classes=STATES, context_shape=(1,))
    options = {"autoregressive": True, "missing": True}
    model = hidden_markov(models.AutoregressiveModel(net), duration=3, **options)
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=3)))
    chance = model.log_prob(every).exp()
    torch.testing.assert_close(chance.sum(), torch.tensor(1.0))

    def shares(drawn: Tensor, values: Tensor) -> Tensor:
        return (drawn.unsqueeze(1) == values).all(-1).double().mean(0)

    def near(found: Tensor, expected: Tensor, count: int) -> bool:
        error = (expected * (1 - expected) / count).clamp_min(0).sqrt()
        return bool(((found - expected).abs() <= 5 * error + 1e-9).all())

    assert near(shares(model.sample(6000), every), chance, 6000)
    begun = torch.tensor([1.0, torch.nan, torch.nan])
    given = chance * (every[:, 0] == 1)
    drawn = model.impute(begun, num_samples=6000)
    assert near(shares(drawn, every), given / given.sum(), 6000)
    short = models.HiddenMarkovModel(model.conditional, duration=1, **options).double()
    short.load_state_dict(model.state_dict())
    ahead = short.forecast(torch.ones(1), 2, 6000)
    assert near(shares(ahead, every[4:, 1:]), (given / given.sum())[4:], 6000)


@torch.no_grad()
def test_features_are_of_the_whole_sequence() -> None:
    net = made(2, num_levels=2, num_classes=STATES, context_shape=(3,))
    model = hidden_markov(models.AutoregressiveModel(net))
    assert tuple(model.context_shape or ()) == (3,)
    features = torch.randn(4, 3)
    x = model.sample(1, features)[0]
    each = []
    for k in range(STATES):
        label = torch.full((4, DURATION), k)
        context = join_context(label, features.unsqueeze(1).expand(4, DURATION, 3), 1)
        each.append(model.conditional.distribution(context).log_prob(x))
    _, joint = joint_of_paths(model, torch.stack(each, -1))
    torch.testing.assert_close(model.log_prob(x, features), joint.logsumexp(-1), rtol=0, atol=1e-10)
    assert model.posterior(x, features).shape == (4, DURATION, STATES)
    assert model.forecast(x, 2, 3, features).shape == (3, 4, 2, 2)
    one = model.log_prob(x[:1].expand(4, -1, -1), features)
    torch.testing.assert_close(model.distribution(features).log_prob(x[0]), one)
    with pytest.raises(ValueError, match="`model` must have emissions of the state alone"):
        model.fit_em(x)
