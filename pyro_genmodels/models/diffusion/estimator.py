"""From a network's output to an estimate of the data."""

from __future__ import annotations

import math

import torch
from torch import nn

from pyro_genmodels._batching import over_event
from pyro_genmodels._checks import check
from pyro_genmodels._typing import Bool, Float, Tensor
from pyro_genmodels.distributions import Denoised
from pyro_genmodels.models.diffusion.arguments import Denoising, DenoisingNetwork
from pyro_genmodels.models.diffusion.encoding import ChainData
from pyro_genmodels.nets import NoiseSchedule, signal_and_noise

MOST_LEVELS = 64
"""Levels above which a softmax over all of them for each element takes too much memory."""


class DataEstimator(nn.Module):
    r"""Estimate :math:`\hat x(z, g)` of the data in noised data, by a network.

    Whatever the network predicts, chains, samplers and objectives see this estimate alone. With
    self-conditioning the network also sees its own first estimate, made from the same noised data,
    so that the estimate stays a function of these alone.

    Args:
        data: What the chain sees of data.
        schedule: The noise levels, between whose ends the network's input lies.
        denoising: What the network predicts.
        network: Kind and sizes of the network.
        self_conditioning: Whether the network sees its first estimate.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.
        null_context: Whether the network also evaluates without its context.
    """

    def __init__(
        self,
        data: ChainData,
        schedule: NoiseSchedule,
        denoising: Denoising,
        network: DenoisingNetwork,
        *,
        self_conditioning: bool = False,
        **context: object,
    ) -> None:
        super().__init__()
        self.data, self.schedule, self.self_conditioning = data, schedule, self_conditioning
        self.prediction = _prediction(denoising, data)
        self.learns_variance = denoising.variance == "learned"
        self.frequencies = _frequencies(denoising.fourier_features, data, self.prediction)
        values = data.shape[0]
        levels = (data.num_levels or 0) * data.event_shape[0]
        self._sizes = [levels if self.prediction == "levels" else values]
        self._sizes += [values] if self.learns_variance else []
        inputs = values * (1 + 2 * len(self.frequencies) + self_conditioning)
        self.net = network.make(data.event_shape, inputs, sum(self._sizes), **context)

    def forward(
        self,
        z: Float[Tensor, "*batch_values"],
        level: Float[Tensor, "*batch"],
        context: Tensor | None = None,
        keep: Bool[Tensor, "*batch"] | None = None,
    ) -> Denoised:
        """Return the estimate of the data, and of a learned variance its place between its ends.

        Args:
            z: Noised values ``(*batch, *values)``.
            level: Their noise levels, of the batch shape or one that broadcasts to it.
            context: Labels or features, if the network is conditional.
            keep: Which examples keep their context, of a network that evaluates without.
        """
        if not self.self_conditioning:
            return self._estimate(z, level, context, keep, None)
        first = self._estimate(z, level, context, keep, torch.zeros_like(z)).x
        if self.training:  # the second pass alone is trained, as published
            first = first.detach()
        return self._estimate(z, level, context, keep, first)

    def carried(
        self,
        z: Float[Tensor, "*batch_values"],
        level: Float[Tensor, "*batch"],
        context: Tensor | None,
        before: Float[Tensor, "*batch_values"] | None,
        keep: Bool[Tensor, "*batch"] | None = None,
    ) -> Denoised:
        """Return the estimate given that of the step before, in the place of a first pass.

        Args:
            z: Noised values.
            level: Their noise levels.
            context: Labels or features.
            before: The estimate at the step before; zero at the first.
            keep: Which examples keep their context, of a network that evaluates without.
        """
        before = torch.zeros_like(z) if before is None else before
        return self._estimate(z, level, context, keep, before)

    def _estimate(
        self,
        z: Tensor,
        level: Tensor,
        context: Tensor | None,
        keep: Tensor | None,
        before: Tensor | None,
    ) -> Denoised:
        output = self._output(z, level, context, keep, before).to(z.dtype)
        output, *share = output.split(self._sizes, dim=-self.data.rank)
        # The share lies between 0 and 1 where the network says between -1 and 1.
        return Denoised(self._data_from(output, z, level), *((s + 1) / 2 for s in share))

    def _output(
        self,
        z: Tensor,
        level: Tensor,
        context: Tensor | None,
        keep: Tensor | None,
        before: Tensor | None,
    ) -> Tensor:
        channels = -self.data.rank
        parts = [z] if before is None else [z, before]
        for frequency in self.frequencies:
            parts += [(frequency * z).sin(), (frequency * z).cos()]
        inputs = z if len(parts) == 1 else torch.cat(parts, channels)
        # Along a vector as a sequence: element d of part p stands at p * D + d.
        along = len(self.net.input_shape) == 2
        if along:
            inputs = inputs.unflatten(-1, (-1, *self.data.event_shape))
        first, last = self.schedule.ends
        # No gradient reaches the ends through the network's input.
        place = ((level - first) / (last - first)).detach().to(z.dtype)
        output = self.net(inputs, place, context, keep=keep)
        return output.flatten(-2) if along else output

    def _data_from(self, output: Tensor, z: Tensor, level: Tensor) -> Tensor:
        if self.prediction == "data":
            return output
        if self.prediction == "levels":
            logits = self.data.logits_of(output)
            return self.data.expected(logits + self.data.evidence(z, level))
        alpha, sigma = (over_event(f, self.data.rank).to(z) for f in signal_and_noise(level))
        if self.prediction == "velocity":
            return alpha * z - sigma * output
        return (z - sigma * (output + z)) / alpha


def _prediction(denoising: Denoising, data: ChainData) -> str:
    """Return what is predicted; raise ``ValueError`` if it does not fit the data."""
    levels = data.num_levels
    if denoising.prediction == "auto":
        return "levels" if levels is not None and levels <= MOST_LEVELS else "velocity"
    if denoising.prediction == "levels":
        rule = f"not predict levels unless there are num_levels, {MOST_LEVELS} at most"
        check(levels is not None and levels <= MOST_LEVELS, "denoising", rule, levels)
    return denoising.prediction


def _frequencies(octaves: int | None, data: ChainData, prediction: str) -> list[float]:
    """Return the angular frequencies, from a period of two levels to longer ones."""
    if data.num_levels is None or data.kind != "levels":
        check(not octaves, "fourier_features", "be 0 without levels as values", octaves)
        return []
    few = data.num_levels <= MOST_LEVELS or prediction in ("levels", "data")
    count = (0 if few else 2) if octaves is None else octaves
    return [math.pi * data.num_levels / 2 / 2**octave for octave in range(count)]
