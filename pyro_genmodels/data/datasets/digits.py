"""Scanned digits that come with scikit-learn: real images without a download."""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from pyro_genmodels._checks import require
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.splits import split


class Digits(DataSource):
    """The 1,797 handwritten digits of scikit-learn: 8x8, 17 grey levels, 10 classes.

    The split into 1,297 for training, 140 for validation and 360 for test is random but fixed.
    Ink is bright: level 0 is paper, 16 is ink.

    Raises:
        ImportError: If scikit-learn is not installed.

    References:
        Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits (its test part).
        https://archive.ics.uci.edu/dataset/80

    Example:
        >>> digits = Digits()
        >>> digits
        Digits(1297/140/360 of shape (1, 8, 8), 17 levels, 10 classes)
        >>> image, label = digits.train[0]
    """

    def __init__(self) -> None:
        bunch = require("sklearn.datasets", extra="train").load_digits()
        images = torch.from_numpy(bunch.images).to(torch.uint8).unsqueeze(1)
        labels = torch.from_numpy(bunch.target).long()
        parts = split(len(images), (140, 360), seed=0)
        train, validation, test = (TensorDataset(images[part], labels[part]) for part in parts)
        super().__init__(train, validation, test, num_levels=17, num_classes=10)
