"""An autoregressive distribution as a model: exact likelihood, no latent variables."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import pyro
import torch

from pyro_genmodels._checks import check, check_trailing, integers_checked
from pyro_genmodels._typing import Float, GivenContext, Num, Tensor
from pyro_genmodels.distributions import AutoregressiveDistribution
from pyro_genmodels.distributions.autoregressive import check_missing_suffix
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.nets import AutoregressiveNet
from pyro_genmodels.nets.autoregressive import raster_indices


class AutoregressiveModel(GenerativeModel):
    """Data drawn from the distribution that a network defines, element after element.

    There is nothing to infer, so the guide is empty and every bound is the exact
    log-likelihood. Inside another Pyro program the distribution alone serves as well:
    ``pyro.sample("x", PixelCNN(model.net, label))``.

    Args:
        net: The network; event shape, levels, context and distribution are its own.
        missing: Whether the last elements of an example, in the network's order, may be missing, as
            those of a sequence that is shorter than others. They are NaN, and the log-likelihood is
            that of the elements before them, exactly. Draws are whole.

    Raises:
        ValueError: If ``net`` is something else.

    Example:
        >>> from pyro_genmodels.nets import PixelCNNNet
        >>> model = AutoregressiveModel(PixelCNNNet((1, 8, 8), 17, hidden_channels=8))
        >>> model.sample(2).shape
        torch.Size([2, 1, 8, 8])

        Sequences of different lengths:

        >>> from pyro_genmodels.data import pad_sequences
        >>> from pyro_genmodels.nets import CharRNNNet
        >>> model = AutoregressiveModel(CharRNNNet((4,), 3), missing=True)
        >>> x = pad_sequences([torch.tensor([0, 2]), torch.tensor([1, 1, 2, 0])])
        >>> model.distribution().log_prob(x).shape, model.complete(x).shape
        (torch.Size([2]), torch.Size([2, 4]))
    """

    training_defaults: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {"learning_rate": 2e-3, "batch_size": 64, "max_epochs": 90, "ema_decay": 0.99}
    )

    # Elements' log-probabilities are made, and added up, in float32 from the network's output.
    takes_half_precision: ClassVar[bool] = True

    can_complete: ClassVar[bool] = True
    compresses: ClassVar[Literal["data", "codes"] | None] = "data"

    def __init__(self, net: AutoregressiveNet, *, missing: bool = False) -> None:
        check(isinstance(net, AutoregressiveNet), "net", "be an AutoregressiveNet", type(net))
        super().__init__(
            net.event_shape,
            num_levels=net.num_levels,
            num_classes=net.num_classes,
            context_shape=net.context_shape,
        )
        self.net, self.missing = net, missing

    def check_missing(self, argument: str, x: Tensor) -> None:
        """Raise ``ValueError`` unless what is missing of each example is its end."""
        check_missing_suffix(argument, x, self.net)

    @property
    def display_name(self) -> str:
        """The network's."""
        return type(self.net).__name__.removesuffix("Net")

    @property
    def can_be_traced(self) -> bool:
        """No: a trace fixes the network's batch size."""
        return False

    def distribution(self, context: GivenContext = None) -> AutoregressiveDistribution:
        """Return the distribution over data, one event or one for each context.

        Args:
            context: Labels or features ``(*batch, ...)``, if the model is conditional.

        Raises:
            ValueError: If the context does not fit, or the network's weights are random.
        """
        given = self._checked_exact(context)
        return AutoregressiveDistribution.of(self.net, given, missing=self.missing)

    def law(self, context: GivenContext = None) -> AutoregressiveDistribution:
        """Return :meth:`distribution`; this is its former name, and deprecated."""
        warnings.warn("`law` is `distribution` now", DeprecationWarning, stacklevel=2)
        return self.distribution(context)

    def generate(self, x: Tensor | None, context: Tensor | None) -> Tensor:
        """Observe or draw site ``"x"``."""
        # What is observed was checked on entry to the model, what is drawn needs no check.
        law = self._unchecked(context)
        return pyro.sample("x", law, obs=x)

    @integers_checked
    def sample(
        self,
        num_samples: int = 1,
        context: GivenContext = None,
        *,
        temperature: float = 1.0,
        progress: bool | None = None,
    ) -> Float[Tensor, "num_samples *batch_event"]:
        """Draw data from the model, in eval mode.

        Args:
            num_samples: Number of draws (for each context).
            context: Labels or features ``(*batch, ...)``, if the model is conditional.
            temperature: Divides the logits: below 1 for likelier data, 0 for the greedy ones.
            progress: Whether to show a progress bar; by default once drawing takes some seconds.

        Returns:
            Data ``(num_samples, *batch, *event)``.

        Raises:
            ValueError: If a number is out of its range or the context does not fit.
        """
        check(num_samples >= 1, "num_samples", "be at least 1", num_samples)
        law = self._law(context)
        return law.sample((num_samples,), temperature=temperature, progress=progress)

    @integers_checked
    def complete(
        self,
        x: Num[Tensor, "*batch_event"],
        num_rows: int | None = None,
        context: GivenContext = None,
        *,
        temperature: float = 1.0,
        progress: bool | None = None,
    ) -> Float[Tensor, "*batch_event"]:
        """Draw the rest of data whose beginning is given, in eval mode.

        Args:
            x: Data ``(*batch, *event)``; what is not kept may have any value, NaN too.
            num_rows: Number of rows that are kept of each image, from the top; of a vector,
                elements from the first. May be left out by a model that takes missing data: what
                is missing is drawn.
            context: Labels or features, if the model is conditional.
            temperature: As in :meth:`sample`.
            progress: Whether to show a progress bar; by default once drawing takes some seconds.

        Returns:
            Data ``(*batch, *event)`` that begin as ``x`` does.

        Raises:
            ValueError: If an argument is out of its range or does not fit, or the model generates
                in another order than row by row.

        Example:
            >>> from pyro_genmodels.nets import PixelCNNNet
            >>> model = AutoregressiveModel(PixelCNNNet((1, 4, 4), 5, hidden_channels=8))
            >>> x = torch.full((3, 1, 4, 4), 2.0)
            >>> bool((model.complete(x, 2)[:, :, :2] == 2).all())
            True
        """
        check_trailing("x", x, self.event_shape)
        rows = self.event_shape[-2:][0]
        fits = self.missing if num_rows is None else num_rows in range(rows + 1)
        check(fits, "num_rows", f"be from 0 to {rows}", num_rows)
        law = self._law(context)
        batch = tuple(x.shape[: x.dim() - len(self.event_shape)])
        if law.context is not None:
            self.check_context_batch(law.context, batch)
        options: dict[str, Any] = {"temperature": temperature, "progress": progress}
        if num_rows is not None:
            order = raster_indices(self.event_shape).to(self.net.device)
            in_rows = torch.equal(self.net.order, order)
            rule = "generate row by row to complete data"
            check(in_rows, "model", rule, type(self.net).__name__)
            options["num_given"] = num_rows * (self.event_shape.numel() // rows)
        return law.expand(batch).sample(given=x, **options)

    def _law(self, context: GivenContext) -> AutoregressiveDistribution:
        """Return the distribution that draws, by any weights."""
        _, context, _ = self._checked(None, context)
        return self._unchecked(context)

    def _unchecked(self, context: Tensor | None) -> AutoregressiveDistribution:
        return AutoregressiveDistribution.of(
            self.net, context, missing=self.missing, validate_args=False
        )
