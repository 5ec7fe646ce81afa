"""Baum-Welch, against hmmlearn and against what its maximum must be."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import data, models

pytestmark = pytest.mark.usefixtures("double")


def of_symbols(**options: Any) -> models.HiddenMarkovModel:
    torch.manual_seed(1)
    symbols = models.CategoricalModel((1,), 5, num_classes=3, missing=True)
    return models.HiddenMarkovModel(symbols, **{"duration": 20, **options}).double()


def of_vectors(**options: Any) -> models.HiddenMarkovModel:
    torch.manual_seed(1)
    vectors = models.GaussianModel((2,), num_classes=3, **options)
    return models.HiddenMarkovModel(vectors, duration=15).double()


def symbols(count: int = 40) -> Tensor:
    torch.manual_seed(0)
    return data.HiddenMarkov(20, num_states=3, num_levels=5).to(dtype=torch.double).sample((count,))


def vectors(count: int = 30) -> Tensor:
    torch.manual_seed(0)
    states = data.HiddenMarkov(15, num_states=3, num_levels=3, emissions="identity").sample(
        (count,)
    )
    return 4 * states.unsqueeze(-1) + torch.randn(count, 15, 2)


def score(model: models.HiddenMarkovModel, x: Tensor) -> float:
    return float(model.log_prob(x).sum().detach())


def test_scores_paths_and_posteriors_of_hmmlearn() -> None:
    hmm = pytest.importorskip("hmmlearn.hmm")
    for model, x in ((of_symbols(), symbols()), (of_vectors(), vectors())):
        model.fit_em(x, num_starts=1, max_iterations=8)
        initial, transition = model._probabilities()
        if isinstance(model.conditional, models.CategoricalModel):
            peer = hmm.CategoricalHMM(3, n_features=5)
            peer.emissionprob_ = model.conditional.probabilities()[:, 0].numpy()
            rows = x.long().reshape(-1, 1).numpy()
        else:
            peer = hmm.GaussianHMM(3, covariance_type="full")
            means, covariances = model.conditional.moments()
            peer.means_, peer.covars_ = means.numpy(), covariances.numpy()
            rows = x.reshape(-1, 2).numpy()
        peer.startprob_, peer.transmat_ = initial.detach().numpy(), transition.detach().numpy()
        lengths = [x.shape[1]] * len(x)
        assert score(model, x) == pytest.approx(peer.score(rows, lengths), abs=1e-8)
        posterior = torch.from_numpy(peer.predict_proba(rows, lengths))
        found = model.posterior(x).flatten(0, 1)
        torch.testing.assert_close(found, posterior, rtol=0, atol=1e-8)
        path = torch.from_numpy(peer.decode(rows, lengths)[1]).long()
        assert torch.equal(model.most_probable_states(x).flatten(), path)


def test_the_likelihood_never_falls_and_ends_at_a_stationary_point() -> None:
    model, x = of_symbols(), symbols()
    result = model.fit_em(x, num_starts=3, tol=1e-10, priors=None)
    history = torch.tensor(result.history)
    assert bool((history.diff() >= -1e-8).all())
    assert result.converged
    assert result.num_parameters == 2 + 3 * 2 + 3 * 4
    assert score(model, x) == pytest.approx(result.log_likelihood, abs=1e-6)
    models.ELBOLoss(model)(x).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None
        assert float(parameter.grad.abs().max()) < 1e-3, name


def test_a_weight_of_two_is_the_sequence_twice() -> None:
    x, weights = symbols(10), torch.ones(10)
    weights[:4] = 2
    once, twice = of_symbols(), of_symbols()
    options: dict[str, Any] = {"num_starts": 0, "max_iterations": 15}
    first = once.fit_em(x, weights=weights, **options)
    second = twice.fit_em(torch.cat([x, x[:4]]), **options)
    assert first.log_likelihood == pytest.approx(second.log_likelihood, abs=1e-8)
    for a, b in zip(once.parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


def test_any_batch_shape() -> None:
    x, weights = symbols(6), torch.arange(6.0)
    flat, nested = of_symbols(), of_symbols()
    options: dict[str, Any] = {"num_starts": 1, "max_iterations": 5}
    first = flat.fit_em(x, weights=weights, **options)
    second = nested.fit_em(x.reshape(2, 3, 20), weights=weights.reshape(2, 3), **options)
    assert first == second
    one = of_symbols().fit_em(x[0], **options)
    assert one == of_symbols().fit_em(x[:1], **options)


def test_missing_frames_are_left_out() -> None:
    """Sequences that end early give the fit of those alone, at the same chain."""
    x = symbols(10)
    padded = torch.cat([x[:, :12], torch.full((10, 8), torch.nan)], 1)
    whole, short = of_symbols(), of_symbols(duration=12)
    options: dict[str, Any] = {"num_starts": 0, "max_iterations": 15}
    first, second = whole.fit_em(padded, **options), short.fit_em(x[:, :12], **options)
    assert first.log_likelihood == pytest.approx(second.log_likelihood, abs=1e-8)
    x[2, 5] = torch.nan
    assert math.isfinite(of_symbols().fit_em(x, num_starts=1).log_likelihood)


@pytest.mark.parametrize("topology", ["left_to_right", "banded"])
def test_excluded_transitions_stay_excluded(topology: Any) -> None:
    model, x = of_symbols(topology=topology), symbols()
    model.fit_em(x, num_starts=2)
    transition = model.transition_log_probs().exp()
    assert bool((transition[~model.allowed] == 0).all())
    states = model.most_probable_states(x)
    assert bool(model.allowed[states[:, :-1], states[:, 1:]].all())


def test_pseudo_counts_raise_likelihood_times_prior() -> None:
    model, x = of_symbols(), symbols(4)
    result = model.fit_em(x, num_starts=2, concentration=3.0, tol=1e-9)
    assert bool((torch.tensor(result.history).diff() >= -1e-8).all())
    assert float(model.transition_log_probs().exp().min().detach()) > 0.01


def test_units_of_the_data_do_not_matter() -> None:
    x = vectors()
    plain, far = of_vectors(), of_vectors()
    first = plain.fit_em(x, num_starts=1)
    second = far.fit_em(1000 * x, num_starts=1)
    expected = first.log_likelihood - x.numel() * math.log(1000)
    assert second.log_likelihood == pytest.approx(expected, rel=1e-8)


def test_emissions_without_a_closed_form_are_named() -> None:
    flow = models.realnvp((2,), num_classes=3)
    model = models.HiddenMarkovModel(flow, duration=15).double()
    assert not model.fits_by_em
    with pytest.raises(ValueError, match="`model` must have a maximum in closed form"):
        model.fit_em(vectors())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": torch.ones(3)}, "`weights` must have the data's batch shape"),
        ({"weights": -torch.ones(40)}, "`weights` must be finite and not negative"),
        ({"concentration": 0.5}, "`concentration` must be at least 1"),
    ],
)
def test_what_cannot_be_fitted_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_symbols().fit_em(symbols(), **options)
