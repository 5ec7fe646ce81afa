"""Base of the autoregressive distributions."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor

from pyro_genmodels._batching import event_of, expands_to
from pyro_genmodels._checks import (
    check,
    check_choice,
    check_levels,
    check_not_traced,
    check_trailing,
    integers_checked,
)
from pyro_genmodels._typing import Float, Num
from pyro_genmodels.distributions.autoregressive.logistic_mixture import logistic_mixture
from pyro_genmodels.distributions.autoregressive.output_distributions import OutputLaw, Softmax
from pyro_genmodels.distributions.autoregressive.sampling import METHODS, Sampler
from pyro_genmodels.distributions.autoregressive.sampling_task import SamplingTask
from pyro_genmodels.distributions.observed import observed_part
from pyro_genmodels.nets import AutoregressiveNet
from pyro_genmodels.nets.layers import check_finite_context

_NAMED_AFTER: dict[type[AutoregressiveNet], type[AutoregressiveDistribution]] = {}


class AutoregressiveDistribution(TorchDistribution):
    r"""The law :math:`p(x \mid c) = \prod_t p(x_t \mid x_{<t}, c)` that a network defines.

    A distribution is light: it refers to the network, which a model owns and trains, and is made
    anew in each model call, as ``Normal(loc, scale)`` is. Its batch shape is the context's.

    Scores use the network in the mode it is in (dropout acts in training mode); samples are drawn
    as in eval mode, without gradients, and leave the network's mode as it was.

    It serves any network, your own too. Those of the package have one each that is named after
    them, which :meth:`of` finds; so has your own if you derive a class and set its
    :attr:`network`.

    With ``missing`` a value may end in NaN, in the order of generation, as a sequence does that is
    shorter than the others. Its log-probability is then that of what was observed, exactly: the sum
    of the first conditional ones.

    Args:
        net: The network.
        context: Labels, vectors or maps, ``(*batch, *context_event)``, if the network takes any.
        missing: Whether NaN stands for an element that was not observed. Those missing must be the
            last ones.
        validate_args: Whether to check values; Pyro's global setting by default.

    Raises:
        ValueError: If the network is not of the kind that the distribution is named after, or the
            context is not what it was declared to take; under validation, also if it is not finite.

    Example:
        >>> from pyro_genmodels.nets import WaveNetNet
        >>> sixteen_bits = AutoregressiveDistribution(WaveNetNet((8,), 2**16, num_mixtures=10))
        >>> sixteen_bits.log_prob(sixteen_bits.sample((3,))).shape
        torch.Size([3])
        >>> shorter = AutoregressiveDistribution(WaveNetNet((3,), 4), missing=True)
        >>> shorter.log_prob(torch.tensor([[2.0, 0.0, torch.nan], [1.0, 1.0, 3.0]])).shape
        torch.Size([2])
    """

    network: ClassVar[type[AutoregressiveNet]] = AutoregressiveNet  # type: ignore[type-abstract]
    """The kind of network that the distribution is named after.

    Of several distributions that name the same kind, :meth:`of` takes the first.
    """

    takes_others: ClassVar[bool] = False
    """Whether networks of other kinds have the distribution too, as a general name."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "context": constraints.dependent
    }

    def __init__(
        self,
        net: AutoregressiveNet,
        context: Num[Tensor, ...] | None = None,
        *,
        missing: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        kind = AutoregressiveNet if self.takes_others else self.network
        check(isinstance(net, kind), "net", f"be of type {kind.__name__}", type(net).__name__)
        net.context.check(context)
        self.net, self.context, self.missing = net, context, missing
        batch_shape = torch.Size()
        if context is not None:
            batch_shape = context.shape[: context.dim() - (net.context_event_dim or 0)]
        super().__init__(batch_shape, net.event_shape, validate_args=validate_args)
        if self._validate_args:
            check_finite_context(context)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Note the network that the distribution is named after."""
        super().__init_subclass__(**kwargs)
        if "network" in cls.__dict__:
            _NAMED_AFTER.setdefault(cls.network, cls)

    @staticmethod
    def of(
        net: AutoregressiveNet,
        context: Num[Tensor, ...] | None = None,
        *,
        missing: bool = False,
        validate_args: bool | None = None,
    ) -> AutoregressiveDistribution:
        """Return the distribution that a network defines, by the name that goes with it.

        That is the class named after the network's, or after the nearest of its bases that has
        one; this class if there is none.

        Args:
            net: The network.
            context: As for the constructor.
            missing: As for the constructor.
            validate_args: As for the constructor.

        Example:
            >>> from pyro_genmodels.nets import GatedPixelCNNNet
            >>> AutoregressiveDistribution.of(GatedPixelCNNNet((1, 4, 4), 2))
            GatedPixelCNN(GatedPixelCNNNet, batch_shape=(), event_shape=(1, 4, 4))
        """
        found = (_NAMED_AFTER.get(kind) for kind in type(net).__mro__)
        named = next(filter(None, found), AutoregressiveDistribution)
        return named(net, context, missing=missing, validate_args=validate_args)

    @property
    def law(self) -> OutputLaw:
        """The law of one element given the network's parameters, as the network says."""
        net = self.net
        if net.num_mixtures is None:
            return Softmax(net.num_levels)
        return logistic_mixture(net.num_levels, net.num_mixtures, num_linked=net.num_linked)

    @property
    def sample_dtype(self) -> torch.dtype:
        """Dtype of samples: the network's."""
        return self.net.dtype

    @property
    def support(self) -> constraints.Constraint:
        """Integers ``0 .. num_levels - 1``, with the event's rank."""
        levels = constraints.integer_interval(0, self.net.num_levels - 1)
        return constraints.independent(levels, len(self.event_shape))

    def expand(
        self, batch_shape: Sequence[int], _instance: Any = None
    ) -> AutoregressiveDistribution:
        """Return the distribution with a larger batch shape; nothing is copied.

        Raises:
            ValueError: If the batch shape does not expand to it.
        """
        batch_shape = torch.Size(batch_shape)
        fits = expands_to(self.batch_shape, batch_shape)
        rule = f"be an expansion of {tuple(self.batch_shape)}"
        check(fits, "batch_shape", rule, tuple(batch_shape))
        new = self._get_checked_instance(AutoregressiveDistribution, _instance)
        new.net, new.context, new.missing = self.net, self.context, self.missing
        TorchDistribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        return type(self).__new__(type(self)) if _instance is None else _instance

    def log_prob(self, value: Num[Tensor, ...]) -> Float[Tensor, ...]:
        """Return the log-probability, in nats.

        Args:
            value: Levels ``(*batch, *event_shape)`` of any dtype; leading dimensions broadcast
                against the batch shape. Where elements may be missing, NaN in the place of the
                last ones.

        Returns:
            ``(*batch,)``, the broadcast of the value's leading dimensions and the batch shape.

        Raises:
            ValueError: Under validation, if the value is not levels of that shape, or other
                elements are missing than the last ones; in a trace by ``torch.jit``, as of Pyro's
                compiled estimators.
        """
        check_not_traced()
        if self._validate_args:
            self._validate_sample(value)
        seen = None
        if self.missing and value.is_floating_point():
            value, seen = observed_part(value)
        nats = self.law.log_prob(self.net(value, self.context), value)
        if seen is not None:
            nats = torch.where(seen, nats, torch.zeros_like(nats))
        total = nats.flatten(nats.dim() - len(self.event_shape)).sum(-1)
        return total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))

    def _validate_sample(self, value: Tensor) -> None:
        check_trailing("value", value, self.event_shape)
        lead = value.shape[: value.dim() - len(self.event_shape)]
        fits = all(
            a == b or 1 in (a, b)
            for a, b in zip(reversed(lead), reversed(self.batch_shape), strict=False)
        )
        rule = f"have leading dimensions that broadcast with batch shape {tuple(self.batch_shape)}"
        check(fits, "value", rule, tuple(lead))
        check_levels("value", value, self.net.num_levels, missing=self.missing)
        if self.missing:
            check_missing_suffix("value", value, self.net)

    @integers_checked
    def sample(
        self,
        sample_shape: Sequence[int] = torch.Size(),
        *,
        method: str = "cached",
        temperature: float = 1.0,
        given: Num[Tensor, ...] | None = None,
        num_given: int | None = None,
        window: int | None = None,
        progress: bool | None = None,
    ) -> Num[Tensor, ...]:
        """Draw exact samples.

        Args:
            sample_shape: Leading dimensions to add to the batch shape.
            method: "cached" evaluates the network incrementally, at about the cost of scoring
                the result; "parallel" evaluates all elements at once until nothing changes, in
                as many rounds as there are elements at most, mostly far fewer: for few levels
                and idle hardware; "naive" evaluates the whole network for each element. All
                give the same values from the same random state.
            temperature: Divides the logits, or the levels' log-masses: below 1 for likelier
                samples, 0 for the greedy one. (A mixture of logistics of more than 1024 levels
                has its components' logits divided and their scales multiplied instead.)
            given: Images to complete, ``(*batch, *event_shape)``, which expand to the result.
            num_given: How many of their elements are kept, in the order of generation (for
                images row by row, the channels of a pixel together); the others are drawn. By
                default none, and where elements may be missing each example's observed ones.
            window: For "parallel": number of elements, from the first unsettled one, that a round
                draws anew; all by default.
            progress: Whether to show a progress bar over the elements (for "parallel" over those
                that are done); by default once drawing takes some seconds.

        Returns:
            ``(*sample_shape, *batch_shape, *event_shape)``, integers of :attr:`sample_dtype`.

        Raises:
            ValueError: If an argument is out of its range, ``given`` holds no levels there, or the
                network's dtype does not hold all levels.
        """
        check_choice("method", method, METHODS)
        check(0 <= temperature < math.inf, "temperature", "be finite, not negative", temperature)
        self.net.check_dtype()
        if window is not None:
            rule = 'be positive, and only with method="parallel"'
            check(window > 0 and method == "parallel", "window", rule, window)
        shape = torch.Size(sample_shape) + self.batch_shape
        flat, kept = self._flat_given(given, num_given, shape)
        task = SamplingTask(
            self.net,
            self.law,
            shape.numel(),
            kept,
            flat,
            self._flat_features(shape),
            temperature,
            progress,
            window,
        )
        if shape.numel() == 0:
            drawn = torch.empty(shape + self.event_shape, device=self.net.device)
        else:
            # Cloned: tensors made in inference mode could not enter a graph later.
            drawn = Sampler(task).run(method).clone().reshape(shape + self.event_shape)
        return drawn.to(self.sample_dtype)

    def _flat_features(self, batch: torch.Size) -> Tensor | None:
        # Samplers run without autocast: what they take of a context must be in their precision.
        with torch.no_grad(), torch.autocast(self.net.device.type, enabled=False):
            features = self.net.context_features(self.context)
        if features is None:
            return None
        event = event_of(features, self.net.features_event_dim)
        return features.expand(batch + event).reshape(-1, *event)

    def _flat_given(
        self, given: Tensor | None, num_given: int | None, batch: torch.Size
    ) -> tuple[Tensor | None, Tensor]:
        """Return values in the order of generation, and how many of each example's are kept."""
        most = self.event_shape.numel() if given is not None else 0
        number = num_given or 0
        check(0 <= number <= most, "num_given", f"be from 0 to {most}", number)
        if given is None:
            return None, torch.zeros(batch.numel(), dtype=torch.long, device=self.net.device)
        check_trailing("given", given, self.event_shape)
        flat = given.flatten(given.dim() - len(self.event_shape))[..., self.net.order]
        kept = torch.full(flat.shape[:-1], number, device=flat.device)
        if num_given is None and self.missing:
            check_missing_suffix("given", given, self.net)
            kept = (~flat.isnan()).sum(-1)
        places = torch.arange(flat.shape[-1], device=flat.device)
        flat = torch.where(places < kept[..., None], flat, torch.zeros_like(flat))
        check_levels("given", flat, self.net.num_levels)
        rule = f"have leading dimensions that expand to {tuple(batch)}"
        try:
            wide = flat.expand(batch + flat.shape[-1:]).reshape(-1, flat.shape[-1])
            return wide, kept.expand(batch).reshape(-1).to(self.net.device)
        except RuntimeError:
            raise ValueError(f"`given` must {rule}; got {tuple(flat.shape[:-1])}.") from None

    def __repr__(self) -> str:
        """Name the network's class and the shapes."""
        shapes = f"batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)}"
        return f"{type(self).__name__}({type(self.net).__name__}, {shapes})"


def check_missing_suffix(argument: str, value: Num[Tensor, ...], net: AutoregressiveNet) -> None:
    """Raise ``ValueError`` unless the missing elements are the last ones of each example.

    Args:
        argument: What the error calls it.
        value: Levels ``(*batch, *event_shape)``, NaN where an element is missing.
        net: The network, which has an order of generation.
    """
    if not value.is_floating_point():
        return
    seen = ~value.isnan().flatten(value.dim() - len(net.event_shape))[..., net.order]
    holes = int((seen[..., 1:] & ~seen[..., :-1]).any(-1).sum())
    rule = "miss the last elements only, in the order of generation"
    check(holes == 0, argument, rule, f"NaN before observed elements in {holes} examples")


class SoftmaxAutoregressive(AutoregressiveDistribution, ABC):
    """One softmax over levels an element, of networks that give nothing else."""

    @property
    def law(self) -> OutputLaw:
        """A softmax over levels."""
        return Softmax(self.net.num_levels)
