"""NVAE's two towers: features of an image, bottom up, and steps of the prior, top down."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_genmodels._batching import over_batch
from pyro_genmodels._typing import Float
from pyro_genmodels.nets.layers.checkpointing import checkpointed
from pyro_genmodels.nets.layers.context import ContextEmbedding, add_features
from pyro_genmodels.nets.nvae.cells import DecoderCell, EncoderCell, PosteriorCombiner
from pyro_genmodels.nets.nvae.layers import RegularizedConv2d
from pyro_genmodels.nets.nvae.sizes import NVAENetwork


class EncoderTower(nn.Module):
    """From an image to one feature map for each group.

    Args:
        sizes: Sizes of both towers.
        image_shape: ``(C, H, W)``.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.
    """

    def __init__(
        self,
        sizes: NVAENetwork,
        image_shape: Sequence[int],
        *,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.stem = RegularizedConv2d(image_shape[0], sizes.channels, 3)
        self.context = ContextEmbedding(
            sizes.channels, num_classes=num_classes, context_shape=context_shape
        )
        blocks = (
            EncoderCell(sizes.channels * 2**block, halves=place == sizes.cells_per_block - 1)
            for block in range(sizes.num_blocks)
            for place in range(sizes.cells_per_block)
        )
        self.blocks = _Cells(*blocks, checkpointing=sizes.checkpointing)
        self.groups = nn.ModuleList()
        for scale in reversed(range(sizes.num_scales)):
            channels = sizes.channels_at(scale)
            for group in range(sizes.num_groups[scale]):
                halves = group == 0 and scale < sizes.num_scales - 1
                down = [EncoderCell(channels // 2, halves=True)] if halves else []
                cells = [EncoderCell(channels) for _ in range(sizes.num_cells)]
                self.groups.append(_Cells(*down, *cells, checkpointing=sizes.checkpointing))
        top = sizes.channels_at(0)
        self.top = nn.Sequential(nn.ELU(), RegularizedConv2d(top, top, 1), nn.ELU())

    def forward(
        self, x: Float[Tensor, "*batch C H W"], context: Tensor | None = None
    ) -> list[Float[Tensor, "*features"]]:
        """Return the features of each group, the top one first."""
        hidden = over_batch(self.stem, (x, 3))
        hidden = _with_context(hidden, self.context, context)
        batch = hidden.shape[:-3]
        hidden = self.blocks(hidden.reshape(-1, *hidden.shape[-3:]))
        features = []
        for group in self.groups:
            hidden = group(hidden)
            features.append(hidden)
        features[-1] = self.top(hidden)
        return [each.reshape(batch + each.shape[1:]) for each in reversed(features)]


class DecoderTower(nn.Module):
    """From the groups' latents, one after the other, to the numbers of a likelihood.

    Args:
        sizes: Sizes of both towers.
        image_shape: ``(C, H, W)``.
        out_channels: Numbers a pixel.
        num_classes: Condition on labels.
        context_shape: Condition on vectors or maps.
    """

    def __init__(
        self,
        sizes: NVAENetwork,
        image_shape: Sequence[int],
        out_channels: int,
        *,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        scales, latent = sizes.scales, sizes.latent_channels
        _, *top = sizes.latent_shape(0, image_shape)
        self.start = nn.Parameter(torch.rand(sizes.channels_at(0), *top))
        self.context = ContextEmbedding(
            sizes.channels_at(0), num_classes=num_classes, context_shape=context_shape
        )
        # Nothing but the start stands before the first group.
        self.groups = nn.ModuleList([_Cells()])
        for above, scale in itertools.pairwise(scales):
            up = [DecoderCell(sizes.channels_at(above), doubles=True)] if scale > above else []
            cells = [DecoderCell(sizes.channels_at(scale)) for _ in range(sizes.num_cells)]
            self.groups.append(_Cells(*up, *cells, checkpointing=sizes.checkpointing))
        widths = [sizes.channels_at(scale) for scale in scales]
        self.priors = nn.ModuleList(
            nn.Sequential(nn.ELU(), RegularizedConv2d(width, 2 * latent, 1)) for width in widths[1:]
        )
        # The first group's takes the encoder's features alone: there is nothing to join.
        self.posteriors = nn.ModuleList(
            [RegularizedConv2d(widths[0], 2 * latent, 3)]
            + [PosteriorCombiner(width, 2 * latent) for width in widths[1:]]
        )
        self.combiners = nn.ModuleList(
            RegularizedConv2d(width + latent, width, 1) for width in widths
        )
        blocks = (
            DecoderCell(
                sizes.channels * 2 ** (sizes.num_blocks - block - (place > 0)),
                expansion=3,
                doubles=place == 0,
            )
            for block in range(sizes.num_blocks)
            for place in range(sizes.cells_per_block)
        )
        self.blocks = _Cells(*blocks, checkpointing=sizes.checkpointing)
        self.output = RegularizedConv2d(sizes.channels, out_channels, 3)

    def begin(self, context: Tensor | None = None) -> Float[Tensor, "*start"]:
        """Return the state before the first group, of the context's batch shape."""
        return _with_context(self.start, self.context, context)

    def advance(self, group: int, state: Float[Tensor, "*batch C H W"]) -> Tensor:
        """Run the cells before a group."""
        return over_batch(self.groups[group], (state, 3))

    def prior(self, group: int, state: Float[Tensor, "*batch C H W"]) -> Tensor:
        """Return the numbers of the prior of a group, one after the first, which has none."""
        return over_batch(self.priors[group - 1], (state, 3))

    def posterior(
        self,
        group: int,
        features: Float[Tensor, "*features"],
        state: Float[Tensor, "*batch C H W"],
    ) -> Tensor:
        """Return what a group's posterior adds to the prior's numbers."""
        if not group:
            return over_batch(self.posteriors[0], (features, 3))
        return over_batch(self.posteriors[group], (features, 3), (state, 3))

    def combine(
        self, group: int, state: Float[Tensor, "*state"], z: Float[Tensor, "*batch D H W"]
    ) -> Tensor:
        """Take a group's latents into the state."""
        combiner = self.combiners[group]
        return over_batch(lambda s, z: combiner(torch.cat([s, z], 1)), (state, 3), (z, 3))

    def decode(self, state: Float[Tensor, "*batch C H W"]) -> Tensor:
        """Return the numbers of the likelihood."""
        return over_batch(lambda x: self.output(F.elu(self.blocks(x))), (state, 3))


class _Cells(nn.Sequential):
    """Cells one after the other, each of which may keep no activations."""

    def __init__(self, *cells: nn.Module, checkpointing: bool = False) -> None:
        super().__init__(*cells)
        self.checkpointing = checkpointing

    def forward(self, x: Tensor) -> Tensor:
        # Channels last: depthwise convolutions and their gradients take a third of the time so.
        x = x.contiguous(memory_format=torch.channels_last)
        for cell in self:
            x = checkpointed(cell, x) if self.checkpointing else cell(x)
        return x


def _with_context(maps: Tensor, embedding: ContextEmbedding, context: Tensor | None) -> Tensor:
    features = (embedding(context), embedding.features_event_dim)
    return over_batch(add_features, (maps, 3), features)
