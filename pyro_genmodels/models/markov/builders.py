"""Builder: the classical hidden Markov models, one call."""

from __future__ import annotations

from typing import Any, Literal

from pyro_genmodels._checks import check, check_choice, check_event_shape, integers_checked
from pyro_genmodels._typing import EventShape
from pyro_genmodels.models.base.generative_model import GenerativeModel
from pyro_genmodels.models.gaussian.gaussian_model import CovarianceName, GaussianModel
from pyro_genmodels.models.markov.hidden_markov_model import HiddenMarkovModel
from pyro_genmodels.models.markov.topology import Initial, Topology
from pyro_genmodels.models.mixtures.categorical_model import CategoricalModel


@integers_checked
def hidden_markov(
    event_shape: EventShape,
    num_states: int = 4,
    *,
    num_levels: int | None = None,
    emissions: Literal["auto"] | GenerativeModel = "auto",
    covariance: CovarianceName = "full",
    topology: Topology = "full",
    initial: Initial = "auto",
    autoregressive: bool = False,
    missing: bool = False,
) -> HiddenMarkovModel:
    """Make a hidden Markov model of sequences: tables for levels, Gaussians for other data.

    :meth:`HiddenMarkovModel.fit_em` fits it.

    Args:
        event_shape: Sizes of one sequence: ``(T,)`` of numbers, ``(T, D)`` of vectors or
            ``(T, C, H, W)`` of images.
        num_states: Number of hidden states.
        num_levels: Data are the integers ``0 .. num_levels - 1``; ``None`` for continuous data.
        emissions: ``"auto"``; or a class-conditional model of one frame with ``num_states``
            classes, such as a mixture, a flow of continuous data or a PixelCNN.
        covariance: Covariances of Gaussians, as for :class:`GaussianModel`.
        topology: Which state may follow which, as for :class:`HiddenMarkovModel`.
        initial: Distribution of the first state, as there.
        autoregressive: Whether a frame also depends on the one before, as there.
        missing: Whether frames, and elements of them, may be missing, NaN.

    Returns:
        The model; ``model.conditional`` is the model of a frame.

    Raises:
        ValueError: If a size is impossible, or the emissions have another frame shape or number of
            classes.

    Example:
        >>> hidden_markov((20,), 3, num_levels=5).sample(2).shape
        torch.Size([2, 20])
        >>> hidden_markov((20, 2), 3, covariance="diagonal").sample(2).shape
        torch.Size([2, 20, 2])
    """
    duration, *frame = check_event_shape(event_shape, ranks=HiddenMarkovModel.event_ranks)
    shape = tuple(frame) or (1,)
    conditional: GenerativeModel
    if isinstance(emissions, str):
        check_choice("emissions", emissions, ("auto",))
        options: dict[str, Any] = {"num_classes": num_states, "missing": missing}
        if num_levels is not None:
            conditional = CategoricalModel(shape, num_levels, **options)
        else:
            conditional = GaussianModel(shape, covariance=covariance, **options)
    else:
        conditional = emissions
        found = tuple(conditional.event_shape)
        check(found == shape, "emissions", f"have event shape {shape}", found)
        classes = conditional.num_classes
        check(classes == num_states, "emissions", f"have {num_states} classes", classes)
        rule = f"have num_levels={num_levels}, as the data"
        check(conditional.num_levels == num_levels, "emissions", rule, conditional.num_levels)
    return HiddenMarkovModel(
        conditional,
        duration=duration,
        topology=topology,
        initial=initial,
        autoregressive=autoregressive,
        missing=missing,
    )
