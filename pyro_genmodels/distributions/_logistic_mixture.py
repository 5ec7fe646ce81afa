"""A discretised mixture of logistics as the law of one element."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_genmodels._typing import Float, Num
from pyro_genmodels.distributions._output import OutputLaw
from pyro_genmodels.nets._logistic import LOG_SCALE_BOUND, mixture_log_mass

# A component of a smaller weight is never drawn: Gumbel noise spans less than this.
_NEVER_DRAWN = -60.0


class LogisticMixture(OutputLaw):
    """A mixture of logistic densities cut into levels.

    The parameters are K logits, K locations and K log-scales. Drawn by the Gumbel trick for the
    component and by inversion for the level. The temperature divides the components' logits and
    multiplies their scales.

    Args:
        num_levels: Number of levels.
        num_mixtures: Number of components.
        linked: Whether the logits hold log-masses of a pixel's earlier channels, which rounding
            changes the more, the narrower the components are.
    """

    def __init__(self, num_levels: int, num_mixtures: int, *, linked: bool = False) -> None:
        self.num_levels, self.num_mixtures, self.linked = num_levels, num_mixtures, linked

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
        """Draw a standard Gumbel variable for each component, and a standard logistic one."""
        size = (batch_size, elements, self.num_mixtures + 1)
        uniform = torch.rand(
            size, dtype=torch.float64, device=generator.device, generator=generator
        )
        # Zero, one draw in 2**53, would give an infinity.
        log = uniform.clamp_min_(2.0**-54).log()
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
    ) -> Float[Tensor, "*batch"]:
        """Return the distance to a bin's edge or the winner's lead, whichever is smaller."""
        position, shift, lead = self._position(parameters, noise)
        top = self.num_levels - 1
        edge = position.clamp(0, top).floor().clamp(max=top - 1) + 0.5
        # A change of the log-scale by t moves the place by t times its distance from the location.
        distance = (position - edge).abs() * (2 / top) / (1 + shift.abs())
        if self.linked:
            lead = lead / (1 + torch.exp(-self._log_scale(parameters).amin()))
        return torch.minimum(distance, lead)

    def magnitude(self, parameters: Float[Tensor, "*batch parameters"]) -> Float[Tensor, "*batch"]:
        """Return the largest parameter that can matter to a draw."""
        logits, loc, log_scale = parameters.chunk(3, -1)
        logits = (logits - logits.amax(-1, keepdim=True)).clamp_min(_NEVER_DRAWN)
        return torch.cat([logits, loc, log_scale], -1).abs().amax(-1)

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
