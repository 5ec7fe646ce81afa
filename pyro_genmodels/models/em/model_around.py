"""What a model around another one takes over from it: units, dtype, checks, objective."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check
from pyro_genmodels._typing import ScaleName, Tensor
from pyro_genmodels.models.base.generative_model import GenerativeModel


class ModelAround(GenerativeModel, Abstract):
    """A model of the same data as the class-conditional model that it is made around.

    Args:
        conditional: The class-conditional model.
        options: Arguments of :class:`GenerativeModel` that are not the conditional model's.

    Raises:
        ValueError: If the model is not conditional on labels.
    """

    def __init__(self, conditional: GenerativeModel, **options: Any) -> None:
        by_labels = conditional.num_classes is not None
        # A label that it infers itself is not a condition.
        if isinstance(conditional, ModelAround):
            by_labels = not conditional.infers_label
        check(by_labels, "conditional", "be conditional on labels", type(conditional).__name__)
        settled = {
            "num_levels": conditional.num_levels,
            "num_classes": conditional.num_classes,
            "context_shape": conditional.context_shape,
        }
        super().__init__(conditional.event_shape, **{**settled, **options})
        self.conditional = conditional
        self.latent_scale = conditional.latent_scale
        self.standardization = conditional.standardization

    @property
    def infers_label(self) -> bool:
        """Whether the conditional model's label is a variable here, and there is no other."""
        return True

    @property
    def dtype(self) -> Any:
        """Floating dtype in which the model computes."""
        return self.conditional.dtype

    @property
    def standardization_scale(self) -> ScaleName | None:
        """That of the conditional model."""
        return self.conditional.standardization_scale

    @property
    def standardized_columns(self) -> Sequence[int] | None:
        """Those of the conditional model."""
        return self.conditional.standardized_columns

    @property
    def column_kinds(self) -> Sequence[str] | None:
        """Those of the conditional model."""
        return self.conditional.column_kinds

    def check_values(self, argument: str, x: Tensor) -> None:
        """Raise ``ValueError`` unless data have values that the conditional model takes.

        Args:
            argument: What an error calls them.
            x: Data ``(*batch, *event)``.
        """
        self.conditional.check_values(argument, x)

    @contextmanager
    def bounding(self) -> Iterator[None]:
        """Run as a true bound, the conditional model too."""
        with super().bounding(), self.conditional.bounding():
            yield

    @property
    def can_be_traced(self) -> bool:
        """Whether the conditional model can."""
        return self.conditional.can_be_traced

    def beside_elbo(self) -> list[str]:
        """Name what the conditional model's objective has beside the ELBO."""
        return self.conditional.beside_elbo()
