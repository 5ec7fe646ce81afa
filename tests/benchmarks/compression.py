"""Real bytes against -log2 p: ``python tests/benchmarks/compression.py``.

Small models, at most ``--seconds`` of training each, compress test data that they have not seen.
*Coder* is what the coder's words take beyond -log2 p under the network in its own precision, in
percent and bits; the project asks for at most 1 % and 64 bits. With ``--others N`` the data are
read once more on N threads where the header records one, which is more than is promised.
Beside it, for scale, what general compressors make of the same elements (zlib at 9, xz, and PNG for
pictures, each image a file of its own, as PNG is used). They know nothing of the data; nor do their
bytes include a model's, nor ours.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import lzma
import math
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_genmodels import compression, data, models, training
from pyro_genmodels.compression import format

COMMON: dict[str, Any] = {
    "schedule": "cosine",
    "warmup_steps": 50,
    "num_samples": 0,
    "progress": False,
    "accelerator": "cpu",
}


class Problem(NamedTuple):
    """Data, a model, how it is trained, and how many test examples are compressed."""

    source: Callable[[], Any]
    model: Callable[[], Any]
    settings: dict[str, Any]
    number: int = 360


def ising() -> data.Sampled:
    return data.Sampled(data.Ising(8, 8, beta=0.4406868), train=20_000, test=1000)


def markov() -> data.Sampled:
    return data.Sampled(data.MarkovChain(64, num_levels=26), train=20_000, test=1000)


def photos() -> data.Photos:
    return data.Photos(size=16, train=5000, test=200)


def sound(number: int = 4200, length: int = 64) -> data.InMemory:
    """Two tones of random pitch, loudness and phase, in 16 bits."""
    generator = torch.Generator().manual_seed(0)
    pitch, loudness, phase = torch.rand(3, number, 2, 1, generator=generator)
    tones = (0.05 + 0.4 * pitch) * torch.arange(length) + 2 * math.pi * phase
    waves = (0.4 * loudness * tones.sin()).sum(1)
    noise = 0.002 * torch.randn(number, length, generator=generator)
    levels = ((waves + noise + 1) / 2 * 65535).round().clamp(0, 65535).int()
    return data.InMemory(levels[:3800], levels[3800:4000], levels[4000:], num_levels=65536)


def of_digits(make: Any, **options: Any) -> Callable[[], Any]:
    return lambda: make((1, 8, 8), num_levels=17, **options)


DIGITS = {"learning_rate": 2e-3, "batch_size": 64, "max_epochs": 25}
PROBLEMS: dict[str, Problem] = {
    "digits, PixelCNN": Problem(data.Digits, of_digits(models.pixelcnn), DIGITS),
    "digits, gated PixelCNN": Problem(data.Digits, of_digits(models.gated_pixelcnn), DIGITS),
    "digits, PixelSNAIL": Problem(data.Digits, of_digits(models.pixelsnail), DIGITS),
    "digits, MADE": Problem(data.Digits, of_digits(models.made), DIGITS),
    "digits, n-gram": Problem(data.Digits, of_digits(models.ngram, order=17), DIGITS),
    "digits, PixelCNN++": Problem(
        data.Digits,
        of_digits(models.pixelcnn_pp, hidden_channels=24, num_resnets=1, num_scales=2),
        DIGITS,
    ),
    "Ising 8x8 (binary), PixelCNN": Problem(
        ising,
        lambda: models.pixelcnn((1, 8, 8), num_levels=2, dropout=0.0),
        {"learning_rate": 2e-3, "batch_size": 128, "max_epochs": 5},
        1000,
    ),
    "Markov chain (26 levels), CharRNN": Problem(
        markov,
        lambda: models.char_rnn((64,), num_levels=26, dropout=0.0, hidden_features=64),
        {"learning_rate": 5e-3, "batch_size": 128, "max_epochs": 4},
        1000,
    ),
    "photos 16x16 RGB (256), PixelCNN++": Problem(
        photos,
        lambda: models.pixelcnn_pp(
            (3, 16, 16), hidden_channels=24, num_resnets=1, num_scales=2, dropout=0.1
        ),
        {"learning_rate": 2e-3, "batch_size": 64, "max_epochs": 10},
        100,
    ),
    "photos 16x16 RGB (256), PixelCNN": Problem(
        photos,
        lambda: models.pixelcnn((3, 16, 16), hidden_channels=24, num_blocks=3, dropout=0.1),
        {"learning_rate": 2e-3, "batch_size": 64, "max_epochs": 4},
        100,
    ),
    "two tones (16 bits), WaveNet": Problem(
        sound,
        lambda: models.wavenet((64,), num_levels=65536, num_mixtures=5, dropout=0.0, channels=24),
        {"learning_rate": 3e-3, "batch_size": 64, "max_epochs": 15},
        200,
    ),
    "digits' codes, VQ-VAE": Problem(
        data.Digits,
        of_digits(models.VQVAE, num_codes=32, hidden_channels=32, reduction=2),
        DIGITS,
    ),
    "digits' codes, VQ-VAE with a learned prior": Problem(
        data.Digits,
        of_digits(models.VQVAE, num_codes=32, hidden_channels=32, reduction=2),
        {**DIGITS, "prior": True},
    ),
}


def trained(problem: Problem, seconds: float) -> tuple[Any, Tensor]:
    """The model and the test data that it compresses."""
    torch.manual_seed(0)
    source, model = problem.source(), problem.model()
    settings = {**COMMON, **problem.settings, "max_time": seconds}
    learns_prior = settings.pop("prior", False)
    with tempfile.TemporaryDirectory() as folder:
        training.fit(model, source, run=f"{folder}/run", **settings)
        if learns_prior:
            training.fit_prior(f"{folder}/run", source=source, **settings)
        model = training.load(f"{folder}/run").eval()
    items = [source.test[i][0] for i in range(min(problem.number, len(source.test)))]
    return model, torch.stack(items)


def on_other_threads(model: Any, stream: bytes, x: Tensor, threads: int) -> str:
    """Read by another number of threads than the header says, which adds in another order."""
    if stream[:4] != format.MAGIC:
        return "-"
    header, payload, _ = format.unpack(stream)
    other = dataclasses.replace(header.environment, threads=threads)
    stream = format.pack(dataclasses.replace(header, environment=other), payload)
    try:
        same = torch.equal(compression.decompress_images(model, stream), x.long())
    except ValueError:
        return "refused"
    return "same" if same else "WRONG"


def general(x: Tensor, num_levels: int) -> list[str]:
    """Bytes of zlib, xz, and PNG where the data are pictures."""
    array = x.numpy().astype(np.min_scalar_type(num_levels - 1))
    plain = np.packbits(array).tobytes() if num_levels == 2 else array.tobytes()
    sizes = [len(zlib.compress(plain, 9)), len(lzma.compress(plain, preset=9))]
    if x.dim() < 4:
        return [*map(str, sizes), "-"]
    from PIL import Image

    png = 0
    for picture in array.transpose(0, 2, 3, 1):
        picture = picture[..., 0] if x.shape[1] == 1 else picture
        file = io.BytesIO()
        made = Image.fromarray(picture * np.uint8(255 if num_levels == 2 else 1))
        (made.convert("1") if num_levels == 2 else made).save(file, "PNG", optimize=True)
        png += len(file.getvalue())
    return [*map(str, sizes), str(png)]


def run(name: str, problem: Problem, seconds: float, others: int) -> None:
    model, x = trained(problem, seconds)
    start = time.perf_counter()
    stream = compression.compress_images(model, x)
    middle = time.perf_counter()
    back = compression.decompress_images(model, stream)
    end = time.perf_counter()
    lossless = hasattr(model, "law")
    assert not lossless or torch.equal(back, x.long())
    size = sum(header.payload_size for header in compression.headers(stream))
    ideal = compression.ideal_bits(model, x)
    over = 8 * size - ideal
    row = [
        name,
        len(x),
        f"{len(stream):,} ({len(stream) - size})",
        f"{ideal / 8:,.1f}",
        f"{100 * over / ideal:.3f} %, {over:.0f}",
        "holds" if over <= 0.01 * ideal + 64 else "FALLS SHORT",
        f"{8 * len(stream) / x.numel():.4f}",
        on_other_threads(model, stream, x, others) if lossless and others else "-",
        *(general(x, model.num_levels) if lossless else "---"),
        f"{middle - start:.1f}, {end - middle:.1f}",
    ]
    print(f"| {' | '.join(map(str, row))} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, each")
    parser.add_argument("--only", default="", help="part of a problem's name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--others", type=int, default=0, help="read on so many threads as well")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "the data were written by")
    columns = ["data and model", "examples", "bytes (headers)", "-log2 p (bytes)", "coder, bits"]
    columns += ["1 % and 64 bits", "bits/dim", "other threads", "zlib", "xz", "PNG", "seconds"]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for name, problem in PROBLEMS.items():
        if arguments.only.lower() in name.lower():
            run(name, problem, arguments.seconds, arguments.others)


if __name__ == "__main__":
    main()
