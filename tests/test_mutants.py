"""The laws bite: every mutant of our own parts is caught by the law named beside it.

Each mutant is a real class with one line broken. The unmutated part passes the same law under the
same call, so that what the law reports is the mutation and nothing else.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn
from torch.distributions.kl import _KL_REGISTRY

from pyro_genmodels import distributions, models, nets, optim, testing, transforms
from pyro_genmodels.distributions.ar1 import correlation_of, log_scale_of
from pyro_genmodels.distributions.gaussian import DiagonalNormal, StandardNormal
from pyro_genmodels.models.base.latent_scale import LatentScale
from pyro_genmodels.models.base.param_registration import RegisteredModule
from pyro_genmodels.models.vae.objectives import LatentCost
from pyro_genmodels.nets.layers.masked_conv import MaskedConv2d, VerticalConv2d
from pyro_genmodels.optim import joint
from pyro_genmodels.transforms.base import single_use_cache
from pyro_genmodels.transforms.base.single_use_cache import Slot
from tests import cases
from tests import test_optim as optim_laws
from tests.cases import multiscale, vivid
from tests.models import test_vqvae as vqvae_laws
from tests.nets import test_quantizer as quantizer_laws
from tests.test_laws import past_of

pytestmark = pytest.mark.once
Mutation = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_caught(
    law: Callable[[], None],
    mutation: Mutation,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    *,
    error: type[Exception] | tuple[type[Exception], ...] = AssertionError,
) -> None:
    """The law passes, and under the mutation fails with that in its message."""
    law()
    pyro.clear_param_store()
    with monkeypatch.context() as patch:
        mutation(patch)
        with pytest.raises(error, match=message):
            law()


# Log-determinants


def image_coupling() -> transforms.AffineCoupling:
    net = nets.ConvNet(2, 4, hidden=(4,), activation="tanh")
    return transforms.AffineCoupling(transforms.Checkerboard(), net)


def points(transform: Any, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def log_det_of(change: Callable[[Tensor, Tensor], Tensor], *methods: str) -> Mutation:
    """Replace the log-determinant ``d`` of maps of ``x`` by ``change(d, x)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for name in methods or ("forward_and_log_det", "inverse_and_log_det"):
            patch.setattr(transforms.AffineCoupling, name, changed(name))

    def changed(name: str) -> Callable[..., Any]:
        original = getattr(transforms.AffineCoupling, name)

        def method(self: Any, value: Tensor, context: Tensor | None = None) -> Any:
            result, log_det = original(self, value, context)
            return result, change(log_det, value)

        return method

    return mutate


LOG_DET_MUTANTS = {
    "dropped H*W": log_det_of(lambda d, x: d / x[0, 0].numel()),
    "zeroed": log_det_of(lambda d, x: 0 * d),
    "halved": log_det_of(lambda d, x: d / 2),
    "doubled": log_det_of(lambda d, x: 2 * d),
    "flipped sign": log_det_of(lambda d, x: -d),
    "flipped sign and dropped H*W": log_det_of(lambda d, x: -d / x[0, 0].numel()),
    "flipped sign of the inverse's only": log_det_of(lambda d, x: -d, "inverse_and_log_det"),
    "averaged over the batch": log_det_of(lambda d, x: d.mean(0).expand(d.shape)),
}


@pytest.mark.parametrize("mutant", LOG_DET_MUTANTS)
def test_log_det(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = testing.randomize_parameters(image_coupling()).eval()
    x = points(layer, 3, 2, 3, 4)
    mutation = LOG_DET_MUTANTS[mutant]
    assert_caught(lambda: testing.check_log_det(layer, x), mutation, monkeypatch, "slogdet")


@pytest.mark.parametrize("mutant", ["zeroed", "halved", "flipped sign"])
def test_log_det_shows_in_samples_and_evidence(
    mutant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a wrong log-determinant does to users: samples of another law, evidence off one."""
    flow = transforms.RealNVP(2, width=4, num_couplings=2, activation="tanh", logit_margin=0.0)
    model = testing.randomize_parameters(models.FlowModel((2,), flow, num_levels=3)).eval()

    def law() -> None:
        testing.check_evidence_normalized(model, num_particles=1000)

    assert_caught(law, LOG_DET_MUTANTS[mutant], monkeypatch, "evidence sums to one")


def test_randomizing_is_what_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """At its initial value, a coupling is the identity: nothing to catch."""
    flow = transforms.RealNVP(4, width=4)
    x = points(flow, 3, 4)
    LOG_DET_MUTANTS["zeroed"](monkeypatch)
    testing.check_log_det(flow, x)
    with pytest.raises(AssertionError):
        testing.check_log_det(testing.randomize_parameters(flow), x)


# Inverses


def is_bijection(layer: Any, x: Tensor) -> None:
    testing.check_inverse(layer, x)
    testing.check_log_det(layer, x)


def mask_mutant(method: str, change: Callable[..., Any]) -> Mutation:
    """Replace a method of the checkerboard by ``change(original, self, ...)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = getattr(transforms.Checkerboard, method)
        patch.setattr(
            transforms.Checkerboard, method, lambda *arguments: change(original, *arguments)
        )

    return mutate


def swapped_rows(original: Any, self: Any, x: Tensor, changed: Tensor) -> Tensor:
    return original(self, x, changed.roll(1, -1))  # type: ignore[no-any-return]


MASK_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "shows what changes": (mask_mutant("seen", lambda _, self, x: x), "inverse|forward"),
    "puts pixels in others' places": (mask_mutant("merge", swapped_rows), "inverse|forward"),
    "overwrites what passes": (
        mask_mutant("merge", lambda original, self, x, c: original(self, 0 * x, c)),
        "inverse|forward",
    ),
}


@pytest.mark.parametrize("mutant", MASK_MUTANTS)
def test_mask(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = testing.randomize_parameters(image_coupling()).eval()
    x = points(layer, 3, 2, 3, 4)
    mutation, message = MASK_MUTANTS[mutant]
    assert_caught(lambda: is_bijection(layer, x), mutation, monkeypatch, message)


def test_answers_of_the_wrong_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Still a bijection, but no coupling of this mask: the values tell."""
    layer = testing.randomize_parameters(image_coupling()).eval()
    x = points(layer, 1, 2, 3, 4)[0]

    def law() -> None:
        h, shift = layer.net(layer.mask.seen(x)).chunk(2)
        scale = torch.exp(torch.as_tensor(layer.rescale) * torch.tanh(h))
        expected = torch.where(layer.mask(x.shape), x, x * scale + shift)
        assert torch.allclose(layer.inv(x), expected), "the map is its equation"

    mutation = mask_mutant("answers", lambda original, self, output: self.changed(output.flip(-1)))
    assert_caught(law, mutation, monkeypatch, "its equation")


# Normalisations, linear maps, splines, scales


def method_of(part: Any, name: str, change: Callable[..., Any]) -> Mutation:
    """Replace a method's result ``r`` by ``change(r, self, *arguments)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = getattr(part, name)

        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            return change(original(self, *arguments, **options), self, *arguments)

        patch.setattr(part, name, method)

    return mutate


def with_log_det(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """Change the second of a method's two results."""
    return lambda result, *_: (result[0], change(result[1]))


def both_ways(part: Any, change: Callable[[Tensor], Tensor]) -> Mutation:
    """Change the log-determinant of either direction."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        for name in ("forward_and_log_det", "inverse_and_log_det"):
            method_of(part, name, with_log_det(change))(patch)

    return mutate


def transposed(result: Any, self: Any, context: Any) -> Any:
    """The inverse that a rotation would have."""
    weight, log_det = self._weight(context)
    return weight.mT, log_det


def spline(patch: pytest.MonkeyPatch, change: Callable[[Tensor], Tensor]) -> None:
    from pyro_genmodels.transforms.couplings import spline as module

    original = module.rational_quadratic_spline

    def changed(*arguments: Any, **options: Any) -> Any:
        value, log_slope = original(*arguments, **options)
        return value, change(log_slope)

    patch.setattr(module, "rational_quadratic_spline", changed)


def act_norm() -> transforms.ActNorm:
    return transforms.ActNorm(2, initialized=True)


def linear(**options: Any) -> transforms.InvertibleLinear:
    torch.manual_seed(0)
    return transforms.InvertibleLinear(2, **options)


def batch_norm() -> transforms.BatchNorm:
    layer = transforms.BatchNorm(2, epsilon=0.1)
    layer.running_var.mul_(0.5)
    return layer


def spline_coupling() -> transforms.SplineCoupling:
    return transforms.spline_coupling((2, 3, 4), hidden=(4,), activation="tanh", num_bins=4)


def factor_out() -> transforms.FactorOut:
    torch.manual_seed(0)
    prior = nets.ConvNet(1, 2, hidden=(4,), activation="tanh")
    return transforms.FactorOut(transforms.ActNorm(1, initialized=True), prior)


def one_pixel_only(log_det: Tensor) -> Tensor:
    return log_det / 12


PART_MUTANTS: dict[str, tuple[Callable[[], Any], Mutation, str]] = {
    "ActNorm: dropped H*W": (act_norm, both_ways(transforms.ActNorm, one_pixel_only), "slogdet"),
    "ActNorm: flipped sign": (act_norm, both_ways(transforms.ActNorm, lambda d: -d), "slogdet"),
    "ActNorm: factor forgotten in the log-det": (
        act_norm,
        method_of(transforms.ActNorm, "_total", lambda r, self, *_: r / self.log_scale_factor),
        "slogdet",
    ),
    "1x1: dropped H*W": (
        linear,
        both_ways(transforms.InvertibleLinear, one_pixel_only),
        "slogdet",
    ),
    "1x1, plain: dropped H*W": (
        lambda: linear(lu=False),
        both_ways(transforms.InvertibleLinear, one_pixel_only),
        "slogdet",
    ),
    "1x1: flipped sign": (linear, both_ways(transforms.InvertibleLinear, torch.neg), "slogdet"),
    "1x1: transposed instead of inverse": (
        linear,
        method_of(transforms.InvertibleLinear, "_inverse_weight", transposed),
        "inverse|forward",
    ),
    "spline: halved log-det": (
        spline_coupling,
        lambda patch: spline(patch, lambda d: d / 2),
        "slogdet",
    ),
    "spline: flipped sign": (spline_coupling, lambda patch: spline(patch, torch.neg), "slogdet"),
    "BatchNorm: no epsilon in its log-det": (
        batch_norm,
        method_of(
            transforms.BatchNorm,
            "_over_event",
            lambda r, self, x, _: r.sign() * 0.5 * 12 * self.running_var.log().sum().abs(),
        ),
        "slogdet",
    ),
    "factored-out prior: log-det forgotten": (
        factor_out,
        both_ways(transforms.AffineCoupling, torch.zeros_like),
        "slogdet",
    ),
    "diagonal scale: flipped sign": (
        lambda: transforms.DiagonalScale((2, 3, 4)),
        both_ways(transforms.DiagonalScale, torch.neg),
        "slogdet",
    ),
}


@pytest.mark.parametrize("mutant", PART_MUTANTS)
def test_part(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, mutation, message = PART_MUTANTS[mutant]
    layer = testing.randomize_parameters(make()).eval()
    x = points(layer, 3, 2, 3, 4)

    assert_caught(lambda: is_bijection(layer, x), mutation, monkeypatch, message)


HALVES = {
    "the one that goes on is factored out too": lambda kept, out: (kept, kept),
    "the one that is factored out goes on too": lambda kept, out: (out, out),
    "swapped": lambda kept, out: (out, kept),
}


@pytest.mark.parametrize("mutant", HALVES)
def test_factored_out_half(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = testing.randomize_parameters(factor_out()).eval()
    x = points(layer, 3, 2, 3, 4)
    mutation = method_of(transforms.ChannelMask, "divide", lambda r, *_: HALVES[mutant](*r))
    assert_caught(lambda: is_bijection(layer, x), mutation, monkeypatch, "inverse|slogdet")


def test_prior_of_the_wrong_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior changes the half that goes on: a bijection, but no factored-out half."""
    torch.manual_seed(0)
    layer, x = testing.randomize_parameters(factor_out()).eval(), points(None, 3, 2, 3, 4)

    def law() -> None:
        y = x.clone()
        y[:, 1:] += 1
        before, after = layer.inv(x)[:, :1], layer.inv(y)[:, :1]
        assert torch.equal(before, after), "what goes on does not see what was factored out"

    def mutate(patch: pytest.MonkeyPatch) -> None:
        assert layer.prior is not None
        patch.setattr(layer.prior, "mask", transforms.ChannelMask(inverted=True))

    assert_caught(law, mutate, monkeypatch, "factored out")


def test_act_norm_that_starts_again(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = transforms.ActNorm(2).train()
    layer.initialize(points(layer, 9, 2, 3, 4))

    def law() -> None:
        before = [p.clone() for p in layer.parameters()]
        layer.inv(5 + points(layer, 9, 2, 3, 4) * 3)
        assert all(map(torch.equal, before, layer.parameters())), "initialises once"

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(type(layer.first_data), "is_due", property(lambda self: self.training))

    assert_caught(law, mutate, monkeypatch, "initialises once")


def test_squeeze_that_scrambles_on_the_way_back(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = transforms.Squeeze(alternating=True)
    x = points(layer, 2, 1, 4, 4)

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("pyro_genmodels.transforms.layers.squeeze._CORNERS_BACK", (0, 3, 1, 2))

    assert_caught(lambda: testing.check_inverse(layer, x), mutate, monkeypatch, "inverse")


# The slot


def slotted() -> tuple[Any, Tensor]:
    flow = transforms.RealNVP(3, width=4, num_couplings=2, activation="tanh")
    return testing.randomize_parameters(flow).eval(), points(flow, 2, 3)


def keep_forever(patch: pytest.MonkeyPatch) -> None:
    """Serve by the identity of the pair alone, and again and again: torch's own cache."""

    def take_log_det(self: Any, x: Tensor, y: Tensor, dependencies: Any) -> Tensor | None:
        entry = self._entry
        if entry is None:
            return None
        given, made = (x, y) if entry.forward else (y, x)
        return entry.log_det if entry.given is given and entry.made() is made else None

    def take_input(self: Any, y: Tensor, dependencies: Any) -> Tensor | None:
        entry = self._entry
        if entry is None or not entry.forward or entry.made() is not y:
            return None
        self.put(entry.given, y, entry.log_det, dependencies, forward=False)
        return entry.given  # type: ignore[no-any-return]

    patch.setattr(Slot, "take_log_det", take_log_det)
    patch.setattr(Slot, "take_input", take_input)


def without_stamp(patch: pytest.MonkeyPatch) -> None:
    original = single_use_cache._stamp
    patch.setattr(single_use_cache, "_stamp", lambda *arguments: ((), original(*arguments)[1]))


def without_snapshot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(single_use_cache, "_snapshot", lambda _: [])


def never_served(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slot, "take_log_det", lambda *_: None)


def log_det_kept_out_of_the_slot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Slot, "take_input", lambda *_: None)


SLOT_MUTANTS: dict[str, tuple[str, Mutation, str]] = {
    "stale": ("check_no_stale_value", keep_forever, "is fresh"),
    "blind to .data writes": ("check_no_stale_value", without_snapshot, "write through .data"),
    "served across no_grad": ("check_gradients_survive", without_stamp, "has a gradient"),
    "never served": ("check_single_evaluation", never_served, "log_prob evaluates"),
    "sample inverted again": (
        "check_single_evaluation",
        log_det_kept_out_of_the_slot,
        "rsample then log_prob",
    ),
}


@pytest.mark.parametrize("mutant", SLOT_MUTANTS)
def test_slot(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = SLOT_MUTANTS[mutant]
    flow, x = slotted()
    check = getattr(testing, law)
    assert_caught(lambda: check(flow, x), mutation, monkeypatch, message)


def test_pyros_own_coupling_is_stale() -> None:
    """The identity cache of Pyro 1.9 (#2564) breaks the law that ours keeps."""
    coupling = dist.transforms.affine_coupling(3).double()
    with pytest.raises((AssertionError, RuntimeError)):
        testing.check_no_stale_value(coupling, points(coupling, 2, 3))


# Masks and receptive fields


def colour_net() -> nets.PixelCNNNet:
    torch.manual_seed(0)
    net = nets.PixelCNNNet((3, 3, 3), 4, hidden_channels=12, num_blocks=1, kernel_size=3)
    return testing.randomize_parameters(net).eval()


def mask_with(change: Callable[[MaskedConv2d, Tensor], Tensor]) -> Mutation:
    """Replace each masked convolution's mask when its network is made."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = MaskedConv2d.__init__

        def init(self: Any, *arguments: Any, **options: Any) -> None:
            original(self, *arguments, **options)
            self.mask.copy_(change(self, self.mask.clone()))

        patch.setattr(MaskedConv2d, "__init__", init)

    return mutate


def centre_leaks(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    if layer.kind == "A":
        mask[:, :, -1, layer.kernel_size // 2] = True
    return mask


def shifted_by_one(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    if layer.kernel_size > 1:
        mask[:, :, -1] = mask[:, :, -1].roll(1, -1)
    return mask


def shifted_back_by_one(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    if layer.kernel_size > 1:
        mask[:, :, -1, layer.kernel_size // 2 - 1 :] = False
    return mask


def colours_swapped(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    half = layer.kernel_size // 2
    mask[:, :, half, half] = mask[:, :, half, half].flip(0, 1)
    return mask


def colours_independent(layer: MaskedConv2d, mask: Tensor) -> Tensor:
    if layer.kind == "A":
        mask[:, :, -1, layer.kernel_size // 2] = False
    return mask


LEAKS = {
    "leaking centre tap": centre_leaks,
    "mask shifted by one": shifted_by_one,
    "swapped RGB order": colours_swapped,
}


@pytest.mark.parametrize("mutant", LEAKS)
def test_leak(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def law() -> None:
        testing.check_autoregressive(colour_net(), (3, 3, 3), num_levels=4)

    assert_caught(law, mask_with(LEAKS[mutant]), monkeypatch, "leaks, the first")


def test_leak_through_batch_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a peer's PixelCNN: causal in eval mode, not in training mode."""
    net = colour_net().train()
    leaky = copy.deepcopy(net)
    leaky.first = nn.Sequential(net.first, nn.BatchNorm2d(net.first.out_channels))
    testing.check_autoregressive(net, (3, 3, 3), num_levels=4)
    testing.check_autoregressive(leaky.eval(), (3, 3, 3), num_levels=4)
    with pytest.raises(AssertionError, match="leaks"):
        testing.check_autoregressive(leaky.train(), (3, 3, 3), num_levels=4)


FIELDS = {
    "narrower by a pixel": shifted_back_by_one,
    "colours independent": colours_independent,
}


@pytest.mark.parametrize("mutant", FIELDS)
def test_receptive_field(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = testing.raster_field((3, 3, 3), past_of([3, 3]))

    def law() -> None:
        testing.check_receptive_field(colour_net(), (3, 3, 3), expected, num_levels=4)

    assert_caught(law, mask_with(FIELDS[mutant]), monkeypatch, "missing pairs")


def gated_net() -> nets.GatedPixelCNNNet:
    torch.manual_seed(0)
    net = nets.GatedPixelCNNNet((1, 5, 5), 3, hidden_channels=8, num_layers=3, kernel_size=3)
    return vivid(testing.randomize_parameters(net).eval())


def shifts(every_layer: bool) -> Mutation:
    """Shift the vertical stack again in each layer, or never."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = VerticalConv2d.__init__

        def init(self: Any, *arguments: Any, **options: Any) -> None:
            original(self, *arguments, **options)
            self.shift = every_layer

        patch.setattr(VerticalConv2d, "__init__", init)

    return mutate


VERTICAL_MUTANTS = {
    "not shifted": (shifts(every_layer=False), "unexpected pairs"),
    "shifted in every layer": (shifts(every_layer=True), "missing pairs"),
}


@pytest.mark.parametrize("mutant", VERTICAL_MUTANTS)
def test_vertical_stack(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = testing.raster_field((1, 5, 5))

    def law() -> None:
        testing.check_receptive_field(gated_net(), (1, 5, 5), expected, num_levels=3)

    mutation, message = VERTICAL_MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message)


def test_attention_to_the_pixel_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in their own places: the usual causal mask, whose diagonal is the answer."""
    torch.manual_seed(0)
    net = nets.PixelSNAILNet((1, 3, 3), 3, hidden_channels=8, num_blocks=1, num_layers=0)
    vivid(testing.randomize_parameters(net).eval())

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("pyro_genmodels.nets.gated_pixelcnn.attention.shifted", lambda x: x)

    def law() -> None:
        testing.check_autoregressive(net, (1, 3, 3), num_levels=3)

    assert_caught(law, mutate, monkeypatch, "leaks, the first")


def test_gated_sampler_that_forgets_the_row_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.gated_pixelcnn.layer_cache import VerticalCache

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(VerticalCache, "make_room", lambda self: self.newest.zero_())

    law = distributions.GatedPixelCNN(gated_net())
    assert_caught(
        lambda: testing.check_sampling_methods_agree(law, sample_shape=(100,)),
        mutate,
        monkeypatch,
        "draws as 'cached' does",
    )


def pixelrnn_net(*shape: int, **options: Any) -> nets.PixelRNNNet:
    torch.manual_seed(0)
    options = {"hidden_channels": 12, "num_layers": 2, "kernel_size": 3, **options}
    return vivid(testing.randomize_parameters(nets.PixelRNNNet(shape, 3, **options)).eval())


def states_shifted(offset: int) -> Mutation:
    """Let each pixel of a row read what its neighbour should read."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        from pyro_genmodels.nets.pixelrnn import wavefront

        original = wavefront._wavefront

        def shifted(fronts: Any, offsets: Any, *, memory: int) -> Any:
            moved = [(down, right + offset * (down != 0)) for down, right in offsets]
            return original(fronts, moved, memory=memory)

        patch.setattr(wavefront, "_wavefront", shifted)

    return mutate


def right_not_moved_down(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("pyro_genmodels.nets.pixelrnn.layers.moved_down", lambda x, width: x)


def right_moved_down_twice(patch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.pixelrnn import layers

    original = layers.moved_down
    patch.setattr(layers, "moved_down", lambda x, width: original(x, 2 * width))


def levels_hidden_from_the_right(patch: pytest.MonkeyPatch) -> None:
    """As printed: nothing far away sees the last pixel of the row above."""
    from pyro_genmodels.nets.pixelrnn.layers import DiagonalLSTMLayer

    original = DiagonalLSTMLayer.forward
    patch.setattr(
        DiagonalLSTMLayer, "forward", lambda self, x, f, levels: original(self, x, f, 0 * levels)
    )


def colours_of_gates_swapped(patch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.layers.masked_conv import MaskedRowConv2d

    original = MaskedRowConv2d.__init__

    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        self.mask[..., -1] = self.mask[..., -1].flip(0, 1).clone()

    patch.setattr(MaskedRowConv2d, "__init__", init)


PIXELRNN_MUTANTS: dict[str, tuple[Mutation, str, str]] = {
    "row: states shifted to the right": (states_shifted(1), "row", "unexpected pairs"),
    "row: states shifted to the left": (states_shifted(-1), "row", "unexpected pairs"),
    "right way not moved down": (right_not_moved_down, "diagonal", "unexpected pairs"),
    "right way moved down twice": (right_moved_down_twice, "diagonal", "missing pairs"),
    "levels hidden from the right": (levels_hidden_from_the_right, "diagonal", "missing pairs"),
    "colours of the gates swapped": (colours_of_gates_swapped, "diagonal", "unexpected pairs"),
}


@pytest.mark.parametrize("mutant", PIXELRNN_MUTANTS)
def test_pixelrnn(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.nets.test_pixelrnn import triangle

    mutation, layer, message = PIXELRNN_MUTANTS[mutant]
    shape, options = ((3, 3, 3), {}) if layer == "diagonal" else ((1, 3, 9), {"num_layers": 1})
    if layer == "row":
        expected = testing.raster_field(shape, triangle(1, 3, 3))
    else:
        expected = testing.raster_field(shape)

    def law() -> None:
        net = pixelrnn_net(*shape, layer=layer, **options)
        testing.check_receptive_field(net, shape, expected, num_levels=3)

    assert_caught(law, mutation, monkeypatch, message)


def sampler_forgets(owner: str, method: str) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(f"pyro_genmodels.nets.{owner}.{method}", lambda *_: None)

    return mutate


SAMPLER_MUTANTS = {
    "no right way": ("diagonal", sampler_forgets("pixelrnn.incremental.RightWay", "start_row")),
    "nothing above": (
        "diagonal",
        sampler_forgets("pixelrnn.layer_cache.DiagonalLayerEvaluation", "read_above"),
    ),
    "no row above": (
        "row",
        sampler_forgets("pixelrnn.layer_cache.RowLayerEvaluation", "read_above"),
    ),
}


@pytest.mark.parametrize("mutant", SAMPLER_MUTANTS)
def test_pixelrnn_sampler(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, mutation = SAMPLER_MUTANTS[mutant]
    law = distributions.PixelRNN(pixelrnn_net(1, 3, 4, layer=layer))
    assert_caught(
        lambda: testing.check_sampling_methods_agree(law, sample_shape=(100,)),
        mutation,
        monkeypatch,
        "draws as 'cached' does",
    )


def scores_small_pixels_again(patch: pytest.MonkeyPatch) -> None:
    """Take the large network's word for the small image too, which it was given."""

    def evaluate(self: Any, x: Tensor, features: Tensor | None) -> Tensor:
        return self.large.evaluate(x, self.enlarged(self.reduced(x), None))

    patch.setattr(nets.MultiScaleNet, "evaluate", evaluate)


def test_multiscale_that_scores_the_small_image_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net = vivid(testing.randomize_parameters(multiscale(1, 2, 3)).eval())
    law = distributions.MultiScalePixelRNN(net)
    assert_caught(
        lambda: testing.check_normalized(law), scores_small_pixels_again, monkeypatch, "sum to one"
    )


def plus_plus(*shape: int, num_levels: int = 3, **options: Any) -> nets.PixelCNNPlusPlusNet:
    torch.manual_seed(0)
    small = {"hidden_channels": 4, "num_resnets": 1, "num_scales": 2, "num_mixtures": 2}
    net = nets.PixelCNNPlusPlusNet(shape, num_levels, **{**small, **options})
    return testing.randomize_parameters(net).eval()


def test_streams_that_are_not_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    net = plus_plus(1, 4, 4)

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr("pyro_genmodels.nets.pixelcnn_pp.pixelcnn_pp._moved_down", lambda x: x)

    def law() -> None:
        testing.check_autoregressive(net, (1, 4, 4), num_levels=3)

    assert_caught(law, mutate, monkeypatch, "leaks, the first")


def test_transposed_convolution_that_is_off_by_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.pixelcnn_pp.layers import ShiftedConv2d

    net, original = plus_plus(1, 4, 4), ShiftedConv2d._convolve

    def up(self: Any, x: Tensor) -> Tensor:
        y = original(self, x)
        return y if self.step != "up" else nn.functional.pad(y, (0, 0, -1, 1))

    def law() -> None:
        testing.check_autoregressive(net, (1, 4, 4), num_levels=3)

    assert_caught(
        law,
        lambda patch: patch.setattr(ShiftedConv2d, "_convolve", up),
        monkeypatch,
        "leaks, the first",
    )


def test_sampler_that_forgets_a_row_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.pixelcnn_pp.layer_cache import RowConv

    original = RowConv.feed

    def forgetful(self: Any, row: Tensor) -> None:
        original(self, row)
        self._rows[0].zero_()

    law = distributions.PixelCNNPlusPlus(plus_plus(1, 6, 4, num_levels=17))
    assert_caught(
        lambda: testing.check_sampling_methods_agree(law, sample_shape=(20,)),
        lambda patch: patch.setattr(RowConv, "feed", forgetful),
        monkeypatch,
        "draws as 'cached' does",
    )


def test_weights_that_ignore_the_earlier_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels drawn from components of their own, each by the pixel's weights, still sum to one.

    The published formula, one component for all channels, is what tells: tests of the mixture.
    """
    from pyro_genmodels import _logistic_mixture
    from tests.distributions.test_logistic_mixture import (
        test_linked_channels_are_the_published_mixture_over_pixels as published,
    )

    original = _logistic_mixture.channel_laws

    def unlinked(raw: Tensor, channels: int, levels: int, **options: Any) -> Any:
        laws = original(raw, channels, levels, **options)
        law = next(laws)
        weights = law.chunk(3, -1)[0]
        for i in range(channels):
            level = yield torch.cat([weights, *law.chunk(3, -1)[1:]], -1)
            law = laws.send(level) if i + 1 < channels else law

    assert_caught(
        lambda: published(5),
        lambda patch: patch.setattr(_logistic_mixture, "channel_laws", unlinked),
        monkeypatch,
        "not close",
    )


# Samplers and masses


def small_pixelcnn() -> distributions.PixelCNN:
    torch.manual_seed(0)
    net = nets.PixelCNNNet((1, 2, 2), 3, hidden_channels=4, num_blocks=1)
    return distributions.PixelCNN(vivid(testing.randomize_parameters(net).eval()))


def unrounded(patch: pytest.MonkeyPatch) -> None:
    """Condition on a value between levels, as two published samplers do."""
    from pyro_genmodels.nets.pixelcnn.pixelcnn import PixelCNNEvaluation

    original = PixelCNNEvaluation.append

    def append(self: Any, level: Tensor) -> None:
        original(self, 0.5 * level + 0.5)

    patch.setattr(PixelCNNEvaluation, "append", append)


def test_unrounded_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    pixelcnn = small_pixelcnn()

    def law() -> None:
        testing.check_sampler(pixelcnn, num_samples=20_000)

    assert_caught(law, unrounded, monkeypatch, "total variation|chi-square")


def test_cached_sampler_that_forgets_the_row_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.pixelcnn.pixelcnn import RowCache

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = RowCache.start_row

        def start_row(self: Any, extra: Tensor | None = None) -> None:
            self._row.zero_()
            original(self, extra)

        patch.setattr(RowCache, "start_row", start_row)

    pixelcnn = small_pixelcnn()

    def law() -> None:
        testing.check_sampling_methods_agree(pixelcnn, sample_shape=(100,))

    assert_caught(law, mutate, monkeypatch, "draws as 'cached' does")


class Tailless(distributions.DiscretizedLogistic):
    """Gives every bin the density's mass between its edges: the outer bins lose their tails."""

    def log_prob(self, value: Tensor) -> Tensor:
        half = 1 / (self.num_levels - 1)
        centre, scale = 2 * value * half - 1, self.log_scale.exp()
        upper = torch.sigmoid((centre + half - self.loc) / scale)
        return (upper - torch.sigmoid((centre - half - self.loc) / scale)).log()


class RightTailTwice(distributions.DiscretizedLogistic):
    """A published test of the right tail catches the last level but one too."""

    def log_prob(self, value: Tensor) -> Tensor:
        half = 1 / (self.num_levels - 1)
        lower = (2 * value * half - 1 - half - self.loc) / self.log_scale.exp()
        tail = torch.nn.functional.logsigmoid(-lower)
        return torch.where(value >= self.num_levels - 2, tail, super().log_prob(value))


@pytest.mark.parametrize("mutant", [Tailless, RightTailTwice])
def test_log_mass(mutant: type[distributions.DiscretizedLogistic]) -> None:
    loc, log_scale = torch.tensor([-0.9, 0.3, 0.95]), torch.tensor([-1.0, -2.0, -1.0])
    testing.check_normalized(distributions.DiscretizedLogistic(loc, log_scale, 256))
    with pytest.raises(AssertionError, match="sum to one"):
        testing.check_normalized(mutant(loc, log_scale, 256))


# Models


def vae(make: Any = models.VAE, **options: Any) -> Any:
    torch.manual_seed(0)
    model = make((4,), num_levels=2, latent_dim=2, hidden=(6,), **options)
    return testing.randomize_parameters(model, 0.2)


def binary(batch: int) -> Tensor:
    return torch.randint(2, (batch, 4), generator=torch.Generator().manual_seed(0)).double()


def fixed_name(patch: pytest.MonkeyPatch) -> None:
    """Register as ``pyro.module("model", self)`` does."""

    def register(self: Any) -> None:
        if self.__dict__.get("_registers", True):
            pyro.module("model", self)

    patch.setattr(RegisteredModule, "register_with_pyro", register)


def no_registration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RegisteredModule, "register_with_pyro", lambda self: None)


LIFE_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "fixed pyro.module name": (fixed_name, "a second instance trains|a deep copy trains"),
    "no registration": (no_registration, "the first instance trains"),
}


@pytest.mark.parametrize("mutant", LIFE_MUTANTS)
def test_lifecycle(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, message = LIFE_MUTANTS[mutant]
    torch.set_default_dtype(torch.float32)
    x = binary(8).float()

    def law() -> None:
        testing.check_trains(vae, x)

    assert_caught(law, mutation, monkeypatch, message)


def remembered_weights(patch: pytest.MonkeyPatch) -> None:
    """Remember log-weights by the identity of x, as a naive cache would."""
    original = models.VAE.log_weights
    memory: weakref.WeakKeyDictionary[Any, dict[int, Tensor]] = weakref.WeakKeyDictionary()

    def log_weights(self: Any, x: Tensor, context: Any = None, *, num_particles: int = 1) -> Any:
        known = memory.setdefault(self, {})
        if id(x) not in known or torch.is_grad_enabled():
            known[id(x)] = original(self, x, context, num_particles=num_particles)
        return known[id(x)]

    patch.setattr(models.VAE, "log_weights", log_weights)


def test_stale_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae().eval()

    def law() -> None:
        testing.check_no_stale_weights(model, binary(3))

    assert_caught(law, remembered_weights, monkeypatch, "fresh")


def beta_in_the_model_only(patch: pytest.MonkeyPatch) -> None:
    def infer(self: Any, x: Tensor, context: Tensor | None) -> None:
        pyro.sample("z", self.encode(x, context))

    patch.setattr(models.BetaVAE, "infer", infer)


def beta_in_the_guide_only(patch: pytest.MonkeyPatch) -> None:
    original = models.BetaVAE.generate

    def generate(self: Any, x: Tensor | None, context: Tensor | None) -> Tensor:
        scale, self.latent_scale = self.latent_scale, LatentScale()
        try:
            return original(self, x, context)
        finally:
            self.latent_scale = scale

    patch.setattr(models.BetaVAE, "generate", generate)


@pytest.mark.parametrize("mutation", [beta_in_the_model_only, beta_in_the_guide_only])
def test_beta_on_one_side(mutation: Mutation, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae(models.BetaVAE, beta=4.0).eval()

    def law() -> None:
        testing.check_estimators_agree(model, binary(3), num_runs=30)

    assert_caught(law, mutation, monkeypatch, "Trace_ELBO = ")


def dequantization_mutant(change: Callable[[Tensor, Tensor], Tensor]) -> Mutation:
    """Replace the draw ``v`` for levels ``x`` by ``change(v, x)``."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = distributions.UniformDequantization.rsample

        def rsample(self: Any, sample_shape: Any = ()) -> Tensor:
            return change(original(self, sample_shape), self.x)

        patch.setattr(distributions.UniformDequantization, "rsample", rsample)

    return mutate


DEQUANTIZATION_MUTANTS = {
    "rounds up": dequantization_mutant(lambda v, x: torch.where(v > x + 0.99, x + 1, v)),
    "covers half of the bin": dequantization_mutant(lambda v, x: (x + v) / 2),
    "covers two bins": dequantization_mutant(lambda v, x: x + 2 * (v - x)),
}


@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize("mutant", DEQUANTIZATION_MUTANTS)
def test_dequantization(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = transforms.RealNVP(2, width=4, num_couplings=2, activation="tanh", logit_margin=0.0)
    model = testing.randomize_parameters(models.FlowModel((2,), flow, num_levels=2)).eval()

    def law() -> None:
        testing.check_evidence_normalized(model, num_particles=1000)
        testing.check_model_sampler(model, num_particles=1000)

    # The flow itself refuses values beyond the levels, whose logit is none.
    mutation, error = DEQUANTIZATION_MUTANTS[mutant], (AssertionError, ValueError)
    message = "evidence|effective|a finite image"
    assert_caught(law, mutation, monkeypatch, message, error=error)


def loose_bounds(change: Callable[[Tensor], Tensor]) -> Mutation:
    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = models.VAE.log_weights

        def log_weights(self: Any, *arguments: Any, **options: Any) -> Tensor:
            return change(original(self, *arguments, **options))

        patch.setattr(models.VAE, "log_weights", log_weights)

    return mutate


@pytest.mark.parametrize("shift", [0.3, -0.3])
def test_evidence_off_by_a_constant(shift: float, monkeypatch: pytest.MonkeyPatch) -> None:
    model = vae().eval()

    def law() -> None:
        testing.check_evidence_normalized(model)

    assert_caught(law, loose_bounds(lambda w: w + shift), monkeypatch, "evidence sums to one")


# Objectives of VAEs


def kl_of(change: Callable[[Any, Any], Tensor]) -> Mutation:
    """Replace the KL divergence of the encoder's Gaussian from the standard one."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setitem(_KL_REGISTRY, (DiagonalNormal, StandardNormal), change)
        patch.setattr("torch.distributions.kl._KL_MEMOIZE", {})

    return mutate


def true_kl(q: Any, p: Any) -> Tensor:
    return (0.5 * (q.loc**2 + q.scale**2 - 1) - q.log_scale).sum(-1).expand(q.batch_shape)


def reversed_kl(q: Any, p: Any) -> Tensor:
    return (0.5 * ((1 + q.loc**2) / q.scale**2 - 1) + q.log_scale).sum(-1)


KL_MUTANTS = {
    "flipped sign": kl_of(lambda q, p: -true_kl(q, p)),
    "doubled": kl_of(lambda q, p: 2 * true_kl(q, p)),
    "the other way around": kl_of(reversed_kl),
    "without the log-scales": kl_of(lambda q, p: true_kl(q, p) + q.log_scale.sum(-1)),
    "of the first unit alone": kl_of(
        lambda q, p: true_kl(DiagonalNormal(q.loc[..., :1], q.log_scale[..., :1]), p)
    ),
}


@pytest.mark.parametrize("mutant", KL_MUTANTS)
def test_kl_of_the_posterior(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = testing.randomize_parameters(vae(), 0.3).eval()
    # Far from the prior, where a wrong divergence shows, and narrow, so that noise hides nothing.
    model.encoder.mlp.layers[-1].bias.data += torch.tensor([2.0, 2.0, -1.0, -1.0])

    def law() -> None:
        testing.check_estimators_agree(model, binary(3), num_runs=30)

    assert_caught(law, KL_MUTANTS[mutant], monkeypatch, "Trace_ELBO = TraceMeanField_ELBO")


def wider(result: Tensor, self: Any, *_: Any) -> Tensor:
    return self.loc + self.scale * (result - self.loc)  # type: ignore[no-any-return]


POSTERIOR_MUTANTS = {
    "drawn with the variance for a scale": method_of(DiagonalNormal, "rsample", wider),
    "log-density of unit scales": method_of(
        DiagonalNormal, "log_prob", lambda r, self, *_: r + self.log_scale.sum(-1)
    ),
    "log-density of the other sign of the log-scale": method_of(
        DiagonalNormal, "log_prob", lambda r, self, *_: r + 2 * self.log_scale.sum(-1)
    ),
}


@pytest.mark.parametrize("mutant", POSTERIOR_MUTANTS)
def test_scale_of_the_posterior(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = testing.randomize_parameters(vae(), 0.4).eval()

    def law() -> None:
        testing.check_evidence_normalized(model, num_particles=4000)

    message = "evidence sums to one|effective number"
    assert_caught(law, POSTERIOR_MUTANTS[mutant], monkeypatch, message)


def cost_of_latents(model: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """What a step pays for the latents, in nats an example, and the KL divergence by units."""
    torch.manual_seed(0)
    loss = models.ELBOLoss(model)(x)
    torch.manual_seed(0)
    posterior = model.encode(x)
    reconstruction = -model.decode(posterior.rsample()).log_prob(x).mean()
    kl = 0.5 * (posterior.mean.square() + posterior.variance - 1 - posterior.variance.log())
    return loss - reconstruction, kl


def never_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LatentScale, "off", lambda self: contextlib.nullcontext())


def always_training(patch: pytest.MonkeyPatch) -> None:
    """Count whatever runs the guide as a step."""
    method_of(models.BetaVAE, "infer", lambda r, self, *_: self.latent_scale.advance())(patch)


WARMUP_MUTANTS: dict[str, Mutation] = {
    "never rises": lambda patch: patch.setattr(LatentScale, "advance", lambda self: None),
    "rises at every run of the guide": always_training,
    "rises beyond its end": lambda patch: patch.setattr(
        LatentScale, "value", property(lambda self: self.beta * self.step / self.warmup_steps)
    ),
    "ends at one, not at beta": method_of(LatentScale, "forward", lambda r, self: rescaled(self)),
    "stays while bounding": never_off,
    "rises from zero always": lambda patch: patch.setattr(
        LatentScale,
        "value",
        property(lambda self: self.beta * (1e-4 + (1 - 1e-4) * (self.step / 4).clamp(max=1.0))),
    ),
}


def rescaled(scale: LatentScale) -> Any:
    return pyro.poutine.scale(scale=scale.value / scale.beta if scale.is_on else 1.0)


@pytest.mark.parametrize("mutant", WARMUP_MUTANTS)
def test_warm_up(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = binary(3)

    def law(first: float | None = None) -> None:
        options = {"beta": 2.0, "warmup_steps": 4, "first_beta": first}
        model, weights = vae(models.BetaVAE, **options).train(), []
        for _ in range(6):
            cost, kl = cost_of_latents(model, x)
            weights.append((cost / kl.sum(-1).mean()).item())
            model.eval()
            bounded = torch.zeros(())
            with model.bounding():
                torch.manual_seed(1)
                bounded -= Trace_ELBO().loss(model.model, model.guide, x)
            torch.manual_seed(1)
            assert torch.allclose(bounded, model.log_weights(x).sum()), "a bound, at beta one"
            model.train()
        start = 2e-4 if first is None else first
        path = [start + (2 - start) * min(1.0, step / 4) for step in range(1, 7)]
        assert weights == pytest.approx(path), "the weight moves to beta"

    def laws() -> None:
        law()
        law(first=6.0)

    message = "the weight moves to beta|a bound, at beta one"
    assert_caught(laws, WARMUP_MUTANTS[mutant], monkeypatch, message)


def free_bits(change: Callable[[Any, Tensor], Tensor]) -> Mutation:
    return lambda patch: patch.setattr(LatentCost, "_with_free_bits", change)


FREE_BITS_MUTANTS = {
    "at most, not at least": free_bits(
        lambda self, kl: kl.mean(-2).clamp_max(self.free_bits).sum(-1).expand(len(kl))
    ),
    "of each example": free_bits(lambda self, kl: kl.clamp_min(self.free_bits).sum(-1)),
    "of all units together": free_bits(
        lambda self, kl: kl.sum(-1).mean().clamp_min(self.free_bits).expand(len(kl))
    ),
    "paid beyond": free_bits(
        lambda self, kl: (kl.mean(-2) - self.free_bits).clamp_min(0).sum(-1).expand(len(kl))
    ),
    "no clamp": free_bits(lambda self, kl: kl.sum(-1)),
}


@pytest.mark.parametrize("mutant", FREE_BITS_MUTANTS)
def test_free_bits(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = testing.randomize_parameters(vae(), 0.7), binary(8)
    kl = cost_of_latents(model, x)[1].mean(0)
    # Between the two units' divergences, so that one pays the clamp and one its own.
    model = testing.randomize_parameters(vae(free_bits=float(kl.mean())), 0.7)

    def law() -> None:
        cost, kl = cost_of_latents(model, x)
        expected = kl.mean(0).clamp_min(model.latent_cost.free_bits).sum()
        assert torch.allclose(cost, expected), "each unit pays its mean, or the free bits"

    assert_caught(law, FREE_BITS_MUTANTS[mutant], monkeypatch, "each unit pays")


def committed(name: str, change: Callable[..., float]) -> Mutation:
    """Replace what delta-VAE takes for its correlation or its log-scale."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(f"pyro_genmodels.models.vae.delta_vae.{name}", change)

    return mutate


DELTA_MUTANTS: dict[str, Mutation] = {
    "sequence: half the nats": committed("correlation_of", lambda d, n: correlation_of(d / 2, n)),
    "sequence: all nats in each feature": committed(
        "correlation_of", lambda d, n: correlation_of(2 * d, n)
    ),
    "sequence: a step more": committed("correlation_of", lambda d, n: correlation_of(d, n + 1)),
    "variance: half the nats": committed("log_scale_of", lambda d: log_scale_of(d / 2)),
    "variance: all nats in each unit": committed("log_scale_of", lambda d: log_scale_of(8 * d)),
    "variance: the variance for a scale": committed("log_scale_of", lambda d: 2 * log_scale_of(d)),
}


@pytest.mark.parametrize("mutant", DELTA_MUTANTS)
def test_least_rate(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearest independent Gaussian is at delta, and no encoder comes nearer."""
    commitment, x = mutant.partition(":")[0], binary(50)

    def law() -> None:
        torch.manual_seed(0)
        model = models.DeltaVAE(
            (4,), num_levels=2, delta=3.0, commitment=commitment, latent_dim=8, num_steps=4
        )
        prior, none = model.prior_law(), torch.zeros(8)
        log_scale = model.encode(x).log_scale[0]
        if commitment == "sequence":
            correlation = prior.correlation
            place = torch.arange(4.0)
            dense = correlation ** (place[:, None] - place).abs()
            # By the precision of each entry given all others; features do not interact.
            log_scale = -0.5 * dense.inverse().diagonal().log().repeat_interleave(2)
        least = torch.distributions.kl_divergence(DiagonalNormal(none, log_scale), prior)
        assert torch.allclose(least, torch.tensor(3.0)), "the least rate is delta"
        for scale in (0.01, 0.5):
            posterior = testing.randomize_parameters(model, scale).encode(x)
            rate = torch.distributions.kl_divergence(posterior, prior)
            assert (rate > 3.0 - 1e-9).all(), "the least rate is delta"

    assert_caught(law, DELTA_MUTANTS[mutant], monkeypatch, "the least rate is delta")


# Quantisers


def without_gradient(patch: pytest.MonkeyPatch) -> None:
    """Drop what passes straight through, of single and of composite quantisers."""
    for module in ("vector", "composite"):
        name = f"pyro_genmodels.nets.vector_quantization.{module}.straight_through"
        patch.setattr(name, lambda z, vectors: vectors.detach() + 0 * z)


def losses_of(change: Callable[[Tensor], Tensor]) -> Mutation:
    """Change what the guide adds of the quantisers' losses."""

    def mutate(patch: pytest.MonkeyPatch) -> None:
        original = pyro.factor

        def factor(name: str, total: Tensor, **options: Any) -> None:
            original(name, change(total) if name == "quantization" else total, **options)

        patch.setattr(pyro, "factor", factor)

    return mutate


def averages() -> None:
    quantizer_laws.test_averages_are_the_published_ones({})


def gradients(kind: str) -> Callable[[], None]:
    make = quantizer_laws.QUANTIZERS[kind]
    return lambda: quantizer_laws.test_the_gradient_passes_straight_through(make)


def objective() -> None:
    vqvae_laws.test_estimators_agree_with_the_objective_of_the_paper(
        vqvae_laws.vqvae, Trace_ELBO, False
    )


QUANTIZER_MUTANTS: dict[str, tuple[Callable[[], None], Mutation, str]] = {
    "averages not debiased": (
        averages,
        method_of(nets.VectorQuantizer, "_weight_of_batches", lambda r, _: torch.ones_like(r)),
        "not close",
    ),
    "averages debiased for a batch more": (
        averages,
        method_of(nets.VectorQuantizer, "_weight_of_batches", lambda r, q: 1 - q.decay * (1 - r)),
        "not close",
    ),
    "no gradient straight through": (gradients("ema"), without_gradient, "equal"),
    "no gradient straight through any part": (gradients("residual"), without_gradient, "equal"),
    "commitment with the other sign": (
        quantizer_laws.test_loss_and_its_gradients_are_those_of_the_paper,
        method_of(nets.VectorQuantizer, "forward", lambda r, *_: r._replace(loss=-r.loss)),
        "not close",
    ),
    "guide's losses with the other sign": (objective, losses_of(torch.neg), "comparison failed"),
    "guide's losses of one pixel": (objective, losses_of(lambda t: t / 30), "comparison failed"),
    "guide's losses left out": (objective, losses_of(torch.zeros_like), "comparison failed"),
}


@pytest.mark.parametrize("mutant", QUANTIZER_MUTANTS)
def test_quantizer(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = QUANTIZER_MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message)


# Optimizers


def _stay_together(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(optim.JointOptim, "_split", lambda self, present: None)


def states_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(joint, "load_states", lambda shared, states: None)


OPTIM_MUTANTS: dict[str, tuple[Callable[[], None], Mutation, str]] = {
    "what is absent moves": (optim_laws.test_an_absent_parameter_stays, _stay_together, "assert"),
    "what is absent decays": (
        lambda: optim_laws.test_steps_are_pyros("ClippedAdam"),
        _stay_together,
        "now and then",
    ),
    "one set of arguments for all": (
        lambda: optim_laws.test_arguments_may_be_of_the_parameter(optim_laws.lists),
        lambda patch: patch.setattr(joint, "is_equal", lambda one, other: True),
        "assert",
    ),
    "a state that is set is lost": (
        optim_laws.test_a_state_set_while_running_is_taken_up,
        states_lost,
        "assert",
    ),
}


@pytest.mark.parametrize("mutant", OPTIM_MUTANTS)
def test_optim(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, mutation, message = OPTIM_MUTANTS[mutant]
    assert_caught(law, mutation, monkeypatch, message)


# Distributions


def mask_swallowed(patch: pytest.MonkeyPatch) -> None:
    original = distributions.PixelCNN.log_prob
    patch.setattr(
        distributions.PixelCNN,
        "log_prob",
        lambda self, value: original(self, value).mean().expand(original(self, value).shape),
    )


def validation_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(distributions.PixelCNN, "_validate_sample", lambda *_: None)


def expand_forgets_validation(patch: pytest.MonkeyPatch) -> None:
    original = distributions.PixelCNN.expand

    def expand(self: Any, batch_shape: Any, _instance: Any = None) -> Any:
        new = original(self, batch_shape, _instance)
        new._validate_args = False
        return new

    patch.setattr(distributions.PixelCNN, "expand", expand)


DISTRIBUTION_MUTANTS: dict[str, tuple[Mutation, str]] = {
    "scores mixed over the batch": (mask_swallowed, "one by one"),
    "no validation": (validation_off, "is a ValueError"),
    "expand forgets validation": (expand_forgets_validation, "keeps validate_args"),
}


@pytest.mark.parametrize("mutant", DISTRIBUTION_MUTANTS)
def test_distribution(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mutation, message = DISTRIBUTION_MUTANTS[mutant]
    pixelcnn = small_pixelcnn()
    assert_caught(lambda: testing.check_distribution(pixelcnn), mutation, monkeypatch, message)


# Priors over maps of codes


def code_hierarchy_net() -> nets.CodeHierarchyNet:
    net = cases.code_hierarchy((2, 2), (2, 2)).double()
    return vivid(testing.randomize_parameters(net)).eval()  # type: ignore[return-value]


def test_a_map_of_codes_that_sees_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    original = nets.CodeHierarchyNet.evaluate

    def mutated(self: Any, x: Tensor, features: Any) -> Tensor:
        _, bottom = self.split(x)
        # Both maps are of one size: the lower one in the place of the upper.
        return original(self, self.join([bottom, bottom]), features)

    def law() -> None:
        testing.check_autoregressive(code_hierarchy_net(), (8,), num_levels=3)

    def mutation(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(nets.CodeHierarchyNet, "evaluate", mutated)

    assert_caught(law, mutation, monkeypatch, "leaks, the first")


def test_a_sampler_that_forgets_the_maps_above(monkeypatch: pytest.MonkeyPatch) -> None:
    from pyro_genmodels.nets.code_priors.code_hierarchy import HierarchyEvaluation

    law = distributions.HierarchicalVQPrior(code_hierarchy_net())
    original = HierarchyEvaluation._start_map

    def forgetful(self: Any) -> None:
        self._above = [torch.zeros_like(codes) for codes in self._above]
        original(self)

    assert_caught(
        lambda: testing.check_sampling_methods_agree(law, sample_shape=(50,)),
        lambda patch: patch.setattr(HierarchyEvaluation, "_start_map", forgetful),
        monkeypatch,
        "draws as 'cached' does",
    )


def test_codes_drawn_from_another_prior_than_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prior that is drawn from at a temperature and scored at none."""
    torch.manual_seed(0)
    law = distributions.VQPrior(
        vivid(testing.randomize_parameters(cases.snail_net(2, 2, embedding_size=2)))  # type: ignore[arg-type]
    )
    original = distributions.VQPrior.sample

    def colder(self: Any, *arguments: Any, **options: Any) -> Tensor:
        return original(self, *arguments, **{**options, "temperature": 0.5})

    assert_caught(
        lambda: testing.check_sampler(law),
        lambda patch: patch.setattr(distributions.VQPrior, "sample", colder),
        monkeypatch,
        "",
    )
