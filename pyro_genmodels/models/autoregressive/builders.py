"""Builders: models of the published autoregressive networks, each one call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

from pyro_genmodels._checks import check_event_shape
from pyro_genmodels._configuration import takes_arguments_of
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.autoregressive.autoregressive_model import AutoregressiveModel
from pyro_genmodels.nets import (
    CharRNNNet,
    GatedPixelCNNNet,
    MADENet,
    MultiScaleNet,
    NGramNet,
    PixelCNNNet,
    PixelCNNPlusPlusNet,
    PixelRNNNet,
    PixelSNAILNet,
    WaveNetNet,
)
from pyro_genmodels.nets.autoregressive import image_shape, small_shape

PUBLISHED_KERNEL = 7
WIDEST_COVERED = 28
"""Sides up to this are covered: the kernel's cost grows with the square of the side."""


def covering_kernel(sides: Sequence[int], *, further: int) -> int:
    """Return the least odd size of a first kernel, 7 or more, with which a network spans an image.

    Warns in one line where the image is so large that 7 remains, the size of the papers.

    Args:
        sides: The image's sides, or those along which only the kernels reach.
        further: Pixels that the layers behind the first add in each direction.

    Example:
        >>> covering_kernel((16, 16), further=5)
        21
    """
    before = max(sides) - 1
    covering = max(PUBLISHED_KERNEL, 2 * (before - further) + 1)
    if covering == PUBLISHED_KERNEL or before < WIDEST_COVERED:
        return covering
    seen = f"{PUBLISHED_KERNEL // 2 + further} of the {before} pixels before it along a side"
    text = f"a pixel sees {seen} of the image; with kernel_size={covering} it would see all"
    # Past this function, the builder and the decorator's.
    warnings.warn(f"{text}.", stacklevel=4)
    return PUBLISHED_KERNEL


@takes_arguments_of(PixelCNNNet, num_levels=256, dropout=0.3)
def pixelcnn(
    event_shape: EventShape,
    *,
    num_blocks: int = 5,
    kernel_size: int | None = None,
    block_kernel_size: int = 3,
    missing: bool = False,
    **options: Any,
) -> AutoregressiveModel:
    """Make a PixelCNN model.

    As published it does not see its blind spot: of the row above what lies more than half a kernel
    to the right, of each further row half a block's kernel less.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of features dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        num_blocks: Residual blocks.
        kernel_size: Size of the first convolution. By default, for sides up to 28, the least from
            7 on with which the last pixel sees the first row and column; for larger images 7, and
            a warning says how far a pixel sees.
        block_kernel_size: Size of the convolution in a block.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelCNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> pixelcnn((1, 8, 8), num_levels=17, hidden_channels=8).sample().shape
        torch.Size([1, 1, 8, 8])
    """
    if kernel_size is None:
        further = num_blocks * (block_kernel_size // 2)
        kernel_size = covering_kernel(image_shape(event_shape)[1:], further=further)
    net = PixelCNNNet(
        event_shape,
        num_blocks=num_blocks,
        kernel_size=kernel_size,
        block_kernel_size=block_kernel_size,
        **options,
    )
    return AutoregressiveModel(net, missing=missing)


@takes_arguments_of(GatedPixelCNNNet, num_levels=256, dropout=0.25)
def gated_pixelcnn(
    event_shape: EventShape,
    *,
    num_layers: int = 5,
    kernel_size: int | None = None,
    layer_kernel_size: int = 3,
    missing: bool = False,
    **options: Any,
) -> AutoregressiveModel:
    """Make a gated PixelCNN model.

    By default each pixel of an image with sides up to 28 sees all before it.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of features dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        num_layers: Gated layers after the first.
        kernel_size: Size of the first layer's kernel. By default, for sides up to 28, the least
            from 7 on with which each pixel sees all before it; for larger images 7, and a warning
            says how far a pixel sees.
        layer_kernel_size: Size of the other layers' kernels.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.GatedPixelCNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), Conditional image generation with PixelCNN decoders.
        https://arxiv.org/abs/1606.05328

    Example:
        >>> gated_pixelcnn((1, 8, 8), num_levels=17, hidden_channels=8).sample().shape
        torch.Size([1, 1, 8, 8])
    """
    if kernel_size is None:
        further = num_layers * (layer_kernel_size // 2)
        kernel_size = covering_kernel(image_shape(event_shape)[1:], further=further)
    net = GatedPixelCNNNet(
        event_shape,
        num_layers=num_layers,
        kernel_size=kernel_size,
        layer_kernel_size=layer_kernel_size,
        **options,
    )
    return AutoregressiveModel(net, missing=missing)


@takes_arguments_of(PixelSNAILNet, num_levels=256, dropout=0.25)
def pixelsnail(event_shape: EventShape, **options: Any) -> AutoregressiveModel:
    """Make a PixelSNAIL model: gated layers and causal self-attention.

    For images whose end may be missing, as NaN, make an :class:`AutoregressiveModel` of the network
    with ``missing=True``.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of features dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelSNAILNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        Chen et al. (2018), PixelSNAIL: an improved autoregressive generative model.
        https://arxiv.org/abs/1712.09763

    Example:
        >>> pixelsnail((1, 8, 8), num_levels=17, hidden_channels=8).sample().shape
        torch.Size([1, 1, 8, 8])
    """
    return AutoregressiveModel(PixelSNAILNet(event_shape, **options))


@takes_arguments_of(PixelCNNPlusPlusNet, num_levels=256, dropout=0.5)
def pixelcnn_pp(
    event_shape: EventShape, *, missing: bool = False, **options: Any
) -> AutoregressiveModel:
    """Make a PixelCNN++ model.

    As published, of its own row, and of the row above to its right, a pixel of every second row
    does not see what lies further than ``4 * num_resnets + 2`` pixels: 10 by default, 22 in the
    paper.

    The paper trains by Adam with a learning rate of 1e-3, first and second moments' decays of
    0.95 and 0.9995, the rate falling by 5e-6 of itself a step, and averages the weights with a
    decay of 0.9995.

    Args:
        event_shape: ``(C, H, W)``; the sides divisible by 4, or as ``num_scales`` says.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of features dropped in training.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelCNNPlusPlusNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        Salimans et al. (2017), PixelCNN++. https://arxiv.org/abs/1701.05517

    Example:
        >>> pixelcnn_pp((1, 4, 4), num_levels=17, hidden_channels=4).sample().shape
        torch.Size([1, 1, 4, 4])
    """
    return AutoregressiveModel(PixelCNNPlusPlusNet(event_shape, **options), missing=missing)


@takes_arguments_of(PixelRNNNet, num_levels=256, dropout=0.25, without=["layer"])
def row_lstm(
    event_shape: EventShape,
    *,
    num_layers: int = 3,
    kernel_size: int | None = None,
    missing: bool = False,
    **options: Any,
) -> AutoregressiveModel:
    """Make a PixelRNN of Row LSTM layers.

    As published a pixel sees a triangle: of the row above it does not see what lies more than half
    a kernel to the right, of each further row one pixel less.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of states dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        num_layers: LSTM layers.
        kernel_size: Size of the first convolution. By default, for widths up to 28, the least from
            7 on with which the last pixel of a row sees the first; for wider images 7, and a
            warning says how far a pixel sees.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelRNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> row_lstm((1, 6, 6), num_levels=17, hidden_channels=4).sample().shape
        torch.Size([1, 1, 6, 6])
    """
    if kernel_size is None:
        kernel_size = covering_kernel(image_shape(event_shape)[2:], further=num_layers)
    net = PixelRNNNet(
        event_shape, layer="row", num_layers=num_layers, kernel_size=kernel_size, **options
    )
    return AutoregressiveModel(net, missing=missing)


@takes_arguments_of(PixelRNNNet, num_levels=256, dropout=0.25, without=["layer"])
def diagonal_bilstm(
    event_shape: EventShape, *, missing: bool = False, **options: Any
) -> AutoregressiveModel:
    """Make a PixelRNN of Diagonal BiLSTM layers.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of states dropped in training. Not in the paper; without it a data set of
            thousands of images is soon learned by heart. 0 for data without end.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelRNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks. https://arxiv.org/abs/1601.06759

    Example:
        >>> diagonal_bilstm((1, 6, 6), num_levels=17, hidden_channels=4).sample().shape
        torch.Size([1, 1, 6, 6])
    """
    return AutoregressiveModel(
        PixelRNNNet(event_shape, layer="diagonal", **options), missing=missing
    )


@takes_arguments_of(PixelRNNNet, num_levels=256, dropout=0.25)
def multiscale_pixelrnn(
    event_shape: EventShape,
    *,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    scale: int = 2,
    enlarged_channels: int = 32,
    missing: bool = False,
    **options: Any,
) -> AutoregressiveModel:
    """Make a multi-scale PixelRNN: a small image, every few pixels, then the rest of the large one.

    As published, a pixel of the large image does not see all of the small image that lies ahead of
    it in raster order, only the nearest pixels.

    Other networks go together by :class:`~pyro_genmodels.nets.MultiScaleNet` in the same way.

    Args:
        event_shape: ``(C, H, W)``.
        num_levels: Levels of each sub-pixel.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector or a feature map.
        dropout: Share of states dropped in training; not in the paper.
        scale: Every so many pixels, in both directions, are part of the small image.
        enlarged_channels: Features to which the small image is brought.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.PixelRNNNet`; of both networks.

    Returns:
        The model; its networks are ``model.net.small`` and ``model.net.large``.

    References:
        van den Oord et al. (2016), Pixel recurrent neural networks, section 3.6.
        https://arxiv.org/abs/1601.06759

    Example:
        >>> multiscale_pixelrnn((1, 6, 6), num_levels=17, hidden_channels=4).sample().shape
        torch.Size([1, 1, 6, 6])
    """
    small = PixelRNNNet(
        small_shape(event_shape, scale),
        num_classes=num_classes,
        context_shape=context_shape,
        **options,
    )
    enlarged = (enlarged_channels, *event_shape[1:])
    large = PixelRNNNet(event_shape, context_shape=enlarged, **options)
    return AutoregressiveModel(MultiScaleNet(small, large, scale=scale), missing=missing)


@takes_arguments_of(MADENet, num_levels=2, dropout=0.3)
def made(
    event_shape: EventShape,
    *,
    hidden: Sequence[int] = (),
    missing: bool = False,
    **options: Any,
) -> AutoregressiveModel:
    """Make a MADE model of vectors, or of images as vectors of their pixels.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of each element.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector.
        dropout: Share of features dropped in training; not in the paper. 0 for data without end.
        hidden: Widths of the hidden layers; if empty, two layers of 512 units, or as many as it
            takes that each element sees all before it, the number of elements less one. Narrower
            ones hide some of the last elements, unless ``direct=True``.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.MADENet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        Germain et al. (2015), MADE: Masked autoencoder for distribution estimation.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> made((1, 4, 4), num_levels=2, hidden=(32,)).sample(3).shape
        torch.Size([3, 1, 4, 4])
    """
    if len(hidden) == 0:
        hidden = 2 * (max(512, check_event_shape(event_shape).numel() - 1),)
    return AutoregressiveModel(MADENet(event_shape, hidden=hidden, **options), missing=missing)


@takes_arguments_of(NGramNet, num_levels=256, dropout=0.1)
def ngram(event_shape: EventShape, *, missing: bool = False, **options: Any) -> AutoregressiveModel:
    """Make a neural n-gram model of symbols, each given the last few.

    A symbol does not see those before the last ``order``, by default 5.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of symbols.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector, or on features for each step.
        order: Number of symbols that are seen.
        dropout: Share of features dropped in training; not in the paper. 0 for data without end.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.NGramNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        Bengio et al. (2003), A neural probabilistic language model.
        https://www.jmlr.org/papers/v3/bengio03a.html

    Example:
        >>> ngram((8,), num_levels=26, order=2).sample(3).shape
        torch.Size([3, 8])
    """
    return AutoregressiveModel(NGramNet(event_shape, **options), missing=missing)


@takes_arguments_of(CharRNNNet, num_levels=256, dropout=0.1)
def char_rnn(
    event_shape: EventShape, *, missing: bool = False, **options: Any
) -> AutoregressiveModel:
    """Make a recurrent model of symbols, each given all before it.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of symbols.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector, or on features for each step.
        dropout: Share of features dropped in training. 0 for data without end.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.CharRNNNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        Graves (2013), Generating sequences with recurrent neural networks.
        https://arxiv.org/abs/1308.0850

    Example:
        >>> char_rnn((8,), num_levels=26, hidden_features=16).sample(3).shape
        torch.Size([3, 8])
    """
    return AutoregressiveModel(CharRNNNet(event_shape, **options), missing=missing)


@takes_arguments_of(WaveNetNet, num_levels=256, dropout=0.1)
def wavenet(
    event_shape: EventShape,
    *,
    num_blocks: int = 2,
    layers_per_block: int | None = None,
    kernel_size: int = 2,
    missing: bool = False,
    **options: Any,
) -> AutoregressiveModel:
    """Make a WaveNet model of sequences, such as audio in 8 bits.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of levels; for audio see :func:`~pyro_genmodels.data.mu_law_encode`.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector, or on features for each step.
        dropout: Share of features dropped in training; not in the paper. 0 for data without end.
        num_blocks: Number of blocks, each of which begins again at dilation 1.
        layers_per_block: Layers of a block, the last dilated by ``2**(layers_per_block - 1)``. By
            default as many, from 6 on, as it takes that each symbol sees all before it.
        kernel_size: Taps of each convolution.
        missing: Whether the last elements of an example may be missing, as NaN.
        options: Others, as for :class:`~pyro_genmodels.nets.WaveNetNet`.

    Returns:
        The model; its network is ``model.net``.

    References:
        van den Oord et al. (2016), WaveNet: A generative model for raw audio.
        https://arxiv.org/abs/1609.03499

    Example:
        >>> wavenet((32,), num_levels=256, num_blocks=1, layers_per_block=4).sample(2).shape
        torch.Size([2, 32])
    """
    if layers_per_block is None:
        # The last symbol sees one more than the dilations reach, of all before it.
        reach = max(0, check_event_shape(event_shape).numel() - 2)
        dilations = math.ceil(reach / max(1, num_blocks * (kernel_size - 1)))
        layers_per_block = max(6, dilations.bit_length())  # their sum is 2**layers - 1
    net = WaveNetNet(
        event_shape,
        num_blocks=num_blocks,
        layers_per_block=layers_per_block,
        kernel_size=kernel_size,
        **options,
    )
    return AutoregressiveModel(net, missing=missing)
