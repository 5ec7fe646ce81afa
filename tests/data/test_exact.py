"""Laws of every distribution with a known optimum, and the figures of the literature."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
from collections.abc import Callable

import pyro
import pytest
import torch
from pyro.infer import Predictive
from torch import Tensor

from pyro_genmodels import data
from pyro_genmodels._configuration import build, configuration

CASES: dict[str, Callable[[], data.ExactDistribution]] = {
    "ising": lambda: data.Ising(8, 8),
    "ising wide, hot": lambda: data.Ising(3, 7, beta=0.2),
    "ising antiferromagnet": lambda: data.Ising(5, 4, beta=-0.4),
    "ising one row": lambda: data.Ising(1, 6, beta=0.5),
    "ising in a field": lambda: data.Ising(4, 6, beta=0.4, field=0.2),
    "bars": lambda: data.BarsAndStripes(4),
    "bars coin": lambda: data.BarsAndStripes(3, coin=True),
    "bars large": lambda: data.BarsAndStripes(16),
    "sprites": lambda: data.Sprites(16),
    "markov chain": lambda: data.MarkovChain(),
    "markov chain, order 2": lambda: data.MarkovChain(7, num_levels=3, order=2, seed=1),
    "hidden markov": lambda: data.HiddenMarkov(40, num_states=3, num_levels=5),
    "hidden markov, few": lambda: data.HiddenMarkov(6, num_states=2, num_levels=3, seed=2),
    "mosaic": lambda: data.Mosaic(),
    "mosaic grey": lambda: data.Mosaic(2, tile_size=3, num_codes=5, num_levels=7, seed=4),
    "logistic field": lambda: data.LogisticField(8, 8),
    "logistic field, few levels": lambda: data.LogisticField(
        4, 5, channels=2, num_levels=5, log_scale=-1.0
    ),
    "ppca": lambda: data.PPCA(),
    "texture": lambda: data.GaussianTexture(16),
    "eight gaussians": lambda: data.EightGaussians(),
    "eight gaussians wide": lambda: data.EightGaussians(4.0, scale=0.5),
    "checkerboard": lambda: data.Checkerboard(),
    "checkerboard large": lambda: data.Checkerboard(8),
}
every = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())


def bits(distribution: data.ExactDistribution) -> float:
    return distribution.entropy().item() / math.log(2)


def bits_per_dim(distribution: data.ExactDistribution) -> float:
    return bits(distribution) / distribution.event_shape.numel()


def all_images(height: int, width: int, levels: int = 2, channels: int = 1) -> Tensor:
    values = itertools.product(range(levels), repeat=channels * height * width)
    return torch.tensor(list(values), dtype=torch.float64).reshape(-1, channels, height, width)


# --- figures


@pytest.mark.parametrize(
    ("size", "beta", "expected"),
    [
        (8, 0.30, 0.86258),
        (8, 0.4406868, 0.63290),
        (8, 0.60, 0.27462),
        (12, 0.30, 0.85383),
        (12, 0.4406868, 0.59064),
        (12, 0.60, 0.20301),
        (16, 0.4406868, 0.56549),
        pytest.param(16, 0.30, 0.84937, marks=pytest.mark.slow),
        pytest.param(16, 0.60, 0.17083, marks=pytest.mark.slow),
    ],
)
def test_entropy_of_ising(size: int, beta: float, expected: float) -> None:
    assert bits_per_dim(data.Ising(size, size, beta=beta)) == pytest.approx(expected, abs=6e-6)


@pytest.mark.parametrize(
    ("size", "coin", "expected"),
    [
        (4, False, 4.90689),
        (8, False, 8.99435),
        (16, False, 16.99998),
        (4, True, 4.87500),
        (8, True, 8.99219),
        (16, True, 16.99997),
    ],
)
def test_entropy_of_bars_and_stripes(size: int, coin: bool, expected: float) -> None:
    assert bits(data.BarsAndStripes(size, coin=coin)) == pytest.approx(expected, abs=6e-6)


@pytest.mark.parametrize(
    ("size", "factors", "images", "expected"),
    [
        (16, 3888, 2124, 10.85074),
        (32, 15552, 9144, 12.93973),
        pytest.param(64, 46080, 26876, 14.49116, marks=pytest.mark.slow),
    ],
)
def test_entropy_of_sprites(size: int, factors: int, images: int, expected: float) -> None:
    sprites = data.Sprites(size)
    assert (len(sprites.factors), sprites.num_images) == (factors, images)
    assert bits(sprites) == pytest.approx(expected, abs=6e-6)


def test_entropy_of_the_logistic_field() -> None:
    assert bits_per_dim(data.LogisticField(8, 8)) == pytest.approx(5.55255, abs=3 * 0.0007)


@pytest.mark.parametrize(
    ("make", "nats", "tolerance"),
    [
        (lambda: data.PPCA(), 24.83445, 6e-6),
        (lambda: data.EightGaussians(2.0, scale=0.2), 1.69806, 6e-6),
        (lambda: data.EightGaussians(4.0, scale=0.5), 3.52473, 6e-6),
        (lambda: data.Checkerboard(), 2.0794, 6e-5),
        (lambda: data.GaussianTexture(16), 55.3895, 6e-5),
    ],
)
def test_entropy_of_densities(
    make: Callable[[], data.ExactDistribution], nats: float, tolerance: float
) -> None:
    assert make().entropy().item() == pytest.approx(nats, abs=tolerance)


# --- brute force


@pytest.mark.parametrize(
    "make",
    [
        lambda: data.Ising(3, 3, beta=0.44),
        lambda: data.Ising(2, 5, beta=0.3),
        lambda: data.Ising(4, 3, beta=-0.7),
        lambda: data.Ising(3, 4, beta=0.4, field=0.2),
        lambda: data.Ising(4, 2, beta=0.0, field=-0.5),
        lambda: data.BarsAndStripes(3),
        lambda: data.BarsAndStripes(3, coin=True),
        lambda: data.Mosaic(2, tile_size=2, num_codes=3),
        lambda: data.LogisticField(2, 2, channels=2, num_levels=3, log_scale=-1.0),
    ],
)
def test_probabilities_sum_to_one_and_give_the_entropy(
    make: Callable[[], data.ExactDistribution],
) -> None:
    distribution = make()
    channels, height, width = distribution.event_shape
    assert distribution.num_levels is not None
    images = all_images(height, width, distribution.num_levels, channels)
    log_prob = distribution.log_prob(images)
    assert log_prob.exp().sum().item() == pytest.approx(1, abs=1e-9)
    known = torch.special.entr(log_prob.exp()).sum().item()
    exact = not isinstance(distribution, data.LogisticField)  # its locations are sampled
    assert distribution.entropy().item() == pytest.approx(known, rel=1e-9 if exact else 0.02)


@pytest.mark.parametrize("field", [0.0, 0.2])
def test_ising_is_the_boltzmann_law(field: float) -> None:
    images = all_images(3, 4)
    spins = 2 * images - 1
    energy = torch.zeros(len(images), dtype=torch.float64)
    for row, column in itertools.product(range(3), range(4)):
        if row < 2:
            energy += spins[:, 0, row, column] * spins[:, 0, row + 1, column]
        if column < 3:
            energy += spins[:, 0, row, column] * spins[:, 0, row, column + 1]
    expected = (0.37 * energy + field * spins.sum((1, 2, 3))).log_softmax(0)
    actual = data.Ising(3, 4, beta=0.37, field=field).log_prob(images)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


def test_sprites_sum_to_one_over_their_images() -> None:
    sprites = data.Sprites(16)
    images = torch.unique(sprites.render(sprites.factors), dim=0)
    assert len(images) == sprites.num_images
    assert sprites.log_prob(images.double()).exp().sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: data.Ising(2, 3, beta=0.5),
        lambda: data.Ising(3, 2, beta=0.5),
        lambda: data.Ising(2, 3, beta=0.5, field=0.2),
        lambda: data.BarsAndStripes(2),
        lambda: data.BarsAndStripes(3),
        lambda: data.BarsAndStripes(2, coin=True),
        lambda: data.Mosaic(2, tile_size=2, num_codes=2),
        lambda: data.LogisticField(1, 2, channels=2, num_levels=3, log_scale=-1.0),
        lambda: data.Sprites(16),
    ],
)
def test_samples_follow_log_prob_by_chi_square(
    make: Callable[[], data.ExactDistribution],
) -> None:
    distribution, n = make(), 40_000
    seen, counts = torch.unique(distribution.sample((n,)), dim=0, return_counts=True)
    expected = n * distribution.log_prob(seen).double().exp()
    statistic = ((counts - expected).square() / expected).sum()
    # Cells never seen add their expected count, which is n less the sum over those seen.
    statistic = (statistic + n - expected.sum()).item()
    freedom = _support_size(distribution) - 1
    assert abs(statistic - freedom) < 4.5 * math.sqrt(2 * freedom) + 10


def _support_size(distribution: data.ExactDistribution) -> int:
    if isinstance(distribution, data.Sprites):
        return distribution.num_images
    channels, height, width = distribution.event_shape
    assert distribution.num_levels is not None
    images = all_images(height, width, distribution.num_levels, channels)
    return int(distribution.log_prob(images).isfinite().sum())


# --- every distribution


@every
def test_mean_log_prob_of_samples_is_the_entropy(
    make: Callable[[], data.ExactDistribution],
) -> None:
    distribution = make().to(dtype=torch.float64)
    nats = -distribution.log_prob(distribution.sample((4000,)))
    assert nats.isfinite().all()
    error = nats.std().item() / math.sqrt(len(nats))
    assert abs(nats.mean() - distribution.entropy()) < 4 * error + 1e-9


@every
def test_shapes_expand_and_to_event(make: Callable[[], data.ExactDistribution]) -> None:
    distribution = make()
    event = tuple(distribution.event_shape)
    assert distribution.batch_shape == ()
    expanded = distribution.expand([3, 1]).expand([3, 2])
    assert type(expanded) is type(distribution)
    x = expanded.sample((5,))
    assert x.shape == (5, 3, 2, *event)
    assert expanded.log_prob(x).shape == (5, 3, 2)
    torch.testing.assert_close(expanded.log_prob(x), distribution.log_prob(x))
    assert expanded.log_prob(x[0, 0, 0]).shape == (3, 2)  # one value broadcasts
    assert expanded.entropy().shape == (3, 2)
    assert distribution.log_prob(distribution.sample((0, 2))).shape == (0, 2)
    assert expanded.to_event(1).log_prob(x).shape == (5, 3)
    assert configuration(expanded) == configuration(distribution)
    with pytest.raises(RuntimeError):
        expanded.expand([4, 2])


@every
def test_rebuilds_from_plain_data_and_survives_copies(
    make: Callable[[], data.ExactDistribution],
) -> None:
    distribution = make()
    x = distribution.sample((4,))
    rebuilt = build(configuration(distribution))
    for other in (rebuilt, copy.deepcopy(distribution), pickle.loads(pickle.dumps(distribution))):
        assert torch.equal(other.log_prob(x), distribution.log_prob(x))


@every
def test_samples_depend_on_torchs_seed_alone(
    make: Callable[[], data.ExactDistribution],
) -> None:
    draws = []
    for _ in range(2):
        torch.manual_seed(5)
        draws.append(make().sample((3,)))
    assert torch.equal(*draws)
    assert not torch.equal(draws[0], make().sample((3,)))


@every
def test_dtypes(make: Callable[[], data.ExactDistribution]) -> None:
    distribution = make()
    single = distribution.sample((50,))
    assert single.dtype == torch.float32
    double = distribution.to(dtype=torch.float64).sample((2,))
    assert double.dtype == torch.float64
    assert distribution.log_prob(single).dtype == torch.float32
    assert distribution.log_prob(single.double()).dtype == torch.float64
    if distribution.num_levels is not None:
        counted = distribution.log_prob(single.to(torch.uint8))
        torch.testing.assert_close(counted, distribution.log_prob(single))
        assert (single == single.round()).all()
        assert single.min() >= 0
        assert single.max() <= distribution.num_levels - 1


@every
def test_values_outside_the_support_are_refused(
    make: Callable[[], data.ExactDistribution],
) -> None:
    distribution = make()
    x = distribution.sample()
    bad = [torch.full_like(x, torch.nan)]
    if distribution.num_levels is not None:
        bad += [x - 0.5, x + distribution.num_levels, x - distribution.num_levels]
    for value in bad:
        with pytest.raises(ValueError, match="support"):
            distribution.log_prob(value)


@every
def test_takes_part_in_a_pyro_program(make: Callable[[], data.ExactDistribution]) -> None:
    distribution = make()

    def model() -> Tensor:
        with pyro.plate("data", 6, dim=-1), pyro.poutine.mask(mask=torch.arange(6) < 3):
            return pyro.sample("x", distribution)

    trace = pyro.poutine.trace(model).get_trace()
    x = trace.nodes["x"]["value"]
    assert x.shape == (6, *distribution.event_shape)
    expected = distribution.log_prob(x)[:3].sum()
    torch.testing.assert_close(trace.log_prob_sum(), expected, rtol=1e-5, atol=1e-4)
    drawn = Predictive(model, num_samples=4, parallel=True)()["x"]
    assert drawn.shape[-len(distribution.event_shape) :] == distribution.event_shape


@pytest.mark.gpu
@every
def test_devices(make: Callable[[], data.ExactDistribution]) -> None:
    distribution = make()
    x = distribution.sample((3,))
    moved = distribution.to("cuda")
    assert moved.sample((2,)).device.type == "cuda"
    torch.testing.assert_close(moved.log_prob(x.cuda()).cpu(), distribution.log_prob(x))
    assert moved.entropy().device.type == "cuda"


@pytest.mark.parametrize(
    "make", [data.PPCA, data.GaussianTexture, data.EightGaussians], ids=lambda c: c.__name__
)
def test_densities_have_gradients(make: Callable[[], data.ExactDistribution]) -> None:
    distribution = make()
    x = distribution.sample((2,)).double().requires_grad_()
    small = make() if x[0].numel() < 65 else data.GaussianTexture(3)
    x = small.sample((2,)).double().requires_grad_()
    assert torch.autograd.gradcheck(small.log_prob, (x,))


# --- particulars


def test_sprites_render_their_factors() -> None:
    sprites = data.Sprites(16)
    factors = sprites.sample_factors(100)
    assert (factors < torch.tensor(sprites.factor_sizes)).all()
    assert sprites.log_prob(sprites.render(factors)).isfinite().all()
    assert sprites.log_prob(torch.zeros(1, 16, 16)) == -math.inf
    assert sprites.log_prob(torch.ones(1, 16, 16)) == -math.inf


@pytest.mark.parametrize("size", [16, 32])
def test_sprites_have_their_areas_and_places(size: int) -> None:
    sprites = data.Sprites(size)
    scale = {16: 4, 32: 9}[size]
    largest = sprites.factor_sizes[1] - 1
    square = sprites.render(torch.tensor([0, largest, 0, 0, 0]))
    assert square.sum() == pytest.approx((1.4 * scale) ** 2, rel=0.25)
    ellipse = sprites.render(torch.tensor([1, largest, 0, 0, 0]))
    assert ellipse.sum() == pytest.approx(math.pi * 0.55 * scale**2, rel=0.2)
    # y moves down, x to the right; the centre of mass follows.
    places = sprites.factor_sizes[3] - 1
    rows = torch.arange(size) + 0.5
    low = sprites.render(torch.tensor([1, largest, 0, places, 0]))[0]
    assert (low.sum(1) @ rows / low.sum()).item() == pytest.approx(size - scale, abs=0.5)
    assert (low.sum(0) @ rows / low.sum()).item() == pytest.approx(scale, abs=0.5)


@pytest.mark.parametrize("factors", [[3, 0, 0, 0, 0], [0, 0, 0, 0, -1], [0, 0, 0]])
def test_sprites_refuse_factors_that_do_not_exist(factors: list[int]) -> None:
    with pytest.raises(ValueError, match="`factors` must"):
        data.Sprites(16).render(torch.tensor(factors))


def test_mosaic_codes_are_a_lossless_coding() -> None:
    mosaic = data.Mosaic()
    x = mosaic.sample((2, 3))
    codes = mosaic.codes(x)
    assert codes.shape == (2, 3, 4, 4)
    assert torch.equal(mosaic.render(codes), x)
    torch.testing.assert_close(mosaic.transition.sum(-1), torch.ones(8, dtype=torch.float64))
    assert len(torch.unique(mosaic.tiles, dim=0)) == 8
    x[0, 0, 0, 0, 0] = 1 - x[0, 0, 0, 0, 0]
    assert mosaic.codes(x)[0, 0, 0, 0] != codes[0, 0, 0, 0]


def test_mosaic_is_permutation_invariant_chain_in_raster_order() -> None:
    mosaic = data.Mosaic(2, tile_size=2, num_codes=3)
    codes = torch.tensor([[0, 1], [2, 0]])
    steps = mosaic.transition[[0, 1, 2], [1, 2, 0]].log().sum()
    expected = steps - math.log(3)
    torch.testing.assert_close(mosaic.log_prob(mosaic.render(codes).double()), expected)


def test_logistic_field_conditionals_see_only_the_past() -> None:
    field = data.LogisticField(3, 3)
    x = field.sample().double()
    flat = x.permute(1, 2, 0).reshape(-1)  # raster order, channels inside a pixel
    before = field.conditional(x[None]).loc[0].permute(1, 2, 0).reshape(-1)
    for place in range(len(flat)):
        other = flat.clone()
        other[place] = 255 - other[place]
        image = other.reshape(3, 3, 3).permute(2, 0, 1)
        after = field.conditional(image[None]).loc[0].permute(1, 2, 0).reshape(-1)
        assert torch.equal(before[: place + 1], after[: place + 1])


def test_ppca_has_orthogonal_columns_of_the_given_lengths() -> None:
    loading = data.PPCA().loading
    gram = torch.diag(torch.linspace(2, 0.5, 8, dtype=torch.float64).square())
    torch.testing.assert_close(loading.T @ loading, gram)


def test_checkerboard_is_uniform_on_black() -> None:
    board = data.Checkerboard()
    x = board.sample((4000,))
    assert x.abs().max() <= 2
    assert (x.floor().sum(-1) % 2 == 0).all()
    counts = torch.unique(x.floor(), dim=0, return_counts=True)[1]
    assert len(counts) == 8
    assert (counts - 500).abs().max() < 100
    assert board.log_prob(torch.tensor([2.5, 2.5])) == -math.inf


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: data.Ising(0, 3), "height"),
        (lambda: data.Ising(30, 30), "height x width"),
        (lambda: data.Ising(3, 3, beta=math.nan), "beta"),
        (lambda: data.Ising(3, 3, field=math.inf), "field"),
        (lambda: data.BarsAndStripes(0), "size"),
        (lambda: data.Sprites(20), "size"),
        (lambda: data.Mosaic(0), "grid"),
        (lambda: data.Mosaic(2, tile_size=1, num_codes=8), "num_codes"),
        (lambda: data.Mosaic(num_levels=1), "num_levels"),
        (lambda: data.LogisticField(0, 1), "height"),
        (lambda: data.LogisticField(log_scale=math.nan), "log_scale"),
        (lambda: data.PPCA(8, latent_dim=8), "latent_dim"),
        (lambda: data.PPCA(noise=0.0), "noise"),
        (lambda: data.GaussianTexture(100), "size"),
        (lambda: data.EightGaussians(scale=-1.0), "scale"),
        (lambda: data.Checkerboard(3), "squares"),
    ],
)
def test_impossible_arguments_are_named(make: Callable[[], object], argument: str) -> None:
    with pytest.raises(ValueError, match=f"`{argument}` must .*; got "):
        make()


@pytest.mark.parametrize("name", [n for n in data.__all__ if isinstance(getattr(data, n), type)])
def test_every_exported_distribution_has_defaults(name: str) -> None:
    exported = getattr(data, name)
    if issubclass(exported, data.ExactDistribution) and exported is not data.ExactDistribution:
        assert exported().sample().shape == exported().event_shape
