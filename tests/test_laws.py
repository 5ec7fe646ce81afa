"""Every law of ``pyro_genmodels.testing`` on every line of ``tests/cases``."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_genmodels import distributions, models, nets, testing
from pyro_genmodels.testing.probes import draw, modules_of
from tests import cases
from tests.cases import Case
from tests.cases.nets import as_network
from tests.model_calls import gives_distribution

pytestmark = pytest.mark.usefixtures("double")
LENGTHY_ENUMERATION = 5_000


def prepared(make: Callable[[], Case], scale: float = 0.5) -> Case:
    """The case in float64 and eval mode, every parameter away from its initial value."""
    case = make()
    for module in modules_of(case.part):
        testing.randomize_parameters(module.double(), scale).eval()
    return case


def prepared_model(make: Callable[[], Case]) -> Case:
    """A model whose random guide stays near enough to the posterior for importance weights."""
    return prepared(make, 0.1)


def law_on(group: cases.Cases, *laws: str) -> Any:
    """Parametrise a test over laws and cases; a named exception is an expected failure."""
    return pytest.mark.parametrize(
        ("law", "make"),
        [
            pytest.param(law, make, id=f"{law}-{name}", marks=_marks(law, name))
            for law in laws
            for name, make in group.items()
        ],
    )


def _marks(law: str, name: str) -> list[Any]:
    if (law, name) in cases.UNDECIDABLE:
        return [pytest.mark.skip(reason=cases.UNDECIDABLE[law, name])]
    # These train: one case of each class shows it, and the others show it with --runslow.
    if law in ("check_freezes", "check_checkpointing") and "/" in name:
        return [pytest.mark.slow]
    reason = cases.EXCEPTIONS.get((law, name))
    return [] if reason is None else [pytest.mark.xfail(reason=reason, strict=True)]


def run(law: str, *arguments: Any, **options: Any) -> None:
    getattr(testing, law)(*arguments, **options)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# Networks


@law_on(cases.NETS, "check_network")
def test_network(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    context = None if case.context is None else case.context[0]
    run(law, as_network(case.part), _network_input(case), context)


DENOISERS = {n: m for n, m in cases.NETS.items() if isinstance(m().part, nets.Denoiser)}


@law_on(DENOISERS, "check_denoiser")
def test_denoiser(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    run(law, case.part, normal(*case.event_shape), case.context)


def _network_input(case: Case) -> Tensor:
    if isinstance(case.part, nets.AutoregressiveNet):
        return torch.randint(case.part.num_levels, case.event_shape).double()
    return normal(*case.event_shape)


AUTOREGRESSIVE_NETS = {
    name: make
    for name, make in cases.NETS.items()
    if isinstance(make().part, nets.AutoregressiveNet)
}


@law_on(AUTOREGRESSIVE_NETS, "check_autoregressive")
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_no_leak(law: str, make: Callable[[], Case], training: bool) -> None:
    case = prepared(make)
    net = case.part.train(training)
    context = None if case.context is None else case.context[0]
    own_order = isinstance(net, nets.MADENet | nets.MultiScaleNet)  # the others': raster
    order = net.order.argsort() if own_order else None
    call = {"num_levels": net.num_levels, "order": order}
    run(law, lambda x: net(x, context), case.event_shape, **call)


# Transforms


def transform_and_points(case: Case, batch_shape: tuple[int, ...] = (2,)) -> tuple[Any, Tensor]:
    """The transform, conditioned if it must be, and points in its domain."""
    transform = case.part if case.context is None else case.part.condition(case.context)
    noise = normal(*batch_shape, *case.event_shape)
    return transform, torch.distributions.biject_to(transform.domain)(noise)


ALL_TRANSFORMS = cases.TRANSFORMS | cases.CONDITIONAL_TRANSFORMS


def each_hand_over(group: cases.Cases) -> cases.Cases:
    """One case of each class, and those that hand over otherwise: who holds a log-determinant, and
    what must not have changed since, is the class's matter, not that of a mask or a shape."""
    first = {name.partition("/")[0]: name for name in reversed(group)}
    otherwise = ("checkpoint", "batch-norm", "prior", "map", "squeezed", "nflows")
    kept = {n for n in group if any(word in n for word in otherwise)} | set(first.values())
    return {name: make for name, make in group.items() if name in kept}


@law_on(
    ALL_TRANSFORMS, "check_inverse", "check_log_det", "check_single_evaluation", "check_closed_ends"
)
def test_transform(law: str, make: Callable[[], Case]) -> None:
    run(law, *transform_and_points(prepared(make)))


@law_on(ALL_TRANSFORMS, "check_inverse_module")
def test_inverse_module(law: str, make: Callable[[], Case]) -> None:
    run(law, transform_and_points(make())[0])


@law_on(each_hand_over(ALL_TRANSFORMS), "check_no_stale_value", "check_gradients_survive")
def test_hand_over(law: str, make: Callable[[], Case]) -> None:
    run(law, *transform_and_points(prepared(make)))


@law_on(ALL_TRANSFORMS, "check_inverse", "check_log_det")
@pytest.mark.parametrize("batch_shape", [(), (2, 2, 1)], ids=str)
def test_transform_over_batches(
    law: str, make: Callable[[], Case], batch_shape: tuple[int, ...]
) -> None:
    case = prepared(make)
    if case.context is not None:
        case = Case(case.part, case.event_shape, case.context[0])
    run(law, *transform_and_points(case, batch_shape))


@law_on(ALL_TRANSFORMS, "check_shapes")
def test_transform_shapes(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    context = None if case.context is None else case.context[0]
    run(law, *transform_and_points(Case(case.part, case.event_shape, context), ()))


def in_float32(case: Case) -> Case:
    context = case.context
    if context is not None and context.is_floating_point():
        context = context.float()
    return Case(copy.deepcopy(case.part).float(), case.event_shape, context)


@law_on(ALL_TRANSFORMS, "check_inverse", "check_closed_ends")
def test_transform_in_float32(law: str, make: Callable[[], Case]) -> None:
    transform, x = transform_and_points(in_float32(prepared(make)))
    run(law, transform, x.float())


@law_on(ALL_TRANSFORMS, "check_precision")
def test_precision(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    single, _ = transform_and_points(in_float32(case))
    run(law, *transform_and_points(case), single=single)


@law_on(ALL_TRANSFORMS, "check_distribution", "check_sampler", "check_vmap")
def test_flow(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    context = None if case.context is None else case.context[0]
    case = Case(case.part, case.event_shape, context)
    transform, x = transform_and_points(case)
    options = {"num_samples": 2000} if law == "check_sampler" else {}
    run(law, testing.flow_distribution(transform, x), **options)


@law_on(cases.CONDITIONAL_TRANSFORMS, "check_distribution", "check_sampler")
def test_flow_over_a_batch_of_contexts(law: str, make: Callable[[], Case]) -> None:
    transform, x = transform_and_points(prepared(make))
    flow = testing.flow_distribution(transform, x[0])
    assert flow.batch_shape == (2,)
    run(law, flow, **({"num_samples": 2000} if law == "check_sampler" else {}))


def checkpointable(group: cases.Cases) -> cases.Cases:
    """The cases some part of which may keep no activations."""
    names = ("checkpoint", "checkpointing")
    return {
        name: make
        for name, make in group.items()
        if any(
            hasattr(m, n) for root in modules_of(make().part) for m in root.modules() for n in names
        )
    }


@law_on(checkpointable(ALL_TRANSFORMS), "check_checkpointing")
def test_checkpointed_flow(law: str, make: Callable[[], Case]) -> None:
    """By density and by sample."""
    case = prepared(make)
    transform, noise = transform_and_points(case, (8, 2))  # enough to set first values
    data = draw(transform.codomain, transform.forward_shape(noise.shape), like=noise, seed=1)

    def loss(flow: Any) -> Tensor:
        plain = flow if case.context is None else flow.flow
        z, log_det = plain.inverse_and_log_det(data, case.context)
        y, forward_log_det = plain.forward_and_log_det(noise, case.context)
        return (log_det - forward_log_det).sum() + y.square().sum() - z.square().sum()

    run(law, case.part, loss)


@law_on(checkpointable(cases.MODELS), "check_checkpointing")
def test_checkpointed_model(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    x, context = batch_for(case, 3)
    run(law, case.part, lambda model: models.ELBOLoss(model, validate=False)(x, context))


# Distributions


DISCRETE = {
    name: make for name, make in cases.DISTRIBUTIONS.items() if make().part.support.is_discrete
}


@law_on(cases.DISTRIBUTIONS, "check_distribution", "check_vmap")
def test_distribution(law: str, make: Callable[[], Case]) -> None:
    run(law, prepared(make).part)


@law_on(cases.DISTRIBUTIONS | cases.DATA_DISTRIBUTIONS, "check_ends")
def test_ends_of_a_support(law: str, make: Callable[[], Case]) -> None:
    run(law, prepared(make).part)


@law_on(cases.TRANSFORMS, "check_ends")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_ends_of_a_flow(law: str, make: Callable[[], Case], dtype: torch.dtype) -> None:
    """Of a model with each base that the flow can have."""
    case = prepared(make)
    bounded = not case.part.domain.check(torch.full(case.event_shape, 2.0)).all()
    if case.part.forward_shape(case.event_shape) == case.event_shape:
        for base in ["uniform"] if bounded else ["normal", "logistic"]:
            model = models.FlowModel(case.event_shape, case.part, base=base)
            run(law, model.to(dtype).eval().density())


@law_on(DISCRETE, "check_normalized")
def test_discrete_distribution(law: str, make: Callable[[], Case]) -> None:
    run(law, prepared(make).part)


@law_on(DISCRETE, "check_normalized")
def test_untrained_distribution_is_normalized(law: str, make: Callable[[], Case]) -> None:
    """Before any training, in float32, as built."""
    run(law, make().part, dtype=torch.float32)


SUFFIXES = {
    name: make
    for name, make in DISCRETE.items()
    if isinstance(make().part, distributions.AutoregressiveDistribution)
}


@law_on(SUFFIXES, "check_missing_suffix")
def test_missing_suffix(law: str, make: Callable[[], Case]) -> None:
    whole = prepared(make).part
    cases.vivid(whole.net)
    run(law, type(whole)(whole.net, whole.context, missing=True))


METHODS = {name: make for name, make in DISCRETE.items() if hasattr(make().part, "net")}


@law_on(METHODS, "check_sampling_methods_agree")
@pytest.mark.parametrize("sample_shape", [(), (40,), (2, 2)], ids=str)
def test_sampling_methods(
    law: str, make: Callable[[], Case], sample_shape: tuple[int, ...]
) -> None:
    distribution = prepared(make).part
    cases.vivid(distribution.net)
    for seed in range(3):
        run(law, distribution, sample_shape=sample_shape, seed=seed)


@law_on(DISCRETE, "check_sampler")
def test_sampler(law: str, make: Callable[[], Case]) -> None:
    """By the default method: the others draw the same values, which is the stronger law."""
    distribution = prepared(make).part
    if hasattr(distribution, "net"):
        cases.vivid(distribution.net)
    run(law, distribution)


ENUMERABLE_DATA = {
    name: make
    for name, make in cases.DATA_DISTRIBUTIONS.items()
    if (levels := make().part.num_levels) is not None
    and levels ** make().part.event_shape.numel() <= 2**16
}
CONTINUOUS_DATA = {
    name: make for name, make in cases.DATA_DISTRIBUTIONS.items() if make().part.num_levels is None
}


@law_on(cases.DATA_DISTRIBUTIONS, "check_distribution")
def test_data_distribution(law: str, make: Callable[[], Case]) -> None:
    run(law, make().part)


@law_on(ENUMERABLE_DATA, "check_normalized", "check_sampler")
def test_enumerable_data(law: str, make: Callable[[], Case]) -> None:
    run(law, make().part)


@law_on(CONTINUOUS_DATA, "check_sampler")
def test_continuous_data(law: str, make: Callable[[], Case]) -> None:
    run(law, make().part, num_samples=5000)


# Models


def batch_for(case: Case, batch: int) -> tuple[Tensor, Tensor | None]:
    """A batch of data, and of contexts repeated to its size."""
    shape, levels = (batch, *case.part.event_shape), case.part.num_levels
    generator = torch.Generator().manual_seed(0)
    x = normal(*shape) if levels is None else torch.randint(levels, shape, generator=generator)
    if case.part.column_kinds is not None:
        x = of_kinds(x, case.part.column_kinds)
    if case.context is None:
        return x, None
    return x, case.context[torch.arange(batch) % len(case.context)]


def of_kinds(x: Tensor, kinds: Sequence[str]) -> Tensor:
    """Real numbers, with whole ones from zero in the columns that are not real."""
    real = torch.tensor([kind == "gaussian" for kind in kinds])
    return torch.where(real, x, x.abs().round())


ENUMERABLE = {
    name: make
    for name, make in cases.MODELS.items()
    if (levels := make().part.num_levels) is not None
    and levels ** make().part.event_shape.numel() <= LENGTHY_ENUMERATION
}


@law_on(cases.MODELS, "check_bounds", "check_copies", "check_no_stale_weights")
def test_model(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    run(law, case.part, *batch_for(case, 3))


ESTIMATED = {
    name: make
    for name, make in cases.MODELS.items()
    if type(make().part).bound_estimate is not models.GenerativeModel.bound_estimate
}


@law_on(ESTIMATED, "check_bound_estimate")
def test_bound_estimate(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    run(law, case.part, *batch_for(case, 3), num_runs=100)


EXACT = {
    name: make
    for name, make in {
        **{f"{name}/features": make for name, make in cases.FEATURE_MODELS.items()},
        **cases.MODELS,
    }.items()
    if gives_distribution(make().part)
}


@law_on(cases.MODELS | EXACT, "check_exact_distribution")
def test_exact_distribution(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    run(law, case.part, *batch_for(case, 3))


@law_on(EXACT, "check_distribution", "check_sampler")
def test_distribution_of_a_model(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    if hasattr(made_of(case.part), "net"):
        cases.vivid(made_of(case.part).net)
    options = {"num_samples": 2000} if law == "check_sampler" else {}
    with torch.no_grad():  # what hangs on parameters cannot be copied
        distribution = case.part.distribution(case.context)
    run(law, distribution, **options)


def made_of(model: Any) -> Any:
    """The model, or what a mixture is made of."""
    return made_of(model.conditional) if hasattr(model, "conditional") else model


def with_holes(case: Case, batch: int) -> tuple[Tensor, Tensor | None]:
    """As :func:`batch_for`, with missing elements: fewer and fewer, and of the last none."""
    x, context = batch_for(case, batch)
    gone = torch.rand(x.flatten(1).shape, generator=torch.Generator().manual_seed(1)) < 0.5
    gone[0, -1], gone[0, 0], gone[-1] = True, False, False
    return torch.where(gone.reshape(x.shape), torch.nan, x.double()), context


MISSING = {name: make for name, make in cases.MODELS.items() if make().part.missing}


@law_on(cases.MODELS, "check_missing")
def test_missing_elements(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    run(law, case.part, *with_holes(case, 4))


@law_on(MISSING, "check_bounds", "check_estimators_agree")
def test_bound_of_the_observed(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    options = {"num_runs": 30} if law == "check_estimators_agree" else {}
    run(law, case.part, *with_holes(case, 4), **options)


@law_on(MISSING, "check_bounds")
def test_nothing_observed(law: str, make: Callable[[], Case]) -> None:
    """The evidence of nothing is one."""
    case = prepared_model(make)
    x, context = with_holes(case, 2)
    run(law, case.part, x * torch.nan, context, log_evidence=torch.zeros(2))


@law_on({name: make for name, make in MISSING.items() if name in ENUMERABLE}, "check_marginal")
def test_marginal(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    x, context = with_holes(case, 3)
    x[1] = torch.nan
    run(law, case.part, x, context)


@law_on(cases.MODELS, "check_estimators_agree")
def test_estimators(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    run(law, case.part, *batch_for(case, 3), num_runs=30)  # as mutants are caught with


CONTINUOUS = {name: make for name, make in cases.MODELS.items() if make().part.num_levels is None}


@law_on(CONTINUOUS, "check_standardization")
def test_units(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    run(law, case.part, *batch_for(case, 5))


@law_on({n: m for n, m in CONTINUOUS.items() if n in MISSING}, "check_standardization")
def test_units_with_holes(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    run(law, case.part, *with_holes(case, 8))


@law_on(cases.MODELS, "check_trains", "check_freezes")
def test_model_trains(law: str, make: Callable[[], Case]) -> None:
    """Float32 and training mode, as built."""
    options = {"num_steps": 2} if law == "check_freezes" else {}
    torch.set_default_dtype(torch.float32)
    case = make()
    x, context = batch_for(case, 8)
    if context is not None and context.is_floating_point():
        context = context.float()
    run(law, lambda: make().part, x, context, **options)


@law_on(cases.MODELS, "check_model_shapes")
def test_model_shapes(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    x, context = batch_for(case, 1)
    run(law, case.part, x[0], None if context is None else context[0])


@law_on(ENUMERABLE, "check_evidence_normalized", "check_model_sampler")
def test_enumerable_model(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    context = None if case.context is None else case.context[0]
    run(law, case.part, context, num_particles=1000)  # as mutants are caught with


@pytest.mark.parametrize("name", cases.MODELS)
def test_rates_are_numbers_for_each_example(name: str) -> None:
    """Whatever the latents are, training logs what they carry."""
    case = prepared_model(cases.MODELS[name])
    x, context = batch_for(case, 3)
    for nats in case.part.rates(x, context).values():
        assert nats.shape[:-1] == (3,)
        assert nats.isfinite().all()


@pytest.mark.parametrize("name", cases.MODELS)
def test_loss_module_trains(name: str) -> None:
    """The loss Module owns every parameter, reaches each, and is the ELBO per example."""
    torch.set_default_dtype(torch.float32)
    case = cases.MODELS[name]()
    x, context = batch_for(case, 8)
    if context is not None and context.is_floating_point():
        context = context.float()
    loss = models.ELBOLoss(case.part)
    optimizer = torch.optim.Adam(loss.parameters())
    before = {n: p.detach().clone() for n, p in case.part.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        loss(x, context).backward()
        optimizer.step()
    still = [n for n, p in case.part.named_parameters() if torch.equal(before[n], p)]
    assert still == []
    assert list(loss.unreached_parameters()) == []


# Published receptive fields, and exact evidence


def past_of(kernels: list[int]) -> set[tuple[int, int]]:
    """Offsets of the pixels that a stack of masked convolutions sees."""
    seen = {(0, 0)}
    for kernel in kernels:
        half = kernel // 2
        above = {(i, j) for i in range(-half, 0) for j in range(-half, half + 1)}
        taps = above | {(0, j) for j in range(-half, 1)}
        seen = {(a + i, b + j) for a, b in seen for i, j in taps}
    return seen


@pytest.mark.parametrize("num_blocks", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_receptive_field_of_pixelcnn(channels: int, num_blocks: int) -> None:
    """A 7x7 kernel and 3x3 ones, blind spot included (van den Oord et al., 2016)."""
    torch.manual_seed(0)
    shape = (channels, 3, 11) if channels == 1 else (channels, 2, 6)
    net = nets.PixelCNNNet(shape, 3, hidden_channels=8 * channels, num_blocks=num_blocks)
    cases.vivid(testing.randomize_parameters(net).eval())
    expected = testing.raster_field(shape, past_of([7] + [3] * num_blocks))
    testing.check_receptive_field(net, shape, expected, num_levels=3, num_probes=6)


def test_bounds_of_a_linear_vae_below_its_exact_evidence() -> None:
    """A linear decoder with Gaussian noise: x is N(b, W W^T + s^2)."""
    torch.manual_seed(0)
    likelihood = models.GaussianLikelihood((3,), scale="shared")
    vae = models.VAE(
        (3,), latent_dim=2, network=models.VAENetwork(hidden=()), likelihood=likelihood
    )
    testing.randomize_parameters(vae, 0.1).eval()
    with torch.no_grad():
        base = vae.decode(torch.zeros(2))
        columns = [vae.decode(row).mean - base.mean for row in torch.eye(2)]
        loading = torch.stack([column.flatten() for column in columns], 1)
        noise = torch.diag(base.variance.flatten())
        evidence = torch.distributions.MultivariateNormal(
            base.mean.flatten(), loading @ loading.T + noise
        )
        x = evidence.sample((4,))
        log_evidence = evidence.log_prob(x)
    testing.check_bounds(vae, x, log_evidence=log_evidence, num_particles=20_000)
    with pytest.raises(AssertionError, match="log-evidence"):
        testing.check_bounds(vae, x, log_evidence=log_evidence - 0.5)
