"""Networks: they map ``(*batch, *event)`` to ``(*batch, ...)``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels import nets
from tests.cases.case import LABELS, Case, Cases, features


def gated_net(*shape: int, **options: Any) -> nets.GatedPixelCNNNet:
    """A small gated PixelCNN."""
    return nets.GatedPixelCNNNet(shape, 3, **{"hidden_channels": 6, "num_layers": 1, **options})


def snail_net(*shape: int, **options: Any) -> nets.PixelSNAILNet:
    """A small PixelSNAIL."""
    sizes = {"hidden_channels": 6, "num_blocks": 1, "num_layers": 1}
    return nets.PixelSNAILNet(shape, 3, **{**sizes, **options})


def made(*shape: int, num_levels: int = 3, **options: Any) -> nets.MADENet:
    """A small MADE."""
    return nets.MADENet(shape, num_levels, **{"hidden": (9, 8), **options})


def ngram(*shape: int, **options: Any) -> nets.NGramNet:
    """A small n-gram network."""
    options = {"order": 2, "embedding_features": 3, "hidden": (5,)} | options
    return nets.NGramNet(shape, 3, **options)


def char_rnn(*shape: int, **options: Any) -> nets.CharRNNNet:
    """A small recurrent network."""
    options = {"hidden_features": 5, "embedding_features": 4} | options
    return nets.CharRNNNet(shape, 3, **options)


def wavenet(*shape: int, **options: Any) -> nets.WaveNetNet:
    """A small WaveNet."""
    options = {"channels": 4, "skip_channels": 5, "layers_per_block": 2} | options
    return nets.WaveNetNet(shape, 3, **{"num_blocks": 1, **options})


def plus_plus_net(*shape: int, **options: Any) -> nets.PixelCNNPlusPlusNet:
    """A small PixelCNN++."""
    small = {"hidden_channels": 4, "num_resnets": 1, "num_scales": 1, "num_mixtures": 2}
    return nets.PixelCNNPlusPlusNet(shape, 3, **{**small, **options})


def code_hierarchy(
    *shapes: tuple[int, ...], codes: int = 3, **options: Any
) -> nets.CodeHierarchyNet:
    """Small networks over maps of codes, the top's with attention."""
    small = {"hidden_channels": 6, "embedding_size": 2}
    maps: list[Any] = [snail_net(*shapes[0], embedding_size=2, **options)]
    conditioners: list[Any] = [None]
    for index, shape in enumerate(shapes[1:], 1):
        above = [net.num_levels for net in maps]
        conditioner = nets.CodeConditioner(
            shapes[:index], above, shape[-2:], features=4, embedding_size=2, num_blocks=1, **options
        )
        shared = {"num_layers": 1, "context_shape": conditioner.features_shape, **small}
        maps.append(nets.GatedPixelCNNNet(shape, codes, **shared))
        conditioners.append(conditioner)
    return nets.CodeHierarchyNet(maps, conditioners)


def pixelrnn(*shape: int, num_levels: int = 3, **options: Any) -> nets.PixelRNNNet:
    """A small PixelRNN."""
    options = {"hidden_channels": 4, "num_layers": 1, "kernel_size": 3} | options
    return nets.PixelRNNNet(shape, num_levels, **options)


def multiscale(*shape: int, num_levels: int = 3, scale: int = 2, **options: Any) -> Any:
    """Two small PixelRNNs at two scales."""
    channels, *sides = shape
    reduced = [-(-side // scale) for side in sides]
    small = pixelrnn(channels, *reduced, num_levels=num_levels, layer="row", **options)
    large = pixelrnn(*shape, num_levels=num_levels, context_shape=(6, *sides))
    return nets.MultiScaleNet(small, large, scale=scale)


def unet(in_channels: int, out_channels: int, **options: Any) -> nets.UNet:
    """A small U-Net of two sizes."""
    small = {"channels": 4, "num_blocks": 1, "attention": (), **options}
    return nets.UNet(in_channels, out_channels, **small)


def sequence_unet(in_channels: int, out_channels: int, **options: Any) -> nets.SequenceUNet:
    """A small U-Net of sequences, of two sizes."""
    small = {"channels": 4, "num_blocks": 1, "attention": (), **options}
    return nets.SequenceUNet(in_channels, out_channels, **small)


class AtLevel(nn.Module):
    """A denoiser at one noise level, which maps as any other network."""

    def __init__(self, net: nets.Denoiser) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        output: Tensor = self.net(x, torch.tensor(0.3, dtype=x.dtype), context)
        return output


class AtTimes(nn.Module):
    """A noise schedule of elements of the data, squeezed into times between 0 and 1."""

    def __init__(self, schedule: nets.NoiseSchedule) -> None:
        super().__init__()
        self.schedule = schedule

    def forward(self, x: Tensor) -> Tensor:
        levels: Tensor = self.schedule(x.sigmoid())
        return levels


def as_network(part: Any) -> Any:
    """What the laws of networks call with data and perhaps a context."""
    if isinstance(part, nets.NoiseSchedule):
        return AtTimes(part)
    return AtLevel(part) if isinstance(part, nets.Denoiser) else part


def quantizer(dim: int) -> nets.VectorQuantizer:
    """Codes that are in place before any data are seen."""
    return nets.VectorQuantizer(dim, 5, initialization="random")


NETS: Cases = {
    "ContextEmbedding": lambda: Case(nets.ContextEmbedding(3, context_shape=(2,)), (2,)),
    "ContextEmbedding/map": lambda: Case(
        nets.ContextEmbedding(3, context_shape=(2, 4, 5)), (2, 4, 5)
    ),
    "CharRNNNet": lambda: Case(char_rnn(5), (5,)),
    "CharRNNNet/image": lambda: Case(char_rnn(2, 2, 2, cell="lstm", num_layers=1), (2, 2, 2)),
    "CharRNNNet/labels": lambda: Case(char_rnn(4, cell="lstm", num_classes=3), (4,), LABELS),
    "CharRNNNet/sequence": lambda: Case(char_rnn(4, context_shape=(2, 4)), (4,), features(2, 4)),
    "CodeHierarchyNet": lambda: Case(code_hierarchy((1, 2), (2, 3)), (8,)),
    "CodeHierarchyNet/parts": lambda: Case(code_hierarchy((2, 1, 2), (2, 2, 2)), (12,)),
    "CodeHierarchyNet/labels": lambda: Case(
        code_hierarchy((1, 1), (2, 2), num_classes=3), (5,), LABELS
    ),
    "CodeHierarchyNet/map": lambda: Case(
        code_hierarchy((1, 2), (2, 2), context_shape=(2, 2, 2)), (6,), features(2, 2, 2)
    ),
    "ConvNet": lambda: Case(nets.ConvNet(2, 3, hidden=(4,)), (2, 3, 4)),
    "ConvNet/labels": lambda: Case(
        nets.ConvNet(2, 3, hidden=(4,), num_classes=3), (2, 3, 4), LABELS
    ),
    "ConvDecoder": lambda: Case(nets.ConvDecoder(3, (2, 5, 4), channels=(4, 6)), (3,)),
    "ConvEncoder": lambda: Case(nets.ConvEncoder((2, 5, 4), 3, channels=(4, 6)), (2, 5, 4)),
    "Cosine": lambda: Case(nets.Cosine(), (3,)),
    "DenseDenoiser": lambda: Case(nets.DenseDenoiser(3, 2, hidden=(8, 6)), (3,)),
    "DenseDenoiser/labels": lambda: Case(
        nets.DenseDenoiser(3, 3, hidden=(8,), scale_shift=True, num_classes=3), (3,), LABELS
    ),
    "DenseDenoiser/vector": lambda: Case(
        nets.DenseDenoiser(3, 3, hidden=(8,), context_shape=(2,), null_context=True),
        (3,),
        features(2),
    ),
    "EnergyGradient": lambda: Case(
        nets.EnergyGradient(nets.MLP(3, 2, hidden=(4,), activation="silu")), (3,)
    ),
    "EnergyGradient/labels": lambda: Case(
        nets.EnergyGradient(nets.MLP(3, 1, hidden=(4,), activation="tanh", num_classes=3)),
        (3,),
        LABELS,
    ),
    "EnergyGradient/map": lambda: Case(
        nets.EnergyGradient(
            nets.ConvNet(2, 1, hidden=(4,), activation="softplus", context_shape=(1, 3, 4)),
            event_dim=3,
        ),
        (2, 3, 4),
        features(1, 3, 4),
    ),
    "GatedPixelCNNNet": lambda: Case(gated_net(1, 4, 5), (1, 4, 5)),
    "GatedPixelCNNNet/colours": lambda: Case(gated_net(3, 3, 4, hidden_channels=7), (3, 3, 4)),
    "GatedPixelCNNNet/one-pixel-wide": lambda: Case(gated_net(2, 5, 1), (2, 5, 1)),
    "GatedPixelCNNNet/one-layer": lambda: Case(gated_net(2, 2, 3, num_layers=0), (2, 2, 3)),
    "GatedPixelCNNNet/embedding": lambda: Case(gated_net(2, 3, 3, embedding_size=2), (2, 3, 3)),
    "GatedPixelCNNNet/no-channels": lambda: Case(
        gated_net(3, 4, context_shape=(2,)), (3, 4), features(2)
    ),
    "GatedPixelCNNNet/labels": lambda: Case(gated_net(1, 3, 3, num_classes=3), (1, 3, 3), LABELS),
    "GatedPixelCNNNet/map": lambda: Case(
        gated_net(1, 3, 4, context_shape=(2, 3, 4)), (1, 3, 4), features(2, 3, 4)
    ),
    "Geometric": lambda: Case(nets.Geometric(), (3,)),
    "GlowNet": lambda: Case(nets.GlowNet(2, 3, hidden_channels=4), (2, 3, 4)),
    "GlowNet/labels": lambda: Case(
        nets.GlowNet(2, 3, hidden_channels=4, num_classes=3), (2, 3, 4), LABELS
    ),
    "GlowNet/prior": lambda: Case(nets.GlowNet(2, 3, hidden_channels=0), (2, 3, 4)),
    "LinearBeta": lambda: Case(nets.LinearBeta(num_betas=20), (3,)),
    "LinearLogSNR": lambda: Case(nets.LinearLogSNR(), (3,)),
    "LinearLogSNR/fixed": lambda: Case(nets.LinearLogSNR(-5.0, 3.0, learnable=False), (3,)),
    "MADENet": lambda: Case(made(5), (5,)),
    "MADENet/direct": lambda: Case(made(1, 2, 3, hidden=(3,), direct=True), (1, 2, 3)),
    "MADENet/labels": lambda: Case(
        made(2, 2, 2, num_levels=2, order="random", num_classes=3), (2, 2, 2), LABELS
    ),
    "MADENet/masks": lambda: Case(
        made(4, order=[2, 0, 3, 1], num_masks=3, one_hot=False, context_shape=(2,)),
        (4,),
        features(2),
    ),
    "MLP": lambda: Case(nets.MLP(3, 2, hidden=(4,)), (3,)),
    "MLP/labels": lambda: Case(nets.MLP(3, 2, hidden=(4,), num_classes=3), (3,), LABELS),
    "NoInputMLP": lambda: Case(nets.NoInputMLP(2), (0,)),
    "NoInputMLP/labels": lambda: Case(nets.NoInputMLP(2, hidden=(4,), num_classes=3), (0,), LABELS),
    "MLPDecoder": lambda: Case(nets.MLPDecoder(3, (2, 5, 4), hidden=(6,)), (3,)),
    "MLPEncoder": lambda: Case(nets.MLPEncoder((2, 5, 4), 3, hidden=(6,)), (2, 5, 4)),
    "MapDecoder": lambda: Case(nets.MapDecoder(2, 3, hidden_channels=4), (2, 2, 3)),
    "MapDecoder/labels": lambda: Case(
        nets.MapDecoder(2, 3, hidden_channels=4, num_classes=3), (2, 2, 3), LABELS
    ),
    "MapEncoder": lambda: Case(nets.MapEncoder(2, 3, hidden_channels=4), (2, 9, 6)),
    "MapEncoder/map": lambda: Case(
        nets.MapEncoder(2, hidden_channels=4, context_shape=(2, 9, 6)), (2, 9, 6), features(2, 9, 6)
    ),
    "MaskedConv2d": lambda: Case(nets.MaskedConv2d(3, 6, 3, kind="A", num_groups=3), (3, 4, 5)),
    "MultiHeadQuantizer": lambda: Case(nets.MultiHeadQuantizer(quantizer(2), 2), (4,)),
    "MultiScaleNet": lambda: Case(multiscale(1, 3, 5), (1, 3, 5)),
    "MultiScaleNet/colours": lambda: Case(multiscale(3, 2, 3, scale=3), (3, 2, 3)),
    "MultiScaleNet/labels": lambda: Case(multiscale(1, 3, 3, num_classes=3), (1, 3, 3), LABELS),
    "MultiScaleNet/map": lambda: Case(
        multiscale(1, 3, 4, context_shape=(2, 3, 4)), (1, 3, 4), features(2, 3, 4)
    ),
    "NGramNet": lambda: Case(ngram(6), (6,)),
    "NGramNet/image": lambda: Case(
        ngram(2, 2, 2, direct=True, context_shape=(1, 3, 2)), (2, 2, 2), features(1, 3, 2)
    ),
    "NGramNet/labels": lambda: Case(ngram(4, num_classes=3), (4,), LABELS),
    "PatchDecoder": lambda: Case(
        nets.PatchDecoder(2, 3, patch_size=3, hidden_channels=4), (2, 2, 3)
    ),
    "PatchDecoder/labels": lambda: Case(
        nets.PatchDecoder(2, 3, hidden_channels=4, num_classes=3), (2, 2, 3), LABELS
    ),
    "PatchEncoder": lambda: Case(
        nets.PatchEncoder(2, 3, patch_size=3, hidden_channels=4), (2, 9, 6)
    ),
    "PatchEncoder/map": lambda: Case(
        nets.PatchEncoder(2, patch_size=3, hidden_channels=4, context_shape=(2, 9, 6)),
        (2, 9, 6),
        features(2, 9, 6),
    ),
    "PixelCNNNet": lambda: Case(
        nets.PixelCNNNet((1, 5, 4), 5, hidden_channels=6, num_blocks=2), (1, 5, 4)
    ),
    "PixelCNNNet/colours": lambda: Case(
        nets.PixelCNNNet((3, 3, 4), 4, hidden_channels=6, num_blocks=1), (3, 3, 4)
    ),
    "PixelCNNNet/codes": lambda: Case(
        nets.PixelCNNNet((2, 3, 3), 3, hidden_channels=6, num_blocks=1, embedding_size=2), (2, 3, 3)
    ),
    "PixelCNNNet/no-channels": lambda: Case(
        nets.PixelCNNNet((3, 4), 3, hidden_channels=4, num_blocks=1), (3, 4)
    ),
    "PixelCNNNet/one-pixel-wide": lambda: Case(
        nets.PixelCNNNet((2, 5, 1), 3, hidden_channels=4, num_blocks=1), (2, 5, 1)
    ),
    "PixelCNNNet/labels": lambda: Case(
        nets.PixelCNNNet((1, 3, 3), 4, hidden_channels=4, num_blocks=1, num_classes=3),
        (1, 3, 3),
        LABELS,
    ),
    "PixelSNAILNet": lambda: Case(snail_net(1, 4, 5, num_blocks=2), (1, 4, 5)),
    "PixelSNAILNet/codes": lambda: Case(
        snail_net(1, 4, 3, embedding_size=3, num_layers=0), (1, 4, 3)
    ),
    "PixelSNAILNet/colours": lambda: Case(snail_net(3, 3, 4, hidden_channels=7), (3, 3, 4)),
    "PixelSNAILNet/one-pixel-wide": lambda: Case(snail_net(2, 5, 1), (2, 5, 1)),
    "PixelSNAILNet/no-channels": lambda: Case(
        snail_net(3, 4, embedding_size=2, context_shape=(2, 3, 4)), (3, 4), features(2, 3, 4)
    ),
    "PixelSNAILNet/labels": lambda: Case(snail_net(1, 3, 3, num_classes=3), (1, 3, 3), LABELS),
    "PixelSNAILNet/residual": lambda: Case(
        snail_net(3, 2, 3, hidden_channels=7, residual_channels=5, num_output_layers=2), (3, 2, 3)
    ),
    "PixelSNAILNet/map": lambda: Case(
        snail_net(1, 3, 4, context_shape=(2, 3, 4)), (1, 3, 4), features(2, 3, 4)
    ),
    "PixelCNNPlusPlusNet": lambda: Case(plus_plus_net(1, 4, 8, num_scales=3), (1, 4, 8)),
    "PixelCNNPlusPlusNet/colours": lambda: Case(plus_plus_net(3, 2, 4, num_scales=2), (3, 2, 4)),
    "PixelCNNPlusPlusNet/one-pixel-wide": lambda: Case(plus_plus_net(2, 3, 1), (2, 3, 1)),
    "PixelCNNPlusPlusNet/no-resnets": lambda: Case(
        plus_plus_net(1, 2, 2, num_resnets=0, num_scales=2), (1, 2, 2)
    ),
    "PixelCNNPlusPlusNet/labels": lambda: Case(
        plus_plus_net(1, 2, 3, num_classes=3), (1, 2, 3), LABELS
    ),
    "PixelCNNPlusPlusNet/map": lambda: Case(
        plus_plus_net(1, 2, 4, num_scales=2, context_shape=(2, 2, 4)), (1, 2, 4), features(2, 2, 4)
    ),
    "PixelRNNNet": lambda: Case(pixelrnn(1, 4, 5, num_layers=2), (1, 4, 5)),
    "PixelRNNNet/codes": lambda: Case(pixelrnn(2, 3, 3, embedding_size=2), (2, 3, 3)),
    "PixelRNNNet/colours": lambda: Case(pixelrnn(3, 3, 4), (3, 3, 4)),
    "PixelRNNNet/labels": lambda: Case(
        pixelrnn(1, 3, 3, layer="row", num_classes=3), (1, 3, 3), LABELS
    ),
    "PixelRNNNet/map": lambda: Case(
        pixelrnn(1, 3, 4, context_shape=(2, 3, 4)), (1, 3, 4), features(2, 3, 4)
    ),
    "PixelRNNNet/one-pixel-high": lambda: Case(pixelrnn(2, 1, 5), (2, 1, 5)),
    "PixelRNNNet/one-pixel-wide": lambda: Case(pixelrnn(2, 5, 1), (2, 5, 1)),
    "PixelRNNNet/row": lambda: Case(pixelrnn(1, 4, 5, layer="row", num_layers=2), (1, 4, 5)),
    "PixelRNNNet/row-colours": lambda: Case(pixelrnn(3, 3, 4, layer="row", skip=False), (3, 3, 4)),
    "PixelRNNNet/vector": lambda: Case(
        pixelrnn(2, 3, 2, residual=False, num_layers=2, context_shape=(2,)), (2, 3, 2), features(2)
    ),
    "ProductQuantizer": lambda: Case(nets.ProductQuantizer([quantizer(1), quantizer(3)]), (4,)),
    "ResidualQuantizer": lambda: Case(nets.ResidualQuantizer([quantizer(4), quantizer(4)]), (4,)),
    "RealNVPNet/labels": lambda: Case(
        nets.RealNVPNet(2, 3, hidden_channels=4, num_blocks=1, num_classes=3), (2, 3, 4), LABELS
    ),
    "RealNVPNet": lambda: Case(nets.RealNVPNet(2, 3, hidden_channels=4, num_blocks=1), (2, 3, 4)),
    "ResNet": lambda: Case(nets.ResNet(2, 3, hidden_channels=4, num_blocks=1), (2, 3, 4)),
    "ResNet/map": lambda: Case(
        nets.ResNet(2, 3, hidden_channels=4, num_blocks=1, context_shape=(1, 3, 4)),
        (2, 3, 4),
        features(1, 3, 4),
    ),
    "SequenceDecoder": lambda: Case(
        nets.SequenceDecoder(2, 3, reduction=4, hidden_channels=4), (2, 3)
    ),
    "SequenceDecoder/labels": lambda: Case(
        nets.SequenceDecoder(2, 3, reduction=4, hidden_channels=4, num_classes=3), (2, 3), LABELS
    ),
    "SequenceDecoder/sequence": lambda: Case(
        nets.SequenceDecoder(2, 3, reduction=2, hidden_channels=4, context_shape=(2, 6)),
        (2, 3),
        features(2, 6),
    ),
    "SequenceEncoder": lambda: Case(nets.SequenceEncoder(3, reduction=4, hidden_channels=4), (9,)),
    "SequenceUNet": lambda: Case(sequence_unet(2, 3, multipliers=(1, 2, 2)), (2, 7)),
    "SequenceUNet/sequence": lambda: Case(
        sequence_unet(1, 1, attention=(1,), context_shape=(2, 3)), (1, 4), features(2, 3)
    ),
    "UNet": lambda: Case(unet(2, 3, channels=8, multipliers=(1, 2, 3)), (2, 5, 3)),
    "UNet/attention": lambda: Case(unet(1, 1, attention=(1, 2), num_heads=2), (1, 4, 6)),
    "UNet/flat": lambda: Case(unet(1, 2, multipliers=(1,), scale_shift=True), (1, 3, 2)),
    "UNet/one-pixel": lambda: Case(unet(1, 1), (1, 1, 1)),
    "UNet/labels": lambda: Case(unet(1, 1, num_classes=3, null_context=True), (1, 4, 1), LABELS),
    "UNet/map": lambda: Case(
        unet(1, 1, middle_attention=False, context_shape=(2, 3, 4)), (1, 3, 4), features(2, 3, 4)
    ),
    "VectorQuantizer": lambda: Case(quantizer(4), (4,)),
    "WaveNetNet": lambda: Case(wavenet(7), (7,)),
    "WaveNetNet/image": lambda: Case(wavenet(1, 2, 3, kernel_size=3), (1, 2, 3)),
    "WaveNetNet/mixture": lambda: Case(wavenet(5, num_mixtures=2), (5,)),
    "WaveNetNet/labels": lambda: Case(wavenet(4, num_classes=3), (4,), LABELS),
    "WaveNetNet/sequence": lambda: Case(wavenet(4, context_shape=(2, 3)), (4,), features(2, 3)),
}
