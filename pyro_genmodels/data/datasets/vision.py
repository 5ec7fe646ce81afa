"""Small image data sets in torchvision's formats, read whole from the user's disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check, require
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels.data.base.data_source import DataSource
from pyro_genmodels.data.base.pixels import check_bits, resized, with_bits
from pyro_genmodels.data.base.splits import split


def open_torchvision(name: str, root: str, *, download: bool, **options: Any) -> Any:
    """Open one of torchvision's data sets.

    Raises:
        ValueError: If its files are not under ``root``, or damaged.
        ImportError: If torchvision is not installed.
    """
    datasets = require("torchvision.datasets", extra="train")
    folder = Path(root).expanduser()
    try:
        return getattr(datasets, name)(folder, download=download, **options)
    except (RuntimeError, OSError, ValueError, EOFError) as error:
        if download:
            raise
        rule = f"hold {name}'s files in torchvision's layout (download=True fetches them)"
        raise ValueError(f"`root` must {rule}; got {str(folder)!r}.") from error


class _Whole(DataSource, Abstract):
    """Ten classes of byte images, with an official test part."""

    path_argument: ClassVar[str | None] = "root"

    dataset: ClassVar[str]
    """Name of torchvision's class, which takes one of ``parts`` as options."""
    parts: ClassVar[tuple[dict[str, Any], ...]] = ({"train": True}, {"train": False})

    def __init__(
        self,
        root: str,
        *,
        download: bool = False,
        num_bits: int = 8,
        size: int | None = None,
        validation: int = 10_000,
        seed: int = 0,
    ) -> None:
        check_bits(num_bits)
        check(validation >= 1, "validation", "be at least 1", validation)
        train, test = (
            open_torchvision(self.dataset, root, download=download, **part) for part in self.parts
        )
        images, labels = _tensors(train, num_bits, size)
        fit, choose = split(len(images), (validation,), seed)
        super().__init__(
            TensorDataset(images[fit], labels[fit]),
            TensorDataset(images[choose], labels[choose]),
            TensorDataset(*_tensors(test, num_bits, size)),
            num_levels=2**num_bits,
            num_classes=10,
        )


def _tensors(dataset: Any, num_bits: int, size: int | None) -> tuple[Tensor, Tensor]:
    images = torch.as_tensor(dataset.data)
    if images.dim() == 3:  # MNIST: (n, h, w)
        images = images.unsqueeze(1)
    elif images.shape[-1] == 3:  # CIFAR: (n, h, w, c)
        images = images.permute(0, 3, 1, 2)
    labels = dataset.targets if hasattr(dataset, "targets") else dataset.labels
    images = with_bits(resized(images, size), num_bits).contiguous()
    return images, torch.as_tensor(np.asarray(labels)).long()


class MNIST(_Whole):
    """Handwritten digits, 28x28, 10 classes: 50,000 / 10,000 / 10,000.

    Args:
        root: Folder above torchvision's ``MNIST/raw``.
        download: Whether to fetch what is missing.
        num_bits: Bits kept a pixel, from 1 to 8.
        size: Height and width to scale to.
        validation: Number of training images held out for validation, at random.
        seed: Seed of that split.

    Raises:
        ValueError: If the files are not there, or an argument is out of range.
        ImportError: If torchvision is not installed.

    References:
        LeCun et al. (1998), Gradient-based learning applied to document recognition.
    """

    dataset = "MNIST"


class FashionMNIST(_Whole):
    """Photographed clothes, 28x28 grey, 10 classes: 50,000 / 10,000 / 10,000.

    Args:
        root: Folder above torchvision's ``FashionMNIST/raw``.
        download: Whether to fetch what is missing.
        num_bits: Bits kept a pixel, from 1 to 8.
        size: Height and width to scale to.
        validation: Number of training images held out for validation, at random.
        seed: Seed of that split.

    Raises:
        ValueError: If the files are not there, or an argument is out of range.
        ImportError: If torchvision is not installed.

    References:
        Xiao et al. (2017), Fashion-MNIST. https://arxiv.org/abs/1708.07747
    """

    dataset = "FashionMNIST"


class CIFAR10(_Whole):
    """Small colour photographs, 32x32, 10 classes: 45,000 / 5,000 / 10,000.

    Args:
        root: Folder above torchvision's ``cifar-10-batches-py``.
        download: Whether to fetch what is missing.
        num_bits: Bits kept a channel, from 1 to 8.
        size: Height and width to scale to.
        validation: Number of training images held out for validation, at random.
        seed: Seed of that split.

    Raises:
        ValueError: If the files are not there or damaged, or an argument is out of range.
        ImportError: If torchvision is not installed.

    References:
        Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images.
    """

    dataset = "CIFAR10"

    @takes_arguments_of(_Whole.__init__, validation=5_000)
    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(root, **options)


class SVHN(_Whole):
    """House numbers from street views, 32x32 colour, 10 classes: 68,257 / 5,000 / 26,032.

    Args:
        root: Folder with torchvision's ``train_32x32.mat`` and ``test_32x32.mat``.
        download: Whether to fetch what is missing.
        num_bits: Bits kept a channel, from 1 to 8.
        size: Height and width to scale to.
        validation: Number of training images held out for validation, at random.
        seed: Seed of that split.

    Raises:
        ValueError: If the files are not there or damaged, or an argument is out of range.
        ImportError: If torchvision, or scipy which it reads them with, is not installed.

    References:
        Netzer et al. (2011), Reading Digits in Natural Images.
    """

    dataset = "SVHN"
    parts = ({"split": "train"}, {"split": "test"})

    @takes_arguments_of(_Whole.__init__, validation=5_000)
    def __init__(self, root: str, **options: Any) -> None:
        super().__init__(root, **options)
