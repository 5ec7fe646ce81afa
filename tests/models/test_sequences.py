"""Models of sequences learn a Markov chain down to its entropy, if they see enough of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pyro_genmodels.data import MarkovChain
from pyro_genmodels.distributions import PixelCNN
from pyro_genmodels.models import AutoregressiveModel, ELBOLoss, char_rnn, made, ngram, wavenet
from pyro_genmodels.testing import check_sampling_methods_agree

LENGTH = 16


def gap_after(model: AutoregressiveModel, chain: MarkovChain, steps: int, rate: float) -> float:
    """Paired gap to the exact law in nats a symbol, after some steps on fresh data."""
    loss = ELBOLoss(model)
    optimizer = torch.optim.Adam(loss.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(chain.sample((128,))).backward()
        optimizer.step()
        schedule.step()
    x = chain.sample((4000,))
    with torch.no_grad():
        gap = chain.log_prob(x) - model.eval().distribution().log_prob(x)
    return float(gap.mean()) / LENGTH


def small(make: Callable[..., AutoregressiveModel], **options: object) -> AutoregressiveModel:
    return make((LENGTH,), **{"num_levels": 4, "dropout": 0.0, **options})


@pytest.mark.parametrize(
    ("make", "steps"),
    [
        (lambda: small(ngram, order=2, hidden=(64,), embedding_features=16), 400),
        (lambda: small(char_rnn, hidden_features=48, num_layers=1), 300),
        (lambda: small(char_rnn, hidden_features=48, num_layers=1, cell="lstm"), 300),
        (lambda: small(wavenet, channels=24, num_blocks=1, layers_per_block=2), 300),
    ],
    ids=["n-gram", "gru", "lstm", "wavenet"],
)
def test_reaches_the_entropy_of_a_chain_of_order_two(
    make: Callable[[], AutoregressiveModel], steps: int
) -> None:
    gap = gap_after(make(), MarkovChain(LENGTH, order=2), steps, 0.02)
    assert -1e-3 < gap < 4e-3  # of an entropy of 0.70 nats a symbol


def test_one_symbol_of_memory_is_too_little() -> None:
    model = small(ngram, order=1, hidden=(64,), embedding_features=16)
    assert gap_after(model, MarkovChain(LENGTH, order=2), 100, 0.02) > 0.3


@pytest.mark.parametrize("num_masks", [1, 2])
def test_made_learns_a_chain(num_masks: int) -> None:
    model = small(made, hidden=(64,), direct=True, num_masks=num_masks)
    assert -1e-3 < gap_after(model, MarkovChain(LENGTH), 500, 0.02) < 0.01


def test_samples_of_a_trained_model_are_those_of_the_chain() -> None:
    chain = MarkovChain(LENGTH)
    model = small(ngram, order=1, hidden=(32,))
    gap_after(model, chain, 200, 0.02)
    x = model.sample(4000).long()
    counts = torch.zeros(4, 4).index_put_(
        (x[:, :-1].flatten(), x[:, 1:].flatten()), torch.ones(()), accumulate=True
    )
    found = counts / counts.sum(1, keepdim=True)
    torch.testing.assert_close(found, chain.transition.float(), rtol=0, atol=0.03)


@pytest.mark.parametrize("make", [made, ngram, char_rnn, wavenet])
def test_short_forms_take_images_and_contexts(make: Callable[..., AutoregressiveModel]) -> None:
    model = make((1, 2, 3), num_levels=3, num_classes=2)
    x = model.sample(4, torch.tensor([0, 1]))
    assert x.shape == (4, 2, 1, 2, 3)
    assert model.log_weights(x, torch.tensor([0, 1])).shape == (1, 4, 2)


def test_a_mixtures_parameters_are_no_logits() -> None:
    net = wavenet((3,), num_levels=4, num_mixtures=2).net
    with pytest.raises(ValueError, match="`net` must give 4 logits an element"):
        PixelCNN(net).log_prob(torch.zeros(3))


def test_sixteen_bits_by_a_mixture() -> None:
    """No table over levels anywhere: 65536 of them cost what 2 do."""
    model = wavenet((24,), num_levels=2**16, num_mixtures=3, num_blocks=1, layers_per_block=3)
    assert sum(p.numel() for p in model.parameters()) < 50_000
    check_sampling_methods_agree(model.distribution())
    wave = torch.sin(0.7 * torch.arange(24) + 6.3 * torch.rand(256, 1))
    x, loss = ((wave + 1) / 2 * (2**16 - 1)).round(), ELBOLoss(model)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    nats = []
    for _ in range(60):
        optimizer.zero_grad()
        nats.append(loss(x))
        nats[-1].backward()
        optimizer.step()
    assert nats[-1] < nats[0] - 24  # nats: each step's values e times as likely
