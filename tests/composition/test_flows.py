"""Flows as parts of a user's Pyro program: likelihoods, handlers, estimators, lists, copies."""

from __future__ import annotations

import copy
import io
import pickle

import pyro
import pyro.distributions as dist
import pyro.distributions.transforms as pt
import pytest
import torch
from pyro import poutine
from pyro.distributions.conditional import ConditionalTransformedDistribution
from pyro.infer import (
    SVI,
    Predictive,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
    infer_discrete,
)
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import transforms as tt

from tests.composition.flows import (
    CONTEXTS,
    FLOWS,
    IMAGE,
    VECTOR,
    check_moments,
    correlated,
    density,
    exact_log_prob,
    factory,
    make,
    make_conditional,
    noise,
)

pytestmark = pytest.mark.usefixtures("double")
each_flow = pytest.mark.parametrize("name", FLOWS)
each_shape = pytest.mark.parametrize("shape", [VECTOR, IMAGE], ids=["vector", "image"])
each_context = pytest.mark.parametrize("kind", CONTEXTS)


class Density(PyroModule):
    """A user's model: events of a plate come from a flow."""

    def __init__(self, flow: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.flow, self.shape = flow, shape

    def forward(self, x: Tensor | None = None, size: int = 1) -> Tensor:
        with pyro.plate("data", size if x is None else len(x)):
            value: Tensor = pyro.sample("x", density(self.flow, self.shape), obs=x)
        return value


def registered(module: Density):
    """The same model as a function that calls ``pyro.module``."""

    def model(x=None, size=1):
        return Density.forward(pyro.module("density", module), x, size)

    return model


def no_guide(*_, **__):
    pass


def train(model, x, steps, lr=0.03):
    svi = SVI(model, no_guide, pyro.optim.Adam({"lr": lr}), Trace_ELBO())
    return [svi.step(batch) for batch in x.split(len(x) // steps)]


# -- likelihoods


@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, VECTOR) for name in FLOWS]
    + [pytest.param(n, IMAGE, marks=pytest.mark.slow) for n in FLOWS],
)
def test_svi_fits_a_likelihood(name, shape):
    """The divergence from a known truth goes below what independent elements would leave."""
    truth = correlated(torch.Size(shape).numel())
    module = Density(factory(name)(shape), shape)
    model = module if shape == VECTOR else registered(module)
    train(model, truth.sample((60 * 128,)).reshape(-1, *shape), 60)
    y = truth.sample((4000,))
    with torch.no_grad():
        found = density(module.flow.eval(), shape).log_prob(y.reshape(-1, *shape))
    gap = truth.log_prob(y) - found
    independent = truth.stddev.log().sum() - truth.scale_tril.diagonal().log().sum()
    assert -3 * gap.std() / 4000**0.5 < gap.mean() < independent / 2


@each_shape
@each_flow
def test_plates_scale_and_mask(name, shape):
    flow, rank = make(name, shape), len(shape)
    x = density(flow, shape).sample((2, 3)).detach()
    mask = torch.tensor([[True, False, True], [True, True, False]])

    @poutine.scale(scale=0.5)
    def model():
        with pyro.plate("rows", 2, dim=-2), pyro.plate("data", 30, 3), poutine.mask(mask=mask):
            pyro.sample("x", density(flow, shape), obs=x)

    expected = exact_log_prob(flow.inv, x, rank)
    trace = poutine.trace(model).get_trace()
    assert trace.log_prob_sum().item() == pytest.approx(5 * (mask * expected).sum().item())
    masked = density(flow, shape).mask(mask)
    torch.testing.assert_close(masked.log_prob(x), mask * expected)


@each_shape
@each_flow
def test_predictive_draws_from_the_flow(name, shape):
    """Taken back through the flow, the draws are standard Gaussian noise."""
    parallel = shape == IMAGE or name != "nice"
    module, draws = Density(make(name, shape), shape), (400, 3) if parallel else (20, 60)
    predictive = Predictive(module, num_samples=draws[0], parallel=parallel)
    x = predictive(size=draws[1])["x"]
    assert x.shape == (*draws, *shape)
    back = module.flow.inv(x).detach().flatten(0, 1).flatten(1)
    size = back.shape[-1]
    check_moments(back, torch.zeros(size), torch.eye(size))


# -- contexts


@each_context
@each_shape
@each_flow
def test_contexts_give_the_batch_shape(name, shape, kind):
    if kind == "maps" and shape == VECTOR and name == "glow":
        pytest.skip("vectors are not conditioned on maps by ActNorm")
    options, contexts = CONTEXTS[kind]
    contexts = contexts if kind == "labels" else contexts.to(torch.float64)
    flow, rank = make_conditional(name, shape, **options), len(shape)
    conditional = ConditionalTransformedDistribution(noise(shape), [flow])
    together = conditional.condition(contexts)
    assert together.batch_shape == (3,)
    assert together.sample().shape == (3, *shape)
    x = together.sample((2,)).detach()
    alone = [exact_log_prob(flow.condition(c).inv, x[:, i], rank) for i, c in enumerate(contexts)]
    torch.testing.assert_close(together.log_prob(x), torch.stack(alone, -1))
    assert not torch.allclose(together.log_prob(x[0, 0])[0], together.log_prob(x[0, 0])[1:])
    wide = conditional.condition(contexts[:, None]).log_prob(x[0])  # each against each
    torch.testing.assert_close(wide.diagonal(), together.log_prob(x[0]))

    def model():
        with pyro.plate("data", 3):
            pyro.sample("x", conditional.condition(contexts), obs=x[0])

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    torch.testing.assert_close(trace.nodes["x"]["log_prob"], together.log_prob(x[0]))


# -- enumeration


class Mixture(PyroModule):
    """Which of three flows made an event is summed out."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.weights = shape, torch.tensor([0.2, 0.3, 0.5])
        self.flow = make_conditional(name, shape, num_classes=3)

    @config_enumerate
    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(self.weights))
            pyro.sample("x", density(self.flow.condition(label), self.shape), obs=x)
        return label

    def joint(self, x: Tensor) -> Tensor:
        flows = [density(self.flow.condition(torch.tensor(k)), self.shape) for k in range(3)]
        return torch.stack([p.log_prob(x) for p in flows], -1) + self.weights.log()


@each_shape
@each_flow
def test_an_enumerated_mixture_sums_the_labels_out(name, shape):
    module, x = Mixture(name, shape), noise(shape).sample((5,))
    loss = TraceEnum_ELBO(max_plate_nesting=1).differentiable_loss(module, no_guide, x)
    exact = -module.joint(x).logsumexp(-1).sum()
    torch.testing.assert_close(loss, exact)
    parameters = [p for p in module.parameters() if p.requires_grad]
    options = {"allow_unused": True, "materialize_grads": True}
    found = torch.autograd.grad(loss, parameters, **options)
    torch.testing.assert_close(found, torch.autograd.grad(exact, parameters, **options))


@each_flow
def test_discrete_inference_finds_the_labels(name):
    module, x = Mixture(name, VECTOR), noise(VECTOR).sample((50,)) * 2
    best = infer_discrete(module, first_available_dim=-2, temperature=0)(x)
    assert torch.equal(best, module.joint(x).argmax(-1))
    drawn = infer_discrete(module, first_available_dim=-2)(x[:1].expand(4000, 2))
    posterior = module.joint(x[0]).softmax(-1)
    error = (posterior * (1 - posterior) / 4000).sqrt()
    assert ((drawn.bincount(minlength=3) / 4000 - posterior).abs() < 5 * error + 1e-9).all()


@each_flow
def test_a_mixture_of_flows_is_the_prior_of_a_latent(name):
    """The guide draws z, the model's label is summed out."""
    module, q = Mixture(name, VECTOR), make(name, VECTOR)

    @config_enumerate
    def model():
        with pyro.plate("data", 5):
            label = pyro.sample("label", dist.Categorical(module.weights))
            pyro.sample("z", density(module.flow.condition(label), VECTOR))

    def guide():
        with pyro.plate("data", 5):
            return pyro.sample("z", density(q, VECTOR))

    torch.manual_seed(1)
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, guide)
    torch.manual_seed(1)
    z = guide().detach()
    exact = density(q, VECTOR).log_prob(z) - module.joint(z).logsumexp(-1)
    assert loss == pytest.approx(exact.sum().item())


# -- estimators


class ExactPosterior(PyroModule):
    """The data say nothing of z, so that its prior, a flow, is its posterior.

    The guide's flow is a copy: it is scored from its own draws, the prior's from data to noise.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.data = torch.arange(4.0)
        self.evidence = dist.Normal(0.0, 1.0).log_prob(self.data).sum().item()
        self.prior = make(name, VECTOR)
        self.posterior = copy.deepcopy(self.prior)

    def draw(self, name: str) -> Tensor:
        flow = pyro.module(name, getattr(self, name))
        z: Tensor = pyro.sample("z", density(flow, VECTOR))
        return z

    def model(self) -> Tensor:
        with pyro.plate("data", 4):
            z = self.draw("prior")
            pyro.deterministic("double", 2 * z, event_dim=1)
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=self.data)
        return z

    def guide(self) -> Tensor:
        with pyro.plate("data", 4):
            return self.draw("posterior")


ESTIMATORS = {
    "Trace": lambda: Trace_ELBO(),
    "Trace, particles in turn": lambda: Trace_ELBO(num_particles=3),
    "Trace, particles together": lambda: Trace_ELBO(
        num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "TraceGraph": lambda: TraceGraph_ELBO(num_particles=2),
    "TraceMeanField": lambda: TraceMeanField_ELBO(),
    "TraceEnum": lambda: TraceEnum_ELBO(
        num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "Renyi 0": lambda: RenyiELBO(alpha=0.0, num_particles=3),
    "Renyi 0.5": lambda: RenyiELBO(
        alpha=0.5, num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@each_flow
def test_with_the_exact_posterior_every_estimator_is_the_evidence(name, estimator):
    program = ExactPosterior(name)
    loss = ESTIMATORS[estimator]().loss(program.model, program.guide)
    assert -loss == pytest.approx(program.evidence, abs=1e-9)


@each_flow
def test_estimators_agree_in_gradient(name):
    """All draws are reparametrised: given the noise, they are one function of the parameters."""
    program = ExactPosterior(name)
    with torch.no_grad():
        next(program.posterior.parameters()).add_(0.3)
    found = []
    for make_elbo in (Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO):
        program.zero_grad(set_to_none=False)
        torch.manual_seed(0)
        make_elbo().loss_and_grads(program.model, program.guide)
        found.append(
            [
                torch.zeros_like(p) if p.grad is None else p.grad.clone()
                for p in program.parameters()
            ]
        )
    program.zero_grad(set_to_none=False)
    torch.manual_seed(0)
    z = density(program.posterior, VECTOR).rsample((4,))
    log_q = density(program.posterior, VECTOR).log_prob(z.clone())
    (log_q - density(program.prior, VECTOR).log_prob(z)).sum().backward()
    by_hand = [p.grad for p in program.parameters()]
    assert any(g is not None and g.abs().max() > 1e-3 for g in by_hand)
    for gradients in found:
        for ours, expected in zip(gradients, by_hand, strict=True):
            torch.testing.assert_close(
                ours, torch.zeros_like(ours) if expected is None else expected
            )


# -- handlers


@each_flow
def test_handlers(name):
    program = ExactPosterior(name)
    z = torch.linspace(-1, 1, 8).reshape(4, 2)
    conditioned = poutine.trace(poutine.condition(program.model, {"z": z})).get_trace()
    conditioned.compute_log_prob()
    exact = exact_log_prob(program.prior.inv, z)
    torch.testing.assert_close(conditioned.nodes["z"]["log_prob"], exact)
    assert torch.equal(conditioned.nodes["double"]["value"], 2 * z)

    drawn = poutine.trace(program.guide).get_trace()
    replayed = poutine.trace(poutine.replay(program.model, drawn)).get_trace()
    replayed.compute_log_prob()
    assert replayed.nodes["z"]["value"] is drawn.nodes["z"]["value"]
    z = drawn.nodes["z"]["value"].detach()
    exact = exact_log_prob(program.prior.inv, z)
    torch.testing.assert_close(replayed.nodes["z"]["log_prob"], exact)

    hidden = poutine.trace(poutine.block(program.model, hide=["z"])).get_trace()
    assert "z" not in hidden.nodes
    assert hidden.log_prob_sum().item() == pytest.approx(program.evidence)
    samples = Predictive(program.model, guide=program.guide, num_samples=5, parallel=True)()
    assert torch.equal(samples["double"], 2 * samples["z"])


@each_flow
def test_a_replayed_draw_is_scored_anew_after_a_step(name):
    program = ExactPosterior(name)
    drawn = poutine.trace(program.guide).get_trace()
    before = density(copy.deepcopy(program.posterior), VECTOR).log_prob(drawn.nodes["z"]["value"])
    for parameter in program.posterior.parameters():
        parameter.grad = torch.ones_like(parameter)
    torch.optim.SGD(program.posterior.parameters(), lr=0.01).step()
    after = poutine.trace(poutine.replay(program.guide, drawn)).get_trace().log_prob_sum()
    z = drawn.nodes["z"]["value"].detach()
    torch.testing.assert_close(after, exact_log_prob(program.posterior.inv, z).sum())
    assert abs(after - before.sum()) > 1e-4


@each_shape
@each_flow
@pyro.validation_enabled(False)  # torch 2.6 looks at values, which vmap has none of
def test_functional_transforms(name, shape):
    flow = make(name, shape)
    x = noise(shape).sample((3, 2))
    p = density(flow, shape)
    torch.testing.assert_close(torch.vmap(p.log_prob)(x), p.log_prob(x))
    jacobian = (
        torch.vmap(torch.vmap(torch.func.jacrev(flow)))(x).flatten(-len(shape)).flatten(2, -2)
    )
    exact = torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(flow.log_abs_det_jacobian(x, flow(x)), exact)

    def score(parameters, y):
        return torch.func.functional_call(Score(flow, shape), parameters, (y,))

    parameters = {k: v.detach() for k, v in Score(flow, shape).named_parameters()}
    each = torch.vmap(torch.func.grad(score), (None, 0))(parameters, x[:, 0])
    p.log_prob(x[1, 0]).backward()
    for key, parameter in Score(flow, shape).named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(each[key][1], parameter.grad)


class Score(nn.Module):
    def __init__(self, flow: nn.Module, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.flow, self.shape = flow, shape

    def forward(self, y: Tensor) -> Tensor:
        value: Tensor = density(self.flow, self.shape).log_prob(y)
        return value


# -- lists of transforms


@each_flow
def test_lists_mix_with_the_transforms_of_pyro_and_torch(name):
    first, second = make(name, VECTOR), make(name, VECTOR)
    affine = pt.affine_coupling(2, [8])
    parts = [
        tt.AffineTransform(1.0, torch.tensor([2.0, -0.5]), event_dim=1),
        first,
        pt.Permute(torch.tensor([1, 0])),
        tt.ComposeTransform([affine, second.inv, pt.ELUTransform().inv.inv]),
        tt.ComposeTransform([first, second]).inv,
        tt.AffineTransform(0.0, 0.1),  # where the sigmoid does not saturate
        tt.SigmoidTransform(),
    ]
    p = dist.TransformedDistribution(noise(VECTOR), parts)
    assert p.event_shape == VECTOR
    y = p.sample((5,)).detach()
    assert ((y > 0) & (y < 1)).all()

    def to_noise(y):
        for part in reversed(parts):
            y = part.inv(y)
        return y

    torch.testing.assert_close(p.log_prob(y), exact_log_prob(to_noise, y))
    drawn = p.rsample((5,))
    torch.testing.assert_close(p.log_prob(drawn), p.log_prob(drawn.detach().clone()))


@each_shape
@each_flow
def test_expand_to_event_and_mask(name, shape):
    flow, rank = make(name, shape), len(shape)
    p = density(flow, shape)
    wide = p.expand((2, 3))
    assert wide.batch_shape == (2, 3)
    x = wide.sample().detach()
    assert x.shape == (2, 3, *shape)
    exact = exact_log_prob(flow.inv, x, rank)
    torch.testing.assert_close(wide.log_prob(x), exact)
    assert wide.to_event(1).event_shape == (3, *shape)
    torch.testing.assert_close(wide.to_event(1).log_prob(x), exact.sum(-1))
    assert wide.to_event(2).mask(False).log_prob(x) == 0
    torch.testing.assert_close(wide.to_event(1).expand((4, 2)).log_prob(x)[3], exact.sum(-1))


# -- copies


@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save", "state_dict", "pyro.module"])
@each_flow
def test_copies_of_a_users_module_after_a_step(name, how):
    module = Density(factory(name)(VECTOR), VECTOR)
    x = correlated(2).sample((512,))
    train(module, x, 2)
    y = module(size=3)  # leaves a pending evaluation
    if how == "deepcopy":
        other = copy.deepcopy(module)
    elif how == "pyro.module":  # which leaves weak references on the parameters
        pyro.module("flow", module.flow)
        other = pickle.loads(pickle.dumps(copy.deepcopy(module)))
    elif how == "pickle":
        other = pickle.loads(pickle.dumps(module))
    elif how == "torch.save":
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        other = torch.load(buffer, weights_only=False)
    else:
        other = Density(factory(name)(VECTOR), VECTOR)
        other.load_state_dict(module.state_dict())
    y = y.detach().clone()
    ours, theirs = (density(m.flow.eval(), VECTOR) for m in (module, other))
    assert torch.equal(theirs.log_prob(y), ours.log_prob(y))
    before = ours.log_prob(y).detach()
    pyro.clear_param_store()
    train(other.train(), x, 2)
    assert not torch.equal(density(other.flow.eval(), VECTOR).log_prob(y), before)
    assert torch.equal(ours.log_prob(y), before)


@pytest.mark.parametrize("name", FLOWS)
def test_a_bare_flow_that_pyro_has_seen_is_pickled(name: str) -> None:
    flow = make(name, (3,))
    pyro.module("flow", flow)
    copied = pickle.loads(pickle.dumps(flow))
    x = torch.randn(2, 3)
    assert torch.equal(copied(x), flow(x))
