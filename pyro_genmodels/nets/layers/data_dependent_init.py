"""Parameters that take their first values from data, once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_genmodels._checks import check
from pyro_genmodels.nets.layers.distributed import sum_over_ranks


class FirstData(nn.Module):
    """Remembers whether its owner's parameters have had their first values from data.

    An owner whose own parameters are all frozen gets none, and waits for none, until one is not.

    The memory is a buffer: it is saved with the parameters, and a loaded module never starts over.
    A copy of it in Python spares an accelerator the wait for its value.
    """

    seen: Tensor

    def __init__(self, *, seen: bool = False) -> None:
        super().__init__()
        self.register_buffer("seen", torch.tensor(seen))
        self._known = seen

    @property
    def is_awaited(self) -> bool:
        """Whether the first values are yet to be set."""
        if not self._known and self.seen.device.type != "meta":
            self._known = bool(self.seen)
        return not self._known

    @property
    def is_due(self) -> bool:
        """Whether these data should set them: the first that pass in training mode."""
        return self.training and self.is_awaited

    def done(self) -> None:
        """Remember that the first values are set."""
        self.seen.fill_(True)
        self._known = True

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._known = False
        super()._load_from_state_dict(*args, **kwargs)
        # Asked now, so that a compiled graph need not ask.
        self._known = not self.is_awaited


def expect_no_data(module: nn.Module) -> None:
    """Leave the values of every part as they are when the first data come."""
    for part in module.modules():
        if isinstance(part, FirstData):
            part.done()


def awaits_data(module: nn.Module) -> bool:
    """Whether some part of a module has yet to see its first data."""
    return any(
        isinstance(part, FirstData) and part.is_awaited and not is_frozen(owner)
        for owner in module.modules()
        for part in owner.children()
    )


def is_frozen(owner: nn.Module) -> bool:
    """Whether none of a module's own parameters is to be trained."""
    return not any(parameter.requires_grad for parameter in owner.parameters(recurse=False))


@torch.no_grad()
def standardizing(x: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return the shift and the log-scale that give each feature mean zero and deviation one.

    Over the data of all ranks, which all take part and get the same. A feature that does not vary
    beyond rounding is only shifted.

    Args:
        x: Data.
        dim: The features' dimension.

    Returns:
        Two tensors ``(features,)``.

    Raises:
        ValueError: If the data are not finite: they would set parameters that nothing could mend.
    """
    # In two passes and in float64: a sum of squares loses what distinguishes a narrow feature far
    # from zero.
    wide = x.movedim(dim, -1).reshape(-1, x.shape[dim]).double()
    total = sum_over_ranks(torch.cat([wide.sum(0), wide.new_tensor([float(len(wide))])]))
    mean, count = total[:-1] / total[-1], total[-1]
    deviation = (sum_over_ranks((wide - mean).square().sum(0)) / count).sqrt()
    if deviation.device.type != "meta":
        finite = bool(torch.isfinite(deviation).all())
        check(finite, "y", "be finite where it sets first values", "inf or nan")
    varies = deviation > 1e-6 * (1 + mean.abs())
    log_scale = -torch.log(torch.where(varies, deviation, 1.0))
    return (-mean).to(x.dtype), log_scale.to(x.dtype)


def set_values(parameter: nn.Parameter, values: Tensor) -> None:
    """Set a parameter in place, outside of any gradient; a frozen one keeps its values."""
    if parameter.requires_grad:
        with torch.no_grad():
            parameter.copy_(values)
