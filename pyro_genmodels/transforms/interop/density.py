"""Transforms that are not of this package: what they remember, and what they cannot do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from pyro import distributions as dist
from pyro.distributions.conditional import ConditionalTransform
from pyro.distributions.util import sum_rightmost
from pyro.ops.provenance import detach_provenance
from torch import nn
from torch.distributions.transforms import ComposeTransform, Transform, _InverseTransform

from pyro_genmodels._checks import check
from pyro_genmodels._typing import Tensor
from pyro_genmodels.transforms.base.torch_protocol import HandOver


def as_list(transforms: Any) -> list[Any]:
    """Return one transform or several as a list."""
    return list(transforms) if isinstance(transforms, Sequence) else [transforms]


def pieces(transforms: Iterable[Any]) -> Iterator[Any]:
    """Yield transforms, and what those wrap that are no modules: inverses and compositions."""
    for part in transforms:
        yield part
        if isinstance(part, nn.Module):
            continue
        held = [getattr(part, "base_transform", None), getattr(part, "_flow", None)]
        held += [*getattr(part, "parts", ()), *getattr(part, "transforms", ())]
        held += [part.inv] if isinstance(part, _InverseTransform) else []
        yield from pieces(inner for inner in held if inner is not None)


def modules(transforms: Iterable[Any]) -> nn.ModuleList:
    """Return the modules among the transforms and in them, for a model to own."""
    return nn.ModuleList(part for part in pieces(transforms) if isinstance(part, nn.Module))


def forget(transforms: Iterable[Any]) -> None:
    """Drop what Pyro's and torch's transforms remember of earlier evaluations.

    Their caches outlive an optimizer step: the same value scored again would have the old density,
    or a graph that is gone. And what has a graph can be neither copied nor pickled.
    """
    for piece in pieces(transforms):
        if isinstance(piece, HandOver):
            continue  # ours take care of themselves
        for part in piece.modules() if isinstance(piece, nn.Module) else [piece]:
            if isinstance(part, Transform):
                part._cached_x_y = None, None
                _forget_results(part)


def _forget_results(transform: Transform) -> None:
    for name, value in vars(transform).items():
        if name.startswith("_cache") and isinstance(value, Tensor):
            setattr(transform, name, None)


def conditioned(transforms: Iterable[Any], context: Tensor | None) -> list[Transform]:
    """Return the transforms, those that are conditional at ``context``."""
    return [t.condition(context) if isinstance(t, ConditionalTransform) else t for t in transforms]


class FlowDensity(dist.TransformedDistribution):
    """A ``TransformedDistribution`` that names the transform which goes in one direction only.

    Its latest draw can be scored all the same: from the noise that it was made of.
    """

    _drawn: tuple[Tensor, Tensor] | None = None

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density in nats.

        Raises:
            ValueError: If a transform cannot go from data to noise, unless ``value`` is the latest
                draw.
        """
        if self._validate_args:
            self._validate_sample(value)
        try:
            log_density = self._scored(value)
        except (KeyError, NotImplementedError) as error:
            retraced = self._retraced(value)
            if retraced is None:
                inverses = [(t, t.inv) for t in reversed(self.transforms)]
                _name_the_one_way_street("data to noise, to score data", inverses, value, error)
                raise
            return retraced
        return log_density

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw without gradients.

        Raises:
            ValueError: If a transform cannot go from noise to data.
        """
        with torch.no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Draw, differentiably if the noise can be.

        Raises:
            ValueError: If a transform cannot go from noise to data.
        """
        shape = torch.Size(sample_shape)
        base: Any = self.base_dist
        noise: Tensor = base.rsample(shape) if base.has_rsample else base.sample(shape)
        x = noise
        for transform in self.transforms:
            try:
                x = transform(x)
            except (KeyError, NotImplementedError) as error:
                maps = [(transform, transform)]
                _name_the_one_way_street("noise to data, to be sampled", maps, x, error)
                raise
        self._drawn = noise, x
        return x

    def _scored(self, value: Tensor) -> Tensor:
        """Return the score as torch would, asking our own transforms for both parts at once."""
        event_dim = len(self.event_shape)
        if value.dim() - event_dim < len(self.batch_shape):
            # Pyro's conditional transforms do not broadcast against their contexts.
            value = value.expand(self.batch_shape + self.event_shape)
        total: Tensor | float = 0.0
        for transform in reversed(self.transforms):
            value, log_det = _undone(transform, value)
            event_dim += transform.domain.event_dim - transform.codomain.event_dim
            total = total - sum_rightmost(log_det, event_dim - transform.domain.event_dim)
        noise = sum_rightmost(
            self.base_dist.log_prob(value), event_dim - len(self.base_dist.event_shape)
        )
        return total + noise

    def _retraced(self, value: Tensor) -> Tensor | None:
        """Return the score of the latest draw: all is evaluated anew, so that nothing is old."""
        # Pyro's inspection hands a draw back in a wrapper.
        if self._drawn is None or detach_provenance(self._drawn[1]) is not detach_provenance(value):
            return None
        noise, whole = self._drawn[0], ComposeTransform(self.transforms)
        forget(self.transforms)
        y = whole(noise)
        if not torch.equal(y, value):
            return None
        more: int = len(self.base_dist.event_shape) - whole.domain.event_dim
        log_det = sum_rightmost(whole.log_abs_det_jacobian(noise, y), more)
        return self.base_dist.log_prob(noise) - log_det


def _undone(transform: Transform, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the noise of ``y`` and the log-determinant from it to ``y``."""
    if isinstance(transform, HandOver):
        return transform.undo(y)
    x: Tensor = transform.inv(y)
    return x, transform.log_abs_det_jacobian(x, y)


def _name_the_one_way_street(
    way: str,
    maps: Sequence[tuple[Transform, Callable[[Tensor], Tensor]]],
    value: Tensor,
    error: Exception,
) -> None:
    """Raise ``ValueError`` that names the first transform whose map cannot be evaluated."""
    for transform, function in maps:
        try:
            value = function(value)
        except (KeyError, NotImplementedError):
            rule = f"go from {way} (one that goes the other way only does so as its `.inv`)"
            try:
                check(False, "transforms", rule, transform)
            except ValueError as named:
                raise named from error
