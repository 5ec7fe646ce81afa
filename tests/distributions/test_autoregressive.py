"""The base of autoregressive distributions: sampling, its options, and its place in Pyro."""

from __future__ import annotations

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from jaxtyping import TypeCheckError
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceEnum_ELBO, config_enumerate
from torch import Tensor, nn

from pyro_genmodels.distributions import AutoregressiveDistribution, PixelCNN
from pyro_genmodels.distributions.autoregressive import OutputLaw, Softmax, rounding
from pyro_genmodels.distributions.autoregressive.rounding import Settling
from pyro_genmodels.models import AutoregressiveModel
from pyro_genmodels.nets import PixelCNNNet, PixelCNNPlusPlusNet
from pyro_genmodels.nets.autoregressive.base import AutoregressiveNet
from pyro_genmodels.nets.pixelcnn.pixelcnn import BlockEvaluation
from pyro_genmodels.testing import check_sampling_methods_agree, randomize_parameters

METHODS = ["cached", "parallel", "naive"]


def network(
    event_shape: tuple[int, ...] = (1, 4, 5), num_levels: int = 3, **options: object
) -> PixelCNNNet:
    options = {"hidden_channels": 8, "num_blocks": 1, **options}
    return randomize_parameters(PixelCNNNet(event_shape, num_levels, **options), 1.0)


def seeded_sample(law: PixelCNN, shape: tuple[int, ...] = (3,), **options: object) -> Tensor:
    pyro.set_rng_seed(1)
    return law.sample(shape, **options)


# --- sampling ------------------------------------------------------------------------------------


class Chain(AutoregressiveNet):
    """A Markov chain over a vector, and the least a network must bring to be sampled."""

    def __init__(self, length: int, num_levels: int) -> None:
        super().__init__((length,), num_levels)
        self.logits = nn.Parameter(torch.randn(num_levels + 1, num_levels))

    def evaluate(self, x: Tensor, features: Tensor | None) -> Tensor:
        previous = torch.cat([torch.full_like(x[:, :1], self.num_levels), x[:, :-1]], 1)
        return self.logits[previous.long()]


def test_any_network_has_a_distribution() -> None:
    """Its own if one is named after it or a base of it, else the general one."""
    assert type(AutoregressiveDistribution.of(Chain(3, 4))) is AutoregressiveDistribution

    class LongerChain(Chain):
        pass

    class Markov(AutoregressiveDistribution):
        network = Chain

    class Another(AutoregressiveDistribution):
        network = Chain

    class Widened(PixelCNNNet):
        pass

    chain, longer = Chain(3, 4), LongerChain(3, 4)
    assert type(AutoregressiveDistribution.of(chain)) is Markov
    assert type(AutoregressiveDistribution.of(longer)) is Markov
    assert type(AutoregressiveModel(longer).distribution()) is Markov
    assert AutoregressiveModel(longer).log_weights(torch.zeros(5, 3)).shape == (1, 5)
    assert Another(chain).net is chain
    assert type(AutoregressiveDistribution.of(Widened((1, 2, 2), 3))) is PixelCNN
    with pytest.raises(ValueError, match="`net` must be of type Chain; got PixelCNNNet"):
        Markov(network())


def test_an_own_law_of_an_element() -> None:
    """A caller's distribution may score its network's parameters as it likes."""

    class FlatChain(Chain):
        pass

    class Flat(AutoregressiveDistribution):
        network = FlatChain

        @property
        def law(self) -> OutputLaw:
            return Tempered(self.net.num_levels)

    class Tempered(Softmax):
        def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
            return super().log_prob(parameters / 2, level)

    model, x = AutoregressiveModel(FlatChain(3, 4)), torch.ones(2, 3)
    expected = Flat(model.net).log_prob(x)
    assert torch.equal(model.log_weights(x)[0], expected)
    assert not torch.allclose(PixelCNN(model.net).log_prob(x), expected)


def test_a_network_of_another_shape_and_without_a_cache_is_sampled_all_the_same() -> None:
    law = PixelCNN(Chain(9, 4).double())
    check_sampling_methods_agree(law, sample_shape=(6,))
    assert law.log_prob(law.sample((2,))).shape == (2,)


@pytest.mark.parametrize("method", METHODS)
def test_near_ties_are_settled_in_float64(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law = PixelCNN(network((1, 6, 6), num_classes=2), torch.tensor([0, 1]))
    expected = seeded_sample(law, method=method)
    # Were every draw called unsure, all images would be those of the float64 network.
    monkeypatch.setattr(rounding, "ROUNDING", 1e9)
    assert torch.equal(seeded_sample(law, method=method), expected)


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_start_is_corrected(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law = PixelCNN(network((1, 5, 5)))
    expected = seeded_sample(law, method=method)
    monkeypatch.setattr(rounding, "ROUNDING", 1e9)
    settle = Settling.__call__
    monkeypatch.setattr(Settling, "__call__", lambda self, x: settle(self, x.fill_(1)))
    assert torch.equal(seeded_sample(law, method=method), expected)


@pytest.mark.parametrize("known", [0, 11])
def test_images_that_rounding_led_astray_are_drawn_anew_from_there(
    known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    law = PixelCNN(network((1, 8, 8), 17))
    given = {"given": torch.full((1, 8, 8), 3), "num_given": known}
    expected = seeded_sample(law, **given)
    rounds, settle = [], Settling.__call__

    def count(*_: object) -> None:
        rounds.append(None)

    def wrong(self: Settling, x: Tensor) -> None:
        law.net.first.register_forward_hook(count)
        settle(self, x.copy_(torch.where(torch.arange(64) < known, x, 16 - x)))

    monkeypatch.setattr(rounding, "ROUNDING", 1e9)
    monkeypatch.setattr(Settling, "__call__", wrong)
    monkeypatch.setattr(rounding, "PATIENCE", 2)
    assert torch.equal(seeded_sample(law, **given), expected)
    assert len(rounds) <= 3


def test_exact_ties_go_the_same_way_everywhere() -> None:
    net = network((1, 4, 4))
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    laws = [seeded_sample(PixelCNN(net), method=m, temperature=0) for m in METHODS]
    assert all((x == 0).all() for x in laws)


def test_parallel_sampling_takes_fewer_rounds_than_elements() -> None:
    calls = []
    net = network((1, 8, 8), 2)
    net.first.register_forward_hook(lambda *_: calls.append(None))
    PixelCNN(net).sample((4,), method="parallel")
    assert len(calls) <= 40


@pytest.mark.parametrize("window", [1, 3, 7, 100])
def test_windows_give_the_same_values(window: int) -> None:
    law = PixelCNN(network((2, 4, 5), num_classes=2), torch.tensor([0, 1]))
    given = {"given": torch.ones(2, 4, 5), "num_given": 9}
    for options in ({}, given):
        expected = seeded_sample(law, **options)
        found = seeded_sample(law, method="parallel", window=window, **options)
        assert torch.equal(found, expected)


def test_a_window_draws_the_elements_next_in_turn_only() -> None:
    seen: list[Tensor] = []
    net = network((1, 6, 6), 5)
    net.first.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten(1)))
    PixelCNN(net).sample(method="parallel", window=4)
    start, fifth = seen[0], seen[1]
    assert torch.equal(fifth[:, 4:], start[:, 4:])
    assert not torch.equal(seen[-1], start)


@pytest.mark.parametrize("options", [{"window": 3}, {"window": 0, "method": "parallel"}])
def test_a_window_that_means_nothing_is_an_error(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="`window` must be positive, and only with"):
        PixelCNN(network()).sample(**options)


def test_errors_seen_in_some_images_spare_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    law, settled, settle = PixelCNN(network((1, 16, 16))), [], Settling._settle

    def count(self: Settling, x: Tensor, images: Tensor) -> float | None:
        settled.append(len(images))
        return settle(self, x, images)

    expected = seeded_sample(law, (12,))
    monkeypatch.setattr(rounding, "ROUNDING", 1e5)
    monkeypatch.setattr(Settling, "_settle", count)
    assert torch.equal(seeded_sample(law, (12,)), expected)
    assert settled[0] == 4  # of 256 elements each: a thousand
    assert sum(settled) < 12
    settled.clear()
    monkeypatch.setattr(rounding, "SAFETY", 1e9)
    seeded_sample(law, (12,))
    assert settled == [4, 8]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_sampling_is_as_in_eval_mode_and_leaves_the_mode(method: str, training: bool) -> None:
    net = network(dropout=0.5).eval()
    expected = seeded_sample(PixelCNN(net), method=method)
    net.train(training)
    net.blocks[0].eval()
    modes = [m.training for m in net.modules()]
    assert torch.equal(seeded_sample(PixelCNN(net), method=method), expected)
    assert [m.training for m in net.modules()] == modes


def test_interrupted_sampling_leaves_the_network_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(dropout=0.5).train()
    law = PixelCNN(net)
    expected = seeded_sample(law)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(law.law), "draw", interrupt)
        with pytest.raises(KeyboardInterrupt):
            law.sample(progress=True)
    assert net.training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert torch.equal(seeded_sample(law), expected)


@pytest.mark.parametrize("call", [1, 3])
@pytest.mark.parametrize("method", METHODS)
def test_an_interrupt_within_the_network_puts_all_back(
    method: str, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, seen = network(dropout=0.5).train(), []
    net.blocks[0].eval()
    modes = [module.training for module in net.modules()]
    tf32 = torch.backends.cudnn.allow_tf32

    def interrupt(*_: object) -> None:
        seen.append((net.training, torch.backends.cudnn.allow_tf32))
        if len(seen) == call:
            raise KeyboardInterrupt

    # The incremental evaluation calls no module.
    monkeypatch.setattr(BlockEvaluation, "step", interrupt)
    net.first.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        PixelCNN(net).sample((2,), method=method)
    assert seen == [(False, False)] * call
    assert [module.training for module in net.modules()] == modes
    assert torch.backends.cudnn.allow_tf32 == tf32
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_samples_may_enter_a_graph() -> None:
    x = PixelCNN(network()).sample((2,))
    weight = torch.ones(1, requires_grad=True)
    (x * weight).sum().backward()
    assert weight.grad == x.sum()
    x += 1  # in-place edits too


@pytest.mark.parametrize("method", METHODS)
def test_completes_a_prefix(method: str) -> None:
    law = PixelCNN(network((2, 4, 3), num_classes=2), torch.tensor([0, 1]))
    whole = seeded_sample(law, (5,), method=method)
    order = law.net.order
    for known in (0, 1, 7, 23, 24):
        # Spoilt behind the prefix: what is not given must not matter.
        given = whole.clone().flatten(-3)
        given[..., order[known:]] = -7
        given = given.view_as(whole)
        options = {"method": method, "given": given, "num_given": known}
        assert torch.equal(seeded_sample(law, (5,), **options), whole)
    half = seeded_sample(law, (5,), given=torch.ones(2, 4, 3), num_given=12, method=method)
    assert (half[..., :2, :] == 1).all()
    assert torch.equal(half, seeded_sample(law, (5,), given=torch.ones(2, 4, 3), num_given=12))


def test_temperature_divides_the_logits() -> None:
    net = network((1, 1, 2), 3).double()
    law = PixelCNN(net)
    first = law.sample((4000,), temperature=0.5)[:, 0, 0, 0].long().bincount(minlength=3) / 4000
    expected = (net(torch.zeros(1, 1, 2))[0, 0, 0] / 0.5).softmax(-1)
    torch.testing.assert_close(first.double(), expected.detach(), rtol=0, atol=0.04)
    greedy = law.sample((3,), temperature=0)
    assert (greedy == greedy[0]).all()


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_sample_shapes_and_dtype(shape: tuple[int, ...]) -> None:
    law = PixelCNN(network(num_classes=3).double(), torch.tensor([[0], [1]]))
    x = law.sample(shape)
    assert x.shape == (*shape, 2, 1, 1, 4, 5)
    assert x.dtype == torch.float64
    assert law.log_prob(x).shape == (*shape, 2, 1)


def test_progress_is_shown_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    law = PixelCNN(network())
    law.sample()
    assert capsys.readouterr().err == ""
    law.sample(progress=True)
    assert "20/20" in capsys.readouterr().err


def test_cached_memory_grows_with_rows() -> None:
    def largest(height: int) -> int:
        state = network((1, height, 8)).incremental(2, None)
        tensors: dict[int, int] = {}

        def visit(x: object) -> None:
            if isinstance(x, Tensor):
                storage = x.untyped_storage()
                tensors[storage.data_ptr()] = storage.nbytes()
            elif isinstance(x, list | tuple):
                for y in x:
                    visit(y)
            elif hasattr(x, "__dict__"):
                visit(list(vars(x).values()))

        visit(state)
        return sum(tensors.values())

    with torch.no_grad():
        assert largest(64) == largest(8)


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "slow"}, "method"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"num_given": 3}, "num_given"),
        ({"given": torch.zeros(1, 4, 5), "num_given": 21}, "num_given"),
        ({"given": torch.zeros(1, 4, 4), "num_given": 2}, "given"),
        ({"given": torch.full((1, 4, 5), 0.5), "num_given": 2}, "given"),
        ({"given": torch.zeros(7, 1, 4, 5), "num_given": 2}, "given"),
    ],
)
def test_bad_sampling_arguments_are_named(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        PixelCNN(network()).sample((2,), **options)


def test_a_network_for_another_law_is_an_error() -> None:
    law = PixelCNN(PixelCNNPlusPlusNet((1, 2, 2), 5, hidden_channels=2, num_scales=1))
    for method in METHODS:
        with pytest.raises(ValueError, match="`net` must give 5 logits an element"):
            law.sample(method=method)
    with pytest.raises(ValueError, match="`net` must give 5 logits an element"):
        law.log_prob(torch.zeros(1, 2, 2))


def test_a_network_that_gives_nan_is_an_error_not_a_sample() -> None:
    net = network()
    with torch.no_grad():
        net.first.bias.fill_(torch.nan)
    for method in METHODS:
        with pytest.raises(ValueError, match="finite"):
            PixelCNN(net).sample(method=method)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1, 4, 4),
        torch.zeros(4, 5),
        torch.full((1, 4, 5), 3),
        torch.full((1, 4, 5), -1),
        torch.full((1, 4, 5), 0.5),
        torch.full((1, 4, 5), torch.nan),
        torch.zeros(3, 1, 4, 5),
    ],
)
def test_values_that_are_no_levels_are_errors(value: Tensor) -> None:
    law = PixelCNN(network(num_classes=2), torch.tensor([0, 1]), validate_args=True)
    with pytest.raises(ValueError, match="`value` must"):
        law.log_prob(value)


def test_bad_constructions_are_errors() -> None:
    # The shape checks of the test session may object first.
    with pytest.raises((ValueError, TypeCheckError)):
        PixelCNN(nn.Linear(1, 1))
    with pytest.raises(ValueError, match="`context` must"):
        PixelCNN(network(), torch.zeros(2))
    with pytest.raises(ValueError, match="`batch_shape` must"):
        PixelCNN(network(num_classes=2), torch.tensor([0, 1])).expand((3,))


# --- in Pyro -------------------------------------------------------------------------------------


def test_context_batch_broadcasts_with_values() -> None:
    net = network(num_classes=3).double().eval()
    labels = torch.arange(3)[:, None]
    x = PixelCNN(net, torch.tensor(0)).sample((4,))
    table = PixelCNN(net, labels).log_prob(x)
    assert table.shape == (3, 4)
    for label in range(3):
        alone = torch.stack([PixelCNN(net, torch.tensor(label)).log_prob(v) for v in x])
        torch.testing.assert_close(table[label], alone, rtol=0, atol=1e-12)


def test_label_is_enumerated_out_over_the_batched_context() -> None:
    net = network(num_classes=3).double().eval()
    x = PixelCNN(net, torch.tensor(1)).sample((5,))
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)

    @config_enumerate
    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(weights))
            pyro.sample("x", PixelCNN(net, label), obs=x)

    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda x: None, x)
    joint = PixelCNN(net, torch.arange(3)[:, None]).log_prob(x) + weights.log()[:, None]
    assert loss == pytest.approx(-joint.logsumexp(0).sum().item(), rel=1e-10)


@pytest.mark.parametrize("parallel", [True, False])
def test_predictive_draws_and_completes(parallel: bool) -> None:
    net = network(num_classes=3)

    def model() -> None:
        with pyro.plate("data", 4):
            label = pyro.sample("label", dist.Categorical(torch.ones(3)))
            pyro.sample("x", PixelCNN(net, label))

    draws = Predictive(model, num_samples=6, parallel=parallel)()
    assert draws["x"].shape == (6, 4, 1, 4, 5)
    fixed = poutine.condition(model, {"x": draws["x"][0]})
    trace = poutine.trace(fixed).get_trace()
    assert torch.equal(trace.nodes["x"]["value"], draws["x"][0])


def test_vectorised_particles_and_masks() -> None:
    net = network(num_classes=3).double().eval()
    x, label = torch.zeros(4, 1, 4, 5), torch.arange(4) % 3

    def model() -> None:
        with pyro.plate("data", 4), poutine.mask(mask=torch.tensor([True, False, True, True])):
            pyro.sample("x", PixelCNN(net, label), obs=x)

    elbo = Trace_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    expected = PixelCNN(net, label).log_prob(x)[[0, 2, 3]].sum()
    assert elbo.loss(model, lambda: None) == pytest.approx(-expected.item(), rel=1e-10)


def test_serves_as_a_prior_over_discrete_latents() -> None:
    net = network().double().eval()

    def model(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            codes = pyro.sample("codes", PixelCNN(net))
            pyro.sample("x", dist.Normal(codes, 1.0).to_event(3), obs=x)

    codes = PixelCNN(net).sample((2,))

    def guide(x: Tensor) -> None:
        with pyro.plate("data", len(x)):
            pyro.sample("codes", dist.Delta(codes, event_dim=3))

    loss = Trace_ELBO().loss(model, guide, codes)
    nats = PixelCNN(net).log_prob(codes).sum() + dist.Normal(0.0, 1.0).log_prob(0 * codes).sum()
    assert loss == pytest.approx(-nats.item(), rel=1e-10)


def test_learns_under_svi() -> None:
    net = network((1, 3, 3), 2)
    x = (torch.rand(64, 1, 1, 1) < 0.5).float().expand(-1, 1, 3, 3)

    def model(x: Tensor) -> None:
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            pyro.sample("x", PixelCNN(net), obs=x)

    svi = SVI(model, lambda x: None, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    losses = [svi.step(x) / len(x) for _ in range(100)]
    assert losses[-1] < math.log(2) + 0.1 < losses[0]  # one fair bit an image, and no more
