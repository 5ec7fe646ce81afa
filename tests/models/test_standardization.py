"""Units of continuous data: set once, in all that goes in and comes out, and refused if far off."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import distributions as dist
from pyro import poutine
from pyro.distributions.conditional import (
    ConditionalComposeTransformModule,
    ConstantConditionalTransform,
)
from pyro.distributions.transforms import LeakyReLUTransform
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from pyro.infer.inspect import get_dependencies
from torch import Tensor
from torch import multiprocessing as mp
from torch.distributions import (
    AffineTransform,
    CatTransform,
    ComposeTransform,
    ExpTransform,
    IndependentTransform,
    SigmoidTransform,
)
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyro_genmodels import metrics, models, nets, testing, transforms
from pyro_genmodels.models import ELBOLoss, GaussianLikelihood, GenerativeModel
from tests.cases.models import nvae
from tests.grouped import grouped

FACTORS = torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)


def normal(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def vae(**options: Any) -> models.VAE:
    return models.VAE(
        (3,), latent_dim=2, network=models.VAENetwork(hidden=(6,)), **grouped(models.VAE, options)
    )


def vector_flow() -> Any:
    return transforms.affine_coupling(3, hidden=(5,))


def svi_step(model: GenerativeModel, x: Tensor) -> None:
    adam: Any = pyro.optim.Adam({"lr": 1e-3})  # type: ignore[attr-defined]
    SVI(model.model, model.guide, adam, Trace_ELBO()).step(x)


def loss_step(model: GenerativeModel, x: Tensor) -> None:
    ELBOLoss(model)(x).backward()


def importance_step(model: GenerativeModel, x: Tensor) -> None:
    ELBOLoss(model, importance=True, num_particles=2)(x).backward()


def automatic_step(model: GenerativeModel, x: Tensor) -> None:
    guide = AutoDelta(poutine.block(model.model, hide=["x"]))
    adam: Any = pyro.optim.Adam({"lr": 1e-3})  # type: ignore[attr-defined]
    SVI(model.model, guide, adam, Trace_ELBO()).step(x)


STEPS = [svi_step, loss_step, importance_step, automatic_step]


MAKERS: dict[str, Callable[[], GenerativeModel]] = {
    "vae": vae,
    "shared noise": lambda: vae(likelihood=GaussianLikelihood((3,), scale="shared")),
    "noise per dimension": lambda: vae(likelihood=GaussianLikelihood((3,), scale="per_dimension")),
    "fixed noise": lambda: vae(likelihood=GaussianLikelihood((3,), scale=0.3)),
    "vamp": lambda: vae(prior=models.VampPrior((3,), num_components=2)),
    "beta": lambda: models.BetaVAE(
        (3,),
        latent_dim=2,
        network=models.VAENetwork(hidden=(6,)),
        objective=models.KLObjective(beta=2.0),
    ),
    "conv": lambda: models.VAE(
        (2, 4, 4), latent_dim=2, network=models.VAENetwork("conv", hidden=(4,))
    ),
    "ppca": lambda: models.FactorAnalysis((3,), latent_dim=1, noise="shared"),
    "factors": lambda: models.FactorAnalysis((2, 2, 2), latent_dim=2),
    "maf": lambda: models.maf((3,), num_layers=2, hidden=(8,)),
    "glow": lambda: models.glow((2, 4, 4), num_steps=2, width=4, dropout=0.0),
    "spline": lambda: models.spline_flow((3,), width=8),
    "nice": lambda: models.nice((3,), width=8),
    "pyro's flow": lambda: models.FlowModel((3,), vector_flow()),
    "nvae": lambda: nvae(2, 2, 2),
    "vqvae": lambda: models.VQVAE(
        (2, 4, 4),
        codebook=models.Codebook(5, dim=3),
        network=models.VQVAENetwork(hidden_channels=6),
    ),
}
CONDITIONAL: dict[str, tuple[Callable[[], GenerativeModel], Tensor]] = {
    "vae of labels": (lambda: vae(num_classes=3), torch.arange(6) % 3),
    "maf of labels": (
        lambda: models.maf((3,), num_layers=2, hidden=(8,), num_classes=3),
        torch.arange(6) % 3,
    ),
    "spline of features": (
        lambda: models.spline_flow((3,), width=8, context_shape=(2,)),
        normal(6, 2),
    ),
}


def prepared(make: Callable[[], GenerativeModel]) -> GenerativeModel:
    torch.manual_seed(0)
    model = make().double()
    if any(isinstance(part, nets.VectorQuantizer) for part in model.modules()):
        return model.eval()
    return testing.randomize_parameters(model, 0.1).eval()


@pytest.mark.parametrize("name", MAKERS)
def test_every_family_takes_any_units(name: str) -> None:
    model = prepared(MAKERS[name])
    testing.check_standardization(model, normal(6, *model.event_shape))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditional_models_take_any_units(name: str) -> None:
    make, context = CONDITIONAL[name]
    testing.check_standardization(prepared(make), normal(6, 3), context)


def in_units(model: GenerativeModel) -> Tensor:
    """Data far from zero, by which the model is standardised."""
    data = 1000 + 50 * normal(8, *model.event_shape)
    model.standardize(data)
    return data


@pytest.mark.parametrize("name", ["vae", "ppca", "pyro's flow"])
def test_a_standardized_model_keeps_the_other_laws(name: str) -> None:
    pyro.set_rng_seed(0)
    model = prepared(MAKERS[name])
    x = in_units(model)
    testing.check_bounds(model, x)
    testing.check_estimators_agree(model, x, num_runs=30)
    testing.check_copies(model, x)
    testing.check_no_stale_weights(model, x)
    testing.check_model_shapes(model, x[0])

    def make() -> GenerativeModel:
        return MAKERS[name]().double().standardize(x)

    testing.check_trains(make, x)


def semi_supervised() -> models.SemiSupervisedVAE:
    return models.SemiSupervisedVAE(vae(num_classes=3), hidden=(5,))


def test_a_wrapped_model_shares_its_units() -> None:
    plain, labels = prepared(semi_supervised), torch.arange(6) % 3
    testing.check_standardization(plain, normal(6, 3), labels)
    testing.check_standardization(plain, normal(6, 3))
    model: Any = prepared(semi_supervised)
    x = 1000 + 50 * normal(6, 3)
    model.conditional.standardize(x)
    seen = model.standardization.standardized(x, torch.float64)
    torch.testing.assert_close(model.classify(x).logits, plain.classify(seen).logits)  # type: ignore[attr-defined]
    assert model.sample(100).mean() > 500
    ELBOLoss(model)(x)


def test_what_a_model_says_is_in_the_units_of_the_data() -> None:
    plain: Any = prepared(vae)
    model: Any = prepared(vae)
    x = in_units(model)
    shift, scale = model.standardization.shift, model.standardization.scale
    seen = (x - shift) / scale
    torch.testing.assert_close(model.encode(x).loc, plain.encode(seen).loc)
    z = normal(4, 2)
    law, before = model.decode(z), plain.decode(z)
    torch.testing.assert_close(law.mean, shift + scale * before.mean)
    torch.testing.assert_close(law.stddev, scale * before.stddev)
    elements = law.base_dist.log_prob(x[:4])
    torch.testing.assert_close(elements, before.base_dist.log_prob(seen[:4]) - scale.log())
    factors: Any = prepared(MAKERS["factors"])
    x = in_units(factors)
    weights = factors.log_weights(x, num_particles=2)
    torch.testing.assert_close(weights, factors.log_prob(x).expand(2, -1))
    torch.testing.assert_close(factors.distribution().log_prob(x), factors.log_prob(x))
    guided = poutine.trace(factors.guide).get_trace(x).nodes["z"]["fn"].mean
    torch.testing.assert_close(factors.posterior(x).loc, guided)
    flow: Any = prepared(MAKERS["maf"])
    x = in_units(flow)
    torch.testing.assert_close(flow.distribution().log_prob(x), flow.log_weights(x)[0])
    vqvae: Any = prepared(MAKERS["vqvae"])
    x = in_units(vqvae)
    codes = vqvae.encode_codes(x)
    torch.testing.assert_close(vqvae.decode_codes(codes), vqvae.reconstruct(x))
    hierarchy: Any = prepared(MAKERS["nvae"])
    in_units(hierarchy)
    assert hierarchy.draw_latents().mean.mean() > 500


def test_pyro_sees_the_data_in_their_units() -> None:
    model: Any = prepared(vae)
    x = in_units(model)
    drawn = Predictive(model.model, num_samples=50)()["x"]
    assert drawn.min() > 500
    program = poutine.condition(model.model, data={"x": x[0], "z": normal(2)})
    trace = poutine.trace(program).get_trace()
    trace.compute_log_prob()
    law = model.decode(normal(2))
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], law.log_prob(x[0]))
    assert torch.equal(trace.nodes["x"]["value"], x[0])
    masked = poutine.trace(poutine.mask(poutine.scale(program, scale=3.0), mask=False))
    assert masked.get_trace().log_prob_sum() == 0
    dependencies = get_dependencies(model.requires_grad_(False).model, (x,))
    assert dependencies["prior_dependencies"] == {"z": {"z": set()}, "x": {"x": set(), "z": set()}}


@pytest.mark.parametrize("shift", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["vae", "ppca", "maf", "spline"])
def test_nats_have_their_digits_far_from_zero(name: str, dtype: torch.dtype, shift: float) -> None:
    """Of float32 models; the data's own float32 rounding is all that is lost."""
    plain = prepared(MAKERS[name]).float()
    model = prepared(MAKERS[name]).float()
    shared = model.standardization_scale == "shared"
    factors = torch.full((3,), 1e6, dtype=torch.float64) if shared else FACTORS
    seen = normal(500, 3)
    x = (factors * (seen + shift)).to(dtype)
    model.standardize(x)
    pyro.set_rng_seed(0)
    found = metrics.elbo(model, x) + factors.log().sum()
    pyro.set_rng_seed(0)
    expected = metrics.elbo(plain.standardize(seen), seen)
    assert abs(found.mean() - expected.mean()) / 3 < 1e-3


def test_shared_noise_has_one_scale_and_data_with_bounds_none() -> None:
    x = FACTORS * (normal(50, 3) + 3)
    ppca = models.FactorAnalysis((3,), latent_dim=1, noise="shared").standardize(x)
    assert ppca.standardization.scale is not None
    assert len(ppca.standardization.scale.unique()) == 1
    images = models.VQVAE2(
        (2, 5, 6),
        codebook=models.Codebook(5, dim=3),
        network=models.VQVAE2Network(hidden_channels=6),
    )
    images.standardize(normal(7, 2, 5, 6))
    assert images.standardization.scale is not None
    assert images.standardization.scale.shape == (2, 1, 1)


def unit_spline() -> transforms.NeuralSplineFlow:
    return transforms.NeuralSplineFlow(3, width=8, splines="unit")


def pixels() -> AffineTransform:
    return AffineTransform(0.0, 255.0)


# A list of transforms each, from noise to data, with a range or a scale of its own.
SETTLED: dict[str, Callable[[], list[Any]]] = {
    "permuted": lambda: [vector_flow(), SigmoidTransform(), transforms.permute(3)],
    "pixels": lambda: [vector_flow(), SigmoidTransform(), pixels(), transforms.permute(3)],
    "scaled within": lambda: [vector_flow(), pixels(), transforms.permute(3)],
    "scaled first": lambda: [pixels(), vector_flow()],
    "scaled back": lambda: [vector_flow(), pixels().inv],
    "composed": lambda: [ComposeTransform([vector_flow(), pixels()])],
    "composed and inverted": lambda: [
        ComposeTransform([AffineTransform(0.0, 1 / 255), vector_flow()]).inv
    ],
    "composed module": lambda: [dist.transforms.ComposeTransformModule([pixels(), vector_flow()])],
    "independent": lambda: [vector_flow(), IndependentTransform(pixels(), 1)],
    "side by side": lambda: [
        vector_flow(),
        CatTransform([pixels(), LeakyReLUTransform()], dim=-1, lengths=[1, 2]),
    ],
    "triangular": lambda: [
        vector_flow(),
        dist.transforms.LowerCholeskyAffine(torch.zeros(3), 9 * torch.eye(3)),
    ],
    "this package's": lambda: [
        transforms.Chain([vector_flow(), transforms.Logit(1), transforms.permute(3)])
    ],
    "this package's inverted": lambda: [
        transforms.Chain([transforms.permute(3), transforms.Logit(1).inv, vector_flow()]).inv
    ],
    "bounded preset": lambda: [
        transforms.RealNVP(3, logit_margin=0.05),
        transforms.permute(3),
        transforms.permute(3),
    ],
}
# Lists whose values are all numbers, at a scale that is learned.
FREE: dict[str, Callable[[], list[Any]]] = {
    "there and back": lambda: [vector_flow(), SigmoidTransform(), SigmoidTransform().inv],
    "through a box": lambda: [
        vector_flow(),
        transforms.Logit(1),
        unit_spline(),
        transforms.Logit(1).inv,
        vector_flow(),
    ],
    "Pyro's own": lambda: [
        dist.transforms.affine_autoregressive(3, hidden_dims=[8]),
        LeakyReLUTransform(),
        dist.transforms.planar(3),
        dist.transforms.permute(3),
    ],
    "inverted": lambda: [transforms.masked_autoregressive(3).inv, vector_flow()],
}


def flow_of(name: str) -> Callable[[], models.FlowModel]:
    return lambda: models.FlowModel((3,), {**SETTLED, **FREE}[name]())


BOUNDED: dict[str, Callable[[], models.FlowModel]] = {
    "box to box": lambda: models.FlowModel((3,), unit_spline(), base="uniform"),
    "positive": lambda: models.FlowModel((3,), [vector_flow(), ExpTransform()]),
    "unit interval": lambda: models.FlowModel((3,), [vector_flow(), SigmoidTransform()]),
    "scaled by hand": lambda: models.FlowModel(
        (3,), [vector_flow(), AffineTransform(1e4, 200.0, event_dim=1)]
    ),
    **{name: flow_of(name) for name in SETTLED},
    "levels": lambda: models.FlowModel((3,), vector_flow(), num_levels=3),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_data_with_a_scale_of_their_own_are_left_alone(name: str) -> None:
    model = BOUNDED[name]()
    x = torch.rand(40, 3) * 1e-3 if name != "levels" else torch.ones(40, 3)
    before = set(model.state_dict())
    assert model.standardize(x) is model
    assert model.standardization_scale is None
    assert set(model.state_dict()) == before
    if name != "levels":
        ELBOLoss(model)(x)


@pytest.mark.parametrize("name", FREE)
def test_flows_with_learned_scales_are_standardised(name: str) -> None:
    model = flow_of(name)()
    assert model.standardization_scale == "per_dimension"
    assert copy.deepcopy(model).standardization_scale == "per_dimension"


def test_conditional_flows_of_others_are_looked_into() -> None:
    def scale(*parts: Any) -> Any:
        stack = ConditionalComposeTransformModule(list(parts))
        return models.FlowModel((3,), stack, context_shape=(2,)).standardization_scale

    conditional = dist.transforms.conditional_affine_autoregressive
    learned = conditional(3, context_dim=2, hidden_dims=[8])
    assert scale(learned, dist.transforms.permute(3)) == "per_dimension"
    assert scale(learned, pixels(), dist.transforms.permute(3)) is None
    assert scale(learned, SigmoidTransform(), dist.transforms.permute(3)) is None
    assert scale(learned.inv, ConstantConditionalTransform(pixels())) is None
    ours = transforms.ConditionalFlow(transforms.RealNVP(3, context_shape=(2,), logit_margin=0.05))
    assert scale(ours, dist.transforms.permute(3)) is None


class OfTwo(models.Likelihood):
    """A user's likelihood of one or two parameters."""

    def __init__(self, law: Callable[..., Any], num_parameters: int) -> None:
        super().__init__((3,), num_parameters, num_levels=None, validate_args=None)
        self.law = law

    def _elementwise(self, decoded: Tensor) -> Any:
        return self.law(*self._split(decoded).sigmoid().unbind(-2))


class Direct(GenerativeModel):
    """A user's model, whose likelihood is written where site "x" is."""

    def __init__(self, law: Callable[..., Any], num_parameters: int, **options: Any) -> None:
        super().__init__((3,), **options)
        self.law = law
        self.weights = torch.nn.Parameter(torch.zeros(num_parameters, 3))

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        law = self.law(*self.weights.exp()).to_event(1)
        value: Tensor = pyro.sample("x", law, obs=x)
        return value


def mixture(*parameters: Tensor) -> Any:
    weights = dist.Categorical(torch.ones(2))
    return dist.MixtureSameFamily(weights, dist.Normal(torch.stack(parameters, -1), 1.0))


def log_normal(loc: Tensor) -> Any:
    return dist.TransformedDistribution(dist.Normal(loc, 1.0), [ExpTransform()])


LAWS: dict[str, tuple[Callable[..., Any], int, bool]] = {
    "beta": (dist.Beta, 2, False),
    "gamma": (dist.Gamma, 2, False),
    "exponential": (dist.Exponential, 1, False),
    "transformed": (log_normal, 1, False),
    "half-normal": (dist.HalfNormal, 1, False),
    "counts": (dist.Poisson, 1, False),
    "laplace": (dist.Laplace, 2, True),
    "mixture": (mixture, 2, True),
}


def of_two(law: Callable[..., Any], number: int) -> models.VAE:
    return vae(likelihood=OfTwo(law, number))


def with_labels(law: Callable[..., Any], number: int) -> GenerativeModel:
    return models.SemiSupervisedVAE(vae(likelihood=OfTwo(law, number), num_classes=3))


def of_features(law: Callable[..., Any], number: int) -> GenerativeModel:
    return Direct(law, number, context_shape=(2,))


@pytest.mark.parametrize("make", [of_two, Direct, with_labels, of_features])
@pytest.mark.parametrize("name", LAWS)
def test_a_support_with_ends_is_seen(make: Any, name: str) -> None:
    law, number, is_free = LAWS[name]
    model = make(law, number)
    model.latent_scale.step.fill_(3)
    x = torch.rand(40, 3)
    state, random = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    model.check_columns(x)
    model.standardize(x)
    assert model.standardization.is_set == is_free
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    for key, value in state.items():
        assert torch.equal(model.state_dict()[key], value)
    x[:, 1] = 0.5
    if not is_free:
        model.check_columns(x)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("make", [of_two, Direct])
def test_small_data_of_a_bounded_support_are_taken(make: Any, step: Any) -> None:
    step(make(dist.Beta, 2), torch.rand(40, 3) / 100)
    with pytest.raises(ValueError, match="have a scale near 1"):
        step(make(dist.Laplace, 2), torch.rand(40, 3) / 100)


def test_a_flow_that_is_a_part_has_no_units() -> None:
    flow = transforms.RealNVP(3)
    assert not hasattr(flow, "standardize")
    assert "standardization" not in str(list(flow.state_dict()))


# What data may be


class Pairs(Dataset[Any]):
    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.x[index], index


def test_data_come_as_tensors_data_sets_and_loaders() -> None:
    x = FACTORS * (normal(60, 3) + 30)
    mean, deviation = x.mean(0), x.std(0, correction=0)
    forms = [
        x,
        x.reshape(4, 5, 3, 3),
        TensorDataset(x, torch.arange(60)),
        Pairs(x),
        DataLoader(TensorDataset(x, torch.arange(60)), batch_size=7, shuffle=True),
        DataLoader(x, batch_size=7),  # type: ignore[arg-type]
        [x[:9], x[9:10], x[10:]],
    ]
    for form in forms:
        units = vae().standardize(form).standardization
        assert units.shift is not None
        assert units.scale is not None
        torch.testing.assert_close(units.shift, mean)
        torch.testing.assert_close(units.scale, deviation)


def test_constant_columns_are_named() -> None:
    x = torch.randn(30, 4)
    x[:, 2] = 5.0
    model = models.VAE((4,), latent_dim=2)
    with pytest.raises(
        ValueError, match=r"`x` must vary in every column .* column 2 constant at 5"
    ):
        model.standardize(x)
    assert not model.standardization.is_set
    x[:, 0] = 1e9
    with pytest.raises(ValueError, match=r"column 0 constant at 1e\+09, column 2 constant at 5"):
        model.standardize(x)
    # Where the noise is shared the other columns give the scale.
    models.FactorAnalysis((4,), latent_dim=2, noise="shared").standardize(x)
    with pytest.raises(ValueError, match="`x` must vary"):
        models.FactorAnalysis((4,), latent_dim=2, noise="shared").standardize(x[:1])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(0, 3), "hold at least one example"),
        (torch.zeros(5, 4), "have trailing shape"),
        (torch.tensor([[0.0, 1.0, torch.nan]]), "be finite"),
        ([], "hold at least one example"),
    ],
)
def test_data_that_do_not_fit_set_nothing(data: Any, message: str) -> None:
    model = vae()
    with pytest.raises(ValueError, match=f"`x` must {message}"):
        model.standardize(data)
    assert not model.standardization.is_set


def test_later_calls_change_nothing() -> None:
    model = vae().standardize(normal(30, 3))
    before = model.state_dict()["standardization.scale"].clone()
    model.standardize(100 * normal(30, 3))
    assert torch.equal(model.state_dict()["standardization.scale"], before)


def adam_step(model: GenerativeModel, x: Tensor, loss: Callable[[], Tensor], **how: Any) -> None:
    optimizer = torch.optim.Adam(model.parameters(), **how)
    loss().backward()
    optimizer.step()


def loaded(model: GenerativeModel, x: Tensor) -> None:
    model.load_state_dict(model.state_dict())


def by_pyro(model: GenerativeModel, x: Tensor) -> None:
    def loss() -> Tensor:
        result: Tensor = Trace_ELBO().differentiable_loss(model.model, model.guide, x)
        return result

    with model.unregistered():
        adam_step(model, x, loss)


TRAININGS: dict[str, Callable[[Any, Tensor], None]] = {
    "svi": lambda model, x: svi_step(model, x),
    "svi in eval mode": lambda model, x: svi_step(model.eval(), x),
    "loss": lambda model, x: adam_step(model, x, lambda: ELBOLoss(model)(x)),
    "fused": lambda model, x: adam_step(model, x, lambda: ELBOLoss(model)(x), fused=True),
    "small steps": lambda model, x: adam_step(model, x, lambda: ELBOLoss(model)(x), lr=1e-6),
    "looked at first": lambda model, x: (ELBOLoss(model)(x), svi_step(model, x)),  # type: ignore[dict-item,func-returns-value]
    "unvalidated": lambda model, x: adam_step(model, x, lambda: ELBOLoss(model, validate=False)(x)),
    "importance": lambda model, x: adam_step(
        model, x, lambda: ELBOLoss(model, importance=True, num_particles=2)(x)
    ),
    "Pyro's loss": by_pyro,
    "log-weights": lambda model, x: adam_step(model, x, lambda: -model.log_weights(x).mean()),
    "loaded": loaded,
}


def far(model: GenerativeModel) -> Tensor:
    return 5 * normal(40, *model.event_shape).float() + 3


def assert_refuses_a_scale(model: GenerativeModel) -> None:
    x = far(model)
    state = copy.deepcopy(model.state_dict())
    for call in (model.standardize, model.check_columns, copy.deepcopy(model).standardize):
        with pytest.raises(ValueError, match="`model` must be standardised before"):
            call(x)
    assert not changed(state, model.state_dict())


def changed(before: Any, after: Any) -> list[str]:
    assert before.keys() == after.keys()
    return [name for name, value in before.items() if not torch.equal(after[name], value)]


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("name", ["vae", "ppca", "maf", "vqvae"])
def test_a_trained_model_gets_no_scale(name: str, training: str) -> None:
    model = MAKERS[name]()
    if training == "importance" and name == "vqvae":
        return  # it has an objective of its own
    TRAININGS[training](model, far(model))
    assert model.is_trained
    assert_refuses_a_scale(model)


def test_parameters_that_were_fitted_get_no_scale() -> None:
    found = models.FactorAnalysis.fit_ppca(far(vae()), latent_dim=1)
    assert found.is_trained
    assert_refuses_a_scale(found)
    flow, x = models.maf((3,), num_layers=1), far(vae())
    adam_step(flow, x, lambda: -flow.density().log_prob(x).mean())
    assert_refuses_a_scale(flow)
    factors, x = models.FactorAnalysis((3,), latent_dim=1), far(vae())
    adam_step(factors, x, lambda: -factors.log_prob(x).mean())
    assert_refuses_a_scale(factors)


@pytest.mark.parametrize("which", ["outer", "inner"])
def test_training_of_a_wrapped_model_is_seen_from_both_sides(which: str) -> None:
    model, x = semi_supervised(), far(vae())
    trained: Any = model if which == "outer" else model.conditional
    labels = torch.arange(40) % 3
    adam_step(trained, x, lambda: ELBOLoss(trained)(x, labels))
    assert_refuses_a_scale(model)
    assert_refuses_a_scale(model.conditional)


LOOKS: dict[str, Callable[[GenerativeModel, Tensor], Any]] = {
    "in eval mode": lambda model, x: metrics.elbo(model.eval(), x),
    "without gradients": lambda model, x: torch.no_grad()(ELBOLoss(model).eval())(x),
    "a loss": lambda model, x: ELBOLoss(model)(x),
    "with gradients": loss_step,
    "evaluate_loss": lambda model, x: SVI(
        model.model,
        model.guide,
        pyro.optim.Adam({"lr": 1.0}),  # type: ignore[attr-defined]
        Trace_ELBO(),
    ).evaluate_loss(x),
    "others are trained": lambda model, x: (loss_step(model, x), svi_step(vae(), far(vae()))),  # type: ignore[func-returns-value]
    "double precision": lambda model, x: (loss_step(model, x), model.double()),  # type: ignore[func-returns-value]
    "draws": lambda model, x: model.sample(2),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", ["vae", "ppca", "maf", "vqvae"])
def test_who_looks_at_a_loss_has_trained_nothing(name: str, look: str) -> None:
    model = MAKERS[name]()
    x = far(model)
    LOOKS[look](model, x)
    assert not model.is_trained
    assert model.standardize(x).standardization.is_set


def test_parameters_that_were_set_by_first_data_are_in_their_units() -> None:
    model = MAKERS["glow"]()
    ELBOLoss(model)(far(model))
    assert_refuses_a_scale(model)


def test_a_part_of_a_state_dict_keeps_the_units() -> None:
    x = far(vae())
    model = vae().standardize(x)
    before = model.standardization.state_dict()
    part = {k: v for k, v in vae().state_dict().items() if k.startswith("encoder")}
    found = model.load_state_dict(part, strict=False)
    assert set(found.unexpected_keys) == set()
    assert not changed(before, model.standardization.state_dict())
    other = vae().standardize(2 * x)
    model.load_state_dict(
        {k: v for k, v in other.state_dict().items() if "standard" in k}, strict=False
    )
    assert not changed(other.standardization.state_dict(), model.standardization.state_dict())
    model.load_state_dict(vae().state_dict())  # a whole one without units has none
    assert not model.standardization.is_set


def test_without_the_call_a_state_dict_is_what_it_was() -> None:
    assert not [name for name in vae().state_dict() if "standardization" in name]


def _standardize_rank(rank: int, folder: str) -> None:
    """One of two processes with data of its own."""
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    x = FACTORS * (normal(60, 3) + 1e4)
    model = vae().standardize(x[:25] if rank == 0 else x[25:])
    torch.save(model.standardization.state_dict(), f"{folder}/{rank}.pt")
    torch.distributed.barrier()
    # Not through the group's own end: in torch 2.6 gloo can wait for ever for a rank that left.
    os._exit(0)


def test_two_ranks_get_the_same_units(tmp_path: Path) -> None:
    mp.spawn(_standardize_rank, (str(tmp_path),), nprocs=2)
    alone = vae().standardize(FACTORS * (normal(60, 3) + 1e4)).standardization.state_dict()
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value)


# The first batch


FAR = {
    "large": torch.rand(64, 20) * 50,
    "small": torch.randn(64, 20) / 40,
    "shifted": torch.randn(64, 20) + 100,
    "one column": torch.randn(64, 20) * torch.tensor([1.0] * 19 + [1e-3]),
    "one example": torch.randn(1, 20) * 1e-6,
}


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
@pytest.mark.parametrize("kind", FAR)
def test_a_first_batch_of_another_scale_is_refused(step: Any, kind: str) -> None:
    model = models.VAE((20,), latent_dim=4)
    for _ in range(2):  # the error settles nothing
        with pytest.raises(
            ValueError, match=r"`x` must have a scale near 1 .*standardize.*validate=F"
        ):
            step(model, FAR[kind])
    pyro.clear_param_store()
    if len(FAR[kind]) > 1:
        step(model.standardize(FAR[kind]), FAR[kind])


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_only_the_first_batch_is_checked(step: Any) -> None:
    model = models.VAE((20,), latent_dim=4)
    step(model, torch.randn(64, 20))
    pyro.clear_param_store()
    step(model, torch.randn(64, 20) / 1000)


@pytest.mark.parametrize("factor", [1 / 20, 1.0, 20.0])
def test_a_factor_below_thirty_is_taken(factor: float) -> None:
    x = factor * normal(64, 20).float()
    for step in STEPS[:2]:
        step(models.maf((20,), num_layers=1), x)


def test_who_validates_nothing_is_not_refused() -> None:
    ELBOLoss(models.VAE((20,), latent_dim=4), validate=False)(FAR["small"])
    with pyro.validation_enabled(False):
        svi_step(models.VAE((20,), latent_dim=4), FAR["small"])


def test_bad_data_are_named_before_their_scale() -> None:
    with pytest.raises(ValueError, match="`x` must be finite"):
        loss_step(vae(), torch.full((4, 3), torch.nan))
    with pytest.raises(ValueError, match="`x` must have trailing shape"):
        loss_step(vae(), torch.zeros(4, 5))


# Encoders


@pytest.mark.parametrize("posterior", ["diagonal", "full", "low_rank"])
@pytest.mark.parametrize("size", [-1e4, 1e4])
def test_log_scales_are_clamped(posterior: Any, size: float) -> None:
    model = vae(posterior=posterior)
    with torch.no_grad():
        for parameter in list(model.encoder.parameters())[-2:]:
            parameter.zero_()
        list(model.encoder.parameters())[-1][2:4] = size
    scale = model.encode(torch.randn(5, 3)).stddev  # type: ignore[attr-defined]
    torch.testing.assert_close(scale.log(), torch.full((5, 2), 10.0 if size > 0 else -10.0))
