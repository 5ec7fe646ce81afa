"""Laws of the likelihood of mixed tables: column by column, in any order, in the data's nats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pyro_genmodels import data, models, training
from pyro_genmodels.cli import main
from pyro_genmodels.distributions import ObservedPart
from pyro_genmodels.models import VAE, Columns, ELBOLoss, GenerativeModel

pytestmark = pytest.mark.usefixtures("double")
KINDS: list[str | int] = ["count", 3, "gaussian", 2, 3, "gaussian", "count"]


def rows(n: int) -> Tensor:
    """A table of these kinds."""
    made = []
    for kind in KINDS:
        if isinstance(kind, int):
            made.append(torch.randint(kind, (n,)).double())
        else:
            made.append(torch.poisson(torch.full((n,), 9.0)) if kind == "count" else torch.randn(n))
    return torch.stack(made, 1)


def columns(*kinds: str | int) -> Columns:
    likelihood = Columns(kinds or KINDS)
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter)
    return likelihood


def law_of(likelihood: Columns, *batch: int):
    return likelihood(torch.randn(*batch, *likelihood.parameter_shape))


def test_each_column_has_its_own_law() -> None:
    """Masses of codes and counts sum to one, a density integrates to one."""
    each = law_of(columns(), 4).base_dist
    line = torch.linspace(-60, 60, 20_001)
    for place, kind in enumerate(KINDS):
        values = line if kind == "gaussian" else torch.arange(4000.0)
        values = values[:kind] if isinstance(kind, int) else values
        table = torch.zeros(len(values), 1, len(KINDS))
        table[..., place] = values[:, None]
        masses = each.log_prob(table)[..., place].exp()
        total = masses.sum(0) * (line[1] - line[0] if kind == "gaussian" else 1.0)
        torch.testing.assert_close(total, torch.ones(4), atol=1e-6, rtol=0)


def test_order_of_columns_changes_nothing() -> None:
    """Alike columns keep their order, so their parameters lie as before."""
    law, x = law_of(columns(), 5), rows(5)
    order = [5, 0, 3, 1, 2, 6, 4]
    likelihood = Columns([KINDS[place] for place in order])
    mixed = law.base_dist
    places = [[order.index(place) for place in places] for places in mixed.places]
    permuted = type(mixed)(mixed.laws, places, validate_args=None)
    assert likelihood.input_shape == columns().input_shape
    torch.testing.assert_close(permuted.log_prob(x[:, order]), mixed.log_prob(x)[:, order])
    assert torch.equal(permuted.mean, mixed.mean[:, order])


def test_encoder_input_lies_by_kinds() -> None:
    x = torch.tensor([[5.0, 2.0, -0.5]])
    seen = Columns(["count", 3, "gaussian"]).encoder_input(x)
    expected = torch.tensor([[-0.5, torch.tensor(6.0).log(), 0.0, 0.0, 1.0]])
    torch.testing.assert_close(seen, expected)


def test_draws_have_the_declared_law() -> None:
    likelihood = columns("count", 3, "gaussian")
    law = likelihood(0.3 * torch.randn(likelihood.parameter_shape))
    x = law.sample((40_000,))
    likelihood.check_values("x", x)
    for code, mass in enumerate(law.base_dist.laws[2].probs[0]):
        assert abs((x[:, 1] == code).double().mean() - mass) < 0.02
    error = 6 * (law.variance / len(x)).sqrt()
    assert bool(((x.mean(0) - law.mean).abs() < error)[[0, 2]].all())
    assert law.mean[1] == law.base_dist.laws[2].probs[0].argmax()


def test_missing_columns_are_integrated_out() -> None:
    """The observed part's mass is the sum of the whole's over the missing code."""
    likelihood = columns("count", 3, "gaussian")
    law = law_of(likelihood)
    x = torch.tensor([2.0, torch.nan, 0.4])
    every = torch.tensor([[2.0, code, 0.4] for code in range(3)])
    observed = ObservedPart(law).log_prob(x)
    torch.testing.assert_close(observed, law.log_prob(every).logsumexp(0))
    counts = torch.stack([torch.tensor([k, 1.0, 0.4]) for k in range(4000)])
    observed = ObservedPart(law).log_prob(torch.tensor([torch.nan, 1.0, 0.4]))
    torch.testing.assert_close(observed, law.log_prob(counts).logsumexp(0))
    for likelihood in (models.NegativeBinomialLikelihood((3,)), models.PoissonLikelihood((3,))):
        law = likelihood(torch.randn(3))
        each = law.base_dist.log_prob(torch.tensor([2.0, 0.0, 7.0]))
        observed = ObservedPart(law).log_prob(torch.tensor([2.0, torch.nan, 7.0]))
        torch.testing.assert_close(observed, each[0] + each[2])


def test_bound_is_in_the_units_of_the_data() -> None:
    """Metres or kilometres: the nats differ by the logarithm of the unit; counts stay."""
    torch.manual_seed(0)
    x = rows(50)
    real = torch.tensor([kind == "gaussian" for kind in KINDS])
    far = torch.where(real, 1e4 + 1000 * x, x)
    weights = []
    for table in (x, far):
        torch.manual_seed(1)
        model = VAE((len(KINDS),), latent_dim=2, likelihood=Columns(KINDS)).double()
        model.standardize(table).eval()
        torch.manual_seed(2)
        weights.append(model.log_weights(table))
    unit = 2 * torch.log(torch.tensor(1000.0))
    torch.testing.assert_close(weights[0] - unit, weights[1])


class Table(data.DataSource):
    """A table of the user's own."""

    path_argument = "path"

    def __init__(self, x: Tensor, kinds: list[str | int] = KINDS, *, path: str = "") -> None:
        named = [
            data.Column(f"c{i}", "categorical", tuple("abc"[:kind]))
            if isinstance(kind, int)
            else data.Column(f"c{i}", kind)  # type: ignore[arg-type]
            for i, kind in enumerate(kinds)
        ]
        parts = [TensorDataset(part) for part in x.split(-(-len(x) // 3))]
        super().__init__(*parts, num_levels=None, columns=named)


def test_a_source_settles_the_likelihood() -> None:
    facts = training.facts_of(Table(rows(30)))
    assert facts["likelihood"].kinds == KINDS
    training.check_source(Table(rows(30)), VAE(**facts))
    counts = Table(rows(30)[:, [0, 6]].long(), ["count", "count"])
    assert training.facts_of(counts)["likelihood"] == "negative_binomial"
    training.check_source(counts, VAE(**training.facts_of(counts)))
    real = Table(rows(30)[:, [2, 5]], ["gaussian", "gaussian"])
    assert "likelihood" not in training.facts_of(real)


@pytest.mark.parametrize("kind", ["columns", "size factors"])
def test_models_of_one_source_share_no_module(kind: str) -> None:
    by_size = kind == "size factors"
    counts = data.InMemory((torch.ones(60, 3), torch.ones(60, 1)), kinds="count")
    facts = training.facts_of(counts if by_size else Table(rows(30)), conditional=by_size)
    makers: list[Any] = [VAE, VAE, models.BetaVAE, models.DeltaVAE]
    made = [maker(**facts, latent_dim=8) for maker in makers]
    made += [VAE(**(facts | {"latent_dim": 8})), VAE(**dict(facts.items()))]
    parameters = [id(p) for model in made for p in model.parameters()]
    modules = [id(m) for model in made for m in model.modules()]
    assert len(modules) == len(set(modules))
    assert len(parameters) == len(set(parameters))


OTHERS: dict[str, Callable[[], GenerativeModel]] = {
    "VAE": lambda: VAE((7,)),
    "BetaVAE": lambda: models.BetaVAE((7,)),
    "FactorAnalysis": lambda: models.FactorAnalysis((7,), latent_dim=2),
    "realnvp": lambda: models.realnvp((7,)),
    "maf": lambda: models.maf((7,)),
    "spline_flow": lambda: models.spline_flow((7,)),
    "made": lambda: models.made((7,), num_levels=20),
    "SequenceVQVAE": lambda: models.SequenceVQVAE((7,), num_levels=20),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_models_refuse_by_the_column_s_name(name: str) -> None:
    with pytest.raises(ValueError, match=r"`data` must have gaussian columns there for .*'c0'"):
        training.check_source(Table(rows(30)), OTHERS[name]())


@pytest.mark.parametrize(
    ("kind", "shape"), [(models.NVAE, (1, 4, 4)), (models.VQVAE, (1, 4, 4)), (VAE, (3,))]
)
def test_models_of_other_events_refuse(kind: type[GenerativeModel], shape: tuple) -> None:
    with pytest.raises(ValueError, match=r"`likelihood` must have events .*got \(7,\)"):
        kind(shape, likelihood=columns())


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (0, -1.0, r"`x: column 0` must hold counts, whole numbers from 0; got \[-1"),
        (6, 0.5, "`x: column 6` must hold counts"),
        (1, 3.0, "`x: column 1` must hold integers from 0 to 2"),
        (3, 0.5, "`x: column 3` must hold integers from 0 to 1"),
        (2, torch.inf, "`x` must be finite"),
    ],
)
def test_wrong_values_are_named(column: int, value: float, message: str) -> None:
    x = rows(3)
    x[1, column] = value
    with pytest.raises(ValueError, match=message):
        ELBOLoss(VAE((7,), likelihood=columns()))(x)


@pytest.mark.parametrize("kinds", [[], ["real"], [True], [0]], ids=str)
def test_kinds_are_checked(kinds: list) -> None:
    with pytest.raises(ValueError, match="`kinds` must"):
        Columns(kinds)


MODELS: dict[str, Callable[[], GenerativeModel]] = {
    "VAE": lambda: VAE((7,), latent_dim=2, likelihood=Columns(KINDS)),
    "BetaVAE": lambda: models.BetaVAE((7,), latent_dim=2, likelihood=Columns(KINDS)),
    "DeltaVAE": lambda: models.DeltaVAE((7,), latent_dim=8, likelihood=Columns(KINDS)),
    "SemiSupervisedVAE": lambda: models.SemiSupervisedVAE(
        VAE((7,), latent_dim=2, likelihood=Columns(KINDS), num_classes=3)
    ),
    "VampPrior": lambda: VAE(
        (7,), latent_dim=2, likelihood=Columns(KINDS), prior=models.VampPrior((12,))
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_models_train_on_a_table(name: str) -> None:
    torch.manual_seed(0)
    x = rows(300)
    x[:, 2] = 50 + 10 * x[:, 1] + x[:, 2]
    model = MODELS[name]().standardize(x)
    loss = ELBOLoss(model)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    before = loss(x).item()
    for _ in range(30):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    assert loss(x).item() < before
    assert not loss.unreached_parameters()
    draws = model.eval().sample(20)
    Columns(KINDS).check_values("draws", draws)
    assert abs(draws[:, 2].mean() - 60) < 25
    training.check_source(Table(x), model)


class Given(Table):
    """A table that a path names."""

    def __init__(self, path: str) -> None:
        torch.manual_seed(0)
        super().__init__(rows(60).float())


def test_command_line_settles_the_likelihood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning")
    pytest.importorskip("jsonargparse")
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(data, "FromFile", Given)
    (tmp_path / "table.npy").touch()
    given = ["--data", "FromFile", "--data.path", str(tmp_path / "table.npy")]
    name = f"{Given.__module__}.{Given.__qualname__}"
    common = ["--max_epochs", "1", "--run", str(tmp_path / "run"), "--num_samples", "0"]
    common += ["--allow", name]
    assert main(["train", "vae", *given, *common]) == 0
    model = training.load(tmp_path / "run", allow=[name])
    assert model.likelihood.kinds == KINDS
    other = ["--model.likelihood", "gaussian", "--overwrite"]
    assert main(["train", "vae", *given, *common, *other]) == 1
    assert "must have gaussian columns there for VAE; got the count column 'c0'" in (
        capsys.readouterr().err
    )
