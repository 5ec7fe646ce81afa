"""Laws of the likelihoods of counts: SciPy's values, size factors, and data that are no counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_genmodels import data, models, training
from pyro_genmodels.models import (
    VAE,
    ELBOLoss,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from pyro_genmodels.models.likelihoods.counts import CountLikelihood

KINDS = (PoissonLikelihood, NegativeBinomialLikelihood, ZeroInflatedNegativeBinomialLikelihood)
NAMES = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")


def made(kind: type[CountLikelihood], *shape: int) -> CountLikelihood:
    likelihood = kind(shape, size_factors=True).double()
    for parameter in likelihood.parameters():
        torch.nn.init.normal_(parameter)
    return likelihood


@pytest.mark.usefixtures("double")
def test_log_mass_is_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    x = torch.tensor([0.0, 3.0, 700.0])
    factor = torch.tensor([[2.5]])
    raw = torch.tensor([-2.0, 0.5, 6.0])
    mean = raw.exp() * 2.5
    law = PoissonLikelihood((3,), size_factors=True)(raw[None], factor)
    expected = torch.as_tensor(stats.poisson.logpmf(x, mean)).sum()
    torch.testing.assert_close(law.log_prob(x)[0], expected, rtol=1e-6, atol=0)
    mean, exact = law.mean[0], law.base_dist.log_prob(x)[0]  # softly bounded: 1e-7 from exp
    expected = torch.as_tensor(stats.poisson.logpmf(x, mean))
    torch.testing.assert_close(exact, expected, rtol=1e-10, atol=1e-10)
    likelihood = made(NegativeBinomialLikelihood, 3)
    law = likelihood(raw[None], factor)
    theta = law.mean.square() / (law.variance - law.mean)
    probability = theta / (theta + law.mean)
    expected = torch.as_tensor(stats.nbinom.logpmf(x, theta.detach(), probability.detach()))
    torch.testing.assert_close(law.base_dist.log_prob(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3,), (2, 1, 2)], ids=str)
def test_law_given_a_size_factor(kind: type[CountLikelihood], shape: tuple[int, ...]) -> None:
    """It sums to one over counts for each factor, and its mean is in proportion to the factor."""
    likelihood = made(kind, *shape)
    decoded = torch.randn(*likelihood.parameter_shape)
    factors = torch.tensor([[0.25], [1.0], [3.0]])
    law = likelihood(decoded.expand(3, *decoded.shape), factors)
    counts = torch.arange(4000.0).reshape(-1, *[1] * (1 + len(shape)))
    total = law.base_dist.log_prob(counts).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros_like(total), atol=1e-7, rtol=0)
    plain = law.mean[1].expand(3, *shape)
    spread = factors.reshape(-1, *[1] * len(shape))
    torch.testing.assert_close(law.mean, plain * spread)
    alone = likelihood(decoded, factors[2]).log_prob(torch.ones(shape))
    torch.testing.assert_close(law.log_prob(torch.ones(shape))[2], alone)


def test_encoder_sees_logarithms_of_counts_per_size() -> None:
    x = torch.tensor([[0.0, 6.0], [0.0, 60.0]])
    assert torch.equal(PoissonLikelihood((2,)).encoder_input(x), torch.log1p(x))
    sized = PoissonLikelihood((2,), size_factors=True)
    seen = sized.encoder_input(x, torch.tensor([[1.0], [10.0]]))
    assert torch.equal(seen[0], seen[1])
    context = torch.tensor([[10.0, 3.0]])
    torch.testing.assert_close(sized.network_context(context), torch.tensor([[2.302585, 3.0]]))


def vae(name: str = "negative_binomial", **options: object) -> VAE:
    return VAE((3,), latent_dim=2, likelihood=name, **options)  # type: ignore[arg-type]


CALLS: dict[str, Callable[[VAE, Tensor], object]] = {
    "log_weights": lambda model, x: model.log_weights(x),
    "loss": lambda model, x: ELBOLoss(model)(x),
    "reconstruct": lambda model, x: model.reconstruct(x),
    "evaluate": lambda model, x: training.evaluate(model, data.InMemory(x.repeat(10, 1))),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("wrong", [-1.0, 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_count_is_an_error(name: str, wrong: float, call: str) -> None:
    with pytest.raises(ValueError, match=rf"must hold counts, whole numbers from 0; got \[{wrong}"):
        CALLS[call](vae(name), torch.tensor([[0.0, wrong, 2.0]]))


def test_integers_are_counts() -> None:
    model = vae().eval()
    x = torch.tensor([[0, 4, 2], [1, 0, 9]])
    torch.manual_seed(0)
    weights = model.log_weights(x)
    torch.manual_seed(0)
    assert torch.equal(weights, model.log_weights(x.float()))


def test_size_factors_need_a_context() -> None:
    likelihood = NegativeBinomialLikelihood((3,), size_factors=True)
    with pytest.raises(ValueError, match=r"without size_factors unless the model has a context"):
        VAE((3,), likelihood=likelihood)
    with pytest.raises(ValueError, match="without size_factors unless"):
        VAE((3,), likelihood=likelihood, num_classes=3)
    model = VAE((3,), likelihood=likelihood, context_shape=(1,))
    with pytest.raises(ValueError, match="`context` must begin with a positive size factor; got 0"):
        model.log_weights(torch.ones(1, 3), torch.zeros(1, 1))
    images = PoissonLikelihood((1, 4, 4), size_factors=True)
    for refuse in (models.NVAE, models.VQVAE):
        with pytest.raises(ValueError, match="without size_factors unless"):
            refuse((1, 4, 4), likelihood=images)
    with pytest.raises(ValueError, match="`context` must begin with a size factor"):
        likelihood(torch.zeros(3))


def test_images_of_counts() -> None:
    """Without a size factor any model with a likelihood has them, by what its encoder sees."""
    x = torch.poisson(torch.full((2, 1, 4, 4), 300.0))
    for kind in (models.NVAE, models.VQVAE):
        model = kind((1, 4, 4), likelihood="poisson").eval()
        assert bool((model.encoder_input(x) < 7).all())
        assert bool(model.log_weights(x).isfinite().all())
        assert model.sample(2).shape == (2, 1, 4, 4)


def test_size_factors_of_a_source() -> None:
    x = torch.poisson(torch.rand(60, 3) * 9) + 1
    factors = data.size_factors(x)
    assert factors.median() == 1
    source = data.InMemory((x, factors))
    assert source.context_shape == (1,)
    assert training.facts_of(source, conditional=True)["context_shape"] == [1]
    likelihood = NegativeBinomialLikelihood((3,), size_factors=True)
    model = VAE((3,), latent_dim=2, likelihood=likelihood, context_shape=(1,))
    assert training.evaluate(model, source, num_particles=2).nats.mean > 0
    training.evaluate(vae(), source, num_particles=2)  # which takes no context
    with pytest.raises(ValueError, match="`x` must have a count in every example; got none in"):
        data.size_factors(torch.tensor([[1.0], [0.0]]))


def test_compression_refuses_counts() -> None:
    pytest.importorskip("constriction")
    from pyro_genmodels.compression import compress_images

    with pytest.raises(ValueError, match="must"):
        compress_images(vae(), torch.ones(2, 3))


def train(model: VAE, x: Tensor, context: Tensor | None, steps: int) -> None:
    loss = ELBOLoss(model.train())
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.01)
    for _ in range(steps):
        rows = torch.randint(len(x), (256,))
        optimizer.zero_grad()
        loss(x[rows], None if context is None else context[rows]).backward()
        optimizer.step()
    model.eval()


def test_known_optimum() -> None:
    """Independent counts of sizes far apart, at known size factors, of which nothing is latent."""
    from pyro_genmodels.distributions import NegativeBinomial

    torch.manual_seed(0)
    rates, theta = torch.tensor([0.3, 5.0, 60.0]), torch.tensor([0.5, 3.0, 2.0])
    factors = torch.exp(0.5 * torch.randn(6000, 1))
    law = NegativeBinomial(rates * factors, theta).to_event(1)
    x = law.sample()
    likelihood = NegativeBinomialLikelihood((3,), size_factors=True)
    network = models.VAENetwork(hidden=(32,))
    options = {"latent_dim": 2, "network": network, "context_shape": (1,)}
    model = VAE((3,), likelihood=likelihood, **options)  # type: ignore[arg-type]
    train(model, x[:5000], factors[:5000], 600)
    with torch.no_grad():
        bound = model.log_weights(x[5000:], factors[5000:], num_particles=10).mean()
    gap = law.log_prob(x)[5000:].mean() - bound
    assert -0.02 < gap < 0.05


def test_labels_are_inferred_of_counts() -> None:
    conditional = vae(num_classes=3)
    model = models.SemiSupervisedVAE(conditional)
    x = torch.tensor([[0.0, 1000.0, 3.0]])
    seen = model.classifier(torch.log1p(x))
    torch.testing.assert_close(model.classify(x).logits, seen - seen.logsumexp(-1, keepdim=True))
    assert model.column_kinds == ["count"] * 3
    with pytest.raises(ValueError, match="must hold counts"):
        ELBOLoss(model)(x - 0.5)
    assert ELBOLoss(model)(x).isfinite()
