"""Work done once a step: what the guide computed serves the model that is replayed against it."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.ops.provenance import detach_provenance
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from pyro_genmodels._changes import Unchanged

# What the casts of inputs were made from.
_sources: MutableMapping[Tensor, Tensor] = WeakIdKeyDictionary()


def note_source(cast: Tensor, x: Tensor) -> None:
    """Let a :class:`SharedPass` know two casts of one tensor, guide's and model's, as one input."""
    if cast is not x:
        _sources[cast] = x


@dataclass
class Pass:
    """One guide execution's work, step by step, keyed by the latents drawn before each step."""

    input: Unchanged | None
    given: tuple[Any, ...]
    contents: list[Unchanged]
    grad_mode: bool
    latents: list[Unchanged] = field(default_factory=list)
    work: list[Any] = field(default_factory=list)
    checked: int = 0

    def add_work(self, work: Any) -> None:
        """Record what the next step computed from the latents recorded so far."""
        self.work.append(work)

    def add_latent(self, latent: Tensor) -> None:
        """Record the latent that the guide drew after that step."""
        # TraceGraph_ELBO wraps some values; both sides must see the tensor underneath.
        self.latents.append(Unchanged(detach_provenance(latent)))


class SharedPass:
    """One slot between a guide and the next model call.

    A hierarchy's top-down pass is the same in guide and model as long as the model is replayed
    with the guide's own latents, which Pyro hands over as the very same tensors. So the guide
    records each step here, and the model takes the record and looks each step up. A step matches
    only if input (before its cast to the model's dtype) and every earlier latent are identical
    objects that hold what they held, whatever else it was computed from is equal, and the grad mode
    the same; on a miss the model computes the step itself.

    The slot is emptied when taken, holds input and latents weakly, and is left behind by
    deepcopy and pickle.

    Attributes:
        hits: Steps that were served.
        misses: Steps that had to be computed again.

    Example:
        >>> shared, x, z = SharedPass(), torch.zeros(2), torch.ones(2)
        >>> record = shared.begin(x)
        >>> record.add_work("first"); record.add_latent(z); record.add_work("second")
        >>> taken = shared.take(x)
        >>> shared.look_up(taken, [z]), shared.look_up(taken, [torch.ones(2)])
        ('second', None)
    """

    def __init__(self) -> None:
        self._pass: Pass | None = None
        self.hits = 0
        self.misses = 0

    def begin(self, x: Tensor | None, *given: Any) -> Pass:
        """Start recording a guide execution for input ``x``; forgets the one before.

        Args:
            x: The input.
            given: What else steps are computed from: a context, a temperature.
        """
        known = None if x is None else Unchanged(_sources.get(x, x))
        contents = [Unchanged(detach_provenance(v)) for v in given if isinstance(v, Tensor)]
        self._pass = Pass(known, given, contents, torch.is_grad_enabled())
        return self._pass

    def take(self, x: Tensor | None, *given: Any) -> Pass | None:
        """Empty the slot; the record is returned if it was made for these in this grad mode."""
        record, self._pass = self._pass, None
        if record is None or record.grad_mode != torch.is_grad_enabled():
            return None
        known = record.input
        # Of an input that is no more, a record is still not what was made without one.
        fits = x is None if known is None else x is not None and known.fits(_sources.get(x, x))
        pairs = zip(record.given, given, strict=True)
        fits = fits and all(_is_equal(a, b) for a, b in pairs)
        tensors = [detach_provenance(v) for v in record.given if isinstance(v, Tensor)]
        pairs_kept = zip(record.contents, tensors, strict=True)
        return record if fits and all(known.fits(t) for known, t in pairs_kept) else None

    def look_up(self, record: Pass | None, latents: Sequence[Tensor]) -> Any:
        """Return the work of the step that follows these latents, or ``None`` on a miss."""
        step = len(latents)
        if record is not None and step < len(record.work):
            given = [detach_provenance(latent) for latent in latents]
            pairs = list(zip(record.latents, given, strict=False))
            same = len(pairs) == step and all(known.is_of(latent) for known, latent in pairs)
            # What the latents of earlier steps hold has been looked at there.
            if same and all(known.fits(latent) for known, latent in pairs[record.checked :]):
                record.checked = step
                self.hits += 1
                return record.work[step]
        self.misses += 1
        return None

    def clear(self) -> None:
        """Forget the record, if there is one."""
        self._pass = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_pass": None, "hits": 0, "misses": 0}


def _is_equal(a: Any, b: Any) -> bool:
    """Tell whether two values are the same; a program may make its context anew for the model."""
    if isinstance(a, Tensor) != isinstance(b, Tensor):
        return False
    if not isinstance(a, Tensor):
        return bool(a == b)
    a, b = detach_provenance(a), detach_provenance(b)
    return a is b or (a.dtype == b.dtype and a.device == b.device and torch.equal(a, b))
