"""The units of continuous data: networks see standardised data, everyone else the data's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, TypeVar

import torch
from pyro.distributions import Independent
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import _PYRO_STACK
from pyro.poutine.trace_messenger import TraceMessenger
from pyro.poutine.util import is_validation_enabled
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from pyro_genmodels._changes import in_functorch
from pyro_genmodels._checks import check, check_finite, check_trailing, listed
from pyro_genmodels._progress import tracked
from pyro_genmodels._typing import Num, ScaleName
from pyro_genmodels.distributions import ObservedPart, Rescaled, observed_part
from pyro_genmodels.models.base.shared_pass import SharedPass
from pyro_genmodels.nets.layers import sum_over_ranks
from pyro_genmodels.transforms.interop import is_real

ModelT = TypeVar("ModelT", bound="StandardizedModel")

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
        missing: Whether NaN stands for an element that was not observed, which has no say.
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
        self.missing = False

    @property
    def is_set(self) -> bool:
        """Whether data are standardised."""
        return self.shift is not None

    def standardized(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what the networks see of data ``(*batch, *event)``, in their dtype.

        What is missing stays NaN: whoever computes more with it takes it out by ``where`` first.
        """
        if self.shift is None or self.scale is None:
            return x.to(dtype)
        return ((x.double() - self.shift) / self.scale).to(dtype)

    def log_scale(self, like: Tensor) -> Tensor:
        """Return the log-scale of each element, ``(D,)`` in a row, in another tensor's dtype."""
        if self.scale is None:
            return like.new_zeros(())
        return self.scale.log().expand(self.event_shape).flatten().to(like)

    def in_data_units(self, law: Any, dtype: torch.dtype) -> Any:
        """Return the distribution of data, given that of what the networks see.

        Args:
            law: That distribution; one that is in the data's units already stays.
            dtype: Its dtype.
        """
        if self.shift is None or self.scale is None or self._is_in_data_units(law):
            return law
        if isinstance(law, ObservedPart):
            return ObservedPart(self.in_data_units(law.base, dtype))
        shift, scale = self.shift, self.scale
        rank = len(law.event_shape)
        # Elements that are independent stay so, each with a density of its own.
        if isinstance(law, Independent) and law.reinterpreted_batch_ndims == rank:
            return type(law)(Rescaled(law.base_dist, shift, scale, dtype=dtype), rank)
        return Rescaled(law, shift, scale, dtype=dtype, missing=self.missing)

    def _is_in_data_units(self, law: Any) -> bool:
        law = law.base if isinstance(law, ObservedPart) else law
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
    def moments(
        self, data: Any, kind: ScaleName, which: Sequence[int] | None = None
    ) -> ColumnMoments:
        """Return the moments of data that can be standardised.

        Args:
            data: A tensor, a data set, or batches such as a loader's.
            kind: Which scales are wanted.
            which: Which columns are standardised; ``None``: all.

        Raises:
            ValueError: If there are no data, or they do not fit, are not finite or do not vary, or
                of a column nothing was observed.
        """
        moments = ColumnMoments(self.event_shape[0], self._like.device)
        for x in tracked(batches_of(data, len(self.event_shape)), "standardizing"):
            check_trailing("x", x, self.event_shape)
            check_finite("x", x, missing=self.missing)
            moments.add(columns(x, self.event_shape), missing=self.missing)
        moments.over_ranks()
        check(bool((moments.count > 0).any()), "x", "hold at least one example", "none")
        if which is not None:
            moments.keep_only(which)
        moments.check_varied(kind)
        return moments

    def set_from(self, data: Any, kind: ScaleName, which: Sequence[int] | None = None) -> None:
        """Set shift and scale from data: see :meth:`GenerativeModel.standardize`."""
        moments = self.moments(data, kind, which)
        scale = moments.deviation
        if kind == "shared":
            scale = scale.square().mean().sqrt().expand_as(scale)
        sizes = (-1,) + (1,) * (len(self.event_shape) - 1)
        self.shift = moments.mean.reshape(sizes)
        self.scale = scale.reshape(sizes).clone()

    def problem_with(
        self, x: Tensor, kind: ScaleName, which: Sequence[int] | None = None
    ) -> str | None:
        """Say what is far from standardised in the first batch of a training, if anything is.

        That is a column beyond 30 in absolute mean plus deviation, or below a thirtieth in
        deviation: networks and their first weights are made for data near one.
        """
        if x.device.type == "meta":
            return None
        rows = columns(self.standardized(x.detach(), torch.float64), self.event_shape)
        return _far_off(rows, kind, range(rows.shape[1]) if which is None else which)

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


class StandardizedModel(nn.Module):
    """The part of a model that decides on the units of its data: whether, when and by what.

    Attributes:
        num_levels: Levels of discrete data, which have a scale of their own.
        standardization: Shift and scale of the data, if they were set.
        shared_pass: What the guide computed, in the units of before.
    """

    num_levels: int | None
    standardization: Standardization
    shared_pass: SharedPass
    # Some values of each parameter, of before the first gradient; a class attribute until then.
    _first_parameters: dict[str, Tensor] | None = None

    @abstractmethod
    def _support(self) -> Any:
        """Return the support of site ``"x"``, if it is known."""

    @abstractmethod
    def _checked_data(self, x: Tensor) -> Tensor:
        """Return data that fit the model."""

    @property
    def standardization_scale(self) -> ScaleName | None:
        """Which scales :meth:`standardize` sets: ``"per_dimension"``, or one that is ``"shared"``.

        ``None`` of data that have a scale of their own: levels, or a bounded range. Where the
        support of site ``"x"`` is bounded, :meth:`standardize` finds that by itself.
        """
        return "per_dimension" if self.num_levels is None else None

    @property
    def standardized_columns(self) -> Sequence[int] | None:
        """Which columns of vectors have a shift and a scale, ``None``: all.

        Others, such as the counts of a table, stay as they are: exactly, with shift zero and scale
        one.
        """
        return None

    def standardize(self: ModelT, data: Any) -> ModelT:
        r"""Let the networks see :math:`(x - m) / s`, with mean and deviation of training data.

        All else stays in the units of the data: what the model takes, draws and returns, and its
        nats, which have the log-determinant. So a model trains alike whatever units its data come
        in. Call it once before training; :func:`pyro_genmodels.training.fit` does. Later calls
        change nothing, since trained weights belong to the first shift and scale, which are saved
        with them. Weights that were trained without are in the units of the data for good.

        There is a scale for each element of a vector and for each channel of an image; one for all
        where the model's noise is the same in all directions (``FactorAnalysis(noise="shared")``,
        ``GaussianLikelihood(scale="shared")`` or a fixed scale, which then is in units of it).
        Data with levels or in a bounded range are left as they are, and so are contexts. Of a
        column with missing elements the observed ones count.

        Args:
            data: Training data ``(*batch, *event)``; or a ``Dataset``, or batches such as a
                ``DataLoader``'s, of ``x`` or ``(x, ...)``. Each rank of a distributed run gives its
                share, and all get the same. NaN is missing in a model with ``missing=True``.

        Returns:
            The model.

        Raises:
            ValueError: If the data do not fit, are not finite, or a column of them is constant; or
                if the model :attr:`is_trained` without.

        Example:
            >>> from pyro_genmodels.models import VAE
            >>> x = 1e6 + 1000 * torch.randn(500, 3)
            >>> vae = VAE((3,), latent_dim=2).standardize(x)
            >>> vae.sample(500).mean().round(decimals=-4)
            tensor(1000000.)
        """
        if not self.standardization.is_set:
            kind = self._scale_of_data()
            if kind is not None:
                self._check_untrained()
                self.standardization.set_from(data, kind, self.standardized_columns)
                self.shared_pass.clear()
        return self

    @property
    def is_trained(self) -> bool:
        """Whether the parameters come from data, in whose units they then are.

        That is if they were loaded, fitted in closed form, or have changed since the model first
        ran with gradients enabled, be it by an optimizer or by an initialisation from data.
        Whoever only looks at a loss has trained nothing.
        """
        parts = [part for part in self.modules() if isinstance(part, StandardizedModel)]
        return self.standardization.fits_data or any(part._has_changed() for part in parts)

    def _has_changed(self) -> bool:
        first, now = self._first_parameters, _some_of(self)
        return first is not None and not all(
            torch.equal(value, now[name]) for name, value in first.items() if name in now
        )

    def remember_parameters(self) -> None:
        """Remember what the parameters were before the first gradient, for :attr:`is_trained`."""
        if self._first_parameters is None and torch.is_grad_enabled():
            looks = not in_functorch() and not torch.jit.is_tracing()  # type: ignore[attr-defined]
            for part in self.modules() if looks else ():
                if isinstance(part, StandardizedModel) and part._first_parameters is None:
                    part._first_parameters = _some_of(part)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        names = [prefix + name for name, _ in self.named_parameters()]
        loaded = [name in state_dict for name in names]
        units = self.standardization
        if any(loaded):
            units.take_as_fitted()
        # A part of the weights says nothing of the scale that it lacks.
        if any(loaded) and all(loaded) and f"{prefix}standardization.shift" not in state_dict:
            units.unset()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def check_columns(self, data: Any) -> None:
        """Raise ``ValueError`` if :meth:`standardize` would, given these data.

        Args:
            data: As there.
        """
        if not self.standardization.is_set:
            kind = self._scale_of_data()
            if kind is not None:
                self._check_untrained()
                self.standardization.moments(data, kind, self.standardized_columns)

    def _scale_of_data(self) -> ScaleName | None:
        """Return :attr:`standardization_scale`, or ``None`` if site ``"x"`` has a bounded support.

        A caller's likelihood or model need not say so by itself.
        """
        kind = self.standardization_scale
        if kind is None or self.standardized_columns is not None:
            return kind
        return kind if is_real(self._support()) else None

    def _check_untrained(self) -> None:
        rule = "be standardised before its parameters are trained, fitted or loaded"
        check(not self.is_trained, "model", rule, f"a trained {type(self).__name__}")

    def optional_keys(self) -> set[str]:
        """Return the keys that a state dict of the model may have or not, as the model may."""
        return {
            f"{prefix}.{name}"
            for prefix, part in self.named_modules(remove_duplicate=False)
            if isinstance(part, Standardization)
            for name in part.keys
        }

    def check_first_batch(self, x: Num[Tensor, "*batch_event"]) -> None:
        """Raise ``ValueError`` if this is the first batch of a training, and far from scale 1.

        :class:`ELBOLoss` and ``SVI`` call it, who know no training set. Nothing is checked where
        Pyro's validation is off, or of a model whose weights were loaded.

        Args:
            x: Data ``(*batch, *event)``.
        """
        waits = self.standardization.awaits_batch and is_validation_enabled()
        if not waits or torch.jit.is_tracing():  # type: ignore[attr-defined]
            return
        x, kind = self._checked_data(x), self.standardization_scale
        which = self.standardized_columns
        problem = None if kind is None else self.standardization.problem_with(x, kind, which)
        if problem is not None and self._scale_of_data() is not None:
            check(False, "x", SCALE_RULE, problem)
        self.standardization.awaits_batch = False

    def _check_first_batch(self, x: Tensor | None) -> None:
        if self.standardization.awaits_batch and x is not None and in_svi_step():
            self.check_first_batch(x)


def _some_of(module: nn.Module) -> dict[str, Tensor]:
    """Return up to about a hundred elements of each parameter, the same on any device."""
    return {
        name: parameter.detach().flatten()[:: 1 + parameter.numel() // 100].float().cpu().clone()
        for name, parameter in module.named_parameters()
        if parameter.device.type != "meta"
    }


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
        self.count, self.mean, self.squares = zeros.clone(), zeros, zeros.clone()
        self.rounding = 0.0

    def add(self, rows: Tensor, *, missing: bool = False) -> None:
        """Take rows ``(n, columns)`` into account; if some are missing, those that are there."""
        if rows.is_floating_point():
            self.rounding = max(self.rounding, torch.finfo(rows.dtype).eps)
        rows = rows.double().to(self.mean.device)
        if missing:
            added, mean, squares = _observed_moments(rows)
        else:
            added, mean = torch.full_like(self.count, len(rows)), rows.mean(0)
            squares = (rows - mean).square().sum(0)
        count = self.count + added
        share = added / count.clamp_min(1)
        apart = mean - self.mean
        self.squares += squares + apart.square() * (self.count * share)
        self.mean = self.mean + apart * share
        self.count = count

    def over_ranks(self) -> None:
        """Merge the moments of all ranks of a distributed run, which then have the same."""
        own, count = self.mean, self.count
        total, self.count = sum_over_ranks(torch.stack([own * count, count])).unbind()
        self.mean = total / self.count
        self.squares = sum_over_ranks(self.squares + count * (own - self.mean).square())

    def keep_only(self, which: Sequence[int]) -> None:
        """Give other columns the mean zero and the deviation one."""
        others = torch.ones_like(self.mean, dtype=torch.bool)
        others[list(which)] = False
        self.mean = self.mean.masked_fill(others, 0.0)
        self.squares = torch.where(others, self.count, self.squares)

    @property
    def deviation(self) -> Tensor:
        """The standard deviations."""
        return (self.squares / self.count).sqrt()

    def check_varied(self, kind: ScaleName) -> None:
        """Raise ``ValueError`` that names the columns which do not vary beyond rounding.

        Neither does a column with nothing observed.
        """
        empty = [f"nothing in column {i}" for i in (self.count == 0).nonzero().flatten().tolist()]
        rule = "have an observed element in every column (leave such a column out)"
        check(not empty, "x", rule, listed(empty))
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


def _observed_moments(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return number, mean and summed squared deviations of what each column has observed."""
    filled, seen = observed_part(rows)
    number = seen.sum(0).to(rows.dtype)
    mean = filled.sum(0) / number.clamp_min(1)
    apart = torch.where(seen, filled - mean, torch.zeros_like(filled))
    return number, mean, apart.square().sum(0)


def columns(x: Tensor, event_shape: Sequence[int]) -> Tensor:
    """Return data ``(*batch, *event)`` as rows ``(n, columns)``: of images a row a pixel."""
    return x.movedim(-len(event_shape), -1).reshape(-1, event_shape[0])


def batches_of(data: Any, rank: int) -> Iterator[Tensor]:
    """Yield the data, without labels, in tensors of any batch shape."""
    chunks = getattr(data, "chunks", None)
    if chunks is not None:  # rows of a memory map
        yield from (x for x, *_ in chunks())
        return
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


def _far_off(rows: Tensor, kind: ScaleName, which: Sequence[int]) -> str | None:
    rows = rows[:, list(which)]
    number, mean, squares = _observed_moments(rows)
    deviation = (squares / number.clamp_min(1)).sqrt()
    size = mean.abs() + deviation
    if kind == "shared":
        size, deviation = (each.square().mean().sqrt()[None] for each in (size, deviation))
    whole = observed_part(rows)[0].square().sum().div(number.sum().clamp_min(1)).sqrt()
    narrow = torch.where(deviation > 0, deviation, torch.ones_like(deviation))
    small = bool(0 < whole < 1 / _FARTHEST)
    small |= bool(((narrow < 1 / _FARTHEST) & (number >= _FEWEST)).any())
    if not small and bool((size <= _FARTHEST).all()):
        return None
    worst = int(narrow.argmin() if small else size.argmax())
    column = "data" if kind == "shared" else f"column {which[worst]}"
    around = size[worst] - deviation[worst]
    return f"{column} of deviation {deviation[worst]:.3g} around {around:.3g}"
