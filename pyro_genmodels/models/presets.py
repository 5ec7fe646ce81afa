"""Published configurations by name: plain data, to which a family is added by its entries.

Under a builder's or class's name and that of a data set there are ``model``, its options, and
``training``, settings of :class:`~pyro_genmodels.training.TrainingSettings`. Where a paper and its
code do something that these do not know, a comment says so.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from pyro_genmodels._checks import check_choice
from pyro_genmodels.models._base import GenerativeModel

Options = dict[str, Any]
Table = Mapping[str, Mapping[str, Mapping[str, Options]]]

# A preset says all that a family's own defaults would otherwise say for it.
_PLAIN: Options = {
    "schedule": "constant",
    "warmup_steps": 0,
    "gradient_clip": None,
    "ema_decay": None,
    "weight_decay": 0.0,
}


def _glow(size: int, *, batch_size: int, warmup_examples: int, **model: Any) -> dict[str, Options]:
    """Glow's code; it warms up over ten epochs, and shifts CIFAR-10's images at random."""
    shared = {"event_shape": [3, size, size], "num_levels": 256, "width": 512, "lu": False}
    training = {"optimizer": "adamax", "learning_rate": 1e-3, "batch_size": batch_size}
    warmup = {"warmup_steps": 10 * warmup_examples // batch_size}
    return {
        "model": {**shared, "coupling": "affine", "dropout": 0.0, **model},
        "training": {**_PLAIN, **training, **warmup},
    }


def _realnvp(size: int, **model: Any) -> dict[str, Options]:
    """RealNVP's code; it also decays the weights' lengths, and theirs only, by 5e-5."""
    shared = {"event_shape": [3, size, size], "num_levels": 256, "batch_norm": True}
    training = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 64, "gradient_clip": 100}
    return {
        "model": {**shared, "num_couplings": 3, "logit_margin": 0.05, "dropout": 0.0, **model},
        "training": {**_PLAIN, **training},
    }


def _nice(*shape: int, width: int, num_layers: int, base: str = "logistic") -> dict[str, Options]:
    """NICE; its Adam has a second moment's decay of 0.01, as printed, and an epsilon of 1e-4."""
    # All but MNIST were whitened (ZCA) first.
    model = {"num_couplings": 4, "width": width, "num_layers": num_layers, "base": base}
    training = {"optimizer": "adam", "learning_rate": 1e-3, "max_epochs": 1500}
    return {
        "model": {"event_shape": list(shape), "num_levels": 256, "dropout": 0.0, **model},
        "training": {**_PLAIN, **training},
    }


def _pixelcnn() -> dict[str, Options]:
    """PixelCNN; the paper chose the learning rate by hand and does not print it."""
    sizes = {"hidden_channels": 128, "num_blocks": 15, "output_channels": 1024}
    training = {"optimizer": "rmsprop", "learning_rate": 1e-3, "batch_size": 16}
    return {
        "model": {"event_shape": [3, 32, 32], "num_levels": 256, "dropout": 0.0, **sizes},
        "training": {**_PLAIN, **training},
    }


def _gated_pixelcnn(size: int) -> dict[str, Options]:
    """Gated PixelCNN's network for ImageNet; for CIFAR-10 the paper prints none, nor the rate."""
    sizes = {"hidden_channels": 384, "num_layers": 20, "layer_kernel_size": 5}
    training = {"optimizer": "rmsprop", "learning_rate": 1e-4, "batch_size": 128}
    return {
        "model": {"event_shape": [3, size, size], "num_levels": 256, "dropout": 0.0, **sizes},
        "training": {**_PLAIN, **training},
    }


def _pixelcnn_pp(size: int) -> dict[str, Options]:
    """PixelCNN++'s code; its Adam's decays are .95 and .9995, its rate falls by 5e-6 a step."""
    sizes = {"hidden_channels": 160, "num_resnets": 5, "num_scales": 3, "num_mixtures": 10}
    training = {"optimizer": "adam", "learning_rate": 1e-3, "batch_size": 16, "max_epochs": 5000}
    return {
        "model": {"event_shape": [3, size, size], "num_levels": 256, "dropout": 0.5, **sizes},
        "training": {**_PLAIN, **training, "ema_decay": 0.9995},
    }


def _pixelrnn(
    *shape: int, hidden: int, layers: int, levels: int = 256, **model: Any
) -> dict[str, Options]:
    """PixelRNN; the paper's step sizes of RMSProp, chosen by hand, and its smoothing are unsaid."""
    outputs = {2: 32}.get(levels, 1024)
    sizes = {"hidden_channels": hidden, "num_layers": layers, "output_channels": outputs}
    shared = {"event_shape": list(shape), "num_levels": levels, "dropout": 0.0, "skip": True}
    training = {"optimizer": "rmsprop", "learning_rate": 1e-3, "batch_size": 16}
    return {
        "model": {**shared, "residual": True, **sizes, **model},
        "training": {**_PLAIN, **training},
    }


def _nvae(
    *shape: int,
    num_groups: list[int],
    channels: int,
    batch_size: int,
    max_epochs: int,
    examples: int,
    rate: float = 1e-2,
    rise: int = 5,
    **model: Any,
) -> dict[str, Options]:
    """NVAE's code; its Adamax has an epsilon of 1e-3, its cosine ends at a rate of 1e-4."""
    shared = {"event_shape": list(shape), "num_levels": 256, "num_groups": num_groups}
    sizes = {"channels": channels, "latent_channels": 20, "num_cells": 2, "num_blocks": 1}
    steps = max_epochs * examples // batch_size
    options = {"cells_per_block": 2, "num_flows": 1, "warmup_steps": 3 * steps // 10}
    warmup = rise * examples // batch_size
    course = {"schedule": "cosine", "warmup_steps": warmup, "weight_decay": 3e-4}
    training = {"optimizer": "adamax", "learning_rate": rate, "batch_size": batch_size, **course}
    return {
        "model": {**shared, **sizes, "regularization": 1e-2, **options, **model},
        "training": {**_PLAIN, **training, "max_epochs": max_epochs},
    }


def _vqvae(
    size: int, *, hidden: int, residual: int, rate: float, batch_size: int, **model: Any
) -> dict[str, Options]:
    """VQ-VAE and VQ-VAE-2; the squared error of the papers is ``VQVAE2.paper``'s likelihood."""
    shared = {"event_shape": [3, size, size], "num_levels": 256, "num_codes": 512, "code_dim": 64}
    sizes = {"hidden_channels": hidden, "residual_channels": residual, "num_blocks": 2}
    training = {"optimizer": "adam", "learning_rate": rate, "batch_size": batch_size}
    return {
        "model": {**shared, **sizes, "reduction": 4, "commitment": 0.25, **model},
        "training": {**_PLAIN, **training},
    }


def _vq_priors(*, residual: list[int]) -> dict[str, Options]:
    """Priors of VQ-VAE-2; the paper trains each alone, the bottom's in batches of 512.

    Its layers are of another kind, see :func:`~pyro_genmodels.models.learned_priors`; the sizes are
    the paper's. The rate is that of rosinality's code.
    """
    sizes = {"hidden_channels": 512, "residual_channels": residual, "num_output_layers": 20}
    layers = {"num_blocks": 4, "num_layers": 5, "kernel_size": 5, "layer_kernel_size": 5}
    options = {"num_heads": 8, "conditioning_blocks": 20, "dropout": 0.1}
    training = {"optimizer": "adam", "learning_rate": 3e-4, "batch_size": 1024}
    return {"model": {**sizes, **layers, **options}, "training": {**_PLAIN, **training}}


_TABLE: Table = MappingProxyType(
    {
        # Groups from the top; 32 levels are five bits. The batch is one device's, of 2, 8 or 24.
        "NVAE": {
            # Of no paper: one that trains in five minutes of one core.
            "digits": _nvae(
                *(1, 8, 8),
                num_levels=17,
                num_groups=[1, 2],
                channels=16,
                latent_channels=8,
                num_cells=1,
                num_blocks=0,
                cells_per_block=1,
                num_flows=0,
                batch_size=64,
                max_epochs=140,
                examples=1_297,
                rise=0,
            ),
            "mnist": _nvae(
                *(1, 28, 28),
                num_levels=2,
                num_groups=[5, 10],
                channels=32,
                num_blocks=2,
                cells_per_block=3,
                num_flows=0,
                batch_size=200,
                max_epochs=400,
                examples=60_000,
            ),
            "cifar10": _nvae(
                *(3, 32, 32),
                num_groups=[30],
                channels=128,
                batch_size=32,
                max_epochs=400,
                examples=50_000,
            ),
            "imagenet32": _nvae(
                *(3, 32, 32),
                num_groups=[28],
                channels=192,
                regularization_start=1.0,
                batch_size=24,
                max_epochs=45,
                examples=1_281_149,
                rise=1,
            ),
            "celeba64": _nvae(
                *(3, 64, 64),
                num_groups=[5, 10, 20],
                channels=64,
                regularization=0.1,
                batch_size=16,
                max_epochs=90,
                examples=162_770,
            ),
            "celeba256": _nvae(
                *(3, 256, 256),
                num_levels=32,
                num_groups=[4, 4, 4, 8, 16],
                channels=30,
                num_flows=2,
                regularization_start=1.0,
                checkpointing=True,
                batch_size=4,
                max_epochs=300,
                examples=27_000,
            ),
            "ffhq256": _nvae(
                *(3, 256, 256),
                num_levels=32,
                num_groups=[4, 4, 4, 8, 16],
                channels=30,
                num_flows=2,
                regularization=0.1,
                regularization_start=1.0,
                checkpointing=True,
                batch_size=4,
                max_epochs=200,
                examples=63_000,
                rate=8e-3,
            ),
        },
        # The paper's for ImageNet, 250,000 steps of it; for CIFAR-10 Sonnet's example.
        "VQVAE": {
            "imagenet128": _vqvae(
                128,
                hidden=256,
                residual=256,
                strided_channels=[256, 256],
                projection=False,
                rate=2e-4,
                batch_size=128,
            ),
            "cifar10": _vqvae(32, hidden=128, residual=32, rate=3e-4, batch_size=32),
            # Of no paper: data that tile by tile are coded without loss.
            "mosaic": _vqvae(
                16,
                event_shape=[1, 16, 16],
                num_levels=2,
                num_codes=8,
                code_dim=8,
                network="patch",
                hidden=32,
                residual=32,
                num_blocks=0,
                rate=3e-3,
                batch_size=128,
            ),
        },
        # 16 kHz in 256 levels by the mu-law; six strided convolutions and no blocks. Number of
        # channels, sizes of the WaveNet and the batch are unsaid; dilations are WaveNet's.
        "SequenceVQVAE": {
            "vctk": {
                "model": {
                    "event_shape": [40_960],
                    "num_levels": 256,
                    "num_codes": 512,
                    "code_dim": 64,
                    "reduction": 64,
                    "hidden_channels": 256,
                    "num_blocks": 0,
                    "wavenet_channels": 256,
                    "wavenet_skip_channels": 256,
                    "wavenet_blocks": 3,
                    "wavenet_layers": 10,
                    "dropout": 0.0,
                    "commitment": 0.25,
                },
                "training": {
                    **_PLAIN,
                    "optimizer": "adam",
                    "learning_rate": 2e-4,
                    "batch_size": 8,
                },
            },
        },
        "VQVAE2": {
            "imagenet256": {
                **_vqvae(256, hidden=128, residual=32, num_maps=2, rate=3e-4, batch_size=128),
                "prior": _vq_priors(residual=[2048, 1024]),
            },
            # The batch is unsaid.
            "ffhq1024": _vqvae(
                1024, hidden=128, residual=32, num_maps=3, reduction=8, rate=3e-4, batch_size=128
            ),
        },
        # The batch is one device's; the published runs had eight of them. Larger images come in
        # smaller batches, by the ratio of their numbers of pixels.
        "glow": {
            "cifar10": _glow(32, num_scales=3, num_steps=32, batch_size=64, warmup_examples=50_000),
            "imagenet32": _glow(
                32, num_scales=3, num_steps=48, batch_size=64, warmup_examples=1_281_149
            ),
            "imagenet64": _glow(
                64, num_scales=4, num_steps=48, batch_size=16, warmup_examples=1_281_149
            ),
            "celeba256": _glow(
                256,
                num_scales=6,
                num_steps=32,
                coupling="additive",
                num_levels=32,
                batch_size=1,
                warmup_examples=27_000,
            ),
        },
        # Scales are added until the last one's images are 4x4; for CIFAR-10 there are two.
        "realnvp": {
            "cifar10": _realnvp(32, num_scales=2, width=64, num_blocks=8),
            "imagenet32": _realnvp(32, num_scales=4, width=32, num_blocks=4),
            "imagenet64": _realnvp(64, num_scales=5, width=32, num_blocks=2),
            "celeba64": _realnvp(64, num_scales=5, width=32, num_blocks=2),
        },
        "nice": {
            "mnist": _nice(1, 28, 28, width=1000, num_layers=5),
            "cifar10": _nice(3, 32, 32, width=2000, num_layers=4),
            "svhn": _nice(3, 32, 32, width=2000, num_layers=4),
            "tfd": _nice(1, 48, 48, width=5000, num_layers=4, base="normal"),
        },
        "gated_pixelcnn": {"imagenet32": _gated_pixelcnn(32), "imagenet64": _gated_pixelcnn(64)},
        "pixelcnn": {"cifar10": _pixelcnn()},
        "pixelcnn_pp": {"cifar10": _pixelcnn_pp(32)},
        # MNIST's pixels are binary, drawn or thresholded. The batch for ImageNet is unsaid.
        "diagonal_bilstm": {
            "mnist": _pixelrnn(1, 28, 28, hidden=16, layers=7, levels=2),
            "mnist_one_layer": _pixelrnn(1, 28, 28, hidden=32, layers=1, levels=2),
            "cifar10": _pixelrnn(3, 32, 32, hidden=128, layers=12),
        },
        "row_lstm": {
            "cifar10": _pixelrnn(3, 32, 32, hidden=128, layers=12),
            "imagenet32": _pixelrnn(3, 32, 32, hidden=384, layers=12),
            "imagenet64": _pixelrnn(3, 64, 64, hidden=512, layers=4, residual=False),
        },
    }
)


def presets() -> dict[str, dict[str, dict[str, Options]]]:
    """Return all published configurations: builder, data set, then ``model`` and ``training``.

    Where a VQ-VAE's priors are published too, there is a third entry, ``prior``, with the options
    of :func:`~pyro_genmodels.models.learned_priors` as ``model``, and ``training``.

    Example:
        >>> presets()["glow"]["cifar10"]["model"]["num_steps"]
        32
    """
    return {
        name: {key: copy.deepcopy(dict(found)) for key, found in group.items()}
        for name, group in _TABLE.items()
    }


def preset(name: str, variant: str, **options: Any) -> GenerativeModel:
    """Make a model at a published size.

    Args:
        name: Name of a builder or model class, such as ``"glow"``.
        variant: Data set for which the paper chose the sizes.
        options: Options of the builder, which take the place of the paper's.

    Returns:
        The model. Settings of the published training are
        ``presets()[name][variant]["training"]``; give them to
        :func:`~pyro_genmodels.training.fit`.

    Raises:
        ValueError: If there is no such configuration.

    Example:
        >>> model = preset("nice", "mnist", width=16)
        >>> model.event_shape
        torch.Size([1, 28, 28])
    """
    check_choice("name", name, _TABLE)
    check_choice("variant", variant, _TABLE[name])
    maker = getattr(importlib.import_module("pyro_genmodels.models"), name)
    model: GenerativeModel = maker(**{**presets()[name][variant]["model"], **options})
    return model
