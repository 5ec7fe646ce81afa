"""Learned priors in VQ-VAE and VQ-VAE-2: what the ELBO gains, what a checkpoint keeps."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, TraceGraph_ELBO
from torch import Tensor

from pyro_genmodels import metrics, models, nets, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data import Mosaic
from pyro_genmodels.models import VQVAE, VQVAE2, LearnedPrior, UniformPrior, learned_priors
from pyro_genmodels.models.vqvae.learned_priors import code_model
from tests.cases import sequence_vqvae, wavenet
from tests.grouped import grouped

pytestmark = pytest.mark.usefixtures("double")
SMALL = {"num_codes": 5, "dim": 3, "hidden_channels": 4, "residual_channels": 3}
TINY = {"hidden_channels": 4, "num_blocks": 1, "num_layers": 1, "num_heads": 1}


def vqvae(**options: Any) -> VQVAE:
    return VQVAE(
        (1, 5, 6), **grouped(VQVAE, {"num_levels": 3, "num_blocks": 1, **SMALL, **options})
    )


def product_codes() -> VQVAE:
    parts = [nets.VectorQuantizer(2, 5), nets.VectorQuantizer(1, 5)]
    return vqvae(quantizer=nets.ProductQuantizer(parts))


def vqvae2(**options: Any) -> VQVAE2:
    return VQVAE2(
        (1, 8, 8),
        **grouped(VQVAE2, {"num_levels": 3, "num_blocks": 1, "reduction": 2, **SMALL, **options}),
    )


def unequal_codes() -> VQVAE2:
    return vqvae2(quantizers=[nets.VectorQuantizer(3, 5), nets.VectorQuantizer(3, 4)])


MODELS: dict[str, Callable[[], Any]] = {
    "vqvae": vqvae,
    "labels": lambda: vqvae(num_classes=3),
    "map": lambda: vqvae(context_shape=(2, 5, 6)),
    "product": product_codes,
    "vqvae2": vqvae2,
    "vqvae2-labels": lambda: vqvae2(num_classes=3),
    "vqvae2-vector": lambda: vqvae2(context_shape=(2,)),
    "vqvae2-three-maps": lambda: vqvae2(num_maps=3),
    "vqvae2-unequal-codes": unequal_codes,
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
FEW = ["product", "vqvae2-labels", "vqvae2-unequal-codes"]
few_models = pytest.mark.parametrize("make", [MODELS[name] for name in FEW], ids=FEW)


def trained(make: Callable[[], Any]) -> tuple[Any, Tensor, Tensor | None]:
    """A model whose codes are in place, data, and contexts if it takes any."""
    model = make()
    x, context = torch.randint(3, (6, *model.event_shape)), None
    if model.num_classes is not None:
        context = torch.arange(6) % 3
    elif model.context_shape is not None:
        context = torch.randn(6, *model.context_shape)
    models.ELBOLoss(model.train())(x, context)
    return model.eval(), x, context


def priors_for(model: Any) -> list[LearnedPrior]:
    made = learned_priors(model, embedding_size=3, **TINY)
    return [testing.randomize_parameters(prior).eval() for prior in made]


def as_list(codes: Any) -> list[Tensor]:
    return codes if isinstance(codes, list) else [codes]


@every_model
def test_the_elbo_improves_by_exactly_what_the_prior_gained(make: Callable[[], Any]) -> None:
    model, x, context = trained(make)
    before, priors = model.log_weights(x, context)[0], priors_for(model)
    maps = as_list(model.encode_codes(x, context))
    scored = [p(maps[:i], context).log_prob(maps[i]) for i, p in enumerate(priors)]
    uniform = sum(p.code_shape.numel() * math.log(p.num_codes) for p in priors)
    gained = sum(scored, torch.zeros(())) + uniform
    model.set_code_priors(priors)
    after = model.log_weights(x, context)[0]
    assert gained.abs().max() > 0.1
    assert (after - before - gained).abs().max() < 1e-9
    assert (model.code_log_prob(x, context) + uniform - gained).abs().max() < 1e-9


@every_model
def test_the_joint_of_all_maps_is_what_the_sites_are(make: Callable[[], Any]) -> None:
    model, x, context = trained(make)
    priors = priors_for(model)
    model.set_code_priors(priors)
    coder = code_model(priors)
    flat = coder.net.join(as_list(model.encode_codes(x, context)))
    given = coder.log_weights(flat, context)[0]
    assert torch.allclose(given, model.code_log_prob(x, context), atol=1e-9)


@few_models
def test_codes_are_drawn_from_the_priors(make: Callable[[], Any]) -> None:
    model, _, context = trained(make)
    model.set_code_priors(priors_for(model))
    context = None if context is None else context[:2]
    trace = pyro.poutine.trace(model.model).get_trace(None, context)
    for name, prior in zip(model.site_names, model.code_priors, strict=True):
        codes = trace.nodes[name]["value"]
        assert codes.dtype == torch.int64
        assert int(codes.max()) < prior.num_codes
    shape = () if context is None else (2,)
    assert model.sample(3, context).shape == (3, *shape, *model.event_shape)
    assert model.sample(3, context, temperature=0.5).shape == (3, *shape, *model.event_shape)


def test_wider_residuals_and_output_layers_are_the_maps_own() -> None:
    model, _, _ = trained(vqvae2)
    options: dict[str, Any] = {"residual_channels": [7, 5], "num_output_layers": 2, **TINY}
    top, bottom = learned_priors(model, layer_kernel_size=5, **options)
    assert [len(each.net.output_stack) for each in (top, bottom)] == [2, 0]
    widths = [each.net.layers[0].wide.weight.shape[0] for each in (top, bottom)]
    assert (widths, top.net.output_stack[0].wide.out_channels) == ([7, 5], 7)
    assert top.net.layers[1].vertical.kernel_size == (3, 5)
    one, two = learned_priors(model, residual_channels=6, **TINY)  # type: ignore[arg-type]
    assert [each.net.layers[0].wide.weight.shape[0] for each in (one, two)] == [6, 6]
    with pytest.raises(ValueError, match="`residual_channels` must be one number, or one for each"):
        learned_priors(model, residual_channels=[1, 2, 3], **TINY)  # type: ignore[arg-type]


def test_a_temperature_of_zero_draws_one_map_of_codes() -> None:
    model, _, _ = trained(vqvae2)
    model.set_code_priors(priors_for(model))
    codes = model._cooled(torch.Size([9]), None, 0.0)
    assert all(len(each.unique(dim=0)) == 1 for each in codes)


def test_a_uniform_prior_has_no_temperature() -> None:
    with pytest.raises(ValueError, match="`temperature` must be 1 under a uniform prior"):
        vqvae().sample(temperature=0.5)


@few_models
def test_a_model_is_rebuilt_with_its_priors(make: Callable[[], Any]) -> None:
    model, x, context = trained(make)
    plain = configuration(model)
    model.set_code_priors(priors_for(model))
    again = build(configuration(model)).eval()
    again.load_state_dict(model.state_dict())
    copies = [again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for other in copies:
        assert [type(p) for p in other.code_priors] == [LearnedPrior] * len(model.code_priors)
        assert torch.equal(other.log_weights(x, context), model.log_weights(x, context))
    uniform = [UniformPrior(p.code_shape, p.num_codes) for p in model.code_priors]
    model.set_code_priors(uniform)
    assert configuration(model) == plain


def test_the_constructor_takes_a_learned_prior_and_may_lose_it_again() -> None:
    made = vqvae(prior=LearnedPrior(nets.GatedPixelCNNNet((2, 2), 5, embedding_size=2)))
    assert build(configuration(made)).prior_kind == "learned"
    made.prior = UniformPrior((2, 2), 5)
    assert build(configuration(made)).prior_kind == "uniform"


def test_assigning_a_prior_over_other_codes_is_an_error() -> None:
    model = vqvae()
    for other in (UniformPrior((2, 2), 6), UniformPrior((2, 3), 5)):
        with pytest.raises(ValueError, match=r"`prior` must be over maps \(2, 2\) of 5 codes"):
            model.prior = other
        with pytest.raises(ValueError, match="`prior` must be over maps"):
            vqvae2().set_code_priors([other, other])
    with pytest.raises(ValueError, match="be 2 in number"):
        vqvae2().set_code_priors([])
    two = vqvae2()
    with pytest.raises(ValueError, match=r"over maps \(2, 2\) of 5 codes; got \(2, 2\) of 6"):
        two.priors[0] = UniformPrior((2, 2), 6)
    with pytest.raises(ValueError, match="`priors` must be 2 in number"):
        two.priors = two.code_priors[:1]


def test_the_laws_of_a_hierarchy_are_assigned_one_by_one_or_all() -> None:
    one, other = vqvae2(), vqvae2()
    priors = priors_for(one)
    one.priors = priors
    for i, prior in enumerate(priors):
        other.priors[i] = prior
    for model in (one, other):
        assert model.code_priors == priors
        assert build(configuration(model)).prior_kind == "learned"


def test_a_prior_that_takes_codes_for_quantities_is_refused() -> None:
    with pytest.raises(ValueError, match="`net` must look codes up"):
        LearnedPrior(nets.GatedPixelCNNNet((2, 2), 5))


def test_a_prior_may_leave_the_context_out() -> None:
    model, x, context = trained(lambda: vqvae(num_classes=3))
    model.prior = priors_for(vqvae())[0]
    codes = model.encode_codes(x, context)
    expected = model.prior().log_prob(codes)
    assert torch.allclose(model.code_log_prob(x, context), expected)
    assert model.sample(2, context).shape == (2, 6, 1, 5, 6)


def test_a_prior_over_sequences() -> None:
    """A WaveNet over codes, without a model."""
    prior = LearnedPrior(wavenet(6))
    law = prior()
    assert law.log_prob(law.sample((4,))).shape == (4,)


@pytest.mark.parametrize("shape", [None, (2,), (2, 5)], ids=["plain", "vector", "sequence"])
def test_several_codes_a_position_of_a_sequence_want_a_prior_of_one_s_own(shape: Any) -> None:
    parts = [nets.VectorQuantizer(2, 5), nets.VectorQuantizer(1, 5)]
    options = {"quantizer": nets.ProductQuantizer(parts), "context_shape": shape}
    model, x, context = trained(lambda: sequence_vqvae(**options))
    rule = r"`model` must have one code a position .* an own CodePrior over maps \(2, 2\)"
    with pytest.raises(ValueError, match=rule):
        learned_priors(model)
    before = model.log_weights(x, context)[0]
    model.prior = LearnedPrior(nets.GatedPixelCNNNet((2, 2), 5, embedding_size=2)).eval()
    gained = model.code_log_prob(x, context) + 4 * math.log(5)
    assert torch.allclose(model.log_weights(x, context)[0] - before, gained)


@pytest.mark.parametrize("estimator", [Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO])
def test_any_estimator_gives_the_same_loss(estimator: Any) -> None:
    model, x, _ = trained(vqvae2)
    model.set_code_priors(priors_for(model))
    with model.bounding():
        loss = estimator().loss(model.model, model.guide, x)
    assert abs(loss + float(model.log_weights(x).sum())) < 1e-8


def test_predictive_draws_codes_and_data() -> None:
    model, _, _ = trained(vqvae)
    model.prior = priors_for(model)[0]
    drawn = Predictive(model.model, num_samples=4)()
    assert drawn["codes"].shape == (4, 2, 2)
    assert drawn["x"].shape == (4, 1, 5, 6)


def test_stage_two_by_plain_svi_trains_the_prior_alone() -> None:
    model, x, _ = trained(vqvae2)
    priors = priors_for(model)
    coder = code_model(priors).train()
    flat = coder.net.join(as_list(model.encode_codes(x)))
    before = copy.deepcopy(model.state_dict())
    model.set_code_priors(priors)
    start = float(model.code_log_prob(x).mean())
    svi = SVI(coder.model, coder.guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(12):
        svi.step(flat)
    assert float(model.eval().code_log_prob(x).mean()) > start + 1
    now = model.state_dict()
    assert all(torch.equal(now[k], v) for k, v in before.items() if not k.startswith("priors"))


def train_on(loss: models.ELBOLoss, draw: Callable[[], Tensor], steps: int, rate: float) -> None:
    """Adam on fresh data, the rate falling to zero."""
    optimizer = torch.optim.Adam(loss.train().parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(draw()).backward()
        optimizer.step()
        schedule.step()
    loss.eval()


@pytest.mark.slow
def test_both_stages_come_near_the_entropy_of_mosaics() -> None:
    """Data with a known optimum: within 0.2 bits an image of 33.8, where uniform codes cost 48."""
    torch.set_default_dtype(torch.float32)  # for half the time
    mosaic, model = Mosaic(), models.preset("VQVAE", "mosaic")
    assert isinstance(model, VQVAE)
    train_on(models.ELBOLoss(model), lambda: mosaic.sample((64,)), 1000, 1e-2)
    sizes = {"hidden_channels": 32, "num_blocks": 1, "num_heads": 2, "embedding_size": 16}
    priors = learned_priors(model, dropout=0.0, **sizes)
    coder = code_model(priors)

    def codes() -> Tensor:
        return coder.net.join([model.encode_codes(mosaic.sample((128,)))])

    train_on(models.ELBOLoss(coder), codes, 500, 5e-3)
    model.set_code_priors(priors)
    x = mosaic.sample((4000,))
    assert torch.equal(model.reconstruct(x).round(), x)
    truth = mosaic.log_prob(x)
    for scored in (model.code_log_prob(x), model.log_weights(x)[0]):
        gap = metrics.paired_gap(truth, scored)
        assert -3 * gap.standard_error < gap.mean < 0.2 * math.log(2)
