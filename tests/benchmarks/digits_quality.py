"""Do samples look like digits to a classifier? ``python tests/benchmarks/digits_quality.py RUN``.

A scikit-learn classifier is trained on the real training digits. Printed is the mean of its
highest class probability on samples of the run, on real test digits and, as a floor, on samples
whose pixels are drawn independently from their histograms.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from pyro_genmodels import data, load, metrics


def independent_pixels(x: Tensor, count: int) -> Tensor:
    """Every pixel from a random image of its own."""
    flat = x.flatten(1)
    rows = torch.randint(len(x), (count, flat.shape[1]))
    return flat.gather(0, rows).reshape(count, *x.shape[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="folder of a trained run on Digits")
    parser.add_argument("--samples", type=int, default=1000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    digits, model = data.Digits(), load(arguments.run)
    images, labels = digits.train.tensors
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000))
    classifier.fit(images.flatten(1).numpy(), labels.numpy())
    context = None
    if model.num_classes is not None:
        context = torch.arange(arguments.samples) % model.num_classes
    count = 1 if context is not None else arguments.samples
    samples = model.sample(count, context).reshape(-1, *digits.event_shape)
    test, truth = digits.test.tensors
    accuracy = classifier.score(test.flatten(1).numpy(), truth.numpy())
    print(f"classifier: {accuracy:.3f} of the real test digits right")
    for name, x in {
        "samples of the run": samples,
        "real test digits": test,
        "independent pixels": independent_pixels(images, arguments.samples),
    }.items():
        highest = classifier.predict_proba(x.flatten(1).numpy()).max(1)
        print(f"{name:20} mean highest probability {metrics.Estimate.of(torch.tensor(highest))}")


if __name__ == "__main__":
    main()
