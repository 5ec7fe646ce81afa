"""The small parts that are mutated, and points for them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_genmodels import distributions, models, nets, testing, transforms
from tests import cases
from tests.cases import vivid
from tests.grouped import grouped


def image_coupling() -> transforms.AffineCoupling:
    net = nets.ConvNet(2, 4, hidden=(4,), activation="tanh")
    return transforms.AffineCoupling(transforms.Checkerboard(), net)


def points(transform: Any, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def factor_out() -> transforms.FactorOut:
    torch.manual_seed(0)
    prior = nets.ConvNet(1, 2, hidden=(4,), activation="tanh")
    return transforms.FactorOut(transforms.ActNorm(1, initialized=True), prior)


def gated_net() -> nets.GatedPixelCNNNet:
    torch.manual_seed(0)
    net = nets.GatedPixelCNNNet((1, 5, 5), 3, hidden_channels=8, num_layers=3, kernel_size=3)
    return vivid(testing.randomize_parameters(net).eval())


def pixelrnn_net(*shape: int, **options: Any) -> nets.PixelRNNNet:
    torch.manual_seed(0)
    options = {"hidden_channels": 12, "num_layers": 2, "kernel_size": 3, **options}
    return vivid(testing.randomize_parameters(nets.PixelRNNNet(shape, 3, **options)).eval())


def plus_plus(*shape: int, num_levels: int = 3, **options: Any) -> nets.PixelCNNPlusPlusNet:
    torch.manual_seed(0)
    small = {"hidden_channels": 4, "num_resnets": 1, "num_scales": 2, "num_mixtures": 2}
    net = nets.PixelCNNPlusPlusNet(shape, num_levels, **{**small, **options})
    return testing.randomize_parameters(net).eval()


def small_pixelcnn() -> distributions.PixelCNN:
    torch.manual_seed(0)
    net = nets.PixelCNNNet((1, 2, 2), 3, hidden_channels=4, num_blocks=1)
    return distributions.PixelCNN(vivid(testing.randomize_parameters(net).eval()))


def vae(make: Any = models.VAE, **options: Any) -> Any:
    torch.manual_seed(0)
    model = make((4,), num_levels=2, latent_dim=2, **grouped(make, {"hidden": (6,), **options}))
    return testing.randomize_parameters(model, 0.2)


def binary(batch: int) -> Tensor:
    return torch.randint(2, (batch, 4), generator=torch.Generator().manual_seed(0)).double()


def code_hierarchy_net() -> nets.CodeHierarchyNet:
    net = cases.code_hierarchy((2, 2), (2, 2)).double()
    return vivid(testing.randomize_parameters(net)).eval()  # type: ignore[return-value]
