"""Laws of the quantisers: published updates, straight-through gradients, living codes, ranks."""

from __future__ import annotations

import copy
import itertools
import math
import os
import pickle
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import Tensor
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from pyro_genmodels import nets, testing
from pyro_genmodels._configuration import build, configuration
from pyro_genmodels.models import VQVAE, ELBOLoss
from pyro_genmodels.nets.vector_quantization.codebook import kmeans, nearest
from tests.grouped import grouped

QUANTIZERS = {
    "ema": lambda: nets.VectorQuantizer(4, 7),
    "gradient": lambda: nets.VectorQuantizer(4, 7, learning="gradient"),
    "cosine": lambda: nets.VectorQuantizer(4, 7, distance="cosine"),
    "cosine-gradient": lambda: nets.VectorQuantizer(4, 7, distance="cosine", learning="gradient"),
    "product": lambda: nets.ProductQuantizer(
        [nets.VectorQuantizer(1, 5), nets.VectorQuantizer(3, 5, learning="gradient")]
    ),
    "residual": lambda: nets.ResidualQuantizer([nets.VectorQuantizer(4, 5) for _ in range(3)]),
    "multi-head": lambda: nets.MultiHeadQuantizer(nets.VectorQuantizer(2, 5), 2),
    "nested": lambda: nets.ProductQuantizer(
        [
            nets.VectorQuantizer(2, 5),
            nets.ResidualQuantizer([nets.VectorQuantizer(2, 5), nets.VectorQuantizer(2, 5)]),
        ]
    ),
}
every_quantizer = pytest.mark.parametrize("make", QUANTIZERS.values(), ids=QUANTIZERS)


def started(make, steps: int = 3) -> nets.Quantizer:
    """A quantiser in float64 after its initialisation and some steps."""
    quantizer = make().double()
    for _ in range(steps):
        quantizer(torch.randn(40, 4, dtype=torch.float64))
    return quantizer


# The search


@pytest.mark.parametrize(("n", "num_codes"), [(0, 3), (1, 1), (5000, 300), (700, 2000)])
def test_the_nearest_code_is_found(n, num_codes) -> None:
    vectors, codebook = torch.randn(n, 6).double(), torch.randn(num_codes, 6).double()
    expected = torch.cdist(vectors, codebook).argmin(1)
    assert torch.equal(nearest(vectors, codebook), expected)


def test_the_search_is_exact_far_from_the_origin() -> None:
    codebook = torch.randn(50, 8)
    vectors = codebook[torch.arange(500) % 50] + 0.01 * torch.randn(500, 8)
    assert torch.equal(nearest(vectors + 1000, codebook + 1000), torch.arange(500) % 50)


def test_memory_does_not_grow_with_positions_times_codes() -> None:
    sizes = []

    class Largest(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            sizes.append(result.numel() if isinstance(result, Tensor) else 0)
            return result

    with Largest():
        nets.VectorQuantizer(2, 1000)(torch.randn(20_000, 2))
    assert max(sizes) <= 2**23 < 20_000 * 1000


def test_codes_are_found_in_float32_under_autocast() -> None:
    quantizer = nets.VectorQuantizer(4, 64).eval()
    z = torch.randn(100, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized = quantizer(z)
    assert torch.equal(quantized.codes, quantizer(z).codes)
    assert quantized.values.dtype == torch.float32


# Every quantiser


@every_quantizer
def test_it_is_a_network(make) -> None:
    """Any leading shape, no vector sees another, float32 stays."""
    quantizer = started(make).eval()

    class Values(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quantizer = quantizer

        def forward(self, z: Tensor) -> Tensor:
            return self.quantizer(z).values

    testing.check_network(Values(), torch.randn(4, dtype=torch.float64))


@every_quantizer
@pytest.mark.parametrize("batch", [(), (0,), (3,), (2, 1, 3)])
def test_shapes(make, batch) -> None:
    quantizer = started(make)
    quantized = quantizer(torch.randn(*batch, 4))
    assert quantized.values.shape == (*batch, 4)
    assert quantized.codes.shape == (*batch, *quantizer.code_shape)
    assert quantized.codes.dtype == torch.long
    assert quantized.loss.shape == batch
    assert quantizer.perplexity.shape == quantizer.usage.shape == quantizer.code_shape


@every_quantizer
def test_values_are_exactly_what_a_lookup_gives(make) -> None:
    quantizer = started(make).eval()
    quantized = quantizer(torch.randn(50, 4).double())
    assert torch.equal(quantized.values, quantizer.lookup(quantized.codes))
    assert torch.equal(quantized.values, quantizer.lookup(quantized.codes.float()))


@every_quantizer
def test_the_gradient_passes_straight_through(make) -> None:
    quantizer = started(make)
    z = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    cosine = getattr(quantizer, "distance", "") == "cosine"
    upstream = torch.randn(6, 4, dtype=torch.float64)
    given = torch.autograd.grad(quantizer(z).values, z, upstream)[0]
    through = torch.nn.functional.normalize(z, dim=-1) if cosine else z
    assert torch.equal(given, torch.autograd.grad(through, z, upstream)[0])


@every_quantizer
def test_losses_reach_what_they_are_for(make) -> None:
    quantizer = started(make)
    z = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    quantizer(z).loss.sum().backward()
    assert float(z.grad.abs().sum()) > 0
    assert all(float(p.grad.abs().sum()) > 0 for p in quantizer.parameters())


def test_loss_and_its_gradients_are_those_of_the_paper() -> None:
    quantizer = nets.VectorQuantizer(3, 5, learning="gradient", commitment=0.4).double()
    quantizer(torch.randn(20, 3).double())
    z = torch.randn(1, 3, dtype=torch.float64, requires_grad=True)
    quantized = quantizer(z)
    gap = (z - quantized.values).detach()
    torch.testing.assert_close(quantized.loss, 1.4 * gap.square().mean(-1))
    quantized.loss.sum().backward()
    torch.testing.assert_close(z.grad, 0.4 * 2 * gap / 3)
    torch.testing.assert_close(quantizer.codebook.grad[quantized.codes], -2 * gap / 3)


@every_quantizer
@pytest.mark.parametrize("stop", ["eval", "no_grad", "update=False"])
def test_state_stands_still_outside_training_steps(make, stop) -> None:
    quantizer = started(make)
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    quantizer.train(stop != "eval")
    with torch.set_grad_enabled(stop != "no_grad"):
        quantizer(torch.randn(30, 4).double(), update=False if stop == "update=False" else None)
    assert all(torch.equal(before[name], now) for name, now in quantizer.state_dict().items())


@every_quantizer
def test_all_state_is_in_the_state_dict(make) -> None:
    """A reloaded quantiser goes on as the first one does; so do copies."""
    quantizer = started(make, steps=1)
    reloaded = make().double()
    reloaded.load_state_dict(quantizer.state_dict())
    rebuilt = build(configuration(quantizer)).double()
    rebuilt.load_state_dict(quantizer.state_dict())
    copies = [copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer)), reloaded, rebuilt]
    batches = torch.randn(4, 30, 4, dtype=torch.float64)
    for other in copies:
        for batch in batches:
            torch.manual_seed(0)
            other(batch)
    for batch in batches:
        torch.manual_seed(0)
        quantizer(batch)
    for other in copies:
        for name, value in quantizer.state_dict().items():
            assert torch.equal(other.state_dict()[name], value), name


# Averages


def published_updates(
    start: Tensor, batches: Tensor, decay: float = 0.99, epsilon: float = 1e-5
) -> list[Tensor]:
    """Sonnet's VectorQuantizerEMA, line by line: the codebook after each batch."""
    num_codes, hidden_n, hidden_m = len(start), 0.0, 0.0
    codebooks, codebook = [], start
    for step, z in enumerate(batches, 1):
        distances = z.square().sum(1, keepdim=True) - 2 * z @ codebook.T + codebook.square().sum(1)
        onehot = torch.nn.functional.one_hot(distances.argmin(1), num_codes).to(z)
        hidden_n = hidden_n - (hidden_n - onehot.sum(0)) * (1 - decay)
        hidden_m = hidden_m - (hidden_m - onehot.T @ z) * (1 - decay)
        average_n, average_m = (h / (1 - decay**step) for h in (hidden_n, hidden_m))
        n = average_n.sum()
        size = (average_n + epsilon) / (n + num_codes * epsilon) * n
        codebook = average_m / size[:, None]
        codebooks.append(codebook)
    return codebooks


@pytest.mark.parametrize("options", [{}, {"decay": 0.99}, {"decay": 0.8, "epsilon": 1e-2}])
def test_averages_are_the_published_ones(options) -> None:
    quantizer = nets.VectorQuantizer(6, 10, initialization="random", **options).double()
    batches = torch.randn(60, 400, 6, dtype=torch.float64)
    constants = (quantizer.decay, quantizer.epsilon)
    expected = published_updates(quantizer.codebook.clone(), batches, *constants)
    for batch, codebook in zip(batches, expected, strict=True):
        quantizer(batch)
        torch.testing.assert_close(quantizer.codebook, codebook, atol=1e-12, rtol=1e-12)


def test_unused_codes_keep_their_place() -> None:
    quantizer = nets.VectorQuantizer(3, 4, initialization="random", restart_after=None)
    with torch.no_grad():
        quantizer.codebook.copy_(torch.eye(4, 3) * 10 + 50)
    before = quantizer.codebook.clone()
    for _ in range(50):
        quantizer(torch.randn(8, 3))
    used = quantizer.counts > 0
    assert 0 < int(used.sum()) < 4
    assert torch.equal(quantizer.codebook[~used], before[~used])
    assert float(quantizer.codebook[used].norm()) < 2
    assert float(quantizer.usage) == float(used.double().mean())
    assert float(quantizer.perplexity) < 4


def test_a_batch_that_is_not_finite_leaves_no_trace() -> None:
    quantizer = started(QUANTIZERS["ema"])
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    z = torch.randn(5, 4).double()
    z[2, 1] = math.inf
    assert not bool(torch.isfinite(quantizer(z).values).all())
    assert all(torch.equal(before[name], now) for name, now in quantizer.state_dict().items())


def test_cosine_codes_have_length_one() -> None:
    for name in ("cosine", "cosine-gradient"):
        quantizer = started(QUANTIZERS[name])
        lengths = quantizer.lookup(torch.arange(7)).norm(dim=-1)
        torch.testing.assert_close(lengths, torch.ones(7).double())
    assert torch.equal(quantizer(torch.ones(4)).codes, quantizer(9 * torch.ones(4)).codes)


# Initialisation and restarts


def test_kmeans_finds_the_clusters() -> None:
    centers = 10 * torch.randn(20, 5, dtype=torch.float64)
    vectors = centers.repeat_interleave(30, 0) + 0.01 * torch.randn(600, 5).double()
    found = kmeans(vectors, 20, iterations=30)
    assert float(torch.cdist(centers, found).min(1).values.max()) < 0.1


def test_a_constant_batch_is_fine() -> None:
    quantizer = nets.VectorQuantizer(3, 4)
    for _ in range(200):
        quantized = quantizer(torch.ones(10, 3))
    assert bool(torch.isfinite(quantizer.codebook).all())
    torch.testing.assert_close(quantized.values, torch.ones(10, 3), atol=1e-4, rtol=0)


def test_warmup_batches_pass_unquantised() -> None:
    quantizer = nets.VectorQuantizer(3, 4, warmup_batches=2)
    for _ in range(2):
        z = torch.randn(20, 3)
        quantized = quantizer(z)
        assert torch.equal(quantized.values, z)
        assert float(quantized.loss.sum()) == 0
    assert int(quantizer.num_placed) == int(quantizer.steps) == 0
    assert not torch.equal(quantizer.eval()(z).values, z)
    assert len(quantizer.train()(z).values.unique(dim=0)) <= 4
    assert int(quantizer.steps) == 1


def test_further_particles_of_a_warmup_pass_too() -> None:
    """They are quantised without an update, and are of the same training step."""
    quantizer = nets.VectorQuantizer(3, 4, warmup_batches=2)
    for batch in (1, 2, 3):
        z = torch.randn(20, 3)
        for quantized in (quantizer(z), quantizer(z, update=False)):
            assert torch.equal(quantized.values, z) == (batch <= 2)
            assert (float(quantized.loss.sum()) == 0) == (batch <= 2)
        assert int(quantizer.batches) == batch


def test_small_batches_fill_the_codebook_one_after_the_other() -> None:
    quantizer = nets.VectorQuantizer(3, 8).double()
    batches = torch.randn(3, 3, 3, dtype=torch.float64)
    for count, batch in zip((3, 6, 8), batches, strict=True):
        quantizer(batch)
        assert int(quantizer.num_placed) == count
        gaps = torch.cdist(batch, quantizer.codebook).min(1).values
        assert float(gaps.max()) < 1e-4 or count == 8
    before = quantizer.num_placed.clone()
    quantizer(batch)
    assert torch.equal(quantizer.num_placed, before)


def test_a_dead_code_is_restarted_where_the_error_is() -> None:
    """A lost cluster is found again, and the others stay."""
    clusters = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]])
    quantizer = nets.VectorQuantizer(2, 3, initialization="random", restart_after=20.0)
    quantizer.codebook.copy_(torch.tensor([[0.0, 0.0], [9.0, 0.0], [-90.0, -90.0]]))
    for _ in range(300):
        quantizer(clusters[torch.randint(3, (8,))])
    assert float((quantizer.eval()(clusters).values - clusters).abs().max()) < 0.5
    assert float(quantizer.usage) == 1.0


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_usage_and_perplexity_are_of_the_codes_chosen(learning) -> None:
    """Whatever restarts do: each batch lies elsewhere, and most codes die again at once."""
    quantizer = nets.VectorQuantizer(
        *(3, 16), learning=learning, decay=0.9, initialization="random", restart_after=1.0
    )
    chosen, average = [], torch.zeros(16)
    for _ in range(100):
        z = 10 * torch.randn(3) + 0.1 * torch.randn(8, 3)
        chosen.append(quantizer(z).codes)
        average.lerp_(torch.bincount(chosen[-1], minlength=16).float(), 0.1)
    # A restart after 16 vectors, which are two batches.
    assert float(quantizer.usage) == len(torch.cat(chosen[-2:]).unique()) / 16 < 1
    share = average / average.sum()
    torch.testing.assert_close(quantizer.perplexity, torch.special.entr(share).sum().exp())
    # Codes that were chosen before have been restarted: what is tested is that it does not show.
    assert bool(((quantizer.idle < quantizer.unchosen) & (quantizer.unchosen < 2**62)).any())


def test_codes_never_chosen_are_not_in_use() -> None:
    quantizer = nets.VectorQuantizer(3, 16, initialization="random")
    assert float(quantizer.usage) == 0
    quantizer(torch.randn(1, 3))
    assert float(quantizer.usage) == 1 / 16


def test_a_rare_code_is_not_taken_for_dead() -> None:
    quantizer = nets.VectorQuantizer(1, 2)
    rare = torch.cat([torch.zeros(99, 1), torch.ones(1, 1)])
    for _ in range(30):
        quantizer(rare)
    torch.testing.assert_close(quantizer.codebook.sort(0)[0], torch.tensor([[0.0], [1.0]]))


@pytest.mark.parametrize("options", [{}, {"learning": "gradient"}, {"distance": "cosine"}])
def test_codes_stay_alive(options) -> None:
    """The collapse benchmark in small: frozen inputs, all codes used on held-out vectors."""
    mixing = torch.randn(4, 16)
    quantizer = nets.VectorQuantizer(16, 64, initialization="random", **options)
    unused = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([*quantizer.parameters(), unused], lr=1e-2)
    for step in range(300):
        quantizer.restart_after = quantizer.restart_after if step < 240 else None
        optimizer.zero_grad()
        (quantizer(5 + torch.randn(512, 4) @ mixing).loss.sum() + unused.sum()).backward()
        optimizer.step()
    codes = quantizer.eval()(5 + torch.randn(4096, 4) @ mixing).codes
    assert len(codes.unique()) >= 0.95 * 64
    assert nets.code_perplexity(codes, 64) > 40


# Ranks


LEARNINGS = ("ema", "gradient")
# Restarts share all that they change: without them the initialisation must have done so.
RESTARTS = (5.0, None)


def _train_rank(rank: int, folder: str) -> None:
    """One of two processes, with data and random numbers of its own; they take long to start."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", store, rank=rank, world_size=2)
    for learning, restart_after in itertools.product(LEARNINGS, RESTARTS):
        _train_quantizer(rank, folder, learning, restart_after)
    for learning in LEARNINGS:
        _train_model(rank, folder, learning)
    torch.distributed.barrier()
    # Not through the group's own end: in torch 2.6 gloo can wait for ever for a rank that left.
    os._exit(0)


def _train_quantizer(rank: int, folder: str, learning: str, restart_after: float | None) -> None:
    torch.manual_seed(rank)
    quantizer = nets.VectorQuantizer(3, 40, learning=learning, restart_after=restart_after)
    if learning == "gradient":
        # DistributedDataParallel starts from rank 0's parameters.
        torch.distributed.broadcast(quantizer.codebook.detach(), 0)
    for _ in range(100):
        quantizer(torch.randn(30 + rank, 3) + 2 * rank)
    torch.save(quantizer.state_dict(), f"{folder}/{learning}-{restart_after}-{rank}.pt")


def _train_model(rank: int, folder: str, learning: str) -> None:
    torch.manual_seed(rank)
    quantizer = nets.VectorQuantizer(2, 20, learning=learning, restart_after=5.0)
    sizes = {"reduction": 2, "hidden_channels": 4, "residual_channels": 2, "num_blocks": 1}
    model, states = VQVAE((1, 4, 4), quantizer=quantizer, **grouped(VQVAE, sizes)), []
    ranked = DistributedDataParallel(ELBOLoss(model))
    optimizer = torch.optim.Adam(ranked.parameters(), lr=1e-2)
    for _ in range(100):
        optimizer.zero_grad()
        ranked(torch.randn(6 + rank, 1, 4, 4) + 2 * rank).backward()
        optimizer.step()
        # After each step: the next begins with a broadcast of buffers, which hides what differs.
        states.append({name: value.clone() for name, value in model.state_dict().items()})
    stacked = {name: torch.stack([state[name] for state in states]) for name in states[0]}
    torch.save(stacked, f"{folder}/model-{learning}-{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each of two ranks ends with."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_train_rank, (str(folder),), nprocs=2)
    return folder


def _equal_states(folder: Path, name: str) -> dict[str, Tensor]:
    first, second = (torch.load(folder / f"{name}-{rank}.pt") for rank in (0, 1))
    for key, value in first.items():
        assert torch.equal(value, second[key]), (name, key)
    return first


@pytest.mark.parametrize("learning", LEARNINGS)
@pytest.mark.parametrize("restart_after", RESTARTS)
def test_ranks_stay_equal(ranks: Path, learning, restart_after) -> None:
    state = _equal_states(ranks, f"{learning}-{restart_after}")
    assert int(state["steps"]) == 100
    # The codes lie where both ranks have data.
    mean = (state["counts"] @ state["codebook"] / state["counts"].sum()).mean()
    assert abs(float(mean) - 1) < 0.6


@pytest.mark.parametrize("learning", LEARNINGS)
def test_ranks_of_a_model_stay_equal(ranks: Path, learning) -> None:
    """Under DistributedDataParallel and an optimizer, encoder and decoder learning too."""
    states = _equal_states(ranks, f"model-{learning}")
    assert states["quantizer.steps"].tolist() == list(range(1, 101))
    idle, unchosen = states["quantizer.idle"], states["quantizer.unchosen"]
    restarted = (idle < unchosen) & (unchosen < 2**62)  # of those chosen before
    assert int(restarted.any(1).sum()) > 10


# Errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nets.VectorQuantizer(0, 3), "`dim` must be positive; got 0"),
        (lambda: nets.VectorQuantizer(3, 0), "`num_codes` must be positive; got 0"),
        (lambda: nets.VectorQuantizer(3, decay=1.0), "`decay` must be between 0 and 1; got 1.0"),
        (lambda: nets.VectorQuantizer(3, commitment=-1), "`commitment` must not be negative"),
        (lambda: nets.VectorQuantizer(3, warmup_batches=-1), "`warmup_batches` must not be negat"),
        (lambda: nets.VectorQuantizer(3, restart_after=0), "`restart_after` must be positive, or"),
        (lambda: nets.VectorQuantizer(3)(torch.zeros(2, 4)), r"`z` must have trailing shape \(3,"),
        (lambda: nets.VectorQuantizer(3, 4).lookup(torch.tensor([4])), "`codes` must hold integer"),
        (lambda: nets.ProductQuantizer([]), "`parts` must hold at least one quantizer"),
        (lambda: nets.ResidualQuantizer([]), "`parts` must hold at least one quantizer"),
        (
            lambda: nets.ProductQuantizer([nets.VectorQuantizer(2, 3), nets.VectorQuantizer(2, 4)]),
            r"`parts` must have equally many codes each; got \[3, 4\]",
        ),
        (
            lambda: nets.ResidualQuantizer(
                [nets.VectorQuantizer(2, 3), nets.VectorQuantizer(3, 3)]
            ),
            r"`parts` must have one and the same dim; got \[2, 3\]",
        ),
        (lambda: nets.MultiHeadQuantizer(nets.VectorQuantizer(2), 0), "`num_heads` must be posit"),
        (
            lambda: nets.MultiHeadQuantizer(nets.MultiHeadQuantizer(nets.VectorQuantizer(2), 2), 2),
            "`quantizer` must give one code for each vector",
        ),
    ],
)
def test_errors_name_argument_rule_and_value(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("argument", ["learning", "distance", "initialization"])
def test_an_unknown_choice_is_an_error(argument) -> None:
    # With run-time types on, as in these tests, the type says it first.
    with pytest.raises((ValueError, TypeCheckError), match=argument):
        nets.VectorQuantizer(3, **{argument: "none"})
