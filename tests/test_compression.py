"""Compression: what comes back is what went in, at the cost of its information, or an error."""

from __future__ import annotations

import dataclasses
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("constriction", reason="comes with the compression extra")
pytest.importorskip("hypothesis", reason="comes with the testing extra")

from hypothesis import given, settings
from hypothesis import strategies as st

from pyro_genmodels import compression, models, nets
from pyro_genmodels.compression import coder, compress, decompress, format, read_header, streams
from pyro_genmodels.compression.masses import run_masses
from pyro_genmodels.distributions import (
    AutoregressiveDistribution,
    NGram,
    PixelCNN,
    UniformLevels,
    WaveNet,
)
from pyro_genmodels.distributions.autoregressive.logistic_mixture import logistic_mixture
from pyro_genmodels.distributions.autoregressive.output_distributions import OutputLaw, Softmax
from pyro_genmodels.testing import randomize_parameters
from tests import cases
from tests.distributions import families
from tests.grouped import grouped

# The shape checks of the tests sample list items by the `random` module.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

# Of counts without end, of single elements, of data with missing ones, and of distributions with a
# label or states summed out there is no coder.
NOT_CODED = ("Discretized", "NegativeBinomial", "ZeroInflated", "ObservedPart")
NOT_CODED += ("Mixture", "HiddenMarkov")
CODED = [
    key
    for key, make in cases.DISTRIBUTIONS.items()
    if not key.startswith(NOT_CODED) and make().part.support.is_discrete
]
# 100 data points of each: the law's name, its event, its levels and what else it is made with.
RATES: dict[str, tuple[str, tuple[int, ...], int, dict[str, Any]]] = {
    "binary": ("PixelCNN", (1, 5, 5), 2, {}),
    "17 levels": ("GatedPixelCNN", (1, 5, 5), 17, {}),
    "256 levels": ("PixelCNN", (1, 4, 4), 256, {}),
    "mixture, RGB": ("PixelCNNPlusPlus", (3, 4, 4), 256, {"num_mixtures": 5}),
    "mixture, 16 bits": ("WaveNet", (24,), 65536, {"num_mixtures": 3}),
    "MADE": ("MADE", (30,), 3, {}),
    "n-gram": ("NGram", (30,), 26, {}),
    "CharRNN": ("CharRNN", (30,), 26, {}),
    "PixelSNAIL": ("PixelSNAIL", (1, 5, 5), 17, {}),
}


def small(**options: Any) -> PixelCNN:
    """A small distribution over 2x3 images of five levels."""
    net = nets.PixelCNNNet((1, 2, 3), 5, hidden_channels=4, num_blocks=1, **options)
    return PixelCNN(randomize_parameters(net), validate_args=False)


def ideal_bits(law: Any, x: Tensor) -> float:
    with torch.no_grad():
        return -float(law.log_prob(x).double().sum()) / math.log(2)


@pytest.mark.parametrize("key", CODED)
def test_what_comes_back_is_what_went_in(key: str) -> None:
    law = cases.DISTRIBUTIONS[key]().part
    if isinstance(law, AutoregressiveDistribution):
        randomize_parameters(law.net)
    x = law.sample((3, 2))
    data = compress(law, x, chunk_size=5)
    back = decompress(law, data)
    assert back.dtype == torch.int64
    assert torch.equal(back, x.long())
    size = 8 * read_header(data).payload_size
    assert size <= 1.01 * ideal_bits(law, x) + 64


@pytest.mark.parametrize("key", RATES)
def test_bits_are_those_of_the_probability(key: str) -> None:
    name, event_shape, num_levels, options = RATES[key]
    law = families.make(name, event_shape, num_levels, dtype=torch.float32, **options)
    x = law.sample((100,))
    data = compress(law, x)
    header = read_header(data)
    assert header.size <= 64
    assert len(data) == header.size + header.payload_size
    ideal = ideal_bits(law, x)
    # Nor fewer than there must be, but for what a tail of 32 bits may save.
    assert ideal - 32 <= 8 * header.payload_size <= 1.01 * ideal + 64
    assert torch.equal(decompress(law, data), x.long())


@pytest.mark.parametrize("key", ["256 levels", "n-gram"])
def test_the_headers_of_longer_streams_are_within_the_bound_too(key: str) -> None:
    """Some fifty bytes, which are less than one percent from five kilobytes on."""
    name, event_shape, num_levels, options = RATES[key]
    law = families.make(name, event_shape, num_levels, dtype=torch.float32, **options)
    x = law.sample((1000,))
    ideal = ideal_bits(law, x)
    assert ideal > 8 * 5000
    assert 8 * len(compress(law, x)) <= 1.01 * ideal + 64


def test_predictable_data_cost_next_to_nothing() -> None:
    """Of 65536 levels each would take its 2^-24 from the one that is nearly sure."""
    law = WaveNet(nets.WaveNetNet((4,), 65536, channels=4, layers_per_block=1, num_mixtures=1))
    with torch.no_grad():
        for parameter in law.net.parameters():
            parameter.zero_()
        # The location of the level in the middle, and a component that holds nothing else.
        list(law.net.parameters())[-1][1:] = torch.tensor([1 / 65535, -20.0])
    x = torch.full((5000, 4), 65536 // 2)
    assert ideal_bits(law, x) < 1
    assert 8 * read_header(compress(law, x, chunk_size=5000)).payload_size <= 64


@pytest.mark.parametrize("num_levels", [256, 65536])
def test_far_values_cost_no_more_than_the_coders_least_probability(num_levels: int) -> None:
    net = nets.WaveNetNet((4,), num_levels, channels=4, layers_per_block=1, num_mixtures=2)
    law = WaveNet(net)
    with torch.no_grad():
        list(net.parameters())[-1][4:] = -30.0
    x = torch.tensor([0, num_levels - 1]).repeat(20, 2)
    steps = 1 if num_levels == 256 else 2
    assert ideal_bits(law, x) > 1000 * x.numel()
    data = compress(law, x)
    assert 8 * read_header(data).payload_size <= 24 * steps * x.numel() + 64
    assert torch.equal(decompress(law, data), x)


@pytest.mark.parametrize("num_levels", [1, 2, 3, 512, 2**24 - 1])
def test_uniform_levels_cost_their_logarithm(num_levels: int) -> None:
    law = UniformLevels((7,), num_levels)
    x = law.sample((40,))
    data = compress(law, x)
    size = 8 * read_header(data).payload_size
    assert abs(size - 280 * math.log2(num_levels)) <= 64
    assert torch.equal(decompress(law, data), x)


def test_many_levels_of_a_softmax() -> None:
    law = NGram(nets.NGramNet((5,), 3000, order=1, embedding_features=2, hidden=(4,)))
    x = law.sample((30,))
    data = compress(law, x)
    assert 8 * read_header(data).payload_size <= 1.01 * ideal_bits(law, x) + 64
    assert torch.equal(decompress(law, data), x.long())


class Unknown(OutputLaw):
    """A law that says nothing but how it scores."""

    noise = draw = margin = None  # type: ignore[assignment]

    def log_prob(self, parameters: Tensor, level: Tensor) -> Tensor:
        return Softmax(parameters.shape[-1]).log_prob(parameters, level)


@pytest.mark.parametrize("kind", ["softmax", "mixture", "unknown"])
@pytest.mark.parametrize(("count", "width"), [(37, 1), (5, 8), (8, 5), (3, 16)])
def test_runs_of_levels_have_the_mass_of_their_levels(kind: str, count: int, width: int) -> None:
    """Up to a factor a row; levels from the 37th on do not exist."""
    parameters = 3 * torch.randn(4, 9 if kind == "mixture" else 37, dtype=torch.float64)
    law = {"softmax": Softmax(37), "mixture": logistic_mixture(37, 3), "unknown": Unknown()}[kind]
    start = torch.tensor([0, 0, 3, 20])
    masses = run_masses(law, parameters, start, count, width, 37)
    for row in range(4):
        levels = start[row] + torch.arange(count * width)
        own = parameters[row].expand(len(levels), -1)
        each = law.log_prob(own, levels.clamp(max=36)).exp() * (levels < 37)
        expected = each.view(count, width).sum(-1)
        found = masses[row] / masses[row].sum() * expected.sum()
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("chunk_size", [1, 3, 100])
def test_chunks_and_batches(chunk_size: int) -> None:
    labels = torch.tensor([[0], [2]])
    net = randomize_parameters(nets.PixelCNNNet((1, 2, 3), 5, hidden_channels=4, num_classes=3))
    law = PixelCNN(net, labels).expand((2, 3))
    x = law.sample((2,))
    data = compress(law, x, chunk_size=chunk_size)
    assert tuple(read_header(data).batch_shape) == (2, 2, 3)
    assert torch.equal(decompress(law, data), x.long())
    with pytest.raises(ValueError, match="end with the batch shape"):
        compress(law, x[..., :2, :, :, :])


def test_no_data_are_compressed_too() -> None:
    law = small()
    for shape in ((0, 1, 2, 3), (2, 0, 1, 2, 3)):
        assert decompress(law, compress(law, torch.zeros(shape))).shape == shape


def test_neither_mode_nor_dtype_nor_threads_matter() -> None:
    """Written on one thread in training mode, read on two by the network in float64."""
    law = families.make("GatedPixelCNN", (1, 8, 8), 17, dtype=torch.float32)
    x = law.sample((30,))
    law.net.train()
    data = compress(law, x)
    assert law.net.training
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        law.net.double().eval()
        assert torch.equal(decompress(law, data), x.long())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_cannot_be_fixed_is_recorded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    law = small()
    x = law.sample((3,))
    data = compress(law, x)
    here = read_header(data).environment
    assert ".".join(map(str, here.torch)) == torch.__version__.partition("+")[0]
    assert here.device == "cpu"
    other = dataclasses.replace(here, torch=(1, 2, 3))
    monkeypatch.setattr(streams, "_here", lambda *_: other)
    with pytest.warns(UserWarning, match=r"written by torch .*; this is torch 1\.2\.3"):
        assert torch.equal(decompress(law, data), x.long())


def test_a_decoding_that_goes_astray_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that differ by as little as they can, in one element of each image."""
    law = small()
    x = law.sample((200,))
    data = compress(law, x)
    exact, calls = coder.rounded, iter(range(10**6))

    def slightly_other(masses: Any) -> Any:
        weights = exact(masses)
        if next(calls) % 6 == 0:
            weights[:, 0] *= 1 + 2.0**-9
        return weights

    monkeypatch.setattr(coder, "rounded", slightly_other)
    with pytest.raises(ValueError, match="must come back by the rounding that wrote them"):
        decompress(law, data)


def test_another_network_context_or_event_is_one_clear_error() -> None:
    net = randomize_parameters(nets.PixelCNNNet((1, 2, 3), 5, hidden_channels=4, num_classes=3))
    law = PixelCNN(net, torch.tensor([0, 1]))
    data = compress(law, law.sample())
    with pytest.raises(ValueError, match="this distribution's context"):
        decompress(PixelCNN(net, torch.tensor([0, 2])), data)
    with pytest.raises(ValueError, match="end with the batch shape"):
        decompress(PixelCNN(net, torch.tensor([0, 1, 2])), data)
    with torch.no_grad():
        next(net.parameters()).view(-1)[0] += 1e-6
    with pytest.raises(ValueError, match="network and parameters"):
        decompress(law, data)
    with pytest.raises(ValueError, match=r"hold 5 levels of shape \(1, 2, 3\)"):
        decompress(law, _uniform_data())


def test_what_cannot_be_compressed_is_one_clear_error() -> None:
    law = small()
    with pytest.raises(ValueError, match="must be an AutoregressiveDistribution or UniformLevels"):
        compress(torch.distributions.Bernoulli(0.5), torch.zeros(3))
    with pytest.raises(ValueError, match="`x` must hold integers from 0 to 4"):
        compress(law, torch.full((1, 2, 3), 5))
    with pytest.raises(ValueError, match="`x` must have trailing shape"):
        compress(law, torch.zeros(1, 3, 3))
    with pytest.raises(ValueError, match="`threads` must be from 1 to 255"):
        compress(law, torch.zeros(1, 2, 3), threads=0)
    with pytest.raises(ValueError, match="`chunk_size` must be from 1"):
        compress(law, torch.zeros(1, 2, 3), chunk_size=2**16)
    with torch.no_grad():
        next(law.net.parameters()).fill_(torch.nan)
    with pytest.raises(ValueError, match="`net` must give finite parameters"):
        compress(law, torch.zeros(1, 2, 3))


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ImportError, match=r"pip install 'pyro-genmodels\[compression\]'"):
        compress(UniformLevels((3,), 4), torch.zeros(3))


UNIFORM = UniformLevels((4,), 5)
PLAIN = torch.arange(20).view(5, 4) % 5


def _uniform_data() -> bytes:
    return compress(UNIFORM, PLAIN)


def _vq() -> tuple[Any, bytes]:
    torch.manual_seed(0)
    model = models.VQVAE2(
        (1, 4, 4), num_levels=3, codebook=5, network=models.VQVAE2Network(2, hidden_channels=4)
    )
    x = torch.randint(3, (6, 1, 4, 4))
    return model, compression.compress_images(model, x)


def test_every_flip_and_every_cut_is_noticed() -> None:
    data = _uniform_data()
    for position in range(len(data)):
        with pytest.raises(ValueError, match="`data` must"):
            decompress(UNIFORM, data[:position])
        for bit in (1, 16, 128):
            altered = bytearray(data)
            altered[position] ^= bit
            with pytest.raises(ValueError, match="`data` must"):
                decompress(UNIFORM, bytes(altered))
    with pytest.raises(ValueError, match="must end with the stream"):
        decompress(UNIFORM, data + b"\0")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_data_are_a_value_error(data: st.DataObject) -> None:
    """Whatever bytes: those of a stream with some replaced, cut, or any at all."""
    kind = data.draw(st.sampled_from(["replaced", "cut", "any"]))
    whole = _uniform_data()
    if kind == "replaced":
        start = data.draw(st.integers(0, len(whole) - 1))
        new = data.draw(st.binary(min_size=1, max_size=len(whole) - start))
        given_bytes = whole[:start] + new + whole[start + len(new) :]
    elif kind == "cut":
        given_bytes = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        given_bytes = data.draw(st.sampled_from([b"", b"PGMZ"])) + data.draw(st.binary())
    if given_bytes != whole:
        with pytest.raises(ValueError, match="`data` must"):
            decompress(UNIFORM, given_bytes)


def test_absurd_sizes_are_refused_before_anything_is_made() -> None:
    """Even under a checksum that is right."""
    header, payload, _ = format.unpack(_uniform_data())
    for batch_shape in ((2**60,), (2**31, 2**31), (2**20,) * 30):
        absurd = format.pack(dataclasses.replace(header, batch_shape=batch_shape), payload)
        with pytest.raises(ValueError, match="as large as their header says"):
            decompress(UNIFORM, absurd)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    law, path = small(), tmp_path / "x.pgm"
    x = law.sample((4,))
    compression.write(path, law, x)
    assert torch.equal(compression.read(path, law), x.long())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="`x` must hold"):
        compression.write(path, law, x + 5)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["x.pgm"]
    with pytest.raises(FileNotFoundError):
        compression.read(tmp_path / "none.pgm", law)


VQ_MODELS: dict[str, Any] = {
    "VQVAE": lambda **o: models.VQVAE((1, 8, 8), **grouped(models.VQVAE, o)),
    "VQVAE2": lambda **o: models.VQVAE2((1, 8, 8), **grouped(models.VQVAE2, o)),
}


@pytest.mark.parametrize("prior", ["uniform", "learned"])
@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("key", VQ_MODELS)
def test_codes_come_back(key: str, classes: int | None, prior: str) -> None:
    options = {"num_levels": 17, "num_codes": 8, "hidden_channels": 4, "num_classes": classes}
    model = VQ_MODELS[key](**options)
    if prior == "learned":
        model.set_code_priors(
            [randomize_parameters(p) for p in models.learned_priors(model, hidden_channels=4)]
        )
    x = torch.randint(17, (100, 1, 8, 8))
    context = None if classes is None else torch.arange(100) % classes
    codes = model.encode_codes(x, context)
    data = compression.compress_codes(model, codes, context)
    back = compression.decompress_codes(model, data, context)
    several = isinstance(codes, list)
    assert isinstance(back, list) == several
    for a, b in zip(back if several else [back], codes if several else [codes], strict=True):
        assert torch.equal(a, b)
    assert compression.compress_images(model, x, context) == data
    images = compression.decompress_images(model, data, context)
    assert torch.equal(images, model.decode_codes(codes, context))
    size = sum(8 * header.payload_size for header in compression.headers(data))
    # One flush of the coder a map.
    ideal = compression.ideal_bits(model, x, context, chunk_size=30)
    assert size <= 1.01 * ideal + 64 * len(model.code_priors)


def test_codes_of_another_model_or_context_or_damaged_ones() -> None:
    model, data = _vq()
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        for damaged in (bytes(altered), data[:position]):
            with pytest.raises(ValueError, match="`data` must"):
                compression.decompress_codes(model, damaged)
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    with pytest.raises(ValueError, match="must be written with this model"):
        compression.decompress_codes(model, data)
    with pytest.raises(ValueError, match="`codes` must be 2 maps"):
        compression.compress_codes(model, torch.zeros(1, 2, 2))
    with pytest.raises(ValueError, match="AutoregressiveModel or a VectorQuantizedModel"):
        compression.compress_images(models.VAE((4,)), torch.zeros(3, 4))


def test_no_images_have_no_bits() -> None:
    model = models.VQVAE(
        (1, 4, 4), num_levels=4, codebook=4, network=models.VQVAENetwork(hidden_channels=4)
    )
    assert compression.ideal_bits(model, torch.zeros(0, 1, 4, 4)) == 0


def test_images_of_an_autoregressive_model_lose_nothing() -> None:
    model = models.pixelcnn((1, 4, 4), num_levels=4, hidden_channels=4, num_classes=3)
    x, labels = torch.randint(4, (10, 1, 4, 4)), torch.arange(10) % 3
    data = compression.compress_images(model, x, labels)
    assert torch.equal(compression.decompress_images(model, data, labels), x)
    (header,) = compression.headers(data)
    assert 8 * header.payload_size <= 1.01 * compression.ideal_bits(model, x, labels) + 64
