"""The discretised mixture of logistics: exact at every parameter, alone and linked over colours."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from pyro_genmodels._logistic_mixture import linked_mixture, logistic_log_mass, mixture_log_mass
from pyro_genmodels.data import LogisticField
from pyro_genmodels.distributions import (
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    PixelCNNPlusPlus,
    WaveNet,
)
from pyro_genmodels.distributions.autoregressive.logistic_mixture import (
    InvertedLogisticMixture,
    LogisticMixture,
    logistic_mixture,
)
from pyro_genmodels.nets import PixelCNNPlusPlusNet, WaveNetNet
from pyro_genmodels.testing import (
    check_normalized,
    check_sampler,
    check_sampling_methods_agree,
    randomize_parameters,
)

SCALES = [-40.0, -20.0, -7.0, -3.0, 0.0, 5.0, 40.0]
LOCATIONS = [-50.0, -1.0, -0.3, 0.0, 1 / 255, 0.999, 1.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_levels", [2, 3, 17, 256])
def test_sums_to_one_at_every_parameter(num_levels: int, dtype: torch.dtype) -> None:
    loc, log_scale = torch.tensor(list(itertools.product(LOCATIONS, SCALES)), dtype=dtype).T
    levels = torch.arange(num_levels)[:, None]
    totals = logistic_log_mass(levels, loc, log_scale, num_levels).exp().sum(0)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_every_parameter(dtype: torch.dtype) -> None:
    loc, log_scale = torch.tensor(list(itertools.product(LOCATIONS, SCALES)), dtype=dtype).T
    loc, log_scale = loc.clone().requires_grad_(), log_scale.clone().requires_grad_()
    logistic_log_mass(torch.arange(256)[:, None], loc, log_scale, 256).sum().backward()
    assert loc.grad.isfinite().all()
    assert log_scale.grad.isfinite().all()


def test_one_component_is_the_discretized_logistic() -> None:
    loc, log_scale = torch.randn(5, 1).double(), torch.randn(5, 1).double()
    mixture = DiscretizedLogisticMixture(torch.zeros(1).double(), loc, log_scale, 17)
    single = DiscretizedLogistic(loc[:, 0], log_scale[:, 0], 17)
    value = torch.randint(17, (3, 5))
    torch.testing.assert_close(mixture.log_prob(value), single.log_prob(value))
    for name in ("mean", "variance"):
        torch.testing.assert_close(getattr(mixture, name), getattr(single, name))
    torch.testing.assert_close(mixture.entropy(), single.entropy())


def published(raw: Tensor, pixel: Tensor, num_levels: int) -> Tensor:
    """Log-mass of pixels by the paper's formula: one mixture over whole pixels."""
    logits, mean, log_scale, link = raw.unflatten(-1, (10, -1)).split([1, 3, 3, 3], -2)
    x, link = pixel * (2 / (num_levels - 1)) - 1, link.tanh()
    red, green = x[..., 0, None], x[..., 1, None]
    means = [
        mean[..., 0, :],
        mean[..., 1, :] + link[..., 0, :] * red,
        mean[..., 2, :] + link[..., 1, :] * red + link[..., 2, :] * green,
    ]
    half = 1 / (num_levels - 1)
    total = logits[..., 0, :].log_softmax(-1)
    for i in range(3):
        centred, scale = x[..., i, None] - means[i], log_scale[..., i, :].exp()
        above = torch.where(x[..., i, None] > 1 - half, 1.0, ((centred + half) / scale).sigmoid())
        below = torch.where(x[..., i, None] < half - 1, 0.0, ((centred - half) / scale).sigmoid())
        total = total + (above - below).log()
    return total.logsumexp(-1)


@pytest.mark.parametrize("num_levels", [2, 5, 256])
def test_linked_channels_are_the_published_mixture_over_pixels(num_levels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(50, 40, generator=generator, dtype=torch.float64)
    pixel = torch.randint(num_levels, (50, 3), generator=generator).double()
    parameters = linked_mixture(raw, pixel, num_levels)
    nats = LogisticMixture(num_levels, 4, num_linked=3).log_prob(parameters, pixel).sum(-1)
    torch.testing.assert_close(nats, published(raw, pixel, num_levels))


ENUMERABLE = {"2x2x3 binary": ((3, 2, 2), 2), "2x1x3, 4 levels": ((3, 2, 1), 4)}
ENUMERABLE["3x3x1 binary"] = ((1, 3, 3), 2)


def make(
    event_shape: tuple[int, ...], num_levels: int, *, scale: float = 0.7, **options: object
) -> PixelCNNPlusPlus:
    small = {"hidden_channels": 4, "num_resnets": 1, "num_scales": 1, "num_mixtures": 3}
    net = PixelCNNPlusPlusNet(event_shape, num_levels, **{**small, **options}).double()
    # In training the first data would set parameters anew.
    randomize_parameters(net, scale).eval()
    labels = None if net.num_classes is None else torch.arange(net.num_classes)
    return PixelCNNPlusPlus(net, labels)


@pytest.mark.parametrize("options", [{}, {"num_classes": 2}])
@pytest.mark.parametrize("size", ENUMERABLE)
def test_images_sum_to_one_before_training(size: str, options: dict[str, int]) -> None:
    check_normalized(make(*ENUMERABLE[size], **options))


def test_images_sum_to_one_at_256_levels() -> None:
    check_normalized(make((1, 1, 2), 256))
    check_normalized(make((2, 1, 1), 256, num_classes=2))


@pytest.mark.parametrize("method", ["cached", "parallel"])
def test_sampler_draws_what_is_scored(method: str) -> None:
    check_sampler(make((3, 2, 1), 4, num_classes=2), method=method, num_samples=10_000)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("event_shape", "levels"), [((1, 4, 4), 17), ((3, 2, 4), 256)])
def test_methods_draw_the_same_values(
    event_shape: tuple[int, ...], levels: int, dtype: torch.dtype
) -> None:
    law = make(event_shape, levels, num_scales=2)
    law.net.to(dtype)
    check_sampling_methods_agree(law, sample_shape=(4,))


def test_completes_a_pixel_from_its_first_channel() -> None:
    law = make((3, 1, 1), 3, scale=1.0)
    whole = torch.cartesian_prod(*[torch.arange(3.0)] * 3).double().view(27, 3, 1, 1)
    table = law.log_prob(whole).exp().view(3, 3, 3)
    given = torch.tensor([2.0, 0.0, 0.0]).double().view(3, 1, 1)
    draws = law.sample((20_000,), given=given, num_given=1).long().flatten(1)
    assert (draws[:, 0] == 2).all()
    found = (draws[:, 1] * 3 + draws[:, 2]).bincount(minlength=9) / len(draws)
    expected = (table[2] / table[2].sum()).flatten().detach()
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.02)


def test_cold_samples_are_the_likeliest_levels() -> None:
    law = make((3, 2, 2), 5)
    x = law.sample((3,), temperature=0)
    assert (x == x[0]).all()
    assert not (law.sample((3,), temperature=2.0) == x).all()


def test_every_parameter_has_a_gradient() -> None:
    law = make((3, 4, 4), 5, num_scales=2, num_classes=2)
    law.log_prob(law.sample((4,))).sum().backward()
    assert all((p.grad != 0).any() for p in law.net.parameters())


def test_bad_mixtures_are_errors() -> None:
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="`num_levels` must"):
        DiscretizedLogisticMixture(one, one, one, 1)
    with pytest.raises(ValueError, match="`logits` must"):
        DiscretizedLogisticMixture(one[0], one[0], one[0], 2)


@pytest.mark.parametrize("log_scale", [-12.0, -7.0])
def test_a_narrow_single_component_sums_to_one_in_float32(log_scale: float) -> None:
    for loc in LOCATIONS:
        check_normalized(
            DiscretizedLogistic(torch.tensor(loc), torch.tensor(log_scale), 256),
            dtype=torch.float32,
        )


# --- how levels are drawn ------------------------------------------------------------------------


@pytest.mark.parametrize("num_levels", [2, 3, 17, 256])
def test_the_table_that_is_drawn_from_holds_what_is_scored(num_levels: int) -> None:
    every = torch.tensor(list(itertools.product(LOCATIONS, SCALES)), dtype=torch.float64)
    loc, log_scale = every.view(-1, 4, 2).unbind(-1)  # mixtures of four
    logits = torch.randn(loc.shape, dtype=torch.float64)
    levels = torch.arange(num_levels)[:, None]
    expected = mixture_log_mass(levels, logits, loc, log_scale, num_levels).T
    law = LogisticMixture(num_levels, 4)
    table = law.log_masses(torch.cat([logits, loc, log_scale], -1))
    least = -700.0  # about the logarithm of the least float64
    torch.testing.assert_close(table.clamp_min(least), expected.clamp_min(least))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_a_temperature_divides_the_log_masses(temperature: float) -> None:
    law, parameters = LogisticMixture(17, 3), torch.randn(9, dtype=torch.float64)
    noise = law.noise(40_000, 1, torch.Generator().manual_seed(0))[:, 0] * temperature
    found = law.draw(parameters.expand(40_000, 9), noise).bincount(minlength=17) / 40_000
    expected = (law.log_masses(parameters[None])[0] / temperature).softmax(-1)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=0.012)


def test_very_many_levels_are_drawn_by_inversion() -> None:
    law = logistic_mixture(2**16, 2)
    assert isinstance(law, InvertedLogisticMixture)
    assert type(logistic_mixture(1024, 2)) is LogisticMixture
    # Narrow enough that nothing lies beyond the ends.
    parameters = torch.tensor([0.0, 1.0, -0.5, 0.5, -4.0, -4.0], dtype=torch.float64)
    noise = law.noise(20_000, 1, torch.Generator().manual_seed(0))[:, 0]
    drawn = law.draw(parameters.expand(20_000, 6), noise).sort().values
    mass = law.log_prob(parameters.expand(2**16, 6), torch.arange(2**16)).exp()
    below = mass.cumsum(0)[drawn.long()]
    ranks = torch.arange(1, 20_001) / 20_000
    assert (below - ranks).abs().max() < 2.2 / 20_000**0.5  # Kolmogorov: one chance in 10^4


def test_methods_agree_at_very_many_levels() -> None:
    sizes = {"channels": 4, "num_blocks": 1, "layers_per_block": 2, "num_mixtures": 2}
    net = randomize_parameters(WaveNetNet((12,), 2**16, **sizes))
    check_sampling_methods_agree(WaveNet(net), sample_shape=(8,))


def test_a_deep_trained_network_gives_the_same_values_by_cache_and_whole() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_channels": 8, "num_resnets": 2, "num_scales": 2, "num_mixtures": 3}
    law = PixelCNNPlusPlus(PixelCNNPlusPlusNet((3, 6, 6), 256, **sizes), validate_args=False)
    x = LogisticField(6, 6, log_scale=-4.0).sample((128,)).float()
    optimizer = torch.optim.Adam(law.net.parameters(), 5e-3)
    for step in range(40):
        loss = -law.log_prob(x[16 * (step % 8) :][:16]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 3 * 36 * 5.0  # nats; uniform levels have 5.5 each
    check_sampling_methods_agree(law, methods=("cached", "naive"), sample_shape=(6,))
    wide = PixelCNNPlusPlusNet((3, 6, 6), 256, **sizes).double()
    wide.load_state_dict(law.net.state_dict())
    torch.manual_seed(1)
    narrow = law.sample((6,))
    torch.manual_seed(1)
    assert torch.equal(PixelCNNPlusPlus(wide.eval()).sample((6,)), narrow.double())


def test_narrower_components_of_earlier_channels_make_leads_less_sure() -> None:
    law = LogisticMixture(256, 2, num_linked=2)
    parameters = torch.randn(1, 2, 6, generator=torch.Generator().manual_seed(0)).double()
    noise = law.noise(1, 2, torch.Generator().manual_seed(0))
    _, wide = law.margin(parameters, noise)
    parameters[0, 0, 4:] = -7.0
    _, narrow = law.margin(parameters, noise)
    assert narrow[0, 1] > wide[0, 1]
