"""Laws of the likelihoods: they sum to one, declare what they take, and say what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from pyro import validation_enabled

from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.models import (
    VAE,
    BernoulliLikelihood,
    CategoricalLikelihood,
    DiscretizedLogisticLikelihood,
    ELBOLoss,
    GaussianLikelihood,
    Likelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    VAENetwork,
    ZeroInflatedNegativeBinomialLikelihood,
)
from pyro_genmodels.models.likelihoods.elementwise import Levels, make_likelihood

SHAPES = [(3,), (2, 3, 5)]
DISCRETE: dict[str, Callable[[tuple[int, ...]], Likelihood]] = {
    "bernoulli": lambda shape: BernoulliLikelihood(shape),
    "categorical": lambda shape: CategoricalLikelihood(shape, 7),
    "discretized_logistic": lambda shape: DiscretizedLogisticLikelihood(shape, 7),
}
CONTINUOUS: dict[str, Callable[[tuple[int, ...]], Likelihood]] = {
    "predicted": lambda shape: GaussianLikelihood(shape),
    "shared": lambda shape: GaussianLikelihood(shape, scale="shared"),
    "per_dimension": lambda shape: GaussianLikelihood(shape, scale="per_dimension"),
    "fixed": lambda shape: GaussianLikelihood(shape, scale=0.3),
}
COUNTS: dict[str, Callable[[tuple[int, ...]], Likelihood]] = {
    "poisson": lambda shape: PoissonLikelihood(shape),
    "negative_binomial": lambda shape: NegativeBinomialLikelihood(shape),
    "dispersion": lambda shape: NegativeBinomialLikelihood(shape, dispersion="predicted"),
    "zero_inflated": lambda shape: ZeroInflatedNegativeBinomialLikelihood(shape),
}
EVERY = DISCRETE | CONTINUOUS | COUNTS


def decoded(likelihood: Likelihood, *batch: int, dtype: torch.dtype = torch.float64):
    return 3 * torch.randn(*batch, *likelihood.parameter_shape, dtype=dtype)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", DISCRETE)
def test_each_dimension_sums_to_one(name: str, shape: tuple[int, ...]) -> None:
    """Dimensions are independent, so one level everywhere at a time enumerates them all."""
    likelihood = DISCRETE[name](shape)
    each = likelihood(decoded(likelihood, 4)).base_dist
    levels = torch.arange(likelihood.num_levels, dtype=torch.float64)
    masses = torch.stack([each.log_prob(v.expand(4, *shape)).exp() for v in levels])
    torch.testing.assert_close(masses.sum(0), torch.ones(4, *shape, dtype=torch.float64))
    mean = torch.einsum("k...,k->...", masses, levels)
    torch.testing.assert_close(each.mean, mean)


@pytest.mark.parametrize("name", DISCRETE)
def test_joint_sums_to_one(name: str) -> None:
    likelihood = DISCRETE[name]((3,))
    levels = torch.arange(likelihood.num_levels, dtype=torch.float64)
    points = torch.cartesian_prod(*[levels] * 3)
    total = likelihood(decoded(likelihood)).log_prob(points).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-10, rtol=0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", EVERY)
def test_shapes_and_dtype(name: str, shape: tuple[int, ...]) -> None:
    likelihood = EVERY[name](shape).double()
    law = likelihood(decoded(likelihood, 4, 2))
    assert law.event_shape == shape
    assert law.batch_shape == (4, 2)
    draws = law.sample((3,))
    assert draws.shape == (3, 4, 2, *shape)
    assert draws.dtype == torch.float64
    log_prob = law.log_prob(draws)
    assert log_prob.shape == (3, 4, 2)
    assert torch.isfinite(log_prob).all()
    if name in DISCRETE:
        assert ((draws == draws.floor()) & (draws < likelihood.num_levels)).all()


@pytest.mark.parametrize("name", EVERY)
def test_channels_keep_their_own_parameters(name: str) -> None:
    """What moves the parameters of one channel moves the mean of that channel alone."""
    likelihood = EVERY[name]((3, 2, 2)).double()
    output = decoded(likelihood, 1)
    moved = output.clone()
    moved[:, 1::3] += torch.linspace(1, 2, moved[:, 1::3].shape[1], dtype=torch.double)[
        :, None, None
    ]
    change = (likelihood(moved).mean - likelihood(output).mean).abs().amax((0, 2, 3))
    assert change[1] > 1e-6
    assert change[0] == change[2] == 0


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_output_is_scored_in_float32(name: str) -> None:
    likelihood = EVERY[name]((4,))
    law = likelihood(decoded(likelihood, 2, dtype=torch.bfloat16))
    assert law.log_prob(torch.zeros(2, 4)).dtype == torch.float32


@pytest.mark.parametrize("name", EVERY)
def test_validation_can_be_set(name: str) -> None:
    strict, lenient = EVERY[name]((2,)), EVERY[name]((2,))
    strict.validate_args, lenient.validate_args = True, False
    bad = torch.full(strict.parameter_shape, float("nan"))
    with pytest.raises(ValueError, match="constraint"):
        strict(bad)
    lenient(bad)


@pytest.mark.parametrize("name", EVERY)
def test_configuration_rebuilds(name: str) -> None:
    likelihood = EVERY[name]((2, 3, 5))
    again = build(configuration(likelihood))
    assert type(again) is type(likelihood)
    assert again.parameter_shape == likelihood.parameter_shape


def test_scales_of_a_gaussian() -> None:
    output = torch.zeros(5, 4)
    assert (GaussianLikelihood((4,), scale=0.3)(output).stddev - 0.3).abs().max() < 1e-6
    assert not list(GaussianLikelihood((4,), scale=0.3).parameters())
    shared = GaussianLikelihood((4,), scale="shared")
    assert [p.shape for p in shared.parameters()] == [()]
    each = GaussianLikelihood((4,), scale="per_dimension")
    assert [p.shape for p in each.parameters()] == [(4,)]
    deep = GaussianLikelihood((4,))(torch.full((5, 8), -1e4))
    assert torch.allclose(deep.stddev, torch.tensor(-7.0).exp())


def test_names_go_by_the_kind_of_data() -> None:
    kinds = {None: GaussianLikelihood, 2: BernoulliLikelihood, 17: DiscretizedLogisticLikelihood}
    for num_levels, kind in kinds.items():
        assert type(make_likelihood("auto", (3,), num_levels)) is kind
    assert type(make_likelihood("categorical", (3,), 17)) is CategoricalLikelihood
    for name in ("poisson", "negative_binomial", "zero_inflated_negative_binomial"):
        made = make_likelihood(name, (3,), None)
        assert type(made).__name__.lower() == f"{name.replace('_', '')}likelihood"
    own = GaussianLikelihood((3,), scale=0.1)
    assert make_likelihood(own, (3,), None) is own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("bernoulli", (3,), 17), "`likelihood` must be one of data of 17 levels; got Bernoulli"),
        (("gaussian", (3,), 2), "`likelihood` must be one of data of 2 levels; got Gaussian"),
        (("categorical", (3,), None), "`likelihood` must be one of continuous data; got 'categ"),
        (("gamma", (3,), None), "`likelihood` must be one of 'auto', 'bernoulli'"),
        (("poisson", (3,), 17), "`likelihood` must be one of data of 17 levels; got Poisson"),
        ((BernoulliLikelihood((4,)), (3,), 2), r"`likelihood` must have events \(3,\); got \(4,\)"),
    ],
)
def test_what_does_not_fit_is_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_likelihood(*arguments)


def test_bad_arguments_are_errors() -> None:
    with pytest.raises(ValueError, match="`scale` must be one of 'predicted'"):
        GaussianLikelihood((3,), scale="tied")
    with pytest.raises(ValueError, match="`scale` must be positive"):
        GaussianLikelihood((3,), scale=-1.0)
    with pytest.raises(ValueError, match="`num_levels` must be at least 2"):
        CategoricalLikelihood((3,), 1)
    with pytest.raises(ValueError, match=r"`decoded` must have trailing shape \(6,\)"):
        GaussianLikelihood((3,))(torch.zeros(5, 3))


def test_a_learned_scale_is_trained() -> None:
    vae = VAE(
        (3,),
        latent_dim=2,
        network=VAENetwork(hidden=()),
        likelihood=GaussianLikelihood((3,), scale="shared"),
    )
    loss = ELBOLoss(vae)
    loss(torch.randn(20, 3)).backward()
    assert vae.likelihood.log_scale.grad.abs() > 0
    assert not loss.unreached_parameters()


def test_levels_of_evidence_are_the_categoricals() -> None:
    """Also where most probabilities underflow, for which they are made."""
    logits = (300 * torch.randn(3, 4, 17, dtype=torch.float64)).requires_grad_()
    plain, fast = Levels(logits=logits), Levels.of_evidence(logits)
    x = torch.randint(17, (3, 4)).double()
    for of in (plain, fast, fast.expand(torch.Size((2, 3, 4)))):
        torch.testing.assert_close(of.log_prob(x).expand(2, 3, 4)[0], plain.log_prob(x))
        assert torch.equal(of.mean.expand(2, 3, 4)[0], plain.mean)
    gradients = [torch.autograd.grad(d.log_prob(x).sum(), logits)[0] for d in (plain, fast)]
    torch.testing.assert_close(*gradients)
    assert fast.sample(torch.Size((5,))).dtype == torch.float64
    with pytest.raises(ValueError, match="Expected parameter logits"), validation_enabled(True):
        Levels.of_evidence(logits * math.nan)
