"""What training without any option gives: ``python tests/benchmarks/defaults.py vae realnvp``.

As ``pyro-genmodels train NAME --data digits``, on one thread, for several seeds: bits per dimension
of the test digits, as ``evaluate`` prints them; how sure a classifier of the real training digits
is of the class of 1,000 samples, by the mean of its highest probability (see
``digits_quality.py``); and the seconds of a core. Settings are chosen by ``--split validation``
alone.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import pyro
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pyro_genmodels import data, models, training

MAKERS: dict[str, Any] = {
    "vae": models.VAE,
    "realnvp": models.realnvp,
    "spline_flow": models.spline_flow,
    "pixelcnn": models.pixelcnn,
}
BOUNDS = {"vae": 1.82, "realnvp": 1.97, "spline_flow": 1.82, "pixelcnn": 1.775}
LEAST_CONFIDENCE = {"vae": 0.80}
NUM_SAMPLES = 1000


def make_classifier(digits: data.Digits) -> Any:
    images, labels = digits.train.tensors
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    return classifier.fit(images.flatten(1).numpy(), labels.numpy())


def run(name: str, seed: int, digits: data.Digits, classifier: Any, split: str) -> list[float]:
    """Train once; return bits/dim, the classifier's confidence in samples and CPU seconds."""
    pyro.set_rng_seed(seed)
    model = MAKERS[name](**training.facts_of(digits))
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        training.fit(model, digits, run=f"{folder}/run", seed=seed, progress=False)
    seconds = time.process_time() - start
    bits = training.evaluate(model, digits, split=split).bits_per_dim.mean
    pyro.set_rng_seed(seed)
    samples = model.sample(NUM_SAMPLES).flatten(1).numpy()
    return [bits, float(classifier.predict_proba(samples).max(1).mean()), seconds]


def verdict(name: str, bits: float, confidence: float) -> str:
    least = LEAST_CONFIDENCE.get(name)
    asked = f"at most {BOUNDS[name]}" + ("" if least is None else f" and at least {least:.2f}")
    holds = bits <= BOUNDS[name] and (least is None or confidence >= least)
    return f"{'holds' if holds else 'FALLS SHORT'} (asked for: {asked})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=MAKERS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", choices=["validation", "test"], default="test")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    digits = data.Digits()
    classifier = make_classifier(digits)
    for name in arguments.names:
        rows = [run(name, seed, digits, classifier, arguments.split) for seed in arguments.seeds]
        bits, confidence, seconds = map(statistics.mean, zip(*rows, strict=True))
        each = ", ".join(f"{b:.3f} and {c:.3f}" for b, c, _ in rows)
        spread = statistics.stdev(row[0] for row in rows) if len(rows) > 1 else float("nan")
        print(
            f"{name}: {bits:.3f} bits/dim (deviation {spread:.3f} over {len(rows)} seeds), "
            f"confidence {confidence:.3f}, {seconds:.0f} CPU seconds [{each}] "
            f"{arguments.split}: {verdict(name, bits, confidence)}",
            flush=True,
        )


if __name__ == "__main__":
    main()
