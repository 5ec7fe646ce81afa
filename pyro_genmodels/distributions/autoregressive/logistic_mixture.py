"""A discretised mixture of logistics as the law of one element."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_genmodels._logistic_mixture import LOG_SCALE_BOUND, mixture_log_mass
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.distributions.autoregressive.output_distributions import (
    OutputLaw,
    gumbel,
    positive_uniform,
)

# Above this many levels listing them all would cost more than most networks do.
MOST_LISTED = 1024
# A component of a smaller weight is never drawn: Gumbel noise spans less than this.
_NEVER_DRAWN = -60.0
# Numbers in one table of levels by components: what a processor's cache holds.
_TABLE = 2**17


def logistic_mixture(num_levels: int, num_mixtures: int, *, num_linked: int = 1) -> LogisticMixture:
    """Return the law of an element that is drawn in the way that suits its number of levels.

    Args:
        num_levels: Number of levels.
        num_mixtures: Number of components.
        num_linked: Number of successive elements, a pixel's channels, whose logits hold log-masses
            of those before.

    Example:
        >>> type(logistic_mixture(256, 10)), type(logistic_mixture(2**16, 10))
        (<class '...LogisticMixture'>, <class '...InvertedLogisticMixture'>)
    """
    kind = LogisticMixture if num_levels <= MOST_LISTED else InvertedLogisticMixture
    return kind(num_levels, num_mixtures, num_linked=num_linked)


class LogisticMixture(OutputLaw):
    """A mixture of logistic densities cut into levels, drawn by the Gumbel trick over all levels.

    The parameters are K logits, K locations and K log-scales. One Gumbel variable a level, as for
    a softmax, so that a change of the parameters changes a draw no more often than it must: about
    as often as it moves a component by a part of its scale. Inversion of the distribution function
    does so as often as it moves a component by a part of a level, and a component may be a hundred
    levels wide.

    Args:
        num_levels: Number of levels.
        num_mixtures: Number of components.
        num_linked: Number of successive elements, a pixel's channels, whose logits hold log-masses
            of those before, which rounding changes the more, the narrower the components are.
    """

    def __init__(self, num_levels: int, num_mixtures: int, *, num_linked: int = 1) -> None:
        self.num_levels, self.num_mixtures, self.num_linked = num_levels, num_mixtures, num_linked

    def log_prob(
        self, parameters: Float[Tensor, "*batch parameters"], level: Num[Tensor, ...]
    ) -> Float[Tensor, "*batch"]:
        """Return the log-probability of ``level``."""
        # Half precision would lose the likelihood's third digit.
        wide = torch.promote_types(parameters.dtype, torch.float32)
        logits, loc, log_scale = parameters.to(wide).chunk(3, -1)
        return mixture_log_mass(level, logits, loc, log_scale, self.num_levels)

    def noise(
        self, batch_size: int, elements: int, generator: torch.Generator
    ) -> Float[Tensor, "batch elements noise"]:
        """Draw a standard Gumbel variable for each level."""
        return gumbel((batch_size, elements, self.num_levels), generator)

    def draw(
        self, parameters: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> Num[Tensor, "*batch"]:
        """Return the level whose log-mass plus noise is largest."""
        levels = torch.cat([scores.argmax(-1) for scores in self._scores(parameters, noise)])
        return levels.view(noise.shape[:-1])

    def margin(
        self, parameters: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return the winner's lead over the second, and its change by the parameters' errors."""
        best = [scores.topk(2) for scores in self._scores(parameters, noise)]
        first, second = torch.cat([x.values for x in best]).view(*noise.shape[:-1], 2).unbind(-1)
        levels = torch.cat([x.indices for x in best]).view(*noise.shape[:-1], 2).movedim(-1, 0)
        with torch.inference_mode(False), torch.enable_grad():
            # In inference mode made, it cannot enter a graph.
            wide = parameters.detach().clone().double().requires_grad_()
            lead = self.log_prob(wide, levels[0].clone()) - self.log_prob(wide, levels[1].clone())
            (slopes,) = torch.autograd.grad(lead.sum(), wide)
        change = (slopes.abs() * self._errors(parameters)).sum(-1)
        # Half of the sum, as two logits make the lead of a softmax.
        return first - second, change.clamp_min(torch.finfo(change.dtype).tiny) / 2

    def magnitude(self, parameters: Float[Tensor, "*batch parameters"]) -> Float[Tensor, "*batch"]:
        """Return the largest parameter that can matter to a draw."""
        logits, loc, log_scale = parameters.chunk(3, -1)
        logits = (logits - logits.amax(-1, keepdim=True)).clamp_min(_NEVER_DRAWN)
        return torch.cat([logits, loc, log_scale], -1).abs().amax(-1)

    def log_masses(
        self, parameters: Float[Tensor, "*batch parameters"]
    ) -> Float[Tensor, "*batch levels"]:
        """Return the log-mass of every level, in float64, of which a draw adds no error."""
        tables = self._scores(
            parameters, parameters.new_zeros(()).expand(*parameters.shape[:-1], 1)
        )
        return torch.cat(list(tables)).view(*parameters.shape[:-1], self.num_levels)

    def _scores(self, parameters: Tensor, noise: Tensor) -> Iterator[Tensor]:
        """Yield tables of log-masses plus noise, of as many elements as a cache holds."""
        size = max(1, _TABLE // (self.num_mixtures * self.num_levels))
        rows = parameters.reshape(-1, parameters.shape[-1]).split(size)
        added = noise.reshape(-1, noise.shape[-1]).split(size)
        for part, plus in zip(rows, added, strict=True):
            yield _masses(part.double(), self.num_levels).log_().add_(plus)

    def _errors(self, parameters: Tensor) -> Tensor:
        """Return the errors of the parameters where those that the network gives have one each."""
        errors = torch.ones_like(parameters)
        if self.num_linked > 1:
            _, _, log_scale = parameters.chunk(3, -1)
            # A location's error changes a log-mass by at most its part of the scale.
            steep = torch.exp(-log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND))
            pixels = steep.unflatten(-2, (-1, self.num_linked))
            before = (pixels.cumsum(-2) - pixels).flatten(-3, -2)
            errors[..., : self.num_mixtures] += before
        return errors


def _masses(parameters: Tensor, num_levels: int) -> Tensor:
    r"""Return the mass of every level, ``(rows, levels)``.

    By the same products :math:`\sigma(a)\,\sigma(-b)\,(1 - e^{b-a})` as the log-mass, of which
    neighbours share the factors. What is below the least float64 is zero: no noise makes up for it.
    """
    logits, loc, log_scale = parameters.chunk(3, -1)
    half, weight = (num_levels - 1) / 2, logits.softmax(-1)[:, None]
    precision = torch.exp(-log_scale.clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND)) / half
    edges = torch.arange(num_levels - 1, dtype=loc.dtype, device=loc.device) + 0.5
    scaled = (edges - ((loc + 1) * half)[..., None]) * precision[..., None]
    below, above = scaled.sigmoid(), scaled.neg_().sigmoid_()
    between = (weight * -torch.expm1(-precision)[:, None]) @ (below[..., 1:] * above[..., :-1])
    ends = weight @ below[..., :1], weight @ above[..., -1:]
    return torch.cat([ends[0], between, ends[1]], -1)[:, 0]


class InvertedLogisticMixture(LogisticMixture):
    """The same law, drawn by the Gumbel trick for the component and by inversion for the level.

    For as many levels as audio has in 16 bits, of which a table would cost more than the network.
    """

    def noise(
        self, batch_size: int, elements: int, generator: torch.Generator
    ) -> Float[Tensor, "batch elements noise"]:
        """Draw a standard Gumbel variable for each component, and a standard logistic one."""
        uniform = positive_uniform((batch_size, elements, self.num_mixtures + 1), generator)
        log = uniform.log()
        log[..., -1] -= torch.log1p(-uniform[..., -1])
        log[..., :-1] = -torch.log(-log[..., :-1])
        return log

    def draw(
        self, parameters: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> Num[Tensor, "*batch"]:
        """Return the level at the noise's place in the density of the component that wins."""
        position, _, _ = self._position(parameters, noise)
        return position.round().clamp(0, self.num_levels - 1)

    def margin(
        self, parameters: Float[Tensor, "*batch parameters"], noise: Float[Tensor, "*batch noise"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return the distance to a bin's edge or the winner's lead if that is smaller, and one."""
        position, shift, lead = self._position(parameters, noise)
        top = self.num_levels - 1
        edge = position.clamp(0, top).floor().clamp(max=top - 1) + 0.5
        # A change of the log-scale by t moves the place by t times its distance from the location.
        distance = (position - edge).abs() * (2 / top) / (1 + shift.abs())
        if self.num_linked > 1:
            lead = lead / (1 + torch.exp(-self._log_scale(parameters).amin()))
        lead = torch.minimum(distance, lead)
        return lead, torch.ones_like(lead)

    def _log_scale(self, parameters: Tensor) -> Tensor:
        return parameters.chunk(3, -1)[2].clamp(-LOG_SCALE_BOUND, LOG_SCALE_BOUND)

    def _position(self, parameters: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the place in levels, its distance from the location, and the winner's lead."""
        logits, loc, _ = parameters.chunk(3, -1)
        scores = logits.log_softmax(-1) + noise[..., :-1]
        winner = scores.argmax(-1, keepdim=True)
        scale = self._log_scale(parameters).gather(-1, winner).exp()[..., 0]
        shift = scale * noise[..., -1]
        position = (loc.gather(-1, winner)[..., 0] + shift + 1) * ((self.num_levels - 1) / 2)
        return position, shift, self._lead(scores)

    def _lead(self, scores: Tensor) -> Tensor:
        if self.num_mixtures == 1:
            return torch.full_like(scores[..., 0], torch.inf)
        first, second = scores.topk(2).values.unbind(-1)
        return first - second
