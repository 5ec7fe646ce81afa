"""Short forms: autoregressive models of vectors and sequences, each one call."""

from __future__ import annotations

from typing import Any

from pyro_genmodels._checks import integers_checked
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.autoregressive.autoregressive_model import AutoregressiveModel
from pyro_genmodels.nets import CharRNNNet, MADENet, NGramNet, WaveNetNet


@integers_checked
def made(
    event_shape: EventShape,
    *,
    num_levels: int = 2,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.3,
    **options: Any,
) -> AutoregressiveModel:
    """Make a MADE model of vectors, or of images as vectors of their pixels.

    Args:
        event_shape: ``(D,)`` or ``(C, H, W)``.
        num_levels: Levels of each element.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector.
        dropout: Share of features dropped in training; not in the paper. 0 for data without end.
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
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    net = MADENet(event_shape, num_levels, dropout=dropout, **context, **options)
    return AutoregressiveModel(net, distribution="MADE")


@integers_checked
def ngram(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    order: int = 5,
    dropout: float = 0.1,
    **options: Any,
) -> AutoregressiveModel:
    """Make a neural n-gram model of symbols, each given the last few.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of symbols.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector, or on features for each step.
        order: Number of symbols that are seen.
        dropout: Share of features dropped in training; not in the paper. 0 for data without end.
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
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    net = NGramNet(event_shape, num_levels, order=order, dropout=dropout, **context, **options)
    return AutoregressiveModel(net, distribution="NGram")


@integers_checked
def char_rnn(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.1,
    **options: Any,
) -> AutoregressiveModel:
    """Make a recurrent model of symbols, each given all before it.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of symbols.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector, or on features for each step.
        dropout: Share of features dropped in training. 0 for data without end.
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
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    net = CharRNNNet(event_shape, num_levels, dropout=dropout, **context, **options)
    return AutoregressiveModel(net, distribution="CharRNN")


@integers_checked
def wavenet(
    event_shape: EventShape,
    *,
    num_levels: int = 256,
    num_classes: int | None = None,
    context_shape: EventShape | None = None,
    dropout: float = 0.1,
    **options: Any,
) -> AutoregressiveModel:
    """Make a WaveNet model of sequences, such as audio in 8 bits.

    Args:
        event_shape: ``(T,)``; or ``(C, H, W)``, read in raster order.
        num_levels: Number of levels; for audio see :func:`~pyro_genmodels.data.mu_law_encode`.
        num_classes: The model is conditional on a label below this number.
        context_shape: The model is conditional on a vector, or on features for each step.
        dropout: Share of features dropped in training; not in the paper. 0 for data without end.
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
    context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
    net = WaveNetNet(event_shape, num_levels, dropout=dropout, **context, **options)
    return AutoregressiveModel(net, distribution="WaveNet")
