"""AutoregressiveModel: an exact likelihood in the shape of a model/guide pair."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from jaxtyping import TypeCheckError
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from pyro.nn import PyroSample
from pyro.nn.module import to_pyro_module_

from pyro_genmodels import distributions as pgd
from pyro_genmodels import models
from pyro_genmodels.cli.names import family, model_makers
from pyro_genmodels.models import AutoregressiveModel, ELBOLoss, made, pixelcnn
from pyro_genmodels.nets import PixelCNNNet


def small(**kwargs) -> AutoregressiveModel:
    sizes = {"num_levels": 2, "hidden_channels": 4, "num_blocks": 1, "dropout": 0.0}
    return pixelcnn((1, 2, 2), **{**sizes, **kwargs})


def every_image() -> torch.Tensor:
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=4))).reshape(16, 1, 2, 2)


def test_every_bound_is_the_exact_likelihood() -> None:
    model = small().double()
    weights = model.log_weights(every_image(), num_particles=3)
    assert weights.shape == (3, 16)
    assert torch.equal(weights, model.distribution().log_prob(every_image().double()).expand(3, 16))
    torch.testing.assert_close(weights.exp().sum(1), torch.ones(3).double())
    torch.testing.assert_close(ELBOLoss(model)(every_image()), -weights[0].mean())


def test_trains_by_svi_towards_the_entropy() -> None:
    model, x = small(), torch.zeros(64, 1, 2, 2)
    x[:32] = 1.0
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
    losses = [svi.step(x) / 64 for _ in range(150)]
    assert losses[0] > 2.0
    assert losses[-1] < 0.72  # log 2 = 0.693 is the entropy of this law


def test_sampling_and_predictive() -> None:
    model = small()
    assert model.sample(5).shape == (5, 1, 2, 2)
    for parallel in (False, True):
        draws = Predictive(model.model, num_samples=3, parallel=parallel)()["x"]
        assert draws.shape == (3, 1, 2, 2)
        assert set(draws.unique().tolist()) <= {0.0, 1.0}


def test_conditional_on_labels() -> None:
    model = small(num_classes=3)
    x, labels = torch.ones(3, 1, 2, 2), torch.tensor([0, 1, 2])
    assert model.log_weights(x, labels).shape == (1, 3)
    assert model.sample(4, labels).shape == (4, 3, 1, 2, 2)
    with pytest.raises(ValueError, match="`context` must be given to a conditional model"):
        model.sample(4)


def test_a_context_of_more_dimensions_than_the_data_is_refused() -> None:
    model, x = small(num_classes=3), torch.ones(3, 1, 2, 2)
    loss, labels = ELBOLoss(model), torch.tensor([0, 1, 2])
    loss(x, labels)  # the first call validates, the others do not
    for wrong in (labels.expand(2, 3), labels[:2]):
        with pytest.raises(ValueError, match=r"`context` must have a batch shape that expands to"):
            loss(x, wrong)


def test_a_label_is_enumerated_out() -> None:
    model = small(num_classes=3).double()
    x = every_image().double()

    @config_enumerate
    def program(x):
        with pyro.plate("images", len(x)):
            label = pyro.sample("label", pyro.distributions.Categorical(torch.ones(3).double()))
            pyro.sample("x", pgd.PixelCNN(model.net, label), obs=x)

    elbo = TraceEnum_ELBO(max_plate_nesting=1)
    loss = elbo.loss(program, lambda x: None, x)
    each = torch.stack([model.distribution(torch.tensor(k)).log_prob(x) for k in range(3)])
    marginal = each.logsumexp(0) - torch.tensor(3.0).log()
    assert loss == pytest.approx(-float(marginal.sum()), rel=1e-6)


def test_there_is_nothing_to_reconstruct() -> None:
    with pytest.raises(ValueError, match="have latent variables to reconstruct from"):
        small().reconstruct(every_image())


def test_bad_construction() -> None:
    net = PixelCNNNet((1, 2, 2), 2, hidden_channels=4)
    with pytest.raises(TypeError, match="`distribution` is now known by the network"):
        AutoregressiveModel(net, distribution="PixelCNN")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="`x` must have trailing shape"):
        AutoregressiveModel(net).model(torch.zeros(3, 1, 3, 3))
    with pytest.raises(ValueError, match="integers from 0 to 1"):
        AutoregressiveModel(net).model(torch.full((3, 1, 2, 2), 2.0))


def test_a_temperature_of_zero_draws_the_same_again() -> None:
    cold = small().sample(5, temperature=0.0)
    assert (cold == cold[0]).all()


def test_completions_begin_as_given() -> None:
    model, x = small(num_classes=2), torch.tensor([[1.0, 0.0], [0.0, 1.0]]).expand(2, 3, 1, 2, 2)
    labels = torch.tensor([0, 1, 1])
    assert torch.equal(model.complete(x, 2, labels), x)
    torch.manual_seed(0)
    drawn = model.complete(x, 0, labels)
    torch.manual_seed(0)
    assert torch.equal(drawn, model.sample(2, labels))
    half = model.complete(
        torch.cat([x[..., :1, :], torch.full_like(x[..., :1, :], -7)], -2), 1, labels
    )
    assert torch.equal(half[..., :1, :], x[..., :1, :])
    assert set(half.unique().tolist()) <= {0.0, 1.0}
    vectors = made((5,), num_levels=3, hidden=(8,))
    assert torch.equal(vectors.complete(torch.ones(4, 5), 3)[:, :3], torch.ones(4, 3))


@pytest.mark.parametrize("rows", [-1, 3, 1.5])
def test_rows_that_there_are_not(rows: float) -> None:
    with pytest.raises((ValueError, TypeCheckError), match="num_rows"):
        small().complete(torch.zeros(1, 2, 2), rows)  # type: ignore[arg-type]


def test_what_is_not_generated_row_by_row_is_not_completed() -> None:
    shuffled = made((1, 2, 2), num_levels=2, hidden=(8,), order=[3, 1, 0, 2])
    with pytest.raises(ValueError, match="`model` must generate row by row"):
        shuffled.complete(torch.zeros(1, 2, 2), 1)


BUILDERS: list[Callable[..., AutoregressiveModel]] = [
    getattr(models, name)
    for name, maker in model_makers().items()
    if inspect.isfunction(maker) and family(maker) is AutoregressiveModel
]


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda builder: builder.__name__)
def test_a_builder_shows_each_option_of_its_network(
    builder: Callable[..., AutoregressiveModel],
) -> None:
    parameters = inspect.signature(builder).parameters
    assert len(parameters) <= 16
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    described = re.findall(r"^    (\w+): ", inspect.getdoc(builder) or "", flags=re.MULTILINE)
    assert sorted(described) == sorted(parameters)
    net: Any = builder((1, 8, 8)).net
    net = getattr(net, "large", net)
    of_net = inspect.signature(type(net)).parameters
    settled = {"layer"} if builder in (models.row_lstm, models.diagonal_bilstm) else set()
    assert of_net.keys() - settled <= parameters.keys()
    with pytest.raises(TypeError, match=rf"^{builder.__name__}\(\) got an unexpected.*'width'"):
        builder((1, 8, 8), width=4)


def test_former_names() -> None:
    with pytest.warns(DeprecationWarning, match="`law` is `distribution` now"):
        assert isinstance(small().law(), pgd.PixelCNN)
    conditional = AutoregressiveModel(PixelCNNNet((1, 2, 2), 2, hidden_channels=4, num_classes=3))
    with pytest.warns(DeprecationWarning, match="`law` is `distribution` now"):
        assert conditional.law(context=torch.tensor([0, 2])).batch_shape == (2,)
    factors = models.FactorAnalysis((3,))
    with pytest.warns(DeprecationWarning, match="`law` is `distribution` now"):
        assert factors.law().event_shape == (3,)


def test_random_weights_have_no_distribution() -> None:
    net = PixelCNNNet((1, 2, 2), 2, hidden_channels=4, num_blocks=1)
    to_pyro_module_(net)
    net.first.bias = PyroSample(pyro.distributions.Normal(torch.zeros(8), 1.0).to_event(1))
    with pytest.raises(ValueError, match=r"AutoregressiveModel with random weights.*first\.bias"):
        AutoregressiveModel(net).distribution()


def test_a_subclass_may_have_an_argument_of_a_former_name() -> None:
    class Tempered(AutoregressiveModel):
        def __init__(self, net: PixelCNNNet, *, distribution: str = "mine") -> None:
            super().__init__(net)
            self.name = distribution

    assert Tempered(small().net, distribution="own").name == "own"
