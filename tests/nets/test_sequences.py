"""Networks over sequences and MADE: published receptive fields, caches, orders, ensembles."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.nets import AutoregressiveNet, CharRNNNet, MADENet, NGramNet, WaveNetNet
from pyro_genmodels.nets.sequences import masked_linear, wavenet
from pyro_genmodels.testing import (
    check_autoregressive,
    check_receptive_field,
    randomize_parameters,
)

LENGTH = 11

SMALL: dict[str, Callable[..., AutoregressiveNet]] = {
    "made": lambda shape, **kw: MADENet(shape, 3, **{"hidden": (30, 25), **kw}),
    "made of masks": lambda shape, **kw: MADENet(
        shape, 3, hidden=(30,), order="random", num_masks=3, direct=True, **kw
    ),
    "n-gram": lambda shape, **kw: NGramNet(
        shape, 3, order=3, embedding_features=4, hidden=(8, 6), direct=True, **kw
    ),
    "gru": lambda shape, **kw: CharRNNNet(shape, 3, hidden_features=6, **kw),
    "lstm": lambda shape, **kw: CharRNNNet(shape, 3, hidden_features=6, cell="lstm", **kw),
    "wavenet": lambda shape, **kw: WaveNetNet(
        shape, 3, channels=5, skip_channels=6, layers_per_block=2, **kw
    ),
    "wavenet of mixtures": lambda shape, **kw: WaveNetNet(
        shape, 3, channels=5, skip_channels=6, layers_per_block=2, num_mixtures=2, **kw
    ),
    "wavenet of three taps": lambda shape, **kw: WaveNetNet(
        shape, 3, channels=5, skip_channels=6, num_blocks=1, layers_per_block=2, kernel_size=3, **kw
    ),
}
every = pytest.mark.parametrize("make", SMALL.values(), ids=SMALL.keys())


def ready(net: AutoregressiveNet) -> AutoregressiveNet:
    return randomize_parameters(net.double()).eval()


def last_few(count: int, length: int = LENGTH) -> Tensor:
    """Each element sees the ``count`` elements before it."""
    behind = torch.arange(length)[:, None] - torch.arange(length)
    return (behind >= 1) & (behind <= count)


# --- receptive fields ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", [1, 3])
def test_an_n_gram_sees_exactly_n_symbols(order: int) -> None:
    net = ready(NGramNet((LENGTH,), 3, order=order, embedding_features=4, hidden=(8,)))
    assert net.receptive_field == order
    check_receptive_field(net, (LENGTH,), last_few(order), num_levels=3)


@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ({"num_blocks": 1, "layers_per_block": 3}, 8),
        ({"num_blocks": 2, "layers_per_block": 2}, 7),
        ({"num_blocks": 1, "layers_per_block": 2, "kernel_size": 3}, 7),
        ({"num_blocks": 1, "layers_per_block": 1}, 2),
    ],
)
def test_a_wavenet_sees_exactly_its_receptive_field(options: dict[str, int], seen: int) -> None:
    net = ready(WaveNetNet((LENGTH,), 3, channels=6, skip_channels=6, **options))
    assert net.receptive_field == seen
    check_receptive_field(net, (LENGTH,), last_few(seen), num_levels=3, num_probes=6)


def test_the_papers_block_sees_1024_symbols() -> None:
    net = WaveNetNet((4,), 2, channels=1, skip_channels=1, num_blocks=1, layers_per_block=10)
    assert net.receptive_field == 1024


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrent_network_sees_the_whole_past(cell: str) -> None:
    net = ready(CharRNNNet((7,), 3, hidden_features=8, num_layers=1, cell=cell))
    check_receptive_field(net, (7,), last_few(7, 7), num_levels=3, num_probes=6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "random", "seed": 3},
        {"order": [4, 0, 5, 2, 1, 3], "hidden": (3,), "direct": True},
        {"num_masks": 2, "hidden": (12,)},
        {"one_hot": False, "hidden": (12, 7, 9)},
    ],
)
@pytest.mark.parametrize("event_shape", [(6,), (2, 1, 3)])
def test_made_sees_the_whole_past_of_its_order(
    options: dict[str, object], event_shape: tuple[int, ...]
) -> None:
    net = ready(MADENet(event_shape, 3, **{"hidden": (30, 25), "activation": "tanh", **options}))
    place = net.order.argsort()
    past = place[:, None] > place[None, :]
    check_receptive_field(net, event_shape, past, num_levels=3, num_probes=6)


# --- caches --------------------------------------------------------------------------------------


def stepped(net: AutoregressiveNet, x: Tensor, context: Tensor | None) -> Tensor:
    """The parameters of every element, by incremental evaluation."""
    with torch.no_grad():
        features = net.context_features(context)
        state, order = net.incremental(len(x), features), net.order
        found = []
        for index in order.tolist():
            found.append(state.parameters().clone())
            state.append(x.flatten(1)[:, index])
    return torch.stack(found, 1)[:, order.argsort()].reshape(*x.shape, -1)


@every
@pytest.mark.parametrize("event_shape", [(LENGTH,), (2, 2, 3)])
@pytest.mark.parametrize("options", [{}, {"num_classes": 2}, {"context_shape": (2,)}])
def test_each_step_gives_what_the_whole_gives(
    make: Callable[..., AutoregressiveNet],
    event_shape: tuple[int, ...],
    options: dict[str, object],
) -> None:
    net = ready(make(event_shape, **options))
    x = torch.randint(3, (4, *event_shape)).double()
    context = {0: torch.tensor([0, 1, 1, 0]), 1: torch.randn(4, 2).double()}.get(
        net.context_event_dim  # type: ignore[arg-type]
    )
    torch.testing.assert_close(stepped(net, x, context), net(x, context), rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", list(SMALL.values())[2:], ids=list(SMALL)[2:])
@pytest.mark.parametrize(
    ("event_shape", "context_shape"), [((6,), (2, 6)), ((6,), (2, 3)), ((2, 2, 3), (1, 4, 3))]
)
def test_local_conditioning_step_by_step(
    make: Callable[..., AutoregressiveNet],
    event_shape: tuple[int, ...],
    context_shape: tuple[int, ...],
) -> None:
    net = ready(make(event_shape, context_shape=context_shape))
    x, context = torch.randint(3, (4, *event_shape)).double(), torch.randn(4, *context_shape)
    torch.testing.assert_close(
        stepped(net, x, context.double()), net(x, context), rtol=0, atol=1e-12
    )


def test_local_conditioning_is_local() -> None:
    """A step's features are those of its place, and its neighbours' by the context's kernel."""
    net = ready(NGramNet((8,), 3, order=1, context_shape=(2, 8)))
    context = torch.randn(2, 8, dtype=torch.float64)
    other = context.clone()
    other[:, 5] += 1
    moved = (net(torch.zeros(8), context) != net(torch.zeros(8), other)).any(-1)
    assert moved.nonzero()[:, 0].tolist() == [4, 5, 6]


@every
@pytest.mark.parametrize("options", [{"num_classes": 4}, {"context_shape": (3,)}])
def test_a_context_changes_every_logit(
    make: Callable[..., AutoregressiveNet], options: dict[str, object]
) -> None:
    net = ready(make((5,), **options))
    one, two = torch.tensor([2, 3]) if "num_classes" in options else torch.randn(2, 3)
    x = torch.zeros(5)
    assert ((net(x, one) - net(x, two)).abs().amax(-1) > 0).all()


def test_long_sequences_are_drawn_in_parts() -> None:
    """Noise for all of a long sequence at once would take K numbers a symbol."""
    assert NGramNet((16_000,), 256).row_length == 64
    assert NGramNet((10,), 256).row_length == 10
    assert NGramNet((1, 4, 10), 256).row_length == 10


# --- MADE ----------------------------------------------------------------------------------------


def test_an_ensemble_is_the_mean_of_its_members_probabilities() -> None:
    net = ready(MADENet((4,), 2, hidden=(8, 8), num_masks=3, order="random"))
    x = torch.cartesian_prod(*[torch.arange(2.0)] * 4).double()
    levels, index = x[:, net.order], x[:, net.order].long()[..., None]
    members = [net._logits(levels, None, mask).log_softmax(-1) for mask in range(3)]
    joint = torch.stack([m.gather(-1, index).sum((1, 2)) for m in members])
    found = net(x).log_softmax(-1).gather(-1, x.long()[..., None]).sum((1, 2))
    torch.testing.assert_close(found, joint.exp().mean(0).log(), rtol=0, atol=1e-12)
    assert (joint[0] - joint[1]).abs().max() > 1e-3


def test_training_takes_one_mask_at_a_time() -> None:
    net = ready(MADENet((4,), 2, hidden=(8,), num_masks=3)).train()
    x = torch.ones(1, 4).double()
    seen = {tuple(net(x).detach().flatten().tolist()) for _ in range(40)}
    assert len(seen) == 3


def test_no_hidden_unit_sees_nothing() -> None:
    net = MADENet((6,), 2, hidden=(20, 20, 20), num_masks=5)
    for mask in range(5):
        degrees = net.degrees(mask)
        for before, after in itertools.pairwise(degrees[:-1]):
            assert (after[:, None] >= before).any(1).all()
            assert int(after.max()) <= 4  # more, and no element could see it


def test_random_orders_and_masks_are_kept_by_the_state_dict() -> None:
    one, two = (MADENet((9,), 3, hidden=(20,), order="random", seed=s) for s in (1, 2))
    assert not torch.equal(one.order, two.order)
    two.load_state_dict(one.state_dict())
    x = torch.randint(3, (5, 9))
    assert torch.equal(one(x), two(x))


# --- all -----------------------------------------------------------------------------------------


@every
def test_copies_and_descriptions_make_the_same_network(
    make: Callable[..., AutoregressiveNet],
) -> None:
    net = ready(make((5,), num_classes=2))
    x, label = torch.randint(3, (5,)), torch.tensor(1)
    twins = [
        copy.deepcopy(net),
        pickle.loads(pickle.dumps(net)),
        build(configuration(net)).double().eval(),
    ]
    twins[2].load_state_dict(net.state_dict())
    for twin in twins:
        assert torch.equal(twin(x, label), net(x, label))


@every
def test_dropout_acts_in_training_mode_only(make: Callable[..., AutoregressiveNet]) -> None:
    net, x = ready(make((6,), dropout=0.5)).train(), torch.zeros(6)
    assert any(not torch.equal(net(x), net(x)) for _ in range(3))
    net.eval()
    assert torch.equal(net(x), net(x))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: MADENet((4, 4), 2), "event_shape"),
        (lambda: MADENet((4,), 2, order="backwards"), "order"),
        (lambda: MADENet((4,), 2, order=[0, 1, 2, 2]), "order"),
        (lambda: MADENet((4,), 2, hidden=()), "hidden"),
        (lambda: MADENet((4,), 2, num_masks=0), "num_masks"),
        (lambda: MADENet((1, 2, 2), 2, context_shape=(1, 2, 2)), "context_shape"),
        (lambda: NGramNet((4,), 2, order=0), "order"),
        (lambda: NGramNet((4,), 2, hidden=()), "hidden"),
        (lambda: NGramNet((4,), 2, dropout=1.0), "dropout"),
        (lambda: NGramNet((4,), 1), "num_levels"),
        (lambda: NGramNet((4,), 2, context_shape=(2, 3, 4)), "context_shape"),
        (lambda: CharRNNNet((4,), 2, cell="rnn"), "cell"),
        (lambda: CharRNNNet((4,), 2, num_layers=0), "num_layers"),
        (lambda: CharRNNNet((4,), 2, dropout=1.0), "dropout"),
        (lambda: WaveNetNet((4,), 2, kernel_size=1), "kernel_size"),
        (lambda: WaveNetNet((4,), 2, layers_per_block=0), "layers_per_block"),
        (lambda: WaveNetNet((4,), 2, num_mixtures=0), "num_mixtures"),
        (lambda: WaveNetNet((1, 2, 2), 2, context_shape=(2, 4)), "context_shape"),
        (lambda: WaveNetNet((4,), 2, num_classes=0, context_shape=(3,)), "num_classes"),
        (lambda: WaveNetNet((4,), 2, num_classes=3, context_shape=(0,)), "context_shape"),
    ],
)
def test_bad_arguments_are_named(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ValueError, match=f"`{named}` must"):
        make()


# --- broken on purpose ---------------------------------------------------------------------------


def test_the_laws_see_a_made_without_its_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output degrees as the input's: each element would see itself."""
    net = ready(MADENet((5,), 3, hidden=(20,), direct=True))
    degrees = MADENet.degrees
    wrong = lambda self, mask: [*degrees(self, mask)[:-1], degrees(self, mask)[-1] + 1]  # noqa: E731
    monkeypatch.setattr(MADENet, "degrees", wrong)
    with pytest.raises(AssertionError, match="no sub-pixel sees itself"):
        check_autoregressive(net, (5,), num_levels=3)


def test_the_laws_see_an_ensemble_weighted_by_its_own_element(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net = ready(MADENet((5,), 3, hidden=(20,), num_masks=3))
    with monkeypatch.context() as patch:
        patch.setattr(masked_linear.F, "pad", lambda x, _: torch.cat([x, x[..., -1:]], -1))
        with pytest.raises(AssertionError, match="no sub-pixel sees itself"):
            check_autoregressive(net, (5,), num_levels=3)


def test_sampling_sees_a_queue_that_is_one_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    net = ready(WaveNetNet((LENGTH,), 3, channels=5, num_blocks=1, layers_per_block=2))
    x = torch.randint(3, (2, LENGTH)).double()
    taps = wavenet.Queue.taps

    def late(self: wavenet.Queue, x: Tensor) -> Tensor:
        found = taps(self, x)
        self._position = (self._position + 1) % self._reach
        return found

    monkeypatch.setattr(wavenet.Queue, "taps", late)
    assert not torch.allclose(stepped(net, x, None), net(x), atol=1e-6)
