"""The mu-law, and the Markov chain's figures."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_genmodels.data import HiddenMarkov, MarkovChain, mu_law_decode, mu_law_encode


@pytest.mark.parametrize("num_levels", [2, 3, 16, 255, 256, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_levels_survive_the_round_trip(num_levels: int, dtype: torch.dtype) -> None:
    levels = torch.arange(num_levels)
    amplitudes = mu_law_decode(levels.to(dtype), num_levels)
    assert amplitudes.dtype == dtype
    assert amplitudes.abs().max() <= 1
    assert amplitudes[-1].item() == pytest.approx(1, abs=1e-6)
    assert torch.equal(mu_law_encode(amplitudes, num_levels), levels)
    torch.testing.assert_close(amplitudes, -amplitudes.flip(0), rtol=0, atol=1e-6)


def test_amplitudes_return_within_half_a_level() -> None:
    x = torch.linspace(-1, 1, 10_001, dtype=torch.float64)
    back = mu_law_decode(mu_law_encode(x).double())
    error = (back - x).abs()
    assert (error <= 0.0221 * x.abs() + 8.7e-5).all()
    assert error[x.abs() > 0.5].max() > 0.01


def test_the_published_curve() -> None:
    """f(x) = sign(x) log(1 + 255 |x|) / log 256 at a few points."""
    x = torch.tensor([-0.5, 0.001, 0.1])
    curve = [-math.log(128.5), math.log(1.255), math.log(26.5)]
    expected = [math.floor((v / math.log(256) + 1) / 2 * 255 + 0.5) for v in curve]
    assert mu_law_encode(x).tolist() == expected


def test_mu_law_beyond_its_range() -> None:
    assert mu_law_encode(torch.tensor([-7.0, 1.5])).tolist() == [0, 255]
    with pytest.raises(ValueError, match="`x` must hold amplitudes"):
        mu_law_encode(torch.tensor([math.nan]))
    with pytest.raises(ValueError, match="`num_levels` must"):
        mu_law_decode(torch.tensor([0]), 1)


@pytest.mark.parametrize(("order", "length"), [(1, 6), (2, 5), (3, 2)])
def test_entropy_of_a_chain_by_enumeration(order: int, length: int) -> None:
    chain = MarkovChain(length, num_levels=3, order=order)
    x = torch.cartesian_prod(*[torch.arange(3.0)] * length).double()
    nats = chain.log_prob(x)
    assert nats.exp().sum().item() == pytest.approx(1, abs=1e-12)
    known = -(nats.exp() * nats).nan_to_num().sum().item()
    assert chain.entropy().item() == pytest.approx(known, rel=1e-12)


def test_a_chain_looks_back_as_far_as_its_order() -> None:
    chain = MarkovChain(6, num_levels=3, order=2)
    x = torch.tensor([[2, 0, 1, 2, 2, 0]]).double()
    places = [(0, 0, 2), (0, 2, 0), (2, 0, 1), (0, 1, 2), (1, 2, 2), (2, 2, 0)]
    expected = sum(chain.transition[place].log().item() for place in places)
    assert chain.log_prob(x).item() == pytest.approx(expected, rel=1e-12)


def test_bad_chains() -> None:
    for options in ({"length": 0}, {"order": 0}, {"num_levels": 1}, {"num_levels": 64, "order": 4}):
        with pytest.raises(ValueError, match="must"):
            MarkovChain(**options)


def test_hidden_markov_sums_over_all_paths() -> None:
    truth = HiddenMarkov(4, num_states=3, num_levels=5, seed=3).to(dtype=torch.float64)
    x = truth.sample((6,)).long()
    paths = torch.cartesian_prod(*[torch.arange(3)] * 4)
    chance = truth.initial[paths[:, 0]]
    for t in range(3):
        chance = chance * truth.transition[paths[:, t], paths[:, t + 1]]
    for sequence in x:
        emitted = truth.emission[paths, sequence].prod(-1)
        expected = (chance * emitted).sum().log()
        torch.testing.assert_close(truth.log_prob(sequence.double()), expected, rtol=0, atol=1e-12)


def test_states_that_show_themselves_are_a_markov_chain() -> None:
    options = {"num_levels": 3, "seed": 5}
    hidden = HiddenMarkov(7, num_states=3, sticky=0.0, emissions="identity", **options)
    chain = MarkovChain(7, **options)
    x = chain.sample((50,)).double()
    torch.testing.assert_close(hidden.log_prob(x), chain.log_prob(x), rtol=0, atol=1e-12)
    assert hidden.entropy() == pytest.approx(float(chain.entropy()), abs=1e-9)
    assert hidden.entropy_error == 0


def test_hidden_markov_states_the_error_of_its_entropy() -> None:
    hidden = HiddenMarkov(40, num_states=3, num_levels=3, sticky=0.0, emissions="identity")
    exact = float(MarkovChain(40, num_levels=3).entropy())
    assert 0 < hidden.entropy_error < 0.1
    assert abs(float(hidden.entropy()) - exact) < 4 * hidden.entropy_error


def test_hidden_markov_gives_impossible_sequences_no_probability() -> None:
    hidden = HiddenMarkov(3, num_states=3, num_levels=3, emissions="identity")
    hidden.transition = torch.eye(3, dtype=torch.float64)
    hidden.initial = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    nats = hidden.log_prob(torch.tensor([[0, 0, 0], [0, 1, 1], [2, 2, 2]]))
    torch.testing.assert_close(nats, torch.tensor([0.5, 0.0, 0.0]).log(), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_states": 0}, "`num_states` must be positive"),
        ({"sticky": 1.0}, "`sticky` must be at least 0 and below 1"),
        ({"num_levels": 1}, "`num_levels` must be at least 2"),
        ({"num_levels": 8, "emissions": "identity"}, "`num_levels` must be num_states=4"),
    ],
)
def test_hidden_markov_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HiddenMarkov(5, **options)  # type: ignore[arg-type]
