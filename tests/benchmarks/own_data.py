"""What data of one's own cost: ``python tests/benchmarks/own_data.py images``, or ``rows``.

``images`` generates a folder of 32x32 PNGs in a temporary folder. Opens it for the first time, when
all are decoded, and again, mapped from the cache; trains a small VAE on it and on the same data in
memory, steps interleaved in one process after all has been read once, and prints the ratio of their
medians; and prints the anonymous memory (``RssAnon``) of a process that has read all images a batch
at a time and trained on some, and of one with a thousand of them.

``rows`` does likewise with 1,000,000 x 64 numbers in a ``.npy`` file: two epochs of
``training.fit`` and an evaluation in a process of their own, whose highest anonymous memory is
printed, and the ratio of interleaved steps.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from pyro_genmodels import data, training
from pyro_genmodels.models import VAE, ELBOLoss, VAENetwork
from pyro_genmodels.training.batches import Batches

FEW, NUM_STEPS, WARM_UP = 1000, 200, 50


def generate_images(folder: Path, count: int) -> None:
    """Write smooth noise, as PNGs of about 2 kB, in folders of a thousand below two classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = folder / "ab"[number % 2] / f"{number // 1000}"
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8))
        small.resize((32, 32)).save(place / f"{number}.png", compress_level=1)


def rss_anon() -> float:
    """Return this process's anonymous memory in megabytes."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1000


def model_of(source: data.DataSource) -> VAE:
    network = VAENetwork("mlp", hidden=[64])
    return VAE(source.event_shape, num_levels=source.num_levels, latent_dim=16, network=network)


class Training:
    """A VAE's steps on one data set, and how long each takes with its batch."""

    def __init__(self, source: data.DataSource, dataset: object, batch_size: int) -> None:
        self.model = model_of(source)
        self.batches = Batches(dataset, self.model, batch_size, seed=0)
        self.optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.loss, self.seconds, self._epoch = ELBOLoss(self.model), list[float](), iter(())

    def step(self) -> None:
        start = time.perf_counter()
        batch = next(self._epoch, None)
        if batch is None:
            self._epoch = iter(self.batches)
            batch = next(self._epoch)
        loss = self.loss(batch[0])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seconds.append(time.perf_counter() - start)


def opening(folder: Path) -> data.ImageFolder:
    start = time.perf_counter()
    source = data.ImageFolder(str(folder))
    print(f"opened {source} in {time.perf_counter() - start:.1f} s", flush=True)
    return source


def memory(folder: Path) -> None:
    """Read an epoch, train for some steps, and print the memory that this takes."""
    source = opening(folder)
    steps = Training(source, source.train, 128)
    for _ in steps.batches:
        pass
    for _ in range(10):
        steps.step()
    print(f"RssAnon {rss_anon():.0f} MB", flush=True)


def images(folder: Path, count: int) -> None:
    for name, number in (("few", FEW), ("many", count)):
        generate_images(folder / name, number)
        print(f"{number} images:", flush=True)
        for _ in range(2):
            subprocess.run([sys.executable, __file__, "memory", str(folder / name)], check=True)
    compare(opening(folder / "many"), 128)


def compare(source: data.DataSource, batch_size: int) -> None:
    """Print how much longer a step takes than one on the same data in memory, all read before."""
    whole = TensorDataset(*source.train.gather(torch.arange(len(source.train))))  # type: ignore[attr-defined,arg-type]
    pair = [Training(source, dataset, batch_size) for dataset in (source.train, whole)]
    for number in range(NUM_STEPS + WARM_UP):
        if number == WARM_UP:
            for each in pair:
                each.seconds.clear()
        for each in pair:
            each.step()
    mapped, inside = (1e3 * statistics.median(each.seconds) for each in pair)
    print(f"step {mapped:.2f} ms, in memory {inside:.2f} ms: ratio {mapped / inside:.3f}")


def fit_rows(path: Path) -> None:
    """Train and evaluate, and print the most anonymous memory that this takes."""
    peak, done = [rss_anon()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], rss_anon())

    threading.Thread(target=watch, daemon=True).start()
    source = data.FromFile(str(path))
    model = model_of(source)
    settings = {"progress": False, "num_samples": 0, "accelerator": "cpu", "batch_size": 512}
    training.fit(model, source, run=path.with_suffix(""), max_epochs=2, **settings)
    print(training.evaluate(model, source, num_particles=1), flush=True)
    done.set()
    print(f"{source}: RssAnon at most {peak[0]:.0f} MB", flush=True)


def rows(folder: Path, count: int) -> None:
    for number in (FEW, count):
        path = folder / f"{number}.npy"
        array = np.lib.format.open_memmap(path, mode="w+", dtype="float32", shape=(number, 64))
        random = np.random.default_rng(0)
        for start in range(0, number, FEW):
            array[start : start + FEW] = random.normal(size=(FEW, 64))
        array.flush()
        subprocess.run([sys.executable, __file__, "fit", str(path)], check=True)
    compare(data.FromFile(str(path)), 512)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["images", "rows", "memory", "fit"])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--count", type=int, help="100,000 images or 1,000,000 rows by default")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what in ("memory", "fit"):
        {"memory": memory, "fit": fit_rows}[arguments.what](Path(arguments.folder))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYRO_GENMODELS_CACHE"] = f"{folder}/cache"
        if arguments.what == "images":
            images(Path(folder), arguments.count or 100_000)
        else:
            rows(Path(folder), arguments.count or 1_000_000)


if __name__ == "__main__":
    main()
