"""A label together with features, in every part that takes either."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import pytest
import torch
from pyro.infer import SVI, TraceEnum_ELBO
from pyro.optim import Adam  # type: ignore[attr-defined]
from torch import Tensor

from pyro_genmodels import data, distributions, metrics, models, nets, testing, transforms
from pyro_genmodels.distributions import AutoregressiveDistribution
from pyro_genmodels.nets import join_context, split_context
from tests.cases import Case, Cases
from tests.cases.nets import as_network
from tests.cases.pairs import (
    NUM_CLASSES,
    PAIR_DISTRIBUTIONS,
    PAIR_MODELS,
    PAIR_NETS,
    PAIR_TRANSFORMS,
)
from tests.model_calls import calls_of, gives_distribution
from tests.test_contexts import with_context
from tests.test_laws import batch_for, law_on, normal, prepared, prepared_model, run

pytestmark = pytest.mark.usefixtures("double")

NO_PAIR_CASE = {
    "AutoregressiveDistribution": "each of its kinds has one",
    "NFlowsTransform": "what it holds has no configuration; it has a test of its own",
}


def classes_of(cases: Cases) -> set[str]:
    return {type(module).__name__ for make in cases.values() for module in _modules(make().part)}


def _modules(part: Any) -> list[Any]:
    return [*part.modules()] if isinstance(part, torch.nn.Module) else [part, *part.net.modules()]


def test_each_class_that_takes_a_context_is_here() -> None:
    made = classes_of(PAIR_NETS | PAIR_TRANSFORMS | PAIR_DISTRIBUTIONS | PAIR_MODELS)
    taking = {
        name
        for face in (nets, transforms, models)
        for name in face.__all__
        if inspect.isclass(part := getattr(face, name))
        and issubclass(part, torch.nn.Module)
        and {"num_classes", "context_shape"} <= set(inspect.signature(part).parameters)
        and not inspect.isabstract(part)
    }
    laws = {
        name
        for name in distributions.__all__
        if inspect.isclass(law := getattr(distributions, name))
        and issubclass(law, AutoregressiveDistribution)
    }
    assert (taking | laws) - made == set(NO_PAIR_CASE)


def check_pair(call: Callable[[Tensor], Tensor], context: Tensor, rank: int) -> None:
    labels, features = split_context(context, rank)
    run("check_context_pair", call, labels, features, num_classes=NUM_CLASSES)


# Networks


@law_on(PAIR_NETS, "check_context_pair")
def test_network_sees_both(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    net = as_network(case.part)
    x = _inputs(case)
    assert case.context is not None
    check_pair(lambda context: net(x, context), case.context, _rank(case))


def _rank(case: Case) -> int:
    assert case.context is not None
    rank: int = case.part.context_event_dim
    return rank


def _inputs(case: Case) -> Tensor:
    if isinstance(case.part, nets.AutoregressiveNet):
        return torch.randint(case.part.num_levels, (2, *case.event_shape)).double()
    return normal(2, *case.event_shape)


@law_on(PAIR_NETS, "check_network")
def test_network(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    assert case.context is not None
    run(law, as_network(case.part), _inputs(case)[0], case.context[0])


@pytest.mark.parametrize("name", [n for n in PAIR_NETS if "Denoiser" in n or "UNet" in n])
def test_denoiser(name: str) -> None:
    case = prepared(PAIR_NETS[name])
    run("check_denoiser", case.part, normal(*case.event_shape), case.context)


# Transforms and distributions


@law_on(PAIR_TRANSFORMS, "check_context_pair")
def test_transform_sees_both(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    assert case.context is not None
    x = normal(2, *case.event_shape)
    check_pair(lambda context: case.part.condition(context)(x), case.context, _rank(case))


@law_on(PAIR_TRANSFORMS, "check_inverse", "check_log_det")
def test_transform(law: str, make: Callable[[], Case]) -> None:
    case = prepared(make)
    assert case.context is not None
    run(law, case.part.condition(case.context), normal(2, *case.event_shape))


@law_on(PAIR_DISTRIBUTIONS, "check_context_pair")
def test_distribution_sees_both(law: str, make: Callable[[], Case]) -> None:
    part = prepared(make).part
    x = part.sample()

    def call(context: Tensor) -> Tensor:
        nats: Tensor = with_context(part, context).log_prob(x)
        return nats

    check_pair(call, part.context, part.net.context_event_dim)


@law_on(PAIR_DISTRIBUTIONS, "check_distribution")
def test_distribution(law: str, make: Callable[[], Case]) -> None:
    run(law, prepared(make).part)


def test_transform_of_nflows() -> None:
    pytest.importorskip("nflows")
    from nflows.transforms import MaskedAffineAutoregressiveTransform

    inner = MaskedAffineAutoregressiveTransform(3, 8, context_features=NUM_CLASSES + 2)
    options: dict[str, Any] = {"num_classes": NUM_CLASSES, "context_shape": (2,)}
    layer = transforms.NFlowsTransform(inner, **options)
    flow = testing.randomize_parameters(layer.double()).eval()
    context = join_context(torch.tensor([0, 2]), normal(2, 2), 1)
    waiting = transforms.ConditionalFlow(flow)
    x = normal(2, 3)
    check_pair(lambda c: waiting.condition(c)(x), context, 1)
    run("check_inverse", waiting.condition(context), x)
    labels = transforms.NFlowsTransform(
        MaskedAffineAutoregressiveTransform(3, 8, context_features=NUM_CLASSES),
        num_classes=NUM_CLASSES,
    ).double()
    assert transforms.ConditionalFlow(labels).condition(torch.tensor([0, 2]))(x).shape == (2, 3)
    with pytest.raises(ValueError, match="`context_shape` must be that of a vector beside"):
        transforms.NFlowsTransform(inner, num_classes=3, context_shape=(1, 2, 2))


# Models


def batch_of_pairs(case: Case, number: int) -> tuple[Tensor, Tensor, list[Tensor]]:
    x, context = batch_for(case, number)
    assert context is not None
    return x, context, list(split_context(context, _rank(case)))


def _knows_unknown(make: Callable[[], Case]) -> bool:
    return bool(make().part.takes_unknown_labels)


# Of mixtures whose labels may be unknown, -1 is no mistake.
STRICT = {name: make for name, make in PAIR_MODELS.items() if not _knows_unknown(make)}


@law_on(STRICT, "check_context_pair")
def test_model_sees_both(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    x, context, _ = batch_of_pairs(case, 2)

    def call(joint: Tensor) -> Tensor:
        pyro.set_rng_seed(0)
        nats: Tensor = case.part.log_weights(x, joint, num_particles=1)[0]
        return nats

    check_pair(call, context, _rank(case))


@pytest.mark.parametrize("name", PAIR_MODELS)
def test_model_takes_a_pair(name: str) -> None:
    """Each method, objective and metric takes the pair as what it makes one tensor of."""
    case = prepared_model(PAIR_MODELS[name])
    model, (x, context, pair) = case.part, batch_of_pairs(case, 2)
    loss = models.ELBOLoss(model)
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        **calls_of(model, x, context),
        "ELBOLoss": (loss, {"x": x, "context": context}),
        "ELBOLoss.bound": (loss.bound, {"x": x, "context": context}),
        "elbo": (partial(metrics.elbo, model), {"x": x, "context": context}),
    }
    taken = set()
    for method, (call, given) in calls.items():
        if "context" in given:
            taken.add(method)
            _compare(method, call, given, {**given, "context": tuple(pair)})
    assert {"model", "guide", "sample", "log_weights", "ELBOLoss", "elbo"} <= taken
    for wrong, rule in {
        "a label too high": ((pair[0] + NUM_CLASSES, pair[1]), "`context` must be labels from 0"),
        "features too short": ((pair[0], pair[1][:, :-1]), "`context` must have trailing shape"),
        "three": ((*pair, pair[0]), "`context` must be a pair"),
    }.values():
        with pytest.raises(ValueError, match=rule):
            model.model(x, wrong)


def _compare(
    method: str, call: Callable[..., Any], first: dict[str, Any], second: dict[str, Any]
) -> None:
    """Compare what a call returns for two arguments under one seed."""
    results = []
    for given in (first, second):
        pyro.set_rng_seed(0)
        results.append(_tensors(call(**given)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, msg=lambda text: f"{method}: {text}")


def _tensors(result: Any) -> list[Tensor]:
    """All numbers of what a method returns, of a distribution a draw and its log-probability."""
    if result is None:
        return []
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, list | tuple):
        return [each for part in result for each in _tensors(part)]
    if hasattr(result, "log_prob"):
        draw = result.sample()
        return [draw, result.log_prob(draw)]
    return [torch.as_tensor(result)]


@pytest.mark.parametrize("name", PAIR_MODELS)
def test_a_pair_of_any_batch_shape(name: str) -> None:
    case = prepared_model(PAIR_MODELS[name])
    x, _, pair = batch_of_pairs(case, 6)
    given = {"x": x, "context": pair}
    for call in (case.part.log_weights, partial(metrics.elbo, case.part)):
        run("check_any_batch_shape", call, given)
    # One label for all, and features for all but a label each.
    labels, features = pair
    for shared in ((labels[0], features), (labels, features[:1]), (labels[:1], features[0])):
        rank = features.dim() - 1
        event = features.shape[1:]
        full = join_context(shared[0].expand(6), shared[1].expand(6, *event), rank)
        pyro.set_rng_seed(0)
        expected = case.part.log_weights(x, full)
        pyro.set_rng_seed(0)
        torch.testing.assert_close(case.part.log_weights(x, shared), expected)


@law_on(PAIR_MODELS, "check_copies")
def test_model_is_saved_and_loaded(law: str, make: Callable[[], Case]) -> None:
    case = prepared_model(make)
    x, context, _ = batch_of_pairs(case, 2)
    run(law, case.part, x, context)


EXACT = {name: make for name, make in PAIR_MODELS.items() if gives_distribution(make().part)}


@pytest.mark.parametrize("name", EXACT)
def test_class_log_probs(name: str) -> None:
    case = prepared_model(EXACT[name])
    model, (x, _, (_, features)) = case.part, batch_of_pairs(case, 4)
    found = model.class_log_probs(x, features)
    assert found.shape == (4, NUM_CLASSES)
    for label in range(NUM_CLASSES):
        law = model.distribution((torch.full((4,), label), features))
        torch.testing.assert_close(found[:, label], law.log_prob(x))
    torch.testing.assert_close(model.class_log_probs(x, features, chunk_size=2), found)
    for wrong in (None, features[:, :-1]):
        with pytest.raises(ValueError, match="`context` must"):
            model.class_log_probs(x, wrong)


def test_size_factors_beside_a_label() -> None:
    """The likelihood scales by the size factor, whatever the label; the networks see both."""
    likelihood = models.PoissonLikelihood((3,), size_factors=True)
    options: dict[str, Any] = {"latent_dim": 2, "num_classes": 3, "context_shape": (2,)}
    vae = models.VAE((3,), likelihood=likelihood, **options).double()
    z, labels = normal(4, 2), torch.tensor([0, 1, 2, 2])
    features = normal(4, 2).exp()
    mean = vae.decode(z, (labels, features)).mean
    seen = torch.cat([features[:, :1].log(), features[:, 1:]], -1)
    decoded = vae.decoder(z, join_context(labels, seen, 1))
    torch.testing.assert_close(mean, likelihood(decoded, features).mean)
    doubled = vae.decode(z, (labels, features * torch.tensor([2.0, 1.0]))).mean
    assert not torch.allclose(doubled, mean)
    with pytest.raises(ValueError, match="begin with a positive size factor"):
        vae.decode(z, (labels, -features))
    # A label of zero is no size factor.
    assert vae.log_weights(torch.ones(4, 3).double(), (labels * 0, features)).isfinite().all()


# Semi-supervised models: the label is known or not, the features always


def semi_supervised() -> Any:
    vae = models.VAE((3,), num_levels=3, latent_dim=2, num_classes=3, context_shape=(2,))
    model = models.SemiSupervisedVAE(vae, hidden=(6,))
    return testing.randomize_parameters(model.double(), 0.1).eval()


def test_semi_supervised_model_of_pairs() -> None:
    model = semi_supervised()
    x, features = torch.randint(3, (5, 3)).double(), normal(5, 2)
    labels = torch.tensor([0, 1, 2, 0, 1])
    loss = models.ELBOLoss(model)
    assert model.guide(x, features) is None
    assert loss(x, features).isfinite()
    pair = (labels, features)
    torch.testing.assert_close(loss.bound(x, pair).shape, torch.Size([5]))
    assert model.sample(2, features).shape == (2, 5, 3)
    assert model.sample(2, pair).shape == (2, 5, 3)
    assert model.classify(x, features).probs.shape == (5, 3)
    torch.testing.assert_close(model.classify(x, pair).probs, model.classify(x).probs)
    svi = SVI(model.model, model.guide, Adam({"lr": 1e-3}), TraceEnum_ELBO(max_plate_nesting=1))
    for context in (features, pair):
        assert math.isfinite(svi.step(x, context))
    assert metrics.elbo(model, x, features).shape == (5,)
    for wrong, rule in ((None, "be given to a conditional"), (features[:, :1], "be a pair")):
        with pytest.raises(ValueError, match=rule):
            model.model(x, wrong)
    run("check_context_validation", lambda c: model.log_weights(x, c), features)


def test_semi_supervised_sums_over_labels() -> None:
    """The bound without labels is the classifier's mean of those with them, plus its entropy."""
    model = semi_supervised()
    x, features = torch.randint(3, (2, 3)).double(), normal(2, 2)
    elbo = TraceEnum_ELBO(max_plate_nesting=1, num_particles=4000, vectorize_particles=True)
    found = -elbo.loss(model.model, model.guide, x, features)
    q = model.classify(x).probs
    known = torch.stack(
        [
            model.log_weights(x, (torch.full((2,), label), features), num_particles=4000).mean(0)
            for label in range(3)
        ],
        -1,
    )
    expected = (q * (known - q.log())).sum()
    assert found == pytest.approx(float(expected.detach()), rel=0.03)


# Data with labels and features


def test_data_with_labels_and_features() -> None:
    from pyro_genmodels.training import facts_of
    from pyro_genmodels.training.batches import Batches, check_dataset

    x, labels, features = torch.rand(40, 3), torch.arange(40) % 3, torch.rand(40, 2)
    source = data.InMemory((x, labels, features), num_classes=3)
    assert (source.num_classes, source.context_shape) == (3, (2,))
    facts = facts_of(source, conditional=True)
    assert (facts["num_classes"], facts["context_shape"]) == (3, [2])
    options: dict[str, Any] = {"latent_dim": 2, "num_classes": 3, "context_shape": (2,)}
    vae = models.VAE((3,), **options)
    whole: Any = source.train
    check_dataset(whole, vae)
    seen, context = next(iter(Batches(whole, vae, 4)))
    assert context is not None
    _, found, others = (part[:4] for part in whole.tensors)
    assert torch.equal(context, join_context(found, others, 1))
    assert models.ELBOLoss(vae)(seen, context).isfinite()
    # A model of one of the two takes that one.
    for kind in ({"num_classes": 3}, {"context_shape": (2,)}):
        model = models.VAE((3,), latent_dim=2, **kind)
        check_dataset(whole, model)
        given = model.context_of(whole.tensors)
        assert given is whole.tensors[1 if "num_classes" in kind else 2]
    with pytest.raises(ValueError, match=r"have items \(x, label, features\)"):
        check_dataset(torch.utils.data.TensorDataset(x), vae)
    wrong = torch.utils.data.TensorDataset(x, labels + 1, features)
    with pytest.raises(ValueError, match="`context` must be labels from 0 to 2"):
        check_dataset(wrong, vae)


@pytest.mark.parametrize(
    ("given", "options", "rule"),
    [
        ((torch.rand(9, 2), torch.arange(9) % 2, torch.rand(9, 1)), {}, "`num_classes` must be"),
        (
            (torch.rand(9, 2), torch.arange(9) % 2, torch.rand(8, 1)),
            {"num_classes": 2},
            "for each of its 9 examples",
        ),
        (
            (torch.rand(9, 2), torch.arange(9) % 2, torch.arange(9)),
            {"num_classes": 2},
            "`train` must have floating-point features",
        ),
    ],
)
def test_data_that_are_no_labels_and_features(given: Any, options: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        data.InMemory(given, **options)


def test_table_with_labels_and_features() -> None:
    pandas = pytest.importorskip("pandas")
    kinds = ["a", "b", "c"] * 10
    frame = pandas.DataFrame({"x": torch.rand(30).numpy(), "kind": kinds})
    features = torch.rand(30, 2).numpy()
    for given, options in (
        ((frame, features), {"label": "kind"}),
        ((frame[["x"]], frame["kind"], features), {}),
    ):
        source = data.InMemory(given, **options)
        assert (source.classes, source.context_shape) == (["a", "b", "c"], (2,))
        assert [tuple(part.shape) for part in source.train[0]] == [(1,), (), (2,)]
