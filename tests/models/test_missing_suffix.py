"""Autoregressive models of sequences that end early, as NaN in the order of generation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import models, nets, testing, training
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data import InMemory, lengths, pad_sequences, with_lengths, with_mask
from pyro_genmodels.distributions import AutoregressiveDistribution
from pyro_genmodels.models import AutoregressiveModel, ELBOLoss

LENGTH, LEVELS = 7, 4
NAN = torch.nan

ANY_LENGTH: dict[str, Any] = {
    "n-gram": lambda steps: nets.NGramNet((steps,), LEVELS, order=3, hidden=(8,)),
    "gru": lambda steps: nets.CharRNNNet((steps,), LEVELS, hidden_features=8),
    "lstm": lambda steps: nets.CharRNNNet((steps,), LEVELS, hidden_features=8, cell="lstm"),
    "wavenet": lambda steps: nets.WaveNetNet(
        (steps,), LEVELS, channels=4, num_blocks=1, layers_per_block=3
    ),
    "mixture": lambda steps: nets.WaveNetNet(
        (steps,), LEVELS, channels=4, num_blocks=1, layers_per_block=3, num_mixtures=2
    ),
}

BUILDERS: dict[str, Any] = {
    "pixelcnn": {"event_shape": (1, 4, 4), "hidden_channels": 4, "num_blocks": 1},
    "gated_pixelcnn": {"event_shape": (2, 4, 4), "hidden_channels": 4, "num_layers": 1},
    "pixelsnail": {"event_shape": (1, 4, 4), "hidden_channels": 4, "num_blocks": 1},
    "pixelcnn_pp": {"event_shape": (3, 4, 4), "hidden_channels": 4, "num_resnets": 1},
    "row_lstm": {"event_shape": (1, 4, 4), "hidden_channels": 4, "num_layers": 1},
    "diagonal_bilstm": {"event_shape": (1, 4, 4), "hidden_channels": 4, "num_layers": 1},
    "multiscale_pixelrnn": {"event_shape": (1, 4, 4), "hidden_channels": 4, "num_layers": 1},
    "made": {"event_shape": (6,), "hidden": (8,)},
    "ngram": {"event_shape": (6,), "hidden": (8,)},
    "char_rnn": {"event_shape": (6,), "hidden_features": 8},
    "wavenet": {"event_shape": (6,), "channels": 4, "num_blocks": 1, "layers_per_block": 2},
}


def moved(net: Any) -> Any:
    return testing.randomize_parameters(net.double(), 0.5).eval()


def draws(rows: int = 5, length: int = LENGTH, levels: int = LEVELS) -> Tensor:
    return torch.randint(
        levels, (rows, length), generator=torch.Generator().manual_seed(0)
    ).double()


@pytest.mark.parametrize("name", ANY_LENGTH)
def test_a_padded_sequence_scores_as_an_unpadded_one(name: str) -> None:
    net = moved(ANY_LENGTH[name](LENGTH))
    padded = AutoregressiveDistribution.of(net, missing=True)
    for length in range(1, LENGTH + 1):
        shorter = ANY_LENGTH[name](length).double().eval()
        shorter.load_state_dict(net.state_dict())
        x = draws()
        expected = AutoregressiveDistribution.of(shorter).log_prob(x[:, :length])
        given = with_lengths(x, torch.full((5,), length))
        torch.testing.assert_close(padded.log_prob(given), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", BUILDERS)
def test_every_builder_takes_what_ends_early(name: str) -> None:
    options = {**BUILDERS[name], "num_levels": LEVELS}
    if name == "pixelsnail":  # has as many arguments as a person can read
        model = AutoregressiveModel(models.pixelsnail(**options).net, missing=True).eval()
    else:
        model = getattr(models, name)(**options, missing=True).eval()
    assert model.missing
    size = model.event_shape.numel()
    x = torch.randint(LEVELS, (3, size)).float()
    ends = torch.tensor([0, size // 2 + 1, size])
    flat = torch.full_like(x, NAN)
    flat[:, model.net.order] = with_lengths(x, ends)
    given = flat.reshape(3, *model.event_shape)
    loss = ELBOLoss(model.train())(given)
    loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert loss.isfinite()
    model.eval()
    nats = model.log_weights(given)[0]
    torch.testing.assert_close(nats, model.distribution().log_prob(given))
    assert nats[0] == 0
    full = model.complete(given)
    assert not full.isnan().any()
    assert torch.equal(torch.where(given.isnan(), given, full).nan_to_num(-1), given.nan_to_num(-1))
    again = build(configuration(model))
    assert again.missing


def test_a_completion_is_that_of_each_example_alone() -> None:
    model = AutoregressiveModel(moved(ANY_LENGTH["gru"](LENGTH)), missing=True)
    x, ends = draws(4), [0, 2, 5, LENGTH]
    given = with_lengths(x, torch.tensor(ends))
    together = model.complete(given, temperature=0.0)
    for row, end in enumerate(ends):
        alone = model.complete(x[row : row + 1], end, temperature=0.0)
        assert torch.equal(together[row : row + 1], alone)
    assert torch.equal(lengths(given), torch.tensor(ends))


def test_all_methods_complete_alike() -> None:
    law = AutoregressiveDistribution.of(moved(ANY_LENGTH["wavenet"](LENGTH)), missing=True)
    given = with_lengths(draws(64), torch.arange(64) % (LENGTH + 1))
    drawn = []
    for method in ("cached", "parallel", "naive"):
        torch.manual_seed(3)
        drawn.append(law.sample((64,), method=method, given=given))
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])
    seen = ~given.isnan()
    assert torch.equal(drawn[0][seen], given[seen])


def test_completions_are_drawn_from_the_conditional_law() -> None:
    law = AutoregressiveDistribution.of(moved(ANY_LENGTH["gru"](2)), missing=True)
    given = torch.tensor([[1.0, NAN]]).double().expand(20_000, 2)
    torch.manual_seed(0)
    counts = law.sample((20_000,), given=given)[:, 1].long().bincount(minlength=LEVELS) / 20_000
    table = testing.log_table(law).exp().reshape(LEVELS, LEVELS)[1]
    torch.testing.assert_close(counts.double(), table / table.sum(), rtol=0, atol=0.02)


def test_missing_elements_where_they_must_not_be() -> None:
    net = ANY_LENGTH["n-gram"](3)
    hole, end = torch.tensor([[0.0, NAN, 1.0]]), torch.tensor([[0.0, 1.0, NAN]])
    whole, model = AutoregressiveModel(net), AutoregressiveModel(net, missing=True)
    for bad in (hole, end):
        with pytest.raises(ValueError, match="`x` must hold integers"):
            whole.log_weights(bad)
        with pytest.raises(ValueError, match="`value` must hold integers"):
            whole.distribution().log_prob(bad)
    rule = "miss the last elements only, in the order of generation; got NaN before observed"
    with pytest.raises(ValueError, match=f"`x` must {rule}"):
        model.log_weights(hole)
    with pytest.raises(ValueError, match=f"`value` must {rule}"):
        model.distribution().log_prob(hole)
    with pytest.raises(ValueError, match=f"`given` must {rule}"):
        model.complete(hole)
    with pytest.raises(ValueError, match="`num_rows` must be from 0 to 3; got None"):
        whole.complete(torch.zeros(1, 3))
    source = InMemory(torch.arange(3.0).expand(20, 3), num_levels=LEVELS)
    for bad, known, error in ((hole, whole, "integers"), (hole, model, "last elements only")):
        source.validation = torch.utils.data.TensorDataset(bad)
        with pytest.raises(ValueError, match=f"`data` must.*{error}"):
            training.evaluate(known, source, split="validation")


def test_made_has_its_own_order() -> None:
    net = nets.MADENet((3,), 2, hidden=(8,), order=(2, 0, 1))
    last = int(net.order[-1])
    law = AutoregressiveDistribution.of(net, missing=True)
    x = torch.zeros(1, 3)
    x[:, last] = NAN
    assert law.log_prob(x).isfinite()
    x = torch.zeros(1, 3)
    x[:, int(net.order[0])] = NAN
    with pytest.raises(ValueError, match="order of generation"):
        law.log_prob(x)


def test_an_end_symbol_makes_one_law_of_all_strings() -> None:
    """Strings up to the longest length, each with its end symbol if it is shorter: in all one."""
    symbols, longest = 2, 4
    law = AutoregressiveDistribution.of(
        moved(nets.CharRNNNet((longest,), symbols + 1, hidden_features=8)), missing=True
    )
    total = 0.0
    for length in range(longest + 1):
        for code in range(symbols**length):
            string = [code // symbols**i % symbols for i in range(length)]
            ended = torch.tensor([*string, symbols][:longest])
            total += law.log_prob(pad_sequences([ended], longest).double()).exp().item()
    assert total == pytest.approx(1, abs=1e-12)


def test_lengths_masks_and_padding_are_one_convention() -> None:
    x = pad_sequences([torch.tensor([1, 2]), torch.tensor([], dtype=torch.long)], 3)
    assert lengths(x).tolist() == [2, 0]
    again = with_lengths(torch.tensor([[1, 2, 9], [9, 9, 9]]), torch.tensor([2, 0]))
    assert torch.equal(x.nan_to_num(-1), again.nan_to_num(-1))
    masked = with_mask(torch.tensor([[1.0, 2.0, 9.0], [9.0, 9.0, 9.0]]), ~x.isnan())
    assert torch.equal(x.nan_to_num(-1), masked.nan_to_num(-1))
    assert lengths(torch.zeros(2, 3, dtype=torch.long)).tolist() == [3, 3]
    # What is missing in the middle does not end a sequence.
    assert lengths(torch.tensor([NAN, 1.0, NAN])) == 2
    assert pad_sequences([torch.ones(2, dtype=torch.float64)]).dtype == torch.float64
    for call, match in (
        (lambda: pad_sequences([]), "`sequences`"),
        (lambda: pad_sequences([torch.zeros(1, 2)]), "be vectors"),
        (lambda: pad_sequences([torch.zeros(3)], 2), "`length` must be at least 3; got 2"),
        (lambda: with_lengths(torch.zeros(2, 3), torch.tensor([1])), "`lengths` must have shape"),
        (lambda: with_lengths(torch.zeros(2), torch.tensor(3)), "`lengths` must be from 0 to 2"),
        (lambda: with_mask(torch.zeros(2), torch.ones(3).bool()), "`mask`"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


def test_nothing_observed_is_certain() -> None:
    law = AutoregressiveDistribution.of(ANY_LENGTH["gru"](LENGTH), missing=True)
    assert law.log_prob(torch.full((1, LENGTH), math.nan)).item() == 0
