"""What the states of a hidden Markov model emit: a class-conditional model, frame after frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.distributions import constraints

from pyro_genmodels._batching import broadcast_shapes
from pyro_genmodels._typing import Bool, Float, Int, Num, Tensor
from pyro_genmodels.distributions import Components
from pyro_genmodels.distributions.observed import OrMissing
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.nets.layers import join_context


class Frames:
    """How a sequence is made of frames: its trailing shape, with frames as the conditional's data.

    Args:
        conditional: The model of a frame given the state.
        missing: Whether whole frames may be missing, all of their elements NaN.

    Attributes:
        shape: Sizes of one frame in a sequence, ``()`` of a conditional model of one number.
    """

    def __init__(self, conditional: GenerativeModel, *, missing: bool) -> None:
        self.event_shape = conditional.event_shape
        self.shape = torch.Size() if tuple(self.event_shape) == (1,) else self.event_shape
        self.missing = missing

    def of(self, x: Num[Tensor, "*batch_frame"]) -> Num[Tensor, "*batch_event"]:
        """Return frames as the conditional's data."""
        return x if self.shape else x.unsqueeze(-1)

    def joined(self, frames: Num[Tensor, "*batch_event"]) -> Num[Tensor, "*batch_frame"]:
        """Return the conditional's data as frames."""
        return frames if self.shape else frames.squeeze(-1)

    def absent(self, x: Num[Tensor, "*batch_frame"]) -> Bool[Tensor, "*batch"]:
        """Return which frames are missing, all of their elements NaN."""
        return self._over_frames(x).all(-1)

    def incomplete(self, x: Num[Tensor, "*batch_frame"]) -> Bool[Tensor, "*batch"]:
        """Return which frames have a missing element."""
        return self._over_frames(x).any(-1)

    def _over_frames(self, x: Tensor) -> Tensor:
        """Return which elements of each frame are missing, in one dimension."""
        gone = self.of(x).isnan()
        return gone.flatten(gone.dim() - len(self.event_shape))


class Emissions(Components):
    """The distributions of a sequence's frames given each state.

    Args:
        conditional: The model of a frame given the state.
        frames: How the sequences are made of them.
        batch_shape: Batch shape of the sequences, and their number of frames.
        context: Features of each sequence, ``(*batch, *context_shape)``.
        before: The frame before the first one, ``(*batch, *frame)``, if the frame before is the
            context of the next.
        chunk_size: States whose frames are scored at once.
    """

    def __init__(
        self,
        conditional: GenerativeModel,
        frames: Frames,
        batch_shape: torch.Size,
        *,
        context: Tensor | None = None,
        before: Tensor | None = None,
        chunk_size: int | None = None,
    ) -> None:
        states = conditional.num_classes or 1
        super().__init__(states, batch_shape, frames.shape, constraints.real)
        self.conditional, self.frames, self.chunk_size = conditional, frames, chunk_size
        self.context, self.before = context, before
        self.support = self._support()

    def _support(self) -> Any:
        levels, rank = self.conditional.num_levels, len(self.frames.shape)
        element: Any
        if levels is not None:
            element = constraints.integer_interval(0, levels - 1)
        else:
            element = self._law_of_one().support
            while isinstance(element, constraints.independent):
                element = element.base_constraint
        if self.frames.missing and element.event_dim == 0:
            element = OrMissing(element)
        return constraints.independent(element, rank - element.event_dim)

    def _law_of_one(self) -> Any:
        model = self.conditional
        label = torch.zeros((), dtype=torch.long)
        if model.context_shape is None:
            return model.distribution(label)
        zeros = torch.zeros(model.context_shape, dtype=model.dtype)
        return model.distribution(join_context(label, zeros, len(model.context_shape)))

    def log_probs(self, value: Num[Tensor, "*batch_T_frame"]) -> Float[Tensor, "*batch_T K"]:
        """Return the log-probability of each frame under each state; zero, where one is missing.

        Args:
            value: Sequences ``(*batch, T, *frame)``.
        """
        if self.context is not None:
            event = value.shape[value.dim() - len(self.event_shape) :]
            batch = broadcast_shapes(value.shape[: value.dim() - len(event)], self.batch_shape)
            value = value.expand(*batch, *event)
        frames = self.frames.of(value)
        gone = self.frames.absent(value) if self.frames.missing else None
        if gone is not None:
            # What is not scored must be scorable: zero times NaN is NaN in gradients.
            frames = torch.where(self._over_event(gone), self._harmless(frames), frames)
        context = self._contexts(frames)
        options = {"chunk_size": self.chunk_size}
        nats = self.conditional.class_log_probs(frames, context, **options)
        if gone is None:
            return nats
        return torch.where(gone.unsqueeze(-1), torch.zeros_like(nats), nats)

    def _over_event(self, each: Tensor) -> Tensor:
        return each.reshape(*each.shape, *[1] * len(self.frames.event_shape))

    def _harmless(self, frames: Tensor) -> Tensor:
        """Return a frame that all states give a probability: the middle of continuous data."""
        units = self.conditional.standardization
        if units.shift is None:
            return frames.new_zeros(())
        return units.shift.to(frames)

    def _contexts(self, frames: Tensor) -> Tensor | None:
        """Return the context of each frame, beside the state."""
        rank = len(self.frames.event_shape)
        if self.before is not None:
            first = self.frames.of(self.before).unsqueeze(-1 - rank).to(frames)
            first = first.expand(*frames.shape[: -1 - rank], 1, *frames.shape[-rank:])
            earlier = torch.cat([first, frames], -1 - rank)
            return self._context_of(earlier.narrow(-1 - rank, 0, frames.shape[-1 - rank]))
        return self._given(frames.shape[: frames.dim() - rank])

    def _given(self, batch: Sequence[int]) -> Tensor | None:
        """Return the sequences' features for each frame of a batch ``(*batch, T)``."""
        if self.context is None:
            return None
        event = self.context.shape[len(self.batch_shape) - 1 :]
        context = self.context.unsqueeze(len(self.batch_shape) - 1)
        return context.expand(*batch, *event)

    def _context_of(self, frames: Tensor) -> Tensor:
        return frames.to(self.conditional.dtype)

    def sample(self, labels: Int[Tensor, "*batch_T"]) -> Num[Tensor, "*batch_T_frame"]:
        """Draw the frames of sequences of states."""
        if self.before is None:
            return self.frames.joined(self._draw(labels, self._given(labels.shape)))
        return self.completed(labels, None)

    def completed(
        self, labels: Int[Tensor, "*batch_T"], x: Tensor | None
    ) -> Num[Tensor, "*batch_T_frame"]:
        """Draw what is missing of sequences given their states; all, without ``x``.

        Args:
            labels: States ``(*batch, T)``.
            x: Sequences ``(*batch, T, *frame)``, NaN where an element is missing.
        """
        rank = len(self.frames.event_shape)
        known = None if x is None else self.frames.of(x)
        if self.before is None:
            drawn = self._draw_given(labels, self._given(labels.shape), known)
            return self.frames.joined(drawn)
        last = self.frames.of(self.before).expand(*labels.shape[:-1], *self.frames.event_shape)
        steps = []
        for t, states in enumerate(labels.unbind(-1)):
            given = None if known is None else known.select(-1 - rank, t)
            last = self._draw_given(states, self._context_of(last), given)
            steps.append(last)
        return self.frames.joined(torch.stack(steps, -1 - rank))

    def _draw(self, labels: Tensor, context: Tensor | None) -> Tensor:
        """Draw a frame of the conditional's for each label."""
        given = labels
        if context is not None:
            given = join_context(labels, context, self.conditional.context_event_dim)
        drawn: Tensor = self.conditional.distribution(given).sample()
        return drawn

    def _draw_given(self, labels: Tensor, context: Tensor | None, known: Tensor | None) -> Tensor:
        """Draw frames, or what is missing of some that are known in part."""
        drawn = self._draw(labels, context)
        if known is None:
            return drawn
        known = known.expand(drawn.shape)
        gone = known.isnan()
        rank = len(self.frames.event_shape)
        some = gone.flatten(-rank).any(-1) & ~gone.flatten(-rank).all(-1)
        if self.conditional.missing and bool(some.any()):
            given = labels[some]
            if context is not None:
                parts = context[some]
                given = join_context(given, parts, self.conditional.context_event_dim)
            drawn = drawn.clone()
            drawn[some] = self.conditional.impute(known[some], given)[0].to(drawn)
        return torch.where(gone, drawn.to(known), known)
