"""Products of categoricals against tables, and in the ways that they are used."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import models, testing
from pyro_genmodels.models import CategoricalModel, GenerativeModel

pytestmark = pytest.mark.usefixtures("double")
NEAR = {"atol": 1e-10, "rtol": 1e-10}


def categorical(
    levels: int, classes: int | None = 3, shape: tuple[int, ...] = (4,), **options: Any
) -> CategoricalModel:
    torch.manual_seed(0)
    model = CategoricalModel(shape, levels, num_classes=classes, **options)
    return testing.randomize_parameters(model, 1.0).eval()  # type: ignore[return-value]


def holed(levels: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(levels, shape, generator=generator).double()
    gone = torch.rand(shape, generator=generator) < 0.4
    gone[0], gone[-1] = True, False
    return torch.where(gone, torch.nan, x)


def oracle(tables: Tensor, x: Tensor) -> Tensor:
    scores = torch.zeros(len(x), len(tables))
    for i, row in enumerate(x.flatten(1)):
        for d, value in enumerate(row):
            if not value.isnan():
                scores[i] += tables[:, d, int(value)].log()
    return scores


# Fewer levels than labels are looked up otherwise than more.
@pytest.mark.parametrize("levels", [2, 3, 7])
@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)], ids=str)
@pytest.mark.parametrize("missing", [False, True])
def test_scores_are_those_of_tables(levels: int, shape: tuple[int, ...], missing: bool) -> None:
    model = categorical(levels, shape=shape, missing=missing)
    x = holed(levels, 9, *shape)
    x = x if missing else x.nan_to_num()
    expected = oracle(model.probabilities(), x)
    labels = torch.arange(9) % 3
    found = model.distribution(labels).log_prob(x)
    torch.testing.assert_close(found, expected[torch.arange(9), labels], **NEAR)
    torch.testing.assert_close(model.class_log_probs(x), expected, **NEAR)
    torch.testing.assert_close(model.class_log_probs(x, chunk_size=2), expected, **NEAR)
    if not missing:
        torch.testing.assert_close(model.class_log_probs(x.long()), expected, **NEAR)


@pytest.mark.parametrize("levels", [2, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_impossible_level_is_minus_infinity(levels: int, dtype: torch.dtype) -> None:
    model = CategoricalModel((2,), levels, num_classes=3).to(dtype)
    tables = torch.full((3, 2, levels), 1 / levels)
    tables[1, 0] = torch.eye(levels)[0]
    model.set_probabilities(tables)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = model.class_log_probs(x)
    assert (found == -torch.inf).tolist() == [[False, True, False], [False, False, False]]
    torch.testing.assert_close(found, GenerativeModel.class_log_probs(model, x))
    found[found.isfinite()].sum().backward()
    assert model.logits.grad is not None
    assert model.logits.grad.isfinite().all()


def test_tables_survive_being_set() -> None:
    model, other = categorical(5), categorical(5)
    testing.randomize_parameters(other, 1.0)
    other.set_probabilities(model.probabilities())
    torch.testing.assert_close(other.probabilities(), model.probabilities(), **NEAR)
    with pytest.raises(ValueError, match=r"`probabilities` must have shape \(3, 4, 5\)"):
        other.set_probabilities(torch.ones(4, 5) / 5)
    with pytest.raises(ValueError, match=r"`probabilities` must .* sum to one"):
        other.set_probabilities(torch.ones(3, 4, 5))
    with pytest.raises(ValueError, match="`probabilities` must be at least 0"):
        other.set_probabilities(torch.full((3, 4, 5), -0.2))
    with pytest.raises(ValueError, match="labels from 0 to 2"):
        model.distribution(torch.tensor([3]))


def test_training_meets_the_frequencies() -> None:
    x = torch.randint(3, (300, 2), generator=torch.Generator().manual_seed(0)).double()
    model = CategoricalModel((2,), 3)
    loss = models.ELBOLoss(model)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=50, tolerance_grad=1e-9)

    def closure() -> Any:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return value

    optimizer.step(closure)
    shares = torch.nn.functional.one_hot(x.long(), 3).double().mean(0)
    torch.testing.assert_close(model.probabilities()[0], shares, atol=1e-4, rtol=0)


def test_imputations_have_the_probabilities_of_their_elements() -> None:
    model = categorical(3, missing=True)
    x = torch.tensor([[1.0, torch.nan, 2.0, torch.nan]])
    drawn = model.impute(x, torch.tensor([2]), num_samples=20_000)[:, 0]
    assert (drawn[:, [0, 2]] == x[0, [0, 2]]).all()
    for d in (1, 3):
        shares = torch.bincount(drawn[:, d].long(), minlength=3) / 20_000
        torch.testing.assert_close(shares, model.probabilities()[2, d], atol=0.02, rtol=0)
