"""What happens once a training step, though an estimator may run the guide several times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class OnceAStep:
    """Tells the first guide execution of a training step from those for further particles.

    Further particles see the very numbers of the first: the same features, under parameters that
    nobody has written to since. A step that repeats a batch has other parameters. Is left behind
    by deepcopy and pickle.

    Example:
        >>> once, weight, features = OnceAStep(), torch.ones(2), torch.ones(3, 2)
        >>> once.is_first(features, [weight]), once.is_first(features.clone(), [weight])
        (True, False)
        >>> weight += 1
        >>> once.is_first(features, [weight])
        True
    """

    def __init__(self) -> None:
        self._seen: tuple[list[int], Tensor] | None = None

    def is_first(self, features: Tensor, parameters: Iterable[Tensor]) -> bool:
        """Whether these features, under these parameters, are new; remembers them.

        Args:
            features: What the step learns from, ``(..., D)``; their sums stand for them.
            parameters: Parameters that the optimizer moves between steps.
        """
        # Versions first: only fused optimizers do not count them, and then the features move.
        versions = [parameter._version for parameter in parameters]
        mark = features.detach().flatten(0, -2).sum(0)
        seen, self._seen = self._seen, (versions, mark)
        if seen is None or seen[0] != versions or seen[1].device != mark.device:
            return True
        return not torch.equal(seen[1], mark)

    def __getstate__(self) -> dict[str, Any]:
        return {"_seen": None}
