"""Distributions over sequences and vectors: MADE, WaveNet, recurrent and n-gram."""

from __future__ import annotations

from pyro_genmodels.distributions.autoregressive.base import (
    AutoregressiveDistribution,
    SoftmaxAutoregressive,
)
from pyro_genmodels.nets import CharRNNNet, MADENet, NGramNet, WaveNetNet


class MADE(SoftmaxAutoregressive):
    r"""Distribution over vectors of levels by a masked fully connected network.

    .. math:: p(x \mid c) = \prod_t \mathrm{softmax}(f(x_{<t}, c))_{x_t}

    over the elements in the network's order; with several masks the mean of such products. Cached
    sampling costs one pass of the network in all.

    Args:
        net: A :class:`~pyro_genmodels.nets.MADENet`.
        context: Labels or vectors, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, or the context is not what it takes.

    References:
        Germain et al. (2015), MADE: Masked autoencoder for distribution estimation.
        https://arxiv.org/abs/1502.03509

    Example:
        >>> law = MADE(MADENet((6,), 2, hidden=(16,), order="random"))
        >>> law.log_prob(law.sample((5,))).shape
        torch.Size([5])
    """

    network = MADENet


class NGram(SoftmaxAutoregressive):
    r"""Distribution over sequences of symbols, each given the last n.

    .. math:: p(s \mid c) = \prod_t \mathrm{softmax}(f(s_{t-n}, \dots, s_{t-1}, c))_{s_t}

    Args:
        net: A :class:`~pyro_genmodels.nets.NGramNet`.
        context: Labels, vectors or sequences, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, or the context is not what it takes.

    References:
        Bengio et al. (2003), A neural probabilistic language model.
        https://www.jmlr.org/papers/v3/bengio03a.html

    Example:
        >>> text = NGram(NGramNet((12,), 26, order=3))
        >>> text.log_prob(text.sample((5,))).shape
        torch.Size([5])
    """

    network = NGramNet


class CharRNN(SoftmaxAutoregressive):
    r"""Distribution over sequences of symbols by a recurrent network.

    .. math:: p(s \mid c) = \prod_t \mathrm{softmax}(f(h_t))_{s_t}, \qquad
        h_t = \mathrm{cell}(s_{t-1}, c, h_{t-1})

    Args:
        net: A :class:`~pyro_genmodels.nets.CharRNNNet`.
        context: Labels, vectors or sequences, if the network takes any; its batch shape is the
            distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, or the context is not what it takes.

    References:
        Graves (2013), Generating sequences with recurrent neural networks.
        https://arxiv.org/abs/1308.0850

    Example:
        >>> text = CharRNN(CharRNNNet((12,), 26, hidden_features=16))
        >>> text.log_prob(text.sample((5,))).shape
        torch.Size([5])
    """

    network = CharRNNNet


class WaveNet(AutoregressiveDistribution):
    r"""Distribution over sequences, such as audio in 8 bits, by dilated causal convolutions.

    .. math:: p(s \mid c) = \prod_t \mathrm{softmax}(f(s_{t-R}, \dots, s_{t-1}, c))_{s_t}

    where R is the network's receptive field; or in place of the softmax a discretised mixture of
    logistics, if the network was made with ``num_mixtures``.

    Args:
        net: A :class:`~pyro_genmodels.nets.WaveNetNet`.
        context: Labels or vectors (global conditioning) or sequences (local), if the network takes
            any; its batch shape is the distribution's.
        missing: Whether NaN stands for an element that was not observed; the last ones only.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is another, or the context is not what it takes.

    References:
        van den Oord et al. (2016), WaveNet: A generative model for raw audio.
        https://arxiv.org/abs/1609.03499

    Example:
        >>> audio = WaveNet(WaveNetNet((64,), 256, channels=8, num_blocks=1, layers_per_block=4))
        >>> audio.log_prob(audio.sample((2,))).shape
        torch.Size([2])
    """

    network = WaveNetNet
