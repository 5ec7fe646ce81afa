"""Presets: each makes a model, of as many parameters as the published layers add up to."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyro_genmodels import models, training
from pyro_genmodels.cli.names import model_makers

pytestmark = pytest.mark.once
PRESETS = [(name, key) for name, group in models.presets().items() for key in group]
LARGE = [("NVAE", key) for key in models.presets()["NVAE"] if key != "digits"]
every_preset = pytest.mark.parametrize(("name", "key"), PRESETS)


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Counts layer by layer, from the papers and their code.


def glow(steps: int, levels: int, *, additive: bool = False, channels: int = 3) -> int:
    """Glow's code with width 512, and two differences.

    The code's top prior is a convolution of an image of zeros, of whose weights only those of the
    mark of the border do anything; ours is what that leaves inside, a mean and a log-scale of each
    channel. Convolutions between the normalisations of couplings have no bias, there as here.
    """
    width, total = 512, 0
    for level in range(levels):
        channels *= 4  # squeezed
        half, answers = channels // 2, channels // 2 if additive else channels
        normalisation, mixing = 2 * channels, channels**2
        # Each 3x3 convolution sees one more channel, the mark of the border.
        first = (half + 1) * 9 * width + 2 * width
        second = width * width + 2 * width
        last = (width + 1) * 9 * answers + 2 * answers  # bias and log-scale
        total += steps * (normalisation + mixing + first + second + last)
        if level < levels - 1:
            total += (half + 1) * 9 * channels + 2 * channels  # split prior
            channels = half
    return total + 2 * channels  # learned top prior


def realnvp_coupling(seen: int, changed: int, width: int, blocks: int) -> int:
    """A coupling's network: weight-normalised convolutions have a length and a bias a channel."""
    first = (2 * seen + 1) * 9 * width + 2 * width  # both signs, and the mask
    block = 2 * (9 * width**2 + 2 * width) + 2 * 2 * width  # and two batch norms
    skips = (blocks + 1) * (width**2 + 2 * width)
    last = 2 * width + width * 2 * changed + 2 * changed  # batch norm, then 1x1
    return first + blocks * block + skips + last + 1  # and the scalar scale of tanh


def realnvp(scales: int, width: int, blocks: int, channels: int = 3) -> int:
    """RealNVP's code; the batch norms between couplings have no parameters."""
    total = 0
    for scale in range(scales):
        last = scale == scales - 1
        total += (4 if last else 3) * realnvp_coupling(channels, channels, width, blocks)
        if not last:
            total += 3 * realnvp_coupling(2 * channels, 2 * channels, 2 * width, blocks)
        channels, width = 2 * channels, 2 * width
    return total


def nice(size: int, width: int, layers: int) -> int:
    """Four couplings of halves, and a scale of each element."""
    half = size // 2
    network = half * width + width + (layers - 1) * (width**2 + width) + width * half + half
    return 4 * network + size


def pixelcnn_pp(width: int, resnets: int, mixtures: int) -> int:
    """PixelCNN++'s code: kernels of 2x3 and 2x2, a length and a bias for each channel."""
    pairs_down, pairs_up = 3 * resnets, 3 * resnets + 2
    taps = 6 + 4
    pair = 2 * width * 3 * width * taps + 2 * 3 * width * 2  # both convolutions, both streams
    seen = 2 * width * width + 2 * width  # the second stream sees the first
    shortcuts = 2 * (2 * width * width) + 2 * width
    resizes = 4 * (width * width * taps + 2 * 2 * width)
    first = (3 + 1) * width * (6 + 3 + 2) + 3 * 2 * width
    last = width * 10 * mixtures + 2 * 10 * mixtures
    beside = pairs_down * seen + pairs_up * (seen + shortcuts)
    return first + (pairs_down + pairs_up) * pair + beside + resizes + last


def pixelcnn(width: int, blocks: int, outputs: int, levels: int = 256) -> int:
    """Of kernels the upper half is there, 7x4 and 3x2, with the weights that a mask zeroes."""
    first = 3 * 28 * 2 * width + 2 * width
    block = 2 * width * width + width + width * 6 * width + width + width * 2 * width + 2 * width
    last = 2 * width * outputs + outputs + outputs**2 + outputs + outputs * 3 * levels + 3 * levels
    return first + blocks * block + last


def gated_pixelcnn(width: int, layers: int, *, kernel: int = 5, levels: int = 256) -> int:
    """A first layer of 7x7, then others; a kernel is shared out between the two stacks."""

    def layer(seen: int, size: int) -> int:
        vertical = seen * size * (size // 2 + 1) * 2 * width + 2 * width
        horizontal = seen * (size // 2 + 1) * 2 * width + 2 * width
        return vertical + horizontal + (2 * width) ** 2 + 2 * width**2  # link, residual, skip

    first = layer(3, 7) - 3 * 7 * 2 * width  # its vertical kernel lies above the row
    first += 2 * width  # and it has the biases of the sums
    last = width**2 + width + width * 3 * levels + 3 * levels
    unread = width**2  # of the last layer the residual
    return first + layers * layer(width, kernel) - unread + last


def pixelrnn(
    kind: str,
    hidden: int,
    layers: int,
    *,
    residual: bool = True,
    outputs: int = 1024,
    colours: int = 3,
    levels: int = 256,
) -> int:
    """Of kernels what may be seen is there, with the weights that a mask of colours zeroes."""
    width = 2 * hidden if residual else hidden
    first = colours * 28 * width + width
    if kind == "row":
        gates = 2 * width * 4 * hidden + 4 * hidden  # input to state: the left pixel and the own
        gates += 3 * hidden * 4 * hidden  # state to state, 3x1
        seen = 0
    else:
        gates = 2 * (width * 4 * hidden + 4 * hidden)  # two ways, 1x1
        gates += 2 * (2 * hidden * 4 * hidden)  # column-wise 2x1
        seen = colours * 4 * hidden  # the levels, from the right, in the first layer
    up, skip = hidden * width if residual else 0, hidden * width
    last = width * outputs + outputs + outputs**2 + outputs + (outputs + 1) * colours * levels
    return first + layers * (gates + up + skip) + seen + last


MNIST = {"outputs": 32, "colours": 1, "levels": 2}


def nvae_encoder_cell(width: int, *, halves: bool = False) -> int:
    """Two batch norms and weight-normalised 3x3 convolutions, squeeze-excitation; a 2x2 skip."""
    out = 2 * width if halves else width
    convs = width * 9 * out + 2 * out + out * 9 * out + 2 * out
    skip = width * out + 2 * out if halves else 0
    return 2 * (width + out) + convs + nvae_excitation(out) + skip


def nvae_decoder_cell(width: int, expansion: int = 6, *, doubles: bool = False) -> int:
    """1x1, depthwise 5x5 and 1x1 without bias, four batch norms, squeeze-excitation."""
    out, hidden = width // 2 if doubles else width, expansion * width
    convs = width * hidden + 25 * hidden + hidden * out
    skip = width * out + 2 * out if doubles else 0
    return convs + 2 * (width + 2 * hidden + out) + nvae_excitation(out) + skip


def nvae_excitation(width: int) -> int:
    hidden = max(width // 16, 4)
    return 2 * width * hidden + hidden + width


def nvae(
    groups: list[int],
    width: int,
    top: tuple[int, int],
    out: int,
    *,
    blocks: int = 1,
    cells: int = 2,
    flows: int = 1,
    seen: int = 3,
    z: int = 20,
    group_cells: int = 2,
) -> int:
    """NVAE's code; every convolution outside of decoder cells has a bias and a length."""
    total = (seen * 9 + 2) * width + (width * 9 + 2) * out  # first and last
    for block in range(blocks):
        wide = width * 2**block
        total += (cells - 1) * nvae_encoder_cell(wide) + nvae_encoder_cell(wide, halves=True)
        total += nvae_decoder_cell(2 * wide, 3, doubles=True)
        total += (cells - 1) * nvae_decoder_cell(wide, 3)
    highest = width * 2 ** (blocks + len(groups) - 1)
    total += highest * top[0] * top[1] + highest**2 + 2 * highest  # start, and the encoder's top
    for scale, count in enumerate(groups):
        wide = highest // 2**scale
        total += count * group_cells * nvae_encoder_cell(wide)
        total += (count - (scale == 0)) * group_cells * nvae_decoder_cell(wide)
        total += count * ((wide * 9 + 2) * 2 * z + (wide + z + 2) * wide)  # posterior, z joins
        total += (count - (scale == 0)) * ((wide + 2) * 2 * z + (wide + 2) * wide)  # prior, both
        if scale:
            total += nvae_encoder_cell(wide, halves=True) + nvae_decoder_cell(
                2 * wide, doubles=True
            )
    hidden = 6 * z
    shift = (z * 9 + 2) * hidden + (25 + 2) * hidden + (hidden + 2) * z
    return total + sum(groups) * flows * 2 * shift


def conv(seen: int, made: int, kernel: int) -> int:
    return seen * made * kernel**2 + made


def map_coder(
    seen: int, made: int, strides: list[int], hidden: int, residual: int, *, projection: bool = True
) -> tuple[int, int]:
    """Encoder, to its features, and decoder, from ``made`` channels to ``seen``, of VQ-VAE."""
    blocks = 2 * (conv(hidden, residual, 3) + conv(residual, hidden, 1))
    encoder = sum(map(conv, [seen, *strides], strides, [4] * len(strides))) + blocks
    encoder += conv(strides[-1], hidden, 3) if projection else 0
    widths = [hidden, *strides[-2::-1]]
    decoder = conv(made, hidden, 3) + blocks
    decoder += sum(map(conv, widths, [*widths[1:], seen], [4] * len(strides)))
    return encoder, decoder


def vqvae(strides: list[int], hidden: int, residual: int, *, projection: bool = True) -> int:
    """VQ-VAE; a colour has a location and a scale, which the paper's squared error has not."""
    options = {"projection": projection}
    encoder, decoder = map_coder(3, 64, strides, hidden, residual, **options)
    scales = 3 * (strides[-2] * 16 + 1)
    return encoder + conv(hidden, 64, 1) + decoder + scales


def patches(size: int, hidden: int, dim: int) -> int:
    """Patches of grey pixels through one hidden layer to vectors, and back to logits."""
    return 2 * (size**2 * hidden + dim * hidden) + hidden + dim + hidden + 1


def sequence_vqvae(hidden: int, wavenet: int, layers: int) -> int:
    """Six convolutions of width 4 and the WaveNet of as many channels everywhere."""
    encoder = 4 * hidden + hidden + 5 * (4 * hidden**2 + hidden) + hidden * 64 + 64
    decoder = 3 * 64 * hidden + hidden + hidden * wavenet + wavenet
    square = wavenet**2
    # A convolution of width 3 of the features; then two taps and the context to two gates each,
    # residual (but of the last layer) and skip.
    layer = (4 * square + 2 * wavenet) + 2 * square + 2 * (square + wavenet)
    context = 3 * square + wavenet
    outputs = (square + wavenet) + (wavenet * 256 + 256)
    stack = 257 * wavenet + context + layers * layer - (square + wavenet) + outputs
    return encoder + decoder + stack


def vqvae2(strides: list[int], maps: int) -> int:
    """rosinality/vq-vae-2-pytorch, each finer map with the vectors of all above."""
    encoder, _ = map_coder(3, 64, strides, 128, 32)
    _, decoder = map_coder(6, 64 * maps, strides, 128, 32)
    total = encoder + decoder + conv(128, 64, 1)
    for above in range(1, maps):
        total += map_coder(128, 64, [64], 128, 32)[0]
        total += map_coder(64, 64 * above, [64], 128, 32)[1]
        total += conv(128 + 64, 64, 1) + conv(64 * above, 64 * above, 4)
    return total


def residual_block(seen: int, made: int, *, factors: int = 1, attends: bool = False) -> int:
    """Two 3x3 convolutions, a norm before each, the level's effect, and a 1x1 skip."""
    total = 2 * seen + conv(seen, made, 3) + 2 * made + conv(made, made, 3)
    total += factors * conv(4 * 128, made, 1) + (conv(seen, made, 1) if seen != made else 0)
    return total + (2 * made + 4 * conv(made, made, 1) if attends else 0)


def u_net(
    multipliers: list[int],
    attention: list[int],
    *,
    blocks: int = 2,
    seen: int = 3,
    made: int = 3,
    factors: int = 1,
) -> int:
    """DDPM's code, 128 channels at the full size; ``factors`` is two if the level also scales."""
    total = conv(128, 512, 1) + conv(512, 512, 1) + conv(seen, 128, 3)
    skips, width = [128], 128
    for index, multiplier in enumerate(multipliers):
        options = {"factors": factors, "attends": 2**index in attention}
        if index:
            total += conv(width, width, 3)
            skips.append(width)
        for _ in range(blocks):
            total += residual_block(width, 128 * multiplier, **options)
            width = 128 * multiplier
            skips.append(width)
    total += residual_block(width, width, factors=factors, attends=True)
    total += residual_block(width, width, factors=factors)
    for index, multiplier in reversed([*enumerate(multipliers)]):
        options = {"factors": factors, "attends": 2**index in attention}
        for _ in range(blocks + 1):
            total += residual_block(width + skips.pop(), 128 * multiplier, **options)
            width = 128 * multiplier
        total += conv(width, width, 3) if index else 0
    return total + 2 * width + conv(width, made, 3)


EXPECTED = {
    ("ddpm", "cifar10"): u_net([1, 2, 2, 2], [2]),
    ("ddpm", "celeba256"): u_net([1, 1, 2, 2, 4, 4], [16]),
    ("improved_ddpm", "cifar10"): u_net([1, 2, 2, 2], [2, 4], blocks=3, made=6, factors=2),
    ("improved_ddpm", "imagenet64"): u_net([1, 2, 3, 4], [4, 8], blocks=3, made=6, factors=2),
    # Two octaves of Fourier features; and the schedule has two ends.
    ("vdm", "cifar10"): u_net([1], [], blocks=32, seen=15) + 2,
    ("VQVAE", "imagenet128"): vqvae([256, 256], 256, 256, projection=False),
    ("VQVAE", "cifar10"): vqvae([64, 128], 128, 32),
    ("VQVAE", "mosaic"): patches(4, 32, 8),
    ("SequenceVQVAE", "vctk"): sequence_vqvae(256, 256, 30),
    ("VQVAE2", "imagenet256"): vqvae2([64, 128], 2),
    ("VQVAE2", "ffhq1024"): vqvae2([64, 128, 128], 3),
    ("NVAE", "digits"): nvae([4], 16, (4, 4), 30, cells=1, flows=0, seen=1, z=4, group_cells=1),
    ("NVAE", "mnist"): nvae([5, 10], 32, (4, 4), 1, blocks=2, cells=3, flows=0, seen=1),
    ("NVAE", "cifar10"): nvae([30], 128, (16, 16), 100),
    ("NVAE", "imagenet32"): nvae([28], 192, (16, 16), 100),
    ("NVAE", "celeba64"): nvae([5, 10, 20], 64, (8, 8), 100),
    ("NVAE", "celeba256"): nvae([4, 4, 4, 8, 16], 30, (8, 8), 100, flows=2),
    ("NVAE", "ffhq256"): nvae([4, 4, 4, 8, 16], 30, (8, 8), 100, flows=2),
    ("diagonal_bilstm", "mnist"): pixelrnn("diagonal", 16, 7, **MNIST),
    ("diagonal_bilstm", "mnist_one_layer"): pixelrnn("diagonal", 32, 1, **MNIST),
    ("diagonal_bilstm", "cifar10"): pixelrnn("diagonal", 128, 12),
    ("row_lstm", "cifar10"): pixelrnn("row", 128, 12),
    ("row_lstm", "imagenet32"): pixelrnn("row", 384, 12),
    ("row_lstm", "imagenet64"): pixelrnn("row", 512, 4, residual=False),
    ("gated_pixelcnn", "imagenet32"): gated_pixelcnn(384, 20),
    ("gated_pixelcnn", "imagenet64"): gated_pixelcnn(384, 20),
    ("pixelcnn", "cifar10"): pixelcnn(128, 15, 1024),
    ("glow", "cifar10"): glow(32, 3),
    ("glow", "imagenet32"): glow(48, 3),
    ("glow", "imagenet64"): glow(48, 4),
    ("glow", "celeba256"): glow(32, 6, additive=True),
    ("realnvp", "cifar10"): realnvp(2, 64, 8),
    ("realnvp", "imagenet32"): realnvp(4, 32, 4),
    ("realnvp", "imagenet64"): realnvp(5, 32, 2),
    ("realnvp", "celeba64"): realnvp(5, 32, 2),
    ("nice", "mnist"): nice(784, 1000, 5),
    ("nice", "cifar10"): nice(3072, 2000, 4),
    ("nice", "svhn"): nice(3072, 2000, 4),
    ("nice", "tfd"): nice(2304, 5000, 4),
    ("pixelcnn_pp", "cifar10"): pixelcnn_pp(160, 5, 10),
}


@pytest.mark.parametrize(
    ("name", "key"),
    [
        # Hundreds of cells take seconds to make, also of nothing.
        pytest.param(*each, marks=[pytest.mark.slow] if each in LARGE else [])
        for each in PRESETS
    ],
)
def test_parameters_add_up(name: str, key: str) -> None:
    with torch.device("meta"):
        model = models.preset(name, key)
    assert all(p.device.type == "meta" for p in model.parameters())
    assert count(model) == EXPECTED[name, key]


def test_glow_for_cifar10_has_its_44_million() -> None:
    assert abs(EXPECTED["glow", "cifar10"] - 44e6) < 1e6


@pytest.mark.parametrize(
    ("key", "millions"), [("mnist", 33.4), ("cifar10", 130.9), ("celeba64", 153.3)]
)
def test_nvae_is_of_the_published_size(key: str, millions: float) -> None:
    assert EXPECTED["NVAE", key] == pytest.approx(millions * 1e6, rel=0.002)


@pytest.mark.parametrize(
    ("name", "key", "millions"),
    [
        ("ddpm", "cifar10", 35.7),
        ("ddpm", "celeba256", 113.7),
        ("improved_ddpm", "cifar10", 52.5),
        ("improved_ddpm", "imagenet64", 121),
        ("vdm", "cifar10", 30.6),
    ],
)
def test_diffusion_models_are_of_the_published_sizes(name: str, key: str, millions: float) -> None:
    assert EXPECTED[name, key] == pytest.approx(millions * 1e6, rel=0.002)


def test_vq_vae_2_is_of_the_published_size() -> None:
    scales = 3 * (64 * 16 + 1)  # of the likelihood, which the squared error has not
    assert EXPECTED["VQVAE2", "imagenet256"] == 1_388_867 + scales


def test_priors_of_vq_vae_2_have_the_sizes_of_the_paper() -> None:
    sizes = models.presets()["VQVAE2"]["imagenet256"]["prior"]["model"]
    with torch.device("meta"):
        model: Any = models.preset("VQVAE2", "imagenet256")
        top, bottom = models.learned_priors(model, **sizes)
    assert (top.code_shape, bottom.code_shape) == ((32, 32), (64, 64))
    above, below = list(top.modules()), list(bottom.net.modules())
    attentions = [m for m in above if type(m).__name__ == "CausalAttention"]
    assert [m.num_heads for m in attentions] == [8] * 4
    assert not any(type(m).__name__ == "CausalAttention" for m in below)
    for modules, units in ((above, 2048), (below, 1024)):
        layers = [m for m in modules if type(m).__name__ == "GatedLayer"]
        assert len(layers) == 1 + 20  # the first is shifted
        assert all(layer.vertical.kernel_size[1] == 5 for layer in layers)
        widths = {layer.wide.weight.shape[0] for layer in layers if layer.wide is not None}
        assert (widths, layers[0].channels) == ({units}, 512)
        assert {m.p for m in modules if isinstance(m, torch.nn.Dropout)} == {0.1}
    assert [len(prior.net.output_stack) for prior in (top, bottom)] == [20, 0]
    assert top.net.output_stack[0].wide.out_channels == 2048
    assert len(bottom.conditioner.blocks) == 20 + 1  # the last is a ReLU


def test_the_lu_form_has_as_many_parameters() -> None:
    with torch.device("meta"):
        assert count(models.preset("glow", "cifar10", lu=True)) == EXPECTED["glow", "cifar10"]


def test_normalisations_between_couplings_add_none() -> None:
    options = {"num_blocks": 1, "width": 4}
    with torch.device("meta"):
        plain = models.preset("realnvp", "cifar10", **options)
    norms = [m for m in plain.modules() if type(m).__name__ == "BatchNorm"]
    assert len(norms) == 10
    assert sum(count(norm) for norm in norms) == 0


@every_preset
def test_every_option_is_one(name: str, key: str) -> None:
    found = models.presets()[name][key]
    assert set(found) - {"prior"} == {"model", "training"}
    if "prior" in found:
        training.TrainingSettings(**found["prior"]["training"])
    assert name in model_makers()
    settings = training.TrainingSettings(**found["training"])
    assert settings.schedule == ("cosine" if name == "NVAE" else "constant")
    epsilons = {"nice": 1e-4, "NVAE": 1e-6 if key == "digits" else 1e-3}
    assert settings.epsilon == epsilons.get(name)
    if name == "NVAE":
        assert settings.optimizer == ("adamw" if key == "digits" else "adamax")
    assert settings.final_learning_rate == (1e-4 if name == "NVAE" else None)
    averages = {"pixelcnn_pp": 0.9995, "ddpm": 0.9999, "improved_ddpm": 0.9999, "vdm": 0.9999}
    assert settings.ema_decay == averages.get(name)
    # What a preset leaves out is not about the training's course.
    unsaid = set(dict(models.FlowModel.training_defaults)) - set(found["training"])
    assert unsaid <= {"max_epochs", "batch_size"}


def test_options_take_the_place_of_the_papers() -> None:
    model = models.preset("nice", "mnist", width=8, num_layers=1, event_shape=(6,), num_levels=None)
    assert count(model) == nice(6, 8, 1)


def test_the_table_is_a_copy() -> None:
    models.presets()["glow"]["cifar10"]["model"]["width"] = 1
    assert models.presets()["glow"]["cifar10"]["model"]["width"] == 512


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("glo", "cifar10", "`name` must be one of .*glow.*; got .glo."),
        ("glow", "mnist", "`variant` must be one of .*celeba256.*; got .mnist."),
    ],
)
def test_unknown_names(name: str, key: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.preset(name, key)
