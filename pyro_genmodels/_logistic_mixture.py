"""Mixtures of logistic densities cut into levels, with the colours of a pixel linked."""

from __future__ import annotations

from collections.abc import Generator

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_genmodels._typing import Float, Num

LOG_SCALE_BOUND = 40.0  # exp(40), times gradients summed over a batch, is finite in float32


def logistic_log_mass(
    level: Num[Tensor, ...], loc: Float[Tensor, ...], log_scale: Float[Tensor, ...], num_levels: int
) -> Float[Tensor, ...]:
    r"""Return the log-mass of each level under a logistic density on [-1, 1], edges with the tails.

    By :math:`\sigma(a) - \sigma(b) = \sigma(a)\,\sigma(-b)\,(1 - e^{b-a})`, which needs no
    approximation anywhere. Distances are measured in levels: level plus or minus a half is an
    exact number, so that neighbours agree about the edge between them in any precision, however
    narrow the density.

    Args:
        level: Integers from 0 to ``num_levels - 1``, of any dtype.
        loc: Location, in units where the levels span [-1, 1].
        log_scale: Logarithm of the scale in those units; what is beyond +-40 counts as +-40.
        num_levels: Number of levels.

    Returns:
        Nats, of the broadcast shape.

    Example:
        >>> levels = torch.arange(256)
        >>> loc, log_scale = torch.tensor(0.3), torch.tensor(-30.0)
        >>> logistic_log_mass(levels, loc, log_scale, 256).exp().sum()
        tensor(1.)
    """
    half = (num_levels - 1) / 2
    level, centre = level.to(loc.dtype), (loc + 1) * half
    precision = torch.exp(-log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND)) / half
    below_upper = F.logsigmoid((level + 0.5 - centre) * precision)
    above_lower = F.logsigmoid((centre - (level - 0.5)) * precision)
    # Through expm1: the difference itself vanishes for wide scales.
    inside = torch.log(-torch.expm1(-precision))
    lowest, highest = level == 0, level == num_levels - 1
    upper_tail = torch.where(lowest, below_upper, below_upper + above_lower + inside)
    return torch.where(highest, above_lower, upper_tail)


def mixture_log_mass(
    level: Num[Tensor, ...],
    logits: Float[Tensor, ...],
    loc: Float[Tensor, ...],
    log_scale: Float[Tensor, ...],
    num_levels: int,
) -> Float[Tensor, ...]:
    """Return the log-mass of each level under a mixture of logistics.

    Args:
        level: Levels ``(*batch,)``.
        logits: Unnormalised log-weights ``(*batch, K)`` of K components.
        loc: Locations ``(*batch, K)``.
        log_scale: Log-scales ``(*batch, K)``.
        num_levels: Number of levels.

    Returns:
        Nats ``(*batch,)``; batch shapes broadcast.
    """
    masses = logistic_log_mass(level[..., None], loc, log_scale, num_levels)
    return torch.logsumexp(masses + F.log_softmax(logits, -1), -1)


def link_count(num_channels: int) -> int:
    """Return how many numbers one component of a pixel's mixture takes.

    A logit; for each channel location and log-scale; for each pair of channels a coefficient.

    Example:
        >>> link_count(1), link_count(3)
        (3, 10)
    """
    return 1 + 2 * num_channels + num_channels * (num_channels - 1) // 2


def linked_mixture(
    raw: Float[Tensor, "*batch pixel"],
    pixel: Float[Tensor, "*batch C"],
    num_levels: int,
    *,
    min_log_scale: float = -LOG_SCALE_BOUND,
) -> Float[Tensor, "*batch C parameters"]:
    r"""Return the law of each channel of a pixel given the channels before it.

    One mixture a pixel: a component gives all channels, channel i around
    :math:`\mu_i + \sum_{j<i} \tanh(\alpha_{ij}) x_j`. Given the channels before it, a channel has
    a mixture too, whose weights are the components' posterior probabilities:

    .. math:: p(x_i \mid x_{<i}) \propto \sum_k \pi_k\, p_k(x_{<i})\, p_k(x_i \mid x_{<i}).

    Args:
        raw: ``link_count(C) * K`` numbers of a pixel.
        pixel: Its levels; channel i does not enter the parameters of the channels up to i.
        num_levels: Number of levels.
        min_log_scale: Log-scales are at least this.

    Returns:
        For each channel K logits, K locations and K log-scales, beside each other.
    """
    channels = pixel.shape[-1]
    laws = channel_laws(raw, channels, num_levels, min_log_scale=min_log_scale)
    outputs = [next(laws)]
    outputs += [laws.send(pixel[..., i]) for i in range(channels - 1)]
    return torch.stack(outputs, -2)


def channel_laws(
    raw: Tensor, num_channels: int, num_levels: int, *, min_log_scale: float
) -> Generator[Tensor, Tensor, None]:
    """Yield the law of each channel in turn, having been sent the level of the one before."""
    numbers = raw.unflatten(-1, (link_count(num_channels), -1))
    logits, locs, log_scales = numbers[..., : 1 + 2 * num_channels, :].split(
        [1, num_channels, num_channels], -2
    )
    log_scales = log_scales.clamp(min_log_scale, LOG_SCALE_BOUND)
    links = numbers[..., 1 + 2 * num_channels :, :].tanh()
    logits = F.log_softmax(logits[..., 0, :], -1)
    scaled: list[Tensor] = []
    for i in range(num_channels):
        loc, log_scale, first = locs[..., i, :], log_scales[..., i, :], i * (i - 1) // 2
        for j, level in enumerate(scaled):
            loc = loc + level * links[..., first + j, :]
        level = yield torch.cat([logits, loc, log_scale], -1)
        if i + 1 < num_channels:
            level = level[..., None]
            mass = logistic_log_mass(level, loc, log_scale, num_levels)
            logits = F.log_softmax(logits + mass, -1)
            scaled.append(level * (2 / (num_levels - 1)) - 1)
