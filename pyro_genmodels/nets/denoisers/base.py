"""What a denoiser is to the models that use it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_genmodels._abstract import Abstract
from pyro_genmodels._checks import check
from pyro_genmodels._configuration import Configured
from pyro_genmodels._typing import Bool, Float, Num


class Denoiser(Configured, nn.Module, Abstract):
    r"""A network :math:`f(z, t, c)` of noisy data, their noise level and perhaps a context.

    Diffusion models train it to predict the noise in :math:`z`, the clean data or a mixture of the
    two. :class:`UNet`, :class:`SequenceUNet` and :class:`DenseDenoiser` are such networks. One of
    your own gives its sizes to this constructor and writes :meth:`forward`. The result for one
    example must not depend on the others of its batch.

    Args:
        input_shape: Sizes of one input: ``(D,)``, ``(C, L)`` or ``(C, H, W)``; -1 stands for any
            size.
        output_shape: Sizes of one output, channels first; those of -1 are the input's.
        num_classes: Contexts are labels ``0 .. num_classes - 1``.
        context_shape: Contexts are vectors ``(D,)``, sequences ``(C, L)`` or maps ``(C, H, W)``.
        null_context: The network also evaluates without its context, as classifier-free guidance
            needs.

    Raises:
        ValueError: If ``null_context`` is set without a kind of context.

    Example:
        The best prediction of the noise in a standard normal variable, which has no parameters.

        >>> class Shrinkage(Denoiser):
        ...     def __init__(self, features: int) -> None:
        ...         super().__init__([features], [features])
        ...     def forward(self, z, level, context=None, *, keep=None):
        ...         return level.sqrt()[..., None] * z
        >>> Shrinkage(2)(torch.ones(5, 2), torch.tensor(0.25)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        *,
        num_classes: int | None = None,
        context_shape: Sequence[int] | None = None,
        null_context: bool = False,
    ) -> None:
        super().__init__()
        self.input_shape, self.output_shape = torch.Size(input_shape), torch.Size(output_shape)
        self.num_classes = num_classes
        self.context_shape = None if context_shape is None else torch.Size(context_shape)
        conditional = num_classes is not None or context_shape is not None
        rule = "be False without num_classes or context_shape"
        check(conditional or not null_context, "null_context", rule, null_context)
        self.null_context = null_context

    @abstractmethod
    def forward(
        self,
        z: Float[Tensor, "*batch_event"],
        level: Float[Tensor, "*levels"],
        context: Num[Tensor, "*context"] | None = None,
        *,
        keep: Bool[Tensor, "*keep"] | None = None,
    ) -> Float[Tensor, "*output"]:
        """Return the prediction for noisy data.

        Args:
            z: Noisy data ``(*batch, *input_shape)``.
            level: Noise levels ``(*batch)`` on a scale from 0, clean, to 1, noise alone.
            context: Labels ``(*batch)``, or vectors, sequences or maps
                ``(*batch, *context_shape)``. ``None`` is the null context where
                ``null_context`` is set.
            keep: Which examples ``(*batch)`` keep their context; the others have the null context.

        Returns:
            ``(*batch, *output_shape)``; the batch shapes of all arguments broadcast.

        Raises:
            ValueError: If an argument has another shape than the network takes, a context is
                missing, unwanted or out of range, or ``keep`` is given without
                ``null_context``.
        """
