"""Published configurations of autoregressive models."""

from __future__ import annotations

from pyro_genmodels.models.published.format import Preset, Table, published


def _pixelcnn() -> Preset:
    """PixelCNN; the paper chose the learning rate by hand and does not print it."""
    sizes = {"hidden_channels": 128, "num_blocks": 15, "kernel_size": 7, "output_channels": 1024}
    model = {"event_shape": [3, 32, 32], "num_levels": 256, "dropout": 0.0, **sizes}
    return published(model, optimizer="rmsprop", learning_rate=1e-3, batch_size=16)


def _gated_pixelcnn(size: int) -> Preset:
    """Gated PixelCNN's network for ImageNet; for CIFAR-10 the paper prints none, nor the rate."""
    sizes = {"hidden_channels": 384, "num_layers": 20, "kernel_size": 7, "layer_kernel_size": 5}
    model = {"event_shape": [3, size, size], "num_levels": 256, "dropout": 0.0, **sizes}
    return published(model, optimizer="rmsprop", learning_rate=1e-4, batch_size=128)


def _pixelcnn_pp(size: int) -> Preset:
    """PixelCNN++'s code; its Adam's decays are .95 and .9995, its rate falls by 5e-6 a step."""
    sizes = {"hidden_channels": 160, "num_resnets": 5, "num_scales": 3, "num_mixtures": 10}
    model = {"event_shape": [3, size, size], "num_levels": 256, "dropout": 0.5, **sizes}
    course = {"batch_size": 16, "max_epochs": 5000, "ema_decay": 0.9995}
    return published(model, optimizer="adam", learning_rate=1e-3, **course)


def _pixelrnn(
    *shape: int, hidden: int, layers: int, levels: int = 256, residual: bool = True
) -> Preset:
    """PixelRNN; the paper's step sizes of RMSProp, chosen by hand, and its smoothing are unsaid."""
    sizes = {"hidden_channels": hidden, "num_layers": layers, "kernel_size": 7}
    outputs = {"output_channels": 32 if levels == 2 else 1024}
    shared = {"event_shape": list(shape), "num_levels": levels, "dropout": 0.0, "skip": True}
    model = {**shared, "residual": residual, **sizes, **outputs}
    return published(model, optimizer="rmsprop", learning_rate=1e-3, batch_size=16)


AUTOREGRESSIVE: Table = {
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
