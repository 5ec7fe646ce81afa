"""The units of continuous data: networks see standardised data, everyone else the data's own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from pyro.distributions import Independent
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pyro_genmodels._checks import check, check_finite, check_trailing, listed
from pyro_genmodels._typing import ScaleName
from pyro_genmodels.distributions import Rescaled
from pyro_genmodels.nets.layers import sum_over_ranks

_FARTHEST = 30.0
_FEWEST = 8  # of fewer examples a column's deviation says little
_AT_ONCE = 4096
SCALE_RULE = (
    "have a scale near 1 (call `model.standardize` with the training data before training, as "
    "`training.fit` does; of data that are meant so, use `ELBOLoss(model, validate=False)` or "
    "`pyro.enable_validation(False)`)"
)


class Standardization(nn.Module):
    r"""The shift :math:`m` and scale :math:`s` of a model's data, if they were set.

    .. math:: y = (x - m) / s

    A column is an element of a vector, or a channel of an image, whose pixels share their scale as
    they share a convolution's weights. Both tensors are float64 whatever the model's dtype, since
    the subtraction is. They are buffers that a model has only once they are set: until then its
    state dict is what it was before there were any, and all weights of such a model unset them.

    Args:
        event_shape: Sizes of one data point.

    Attributes:
        shift: ``(D,)``, or ``(C, 1, 1)`` of images; ``None`` until set.
        scale: Of the same shape, positive.
        awaits_batch: Whether no batch has been checked, by its scale or by who knows it.
        fits_data: Whether the model's parameters were loaded or fitted, so are in units of data.
    """

    keys: ClassVar[tuple[str, str]] = ("shift", "scale")
    """What a state dict has of it, if it is set."""

    shift: Tensor | None
    scale: Tensor | None
    _like: Tensor

    def __init__(self, event_shape: torch.Size) -> None:
        super().__init__()
        self.event_shape = event_shape
        self.register_buffer("shift", None)
        self.register_buffer("scale", None)
        # For its device alone, which is the model's.
        self.register_buffer("_like", torch.zeros(()), persistent=False)
        self.awaits_batch, self.fits_data = True, False

    @property
    def is_set(self) -> bool:
        """Whether data are standardised."""
        return self._buffers["shift"] is not None

    def standardized(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what the networks see of data ``(*batch, *event)``, in their dtype."""
        shift, scale = self._buffers["shift"], self._buffers["scale"]  # sooner than as attributes
        if shift is None or scale is None:
            return x.to(dtype)
        return ((x.double() - shift) / scale).to(dtype)

    def in_data_units(self, law: Any, dtype: torch.dtype, *, flat: bool = False) -> Any:
        """Return the distribution of data, given that of what the networks see.

        Args:
            law: That distribution; one that is in the data's units already stays.
            dtype: Its dtype.
            flat: Whether its events are flattened.
        """
        if self.shift is None or self.scale is None or self._is_in_data_units(law):
            return law
        shift, scale = self.shift, self.scale
        if flat:
            shift, scale = (each.expand(self.event_shape).flatten() for each in (shift, scale))
        rank = len(law.event_shape)
        # Elements that are independent stay so, each with a density of its own.
        if isinstance(law, Independent) and law.reinterpreted_batch_ndims == rank:
            return Rescaled(law.base_dist, shift, scale, dtype=dtype).to_event(rank)
        return Rescaled(law, shift, scale, dtype=dtype)

    def _is_in_data_units(self, law: Any) -> bool:
        while not isinstance(law, Rescaled) and hasattr(law, "base_dist"):
            law = law.base_dist
        return isinstance(law, Rescaled) and law.shift is self.shift

    def observing(self, x: Tensor | None, dtype: torch.dtype) -> AbstractContextManager[object]:
        """Return the handler that gives site ``"x"`` the data's units.

        Args:
            x: The data, if they are observed.
            dtype: The model's.
        """
        return _InDataUnits(self, x, dtype) if self.is_set else nullcontext()

    @torch.no_grad()
    def moments(self, data: Any, kind: ScaleName) -> ColumnMoments:
        """Return the moments of data that can be standardised.

        Args:
            data: A tensor, a data set, or batches such as a loader's.
            kind: Which scales are wanted.

        Raises:
            ValueError: If there are no data, or they do not fit, are not finite or do not vary.
        """
        moments = ColumnMoments(self.event_shape[0], self._like.device)
        for x in _batches(data, len(self.event_shape)):
            check_trailing("x", x, self.event_shape)
            check_finite("x", x)
            moments.add(columns(x, self.event_shape))
        moments.over_ranks()
        check(bool(moments.count > 0), "x", "hold at least one example", "none")
        moments.check_varied(kind)
        return moments

    def set_from(self, data: Any, kind: ScaleName) -> None:
        """Set shift and scale from data: see :meth:`GenerativeModel.standardize`."""
        moments = self.moments(data, kind)
        scale = moments.deviation
        if kind == "shared":
            scale = scale.square().mean().sqrt().expand_as(scale)
        sizes = (-1,) + (1,) * (len(self.event_shape) - 1)
        self.shift = moments.mean.reshape(sizes)
        self.scale = scale.reshape(sizes).clone()

    def problem_with(self, x: Tensor, kind: ScaleName) -> str | None:
        """Say what is far from standardised in the first batch of a training, if anything is.

        That is a column beyond 30 in absolute mean plus deviation, or below a thirtieth in
        deviation: networks and their first weights are made for data near one.
        """
        if x.device.type == "meta":
            return None
        rows = columns(self.standardized(x.detach(), torch.float64), self.event_shape)
        return _far_off(rows, kind)

    def take_as_fitted(self) -> None:
        """Take the model's parameters as being in the units that its data have now."""
        self.awaits_batch, self.fits_data = False, True

    def _apply(self, fn: Any, recurse: bool = True) -> Standardization:
        before = {name: self._buffers[name] for name in self.keys}
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            now = self._buffers[name]
            # A conversion of the model moves them to its device, but keeps all their digits.
            if tensor is not None and now is not None and now.dtype != tensor.dtype:
                self._buffers[name] = tensor.to(now.device)
        return self

    def unset(self) -> None:
        """Leave data as they are again."""
        self.shift = self.scale = None

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        if any(prefix + name in state_dict for name in self.keys):
            sizes = (self.event_shape[0],) + (1,) * (len(self.event_shape) - 1)
            for name in self.keys:
                self._buffers[name] = self._like.new_empty(sizes, dtype=torch.float64)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def in_svi_step() -> bool:
    """Whether a step of ``SVI`` runs, which collects parameters around guide and model."""
    return any(type(h) is TraceMessenger and h.param_only for h in _PYRO_STACK)


class _InDataUnits(Messenger):
    """Turns the site of standardised data, ``"x"``, into one of the data themselves."""

    def __init__(self, units: Standardization, x: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.units, self.x, self.dtype = units, x, dtype

    def _pyro_sample(self, msg: Any) -> None:
        if msg["name"] != "x":
            return
        msg["fn"] = self.units.in_data_units(msg["fn"], self.dtype)
        if self.x is not None:
            msg["value"] = self.x


class ColumnMoments:
    """Mean and standard deviation of each column, in float64, from chunks of data.

    Chunks are merged by their means and squared deviations (Chan et al., 1983): a sum of squares
    loses what distinguishes a narrow column far from zero.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        zeros = torch.zeros(size, dtype=torch.float64, device=device)
        self.count, self.mean, self.squares = zeros[:1].clone(), zeros, zeros.clone()
        self.rounding = 0.0

    def add(self, rows: Tensor) -> None:
        """Take rows ``(n, columns)`` into account."""
        if rows.is_floating_point():
            self.rounding = max(self.rounding, torch.finfo(rows.dtype).eps)
        rows = rows.double().to(self.mean.device)
        count = self.count + len(rows)
        mean = rows.mean(0)
        apart = mean - self.mean
        self.squares += (rows - mean).square().sum(0)
        self.squares += apart.square() * (self.count * len(rows) / count)
        self.mean = self.mean + apart * (len(rows) / count)
        self.count = count

    def over_ranks(self) -> None:
        """Merge the moments of all ranks of a distributed run, which then have the same."""
        own, count = self.mean, self.count
        total = sum_over_ranks(torch.cat([own * count, count]))
        self.mean, self.count = total[:-1] / total[-1], total[-1:]
        self.squares = sum_over_ranks(self.squares + count * (own - self.mean).square())

    @property
    def deviation(self) -> Tensor:
        """The standard deviations."""
        return (self.squares / self.count).sqrt()

    def check_varied(self, kind: ScaleName) -> None:
        """Raise ``ValueError`` that names the columns which do not vary beyond rounding."""
        constant = self.deviation <= 4 * self.rounding * self.mean.abs()
        if kind == "shared" and not bool(constant.all()):
            return  # the others give the scale
        found = constant.nonzero().flatten().tolist()
        constants = [f"column {i} constant at {self.mean[i].item():g}" for i in found]
        rule = (
            "vary in every column to be standardised (leave such a column out, or train with "
            "`standardize=False`)"
        )
        check(not found, "x", rule, listed(constants))


def columns(x: Tensor, event_shape: Sequence[int]) -> Tensor:
    """Return data ``(*batch, *event)`` as rows ``(n, columns)``: of images a row a pixel."""
    return x.movedim(-len(event_shape), -1).reshape(-1, event_shape[0])


def _batches(data: Any, rank: int) -> Iterator[Tensor]:
    """Yield the data, without labels, in tensors of any batch shape."""
    tensors = getattr(data, "tensors", None)
    if isinstance(data, Tensor) or tensors is not None:
        x = data if tensors is None else tensors[0]
        # In parts: each becomes float64.
        yield from (
            x.reshape(-1, *x.shape[x.dim() - rank :]).split(_AT_ONCE) if x.dim() > rank else [x]
        )
        return
    whole = isinstance(data, Dataset) and hasattr(data, "__len__")
    for batch in DataLoader(data, batch_size=_AT_ONCE) if whole else data:
        yield batch[0] if isinstance(batch, tuple | list) else batch


def _far_off(rows: Tensor, kind: ScaleName) -> str | None:
    deviation = rows.std(0, correction=0)
    size = rows.mean(0).abs() + deviation
    if kind == "shared":
        size, deviation = (each.square().mean().sqrt()[None] for each in (size, deviation))
    whole = rows.square().mean().sqrt()
    narrow = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    small = bool(0 < whole < 1 / _FARTHEST)
    small |= len(rows) >= _FEWEST and bool((narrow < 1 / _FARTHEST).any())
    if not small and bool((size <= _FARTHEST).all()):
        return None
    worst = int(narrow.argmin() if small else size.argmax())
    column = "data" if kind == "shared" else f"column {worst}"
    around = size[worst] - deviation[worst]
    return f"{column} of deviation {deviation[worst]:.3g} around {around:.3g}"
