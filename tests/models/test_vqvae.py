"""Laws of VQ-VAE and VQ-VAE-2: true bounds, the gradient through the codes, one update a step."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import pyro
import pytest
import torch
from pyro.infer import (
    SVI,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from torch import Tensor, nn

from pyro_genmodels import nets, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.data import Mosaic
from pyro_genmodels.models import (
    VQVAE,
    VQVAE2,
    Codebook,
    CodePrior,
    ELBOLoss,
    GaussianLikelihood,
    LogisticMixtureLikelihood,
    UniformPrior,
    VQVAENetwork,
)
from pyro_genmodels.models.vqvae.base import OnceAStep
from tests.cases import sequence_vqvae
from tests.grouped import grouped

ESTIMATORS = [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, TraceEnum_ELBO]
SMALL = {"num_codes": 5, "hidden_channels": 4, "residual_channels": 3, "num_blocks": 1}


def vqvae(**options) -> VQVAE:
    return VQVAE((1, 5, 6), **grouped(VQVAE, {"num_levels": 3, "dim": 3} | SMALL | options))


def vqvae2(**options) -> VQVAE2:
    return VQVAE2((1, 5, 6), **grouped(VQVAE2, {"num_levels": 3, "dim": 3} | SMALL | options))


def gradient_codes() -> VQVAE:
    return vqvae(quantizer=nets.VectorQuantizer(3, 5, learning="gradient"))


def product_codes() -> VQVAE:
    parts = [nets.VectorQuantizer(2, 5), nets.VectorQuantizer(1, 5)]
    return vqvae(quantizer=nets.ProductQuantizer(parts))


def patches(**options) -> VQVAE:
    return vqvae(network="patch", reduction=3, **options)


MODELS = {
    "vqvae": vqvae,
    "patches": patches,
    "gradient": gradient_codes,
    "product": product_codes,
    "vqvae2": vqvae2,
    "vqvae2-three-maps": lambda: vqvae2(num_maps=3),
}
every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)


def images(*batch: int) -> Tensor:
    return torch.randint(3, (*batch, 1, 5, 6))


def started(make, dtype: torch.dtype = torch.float64):
    """A model whose codebooks are initialised, in training mode."""
    model = make().to(dtype)
    model.guide(images(20))
    return model


def quantizers_of(model) -> list[nets.VectorQuantizer]:
    return [m for m in model.modules() if isinstance(m, nets.VectorQuantizer)]


def num_codes_of(model) -> int:
    return sum(prior.code_shape.numel() for _, prior in model._code_parts)


# The bound


@every_model
def test_a_code_costs_the_logarithm_of_their_number(make) -> None:
    """The log-weight is the reconstruction's log-likelihood minus log K for every code."""
    model, x = started(make).eval(), images(4)
    codes = model._codes_of(x, None)
    likelihood = model.decode(model._decoder_input(model._vectors(codes), None))
    expected = likelihood.log_prob(x.double()) - num_codes_of(model) * math.log(5)
    weights = model.log_weights(x, num_particles=3)
    torch.testing.assert_close(weights, expected.expand(3, 4), atol=1e-10, rtol=0)


@every_model
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_estimator_gives_the_bound_in_eval_mode(make, estimator) -> None:
    model, x = started(make).eval(), images(4)
    loss = estimator(max_plate_nesting=1).loss(model.model, model.guide, x)
    expected = -float(model.log_weights(x).detach().sum())
    assert loss == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("family", "reduction"), [(VQVAE, 2), (VQVAE2, 1)])
@pytest.mark.parametrize("mixture", [False, True])
def test_evidence_sums_to_one_over_codes_and_data(family, reduction, mixture) -> None:
    """p(x) by enumeration of the codes is a distribution, and the ELBO lies below it."""
    likelihood = LogisticMixtureLikelihood((1, 2, 2), 2, num_mixtures=2) if mixture else "auto"
    sizes = {**SMALL, "num_codes": 3, "dim": 2, "reduction": reduction}
    model = family((1, 2, 2), num_levels=2, likelihood=likelihood, **grouped(family, sizes))
    model = model.double().eval()
    shapes = [prior.code_shape for prior in _priors(model)]
    every = torch.tensor(list(itertools.product(range(3), repeat=num_codes_of(model))))
    parts = zip(every.split([shape.numel() for shape in shapes], 1), shapes, strict=True)
    codes = [part.reshape(-1, *shape) for part, shape in parts]
    x = torch.tensor(list(itertools.product((0, 1), repeat=4))).reshape(16, 1, 2, 2)
    law = model.decode(model._decoder_input(model._vectors(codes), None))
    joint = law.log_prob(x.double()[:, None]) - num_codes_of(model) * math.log(3)
    evidence = joint.logsumexp(1)
    assert float(evidence.exp().sum()) == pytest.approx(1, abs=1e-12)
    assert bool((model.log_weights(x)[0] <= evidence).all())
    drawn = model.sample(20_000).reshape(-1, 4) @ torch.tensor([8.0, 4, 2, 1]).double()
    share = torch.bincount(drawn.long(), minlength=16) / 20_000
    assert float((share - evidence.exp()).abs().sum()) < 0.06  # its floor: sqrt(2 * 16 / pi / n)


def test_a_prior_can_be_assigned_and_is_scored() -> None:
    class Skewed(CodePrior):
        def __init__(self) -> None:
            super().__init__((2, 2), 5)
            self.logits = nn.Parameter(torch.arange(5.0))

        def forward(self, above=(), context=None):
            each = pyro.distributions.Categorical(logits=self.logits)
            return each.expand((2, 2)).to_event(2)

    model, x = started(vqvae).eval(), images(4)
    before = model.log_weights(x)
    model.prior = Skewed().double()
    codes = model.encode_codes(x)
    gained = model.prior().log_prob(codes) + 4 * math.log(5)
    torch.testing.assert_close(model.log_weights(x) - before, gained[None], atol=1e-10, rtol=0)
    loss = ELBOLoss(model)
    loss(x).backward()
    assert model.prior.logits.grad is not None
    assert model.sample(3).shape == (3, 1, 5, 6)


# Training


@every_model
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("vectorize", [False, True])
def test_estimators_agree_with_the_objective_of_the_paper(make, estimator, vectorize) -> None:
    """Loss and gradients are those of reconstruction, codes, commitment, written by hand."""
    model, x = started(make), images(4)
    by_hand = copy.deepcopy(model)
    # A further particle that is run after the first finds the codebook already moved.
    particles = {"num_particles": 1 + vectorize, "vectorize_particles": vectorize}
    elbo = estimator(max_plate_nesting=1, **particles)
    value = elbo.loss_and_grads(model.model, model.guide, x)

    scaled = x.double() - 1
    quantized, inputs = by_hand._quantized(by_hand._features(scaled, None), None, update=False)
    nats = by_hand.decode(inputs).log_prob(x.double())
    auxiliary = sum(q.loss.flatten(1).mean(1) for q in quantized) * 30
    objective = (auxiliary - nats).sum() + 4 * num_codes_of(model) * math.log(5)
    objective.backward()
    assert value == pytest.approx(float(objective.detach()), abs=1e-8)
    for (name, p), q in zip(model.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


@every_model
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.uint8])
def test_the_decoder_gets_the_guides_vectors(make, estimator, dtype) -> None:
    """No miss: a miss would look the codes up, and leave the encoder without the gradient."""
    model, x = started(make), images(4).to(dtype)
    elbo = estimator(max_plate_nesting=1, num_particles=2)
    elbo.loss_and_grads(model.model, model.guide, x)
    assert (model.shared_pass.hits, model.shared_pass.misses) == (2, 0)
    SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-3}), elbo).step(x)
    if estimator is not TraceGraph_ELBO:
        ELBOLoss(model, estimator)(x).backward()
    assert model.shared_pass.misses == 0


@every_model
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("vectorize", [False, True])
def test_codebooks_learn_once_a_step(make, estimator, vectorize) -> None:
    model, x = started(make, torch.float32), images(4)
    elbo = estimator(num_particles=3, vectorize_particles=vectorize)
    svi = SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-3}), elbo)
    for step in range(1, 4):
        svi.step(x)
        assert [int(q.steps) for q in quantizers_of(model)] == [1 + step] * len(
            quantizers_of(model)
        )


@every_model
def test_codebooks_learn_in_training_steps_only(make) -> None:
    model, x = started(make), images(4)
    state = copy.deepcopy(model.state_dict())
    model.log_weights(x, num_particles=2)
    model.reconstruct(x), model.sample(2), model._codes_of(x, None)
    with torch.no_grad():
        ELBOLoss(model)(x)
    ELBOLoss(model.eval())(x)
    assert all(torch.equal(state[name], now) for name, now in model.state_dict().items())


WARMING = {
    "vqvae": lambda: vqvae(quantizer=warming()),
    "vqvae2": lambda: vqvae2(quantizers=[warming(), warming()]),
}
every_warming = pytest.mark.parametrize("make", WARMING.values(), ids=WARMING)


def warming() -> nets.VectorQuantizer:
    return nets.VectorQuantizer(3, 5, warmup_batches=2)


@every_warming
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_every_particle_of_a_warmup_passes(make, estimator) -> None:
    """Two, one after the other, have the loss and gradients of one."""
    one, x = make().double(), images(4)
    two, values = copy.deepcopy(one), []
    for number, model in ((1, one), (2, two)):
        elbo = estimator(max_plate_nesting=1, num_particles=number)
        values.append(elbo.loss_and_grads(model.model, model.guide, x))
    assert values[0] == pytest.approx(values[1], abs=1e-8)
    for (name, p), q in zip(one.named_parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)
    assert all(int(q.batches) == 1 for q in quantizers_of(two))


@every_warming
def test_a_bound_in_a_warmup_is_of_the_codes(make) -> None:
    model, x = make().double(), images(4)
    ELBOLoss(model)(x)
    bound = model.log_weights(x)
    assert all(part.training for part in model.modules())
    torch.testing.assert_close(bound, model.eval().log_weights(x), atol=1e-10, rtol=0)


def test_a_repeated_batch_is_a_step_of_its_own() -> None:
    once, features = OnceAStep(), torch.randn(4, 3)
    weight = nn.Parameter(torch.zeros(3))
    assert once.update(features, [weight]) is True
    assert once.update(features, [weight]) is False
    weight.grad = torch.ones(3)
    torch.optim.SGD([weight], lr=0.1).step()
    assert once.update(features, [weight]) is True
    weight.grad = None
    assert once.update(features + 2, [weight]) is True
    weight.grad = torch.ones(3)
    assert once.update(features + 1, [weight]) == "accumulate"
    assert once.update(features.double() + 1e-9, [weight]) == "accumulate"
    assert pickle.loads(pickle.dumps(once))._seen is None


@every_model
def test_auxiliary_losses_are_left_out_of_bounds(make) -> None:
    model, x = started(make), images(4)
    trace = pyro.poutine.trace(model.guide)
    assert "quantization" in trace.get_trace(x).nodes
    with model.bounding():
        assert "quantization" not in trace.get_trace(x).nodes
    model.eval()
    assert "quantization" not in trace.get_trace(x).nodes


@every_model
def test_every_parameter_is_trained(make) -> None:
    model = make()
    loss = ELBOLoss(model)
    loss(images(16)).backward()
    assert loss.unreached_parameters() == []


# Shapes, contexts, copies


@every_model
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_any_leading_shape(make, batch) -> None:
    model, x = started(make), images(*batch)
    assert ELBOLoss(model)(x).shape == ()
    assert model.log_weights(x, num_particles=2).shape == (2, *batch)
    assert model.reconstruct(x).shape == x.shape
    codes = model.encode_codes(x)
    decoded = model.decode_codes(codes)
    torch.testing.assert_close(decoded, model.reconstruct(x))
    for each, prior in zip(
        [codes] if isinstance(codes, Tensor) else codes, _priors(model), strict=True
    ):
        assert each.shape == (*batch, *prior.code_shape)
        assert each.dtype == torch.long


def _priors(model) -> list[CodePrior]:
    return [prior for _, prior in model._code_parts]


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (9, 4), (3, 17)])
@pytest.mark.parametrize("family", [VQVAE, VQVAE2])
def test_any_image_size(family, size) -> None:
    model = family((2, *size), **grouped(family, {"dim": 3, **SMALL}))
    x = torch.randn(3, 2, *size)
    ELBOLoss(model)(x).backward()
    assert model.reconstruct(x).shape == x.shape
    assert model.sample(2).shape == (2, 2, *size)


@pytest.mark.parametrize(
    ("network", "reduction"), [("conv", 1), ("conv", 2), ("conv", 8), ("patch", 1), ("patch", 3)]
)
def test_any_reduction(network, reduction) -> None:
    model, x = vqvae(network=network, reduction=reduction), images(3)
    ELBOLoss(model)(x).backward()
    sizes = (math.ceil(5 / reduction), math.ceil(6 / reduction))
    codes = model.encode_codes(x)
    assert codes.shape == (3, *sizes)
    # The image's last corner is the last code's, not one that was cropped.
    other = codes.clone()
    other[:, -1, -1] = (codes[:, -1, -1] + 1) % 5
    assert bool((model.decode_codes(other) != model.decode_codes(codes))[..., -1, -1].any())


@pytest.mark.parametrize("make", [vqvae, vqvae2])
@pytest.mark.parametrize(
    "likelihood", ["bernoulli", "categorical", "discretized_logistic", "mixture"]
)
def test_discrete_likelihoods(make, likelihood) -> None:
    if likelihood == "mixture":
        likelihood = LogisticMixtureLikelihood((1, 5, 6), 2, num_mixtures=3)
    model = make(likelihood=likelihood, num_levels=2)
    x = images(4).clamp(max=1)
    ELBOLoss(model)(x).backward()
    assert set(model.sample(5).unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("family", [VQVAE, VQVAE2])
def test_the_likelihood_may_link_the_channels(family) -> None:
    """A mixture of logistics has more numbers a pixel than other likelihoods, and no base law."""
    likelihood = LogisticMixtureLikelihood((3, 5, 6), 4, num_mixtures=2)
    model = family(
        (3, 5, 6), num_levels=4, likelihood=likelihood, **grouped(family, {"dim": 3, **SMALL})
    ).double()
    x = torch.randint(4, (7, 3, 5, 6))
    loss = ELBOLoss(model)
    loss(x).backward()
    assert loss.unreached_parameters() == []
    model.eval()
    codes = model._codes_of(x, None)
    law = model.decode(model._decoder_input(model._vectors(codes), None))
    expected = law.log_prob(x) - num_codes_of(model) * math.log(5)
    torch.testing.assert_close(model.log_weights(x)[0], expected, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.decode_codes(model.encode_codes(x)), law.mean)
    drawn = model.sample(50)
    assert drawn.shape == (50, 3, 5, 6)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0}


@pytest.mark.parametrize("make", [vqvae, patches, vqvae2])
@pytest.mark.parametrize("kind", ["labels", "vectors", "maps"])
def test_contexts(make, kind) -> None:
    options, context = {
        "labels": ({"num_classes": 3}, torch.tensor([0, 1, 2, 2])),
        "vectors": ({"context_shape": (2,)}, torch.randn(4, 2)),
        "maps": ({"context_shape": (2, 5, 6)}, torch.randn(4, 2, 5, 6)),
    }[kind]
    model, x = make(**options), images(4)
    loss = ELBOLoss(model)
    loss(x, context).backward()
    assert loss.unreached_parameters() == []
    assert model.shared_pass.misses == 0
    assert model.sample(3, context).shape == (3, 4, 1, 5, 6)
    assert model.log_weights(x, context, num_particles=2).shape == (2, 4)
    assert model.reconstruct(x, context).shape == x.shape
    codes = model.encode_codes(x, context)
    assert model.decode_codes(codes, context).shape == x.shape
    with pytest.raises(ValueError, match="`context` must be given to a conditional model"):
        model.encode_codes(x)


def test_predictive_and_plates() -> None:
    model, x = started(vqvae, torch.float32), images(4)
    assert Predictive(model.model, num_samples=7, parallel=True)()["x"].shape == (7, 1, 5, 6)
    codes = Predictive(model.guide, num_samples=7, parallel=True)(x)["codes"]
    assert codes.shape == (7, 4, 2, 2)
    assert torch.equal(codes, model.encode_codes(x).expand(7, 4, 2, 2))

    def program(x):
        with pyro.plate("repeats", 2, dim=-2):
            return model.model(x)

    trace = pyro.poutine.trace(program).get_trace(x)
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (2, 4)


@every_model
def test_copies_and_configurations(make) -> None:
    model, x = started(make, torch.float32), images(4)
    SVI(model.model, model.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()).step(x)
    rebuilt = build(configuration(model))
    rebuilt.load_state_dict(model.state_dict())
    expected = model.eval().log_weights(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), rebuilt.eval()):
        assert torch.equal(other.log_weights(x), expected)


# Own parts


def test_a_network_without_layers_is_taken() -> None:
    """It counts as false, but is not None: here the codes are of the data themselves."""
    encoder, decoder = nn.Sequential(), nn.Sequential()
    own = {"encoder": encoder, "decoder": decoder, "quantizer": nets.VectorQuantizer(2, 5)}
    likelihood = GaussianLikelihood((2, 4, 4), scale=0.1)
    model = VQVAE((2, 4, 4), network=VQVAENetwork(reduction=1), likelihood=likelihood, **own)
    assert model.encoder is encoder
    assert model.decoder is decoder
    x = torch.randn(3, 2, 4, 4)
    vectors = model.quantizer.lookup(model.encode_codes(x)).movedim(-1, -3)
    torch.testing.assert_close(model.reconstruct(x), vectors)
    sequences = sequence_vqvae(encoder=encoder, decoder=decoder)
    assert sequences.encoder is encoder
    assert sequences.decoder is decoder


@pytest.mark.parametrize("sizes", [{}, {"num_codes": 5}, {"dim": 3, "commitment": 0.5}])
def test_an_own_quantizer_has_its_own_sizes(sizes) -> None:
    own = {"quantizer": nets.VectorQuantizer(3, 5, commitment=0.5)}
    model = VQVAE((1, 5, 6), **grouped(VQVAE, {**sizes, **own}))
    assert (model.prior.num_codes, model.quantizer.dim, model.quantizer.commitment) == (5, 3, 0.5)


# Patches


def test_a_patch_and_its_code_see_nothing_else() -> None:
    sizes = {**SMALL, "kind": "patch", "reduction": 3, "dim": 3}
    model = VQVAE((2, 6, 9), **grouped(VQVAE, sizes))
    testing.randomize_parameters(model)
    x = torch.randn(2, 6, 9, requires_grad=True)
    z = model.encoder(x)
    assert z.shape == (3, 2, 3)
    (seen,) = torch.autograd.grad(z[:, 1, 2].sum(), x)
    inside = torch.zeros(6, 9, dtype=torch.bool)
    inside[3:, 6:] = True
    assert torch.equal(seen.abs().sum(0) > 0, inside)
    z = z.detach().requires_grad_()
    (seen,) = torch.autograd.grad(model.decoder(z)[:, 3:, 6:].sum(), z)
    inside = torch.zeros(2, 3, dtype=torch.bool)
    inside[1, 2] = True
    assert torch.equal(seen.abs().sum(0) > 0, inside)


def test_equal_patches_have_equal_codes() -> None:
    model = started(patches).eval()
    tile = torch.randint(3, (4, 1, 3, 3))
    x = torch.nn.functional.pad(tile.repeat(1, 1, 2, 2), (0, 0, 0, -1))
    codes = model.encode_codes(x)
    # The lower row is cut off and made up by repetition: another patch.
    assert torch.equal(codes[:, 0, 0], codes[:, 0, 1])
    assert torch.equal(codes[:, 1, 0], codes[:, 1, 1])


# The papers


def test_the_presets_have_the_papers_sizes() -> None:
    def size(model: nn.Module) -> int:
        return sum(p.numel() for p in model.parameters())

    def conv(a: int, b: int, kernel: int) -> int:
        return a * b * kernel**2 + b

    one = VQVAE.paper()
    blocks = 2 * (conv(256, 256, 3) + conv(256, 256, 1))
    assert one.prior.code_shape == (32, 32)
    assert one.quantizer.codebook.shape == (512, 64)
    assert size(one.encoder) == (conv(3, 256, 4) + conv(256, 256, 4) + blocks + conv(256, 64, 1))
    # Location and log-scale of a discretised logistic for each of three colours.
    assert size(one.decoder) == conv(64, 256, 3) + blocks + conv(256, 256, 4) + conv(256, 6, 4)
    two = VQVAE2.paper()
    assert [p.code_shape for p in _priors(two)] == [(32, 32), (64, 64)]
    assert size(two) == 1_388_867  # rosinality/vq-vae-2-pytorch's: 1.39 million
    three = VQVAE2.paper((3, 1024, 1024), num_maps=3, reduction=8)
    assert [p.code_shape for p in _priors(three)] == [(32, 32), (64, 64), (128, 128)]
    assert configuration(two)["arguments"]["num_maps"] == 2


def test_the_likelihood_of_the_preset_weighs_errors_as_the_paper() -> None:
    model = VQVAE2.paper((3, 8, 8))
    x = torch.randn(4, 3, 8, 8)
    mean = model.reconstruct(x)
    nats = model.log_weights(x)[0] + num_codes_of(model) * math.log(512)
    constant = 192 / 2 * math.log(math.pi)
    torch.testing.assert_close(-nats - constant, (x - mean).square().flatten(1).sum(1))


@pytest.mark.parametrize("seed", range(3))
def test_mosaics_are_coded_without_loss(seed) -> None:
    """Data with a known optimum: as many codes as tiles suffice, and each is used."""
    torch.manual_seed(seed)
    mosaic = Mosaic(2, tile_size=4, num_codes=6)
    sizes = {"num_codes": 6, "dim": 8, "hidden_channels": 16, "num_blocks": 0}
    model = VQVAE((1, 8, 8), num_levels=2, **grouped(VQVAE, {"kind": "patch", **sizes}))
    loss = ELBOLoss(model)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        loss(mosaic.sample((32,))).backward()
        optimizer.step()
    x = mosaic.sample((200,))
    assert torch.equal(model.reconstruct(x).round(), x)
    assert len(model.encode_codes(x).unique()) == 6
    # Nothing but the codes is left to pay for.
    assert -float(model.eval().log_weights(x).detach().mean()) < 4 * math.log(6) + 1


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VQVAE((4,)), r"`event_shape` must be \(C, H, W\); got \(4,\)"),
        (lambda: vqvae(reduction=3), "`reduction` must be a power of two; got 3"),
        (lambda: vqvae(network="patch", reduction=0), "`reduction` must be positive; got 0"),
        (
            lambda: patches(strided_channels=(4,)),
            "`strided_channels` must be None with patches; got",
        ),
        (lambda: vqvae(num_codes=0), "`num_codes` must be positive; got 0"),
        (lambda: vqvae(num_blocks=-1), "`num_blocks` must not be negative; got -1"),
        (lambda: vqvae(hidden_channels=1), r"`strided_channels` must be positive; got \[0, 1\]"),
        (lambda: vqvae(strided_channels=(4,)), "have 2 entries for a reduction of 4; got"),
        (lambda: vqvae2(priors=[]), "`priors` must be 2 in number; got 0"),
        (lambda: vqvae2(num_maps=0), "`num_maps` must be positive; got 0"),
        (lambda: vqvae2(quantizers=[nets.VectorQuantizer(3)]), "`quantizers` must be 2 in number"),
        (
            lambda: vqvae2(quantizers=[nets.VectorQuantizer(3), nets.VectorQuantizer(4)]),
            r"`quantizers` must have one and the same dim; got \[3, 4\]",
        ),
        (
            lambda: vqvae(num_codes=6, quantizer=nets.VectorQuantizer(3, 5)),
            r"`codebook.num_codes` must be left out, or the own quantizer's \(5\); got 6",
        ),
        (
            lambda: vqvae(commitment=1.0, quantizer=nets.VectorQuantizer(3, 5)),
            r"`codebook.commitment` must be left out, or the own quantizer's \(0.25\); got 1.0",
        ),
        (
            lambda: vqvae2(quantizers=[nets.VectorQuantizer(3, 4), nets.VectorQuantizer(3, 6)]),
            r"`codebook.num_codes` must be left out, or the own quantizer's \(4, 6\); got 5",
        ),
        (
            lambda: sequence_vqvae(dim=4, quantizer=nets.VectorQuantizer(3, 5)),
            r"`codebook.dim` must be left out, or the own quantizer's \(3\); got 4",
        ),
        (
            lambda: vqvae(prior=UniformPrior((3, 2), 5)),
            r"`prior` must be over maps \(2, 2\) of 5 codes; got \(3, 2\) of 5",
        ),
        (
            lambda: vqvae(encoder=nets.MapEncoder(1, 7)).encode_codes(images(2)),
            r"`encoder\(x\)` must have trailing shape \(3, 2, 2\)",
        ),
        (lambda: vqvae().encode_codes(torch.zeros(2, 1, 5, 5)), "`x` must have trailing shape"),
        (lambda: vqvae().encode_codes(images(2) + 3), "`x` must hold integers from 0 to 2"),
        (lambda: vqvae().decode_codes(torch.zeros(2, 3)), r"`codes` must have trailing shape \(2"),
        (lambda: vqvae().decode_codes(torch.full((2, 2), 5)), "`codes` must hold integers from 0"),
        (lambda: vqvae2().decode_codes([torch.zeros(1, 1)]), "`codes` must be 2 in number; got 1"),
    ],
)
def test_errors_name_argument_rule_and_value(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_parts_have_the_commitment_of_a_composite() -> None:
    parts = [nets.VectorQuantizer(4, 8, commitment=1.0) for _ in range(2)]
    own = nets.ResidualQuantizer(parts)
    assert VQVAE((1, 8, 8), codebook=Codebook(commitment=1.0), quantizer=own).quantizer is own
    message = r"`codebook.commitment` must be left out.*\(1\.0\); got 2"
    with pytest.raises(ValueError, match=message):
        VQVAE((1, 8, 8), codebook=Codebook(commitment=2.0), quantizer=own)
