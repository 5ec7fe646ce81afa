"""Whether transforms settle the range of what they make, or its scale."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from pyro.distributions.conditional import (
    ConditionalComposeTransformModule,
    ConstantConditionalTransform,
    _ConditionalInverseTransformModule,
)
from pyro.distributions.transforms import LowerCholeskyAffine
from torch.distributions import constraints
from torch.distributions.transforms import (
    AffineTransform,
    CatTransform,
    ComposeTransform,
    IndependentTransform,
    StackTransform,
    _InverseTransform,
)

from pyro_genmodels.transforms.base.chain import Chain
from pyro_genmodels.transforms.base.conditional import ConditionalFlow
from pyro_genmodels.transforms.base.flow_transform import Inverse

_SEVERAL = (
    ComposeTransform,
    CatTransform,
    StackTransform,
    ConditionalComposeTransformModule,
    Chain,
)
_INVERSES = (_InverseTransform, _ConditionalInverseTransformModule, Inverse)
_HELD = (
    (_InverseTransform, "inv"),
    (_ConditionalInverseTransformModule, "inv"),
    ((Inverse, ConditionalFlow), "flow"),
    (ConstantConditionalTransform, "transform"),
    (IndependentTransform, "base_transform"),
)


def settle_range(transforms: Iterable[Any]) -> bool:
    """Return whether what transforms make has a range or a scale that learning does not change.

    That is if a codomain is not all real numbers, unless a later part leads back to them, or if a
    part is an affine map by constants: whoever wrote it has chosen a scale.

    Args:
        transforms: Of this package, of Pyro or of torch, from noise to data.

    Example:
        >>> from torch.distributions import ExpTransform
        >>> settle_range([ComposeTransform([ExpTransform(), ExpTransform().inv])])
        False
        >>> settle_range([AffineTransform(0.0, 255.0).inv])
        True
    """
    settled = False
    for part, inverted in _ordered(transforms, inverted=False):
        domain, codomain = (is_real(getattr(part, name, None)) for name in ("domain", "codomain"))
        if inverted:
            domain, codomain = codomain, domain
        if isinstance(part, AffineTransform | LowerCholeskyAffine) or not codomain:
            settled = True
        elif not domain:
            settled = False
    return settled


def _ordered(transforms: Iterable[Any], *, inverted: bool) -> Iterator[tuple[Any, bool]]:
    """Yield what compositions and wrappers hold, in order, and whether each is inverted."""
    for part in reversed(list(transforms)) if inverted else transforms:
        inner = [getattr(part, name) for kinds, name in _HELD if isinstance(part, kinds)]
        if isinstance(part, _SEVERAL):
            several: Any = part
            inner = list(several.parts if hasattr(several, "parts") else several.transforms)
        if inner:
            yield from _ordered(inner, inverted=inverted != isinstance(part, _INVERSES))
        else:
            yield part, inverted


def is_real(constraint: Any) -> bool:
    """Return whether a constraint leaves all numbers, or is not known.

    Example:
        >>> is_real(constraints.real_vector), is_real(constraints.positive)
        (True, False)
    """
    while hasattr(constraint, "base_constraint"):  # of elements, of a mixture's components
        constraint = constraint.base_constraint
    if isinstance(constraint, constraints.cat | constraints.stack):
        return all(map(is_real, constraint.cseq))
    # By type: a copied flow has copies of its constraints.
    free = type(constraints.real), type(constraints.dependent)
    return constraint is None or isinstance(constraint, free)
