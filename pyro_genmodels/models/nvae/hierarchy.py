"""NVAE's networks as distributions: prior and posterior of each group, what is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from pyro_genmodels._typing import Float, Tensor
from pyro_genmodels.distributions.gaussian import DiagonalNormal
from pyro_genmodels.models.nvae.posterior_flow import AutoregressiveShifts
from pyro_genmodels.nets.nvae import DecoderTower, EncoderTower, NVAENetwork
from pyro_genmodels.transforms.interop import FlowDensity

_CLAMP = 5.0
_MIN_SCALE = 1e-2


def softly_clamped(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keep values between -5 and 5, smoothly: ``5 tanh(x / 5)``."""
    return _CLAMP * torch.tanh(x / _CLAMP)


def clamped_normal(
    loc: Float[Tensor, "*batch D H W"],
    log_scale: Float[Tensor, "*batch D H W"],
    *,
    temperature: float = 1.0,
) -> DiagonalNormal:
    """Return a group's Gaussian: a network's outputs softly clamped, a floor under the scale.

    Args:
        loc: Means before clamping.
        log_scale: Log-scales before clamping.
        temperature: Factor of the scale.
    """
    scale = softly_clamped(log_scale).exp() + _MIN_SCALE
    scale = scale if temperature == 1 else scale * temperature
    return DiagonalNormal(softly_clamped(loc), scale=scale, event_dim=3)


class Step(NamedTuple):
    """What is known before a group is drawn: the tower's state, the prior's numbers, the prior."""

    state: Tensor
    numbers: Tensor | None
    prior: DiagonalNormal


class Hierarchy(nn.Module):
    """Both towers and the flows.

    Args:
        sizes: Sizes of the towers.
        image_shape: ``(C, H, W)``.
        out_channels: Numbers a pixel that the likelihood takes.
        num_classes: Condition both towers on labels.
        context_shape: Condition them on vectors or maps.
    """

    def __init__(
        self,
        sizes: NVAENetwork,
        image_shape: Sequence[int],
        out_channels: int,
        *,
        num_classes: int | None,
        context_shape: Sequence[int] | None,
    ) -> None:
        super().__init__()
        self.sizes, self.image_shape = sizes, image_shape
        context: dict[str, Any] = {"num_classes": num_classes, "context_shape": context_shape}
        self.encoder = EncoderTower(sizes, image_shape, **context)
        self.decoder = DecoderTower(sizes, image_shape, out_channels, **context)
        options: dict[str, Any] = {
            "num_pairs": sizes.num_flows,
            "checkpointing": sizes.checkpointing,
        }
        flows = [AutoregressiveShifts(shape, **options) for shape in self.latent_shapes]
        self.flows = nn.ModuleList(flows if sizes.num_flows else [])

    @property
    def latent_shapes(self) -> list[tuple[int, int, int]]:
        """Shape of each group's map, from the top."""
        return [self.sizes.latent_shape(scale, self.image_shape) for scale in self.sizes.scales]

    @property
    def dtype(self) -> torch.dtype:
        """Floating dtype of the latents."""
        return self.decoder.start.dtype

    def padded(self, x: Float[Tensor, "*batch C H W"]) -> Float[Tensor, "*batch C H2 W2"]:
        """Return an image of the size that the towers see, with zeros, the level 0, around it."""
        return F.pad(x, self._margins())

    def features(self, x: Float[Tensor, "*batch C H W"], context: Tensor | None) -> list[Tensor]:
        """Return what the encoder says to each group, given what it sees of a padded image."""
        return self.encoder(x, context)

    def first_step(self, context: Tensor | None, temperature: float = 1.0) -> Step:
        """Return what is known before anything is drawn."""
        state = self.decoder.begin(context)
        zeros = state.new_zeros(self.latent_shapes[0], dtype=self.dtype)
        return Step(state, None, clamped_normal(zeros, zeros, temperature=temperature))

    def next_step(
        self, group: int, before: Step, z: Float[Tensor, "*batch D H W"], temperature: float = 1.0
    ) -> Step:
        """Return what is known before a group once the group before it is drawn."""
        state = self.decoder.advance(group, self.decoder.combine(group - 1, before.state, z))
        # Under autocast a network's output has few digits; the KL needs more.
        numbers = self.decoder.prior(group, state).to(self.dtype)
        prior = clamped_normal(*numbers.chunk(2, -3), temperature=temperature)
        return Step(state, numbers, prior)

    def posterior(self, group: int, features: Tensor, step: Step) -> Any:
        """Return a group's posterior: the prior's numbers and what the encoder adds to them."""
        numbers = self.decoder.posterior(group, features, step.state).to(self.dtype)
        numbers = numbers if step.numbers is None else numbers + step.numbers
        gaussian = clamped_normal(*numbers.chunk(2, -3))
        return FlowDensity(gaussian, [self.flows[group]]) if len(self.flows) else gaussian

    def decoded(self, last: Step, z: Float[Tensor, "*batch D H W"]) -> Tensor:
        """Return the likelihood's numbers once all is drawn, those of the padding cut off."""
        state = self.decoder.combine(len(self.sizes.scales) - 1, last.state, z)
        numbers: Tensor = self.decoder.decode(state)
        left, _, above, _ = self._margins()
        _, height, width = self.image_shape
        return numbers[..., above : above + height, left : left + width]

    def _margins(self) -> tuple[int, int, int, int]:
        """Pixels to add at the left, right, above and below, for whole latents on each scale."""
        _, height, width = self.image_shape
        rows, columns = -height % self.sizes.reduction, -width % self.sizes.reduction
        return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2
