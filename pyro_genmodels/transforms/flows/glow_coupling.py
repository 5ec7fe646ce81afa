"""What Glow's couplings do, and how far all of a Glow's learned scales go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pyro_genmodels._checks import check_choice, check_positive
from pyro_genmodels._configuration import ArgumentGroup
from pyro_genmodels.transforms.base.amplification import check_amplification

CouplingName = Literal["affine", "additive", "spline"]


@dataclass(frozen=True)
class GlowCoupling(ArgumentGroup):
    """The map of Glow's couplings, and how far and how fast all of its learned scales go.

    Args:
        kind: ``"affine"`` (with a sigmoid scale, as published), ``"additive"`` or ``"spline"``
            (Durkan et al. 2019).
        max_amplification: Bound on how many times larger the affine couplings and the learned
            priors, all together, can make a difference of noise on its way to data, whatever
            their networks say: its fourth root bounds the priors, and the rest the couplings,
            each alike; none more than 1000 times. The learned constants of normalisations and
            1x1 convolutions come on top; :meth:`Glow.largest_value` computes the bound with them.
            At the default, draws are finite in float32 whatever finite outputs the networks have,
            as long as those constants stay moderate. ``None``, as published: nothing bounds the
            priors, a coupling may scale by 1000, and rare draws far from the data can overflow.
        log_scale_factor: How much faster than other parameters the log-scales learn: those of
            normalisations, of the learned priors and of the networks' convolutions.
        num_bins: Bins of spline couplings.
        bound: Range of spline couplings: they map values from ``-bound`` to ``bound``, and
            leave others as they are.

    Raises:
        ValueError: If ``kind`` is none of the three, ``max_amplification`` is not a finite number
            above 1, or another number is not positive.

    Example:
        >>> from pyro_genmodels.transforms import Glow
        >>> coupling = GlowCoupling("spline", num_bins=4)
        >>> flow = Glow((1, 4, 4), num_steps=2, width=8, coupling=coupling)
        >>> flow.event_shape
        torch.Size([1, 4, 4])
    """

    kind: CouplingName = "affine"
    max_amplification: float | None = 1e12
    log_scale_factor: float = 3.0
    num_bins: int = 8
    bound: float = 4.0

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        check_choice("coupling", self.kind, get_args(CouplingName))
        check_amplification(self.max_amplification)
        check_positive(log_scale_factor=self.log_scale_factor, bound=self.bound)

    def bounds(self, num_steps: int) -> tuple[float | None, float | None]:
        """Return the bounds of a prior and of a step that make up the bound of all together.

        Args:
            num_steps: Steps at all scales.
        """
        total = self.max_amplification
        if total is None:
            return None, None
        return min(total**0.25, 1000.0), min(total ** (0.75 / num_steps), 1000.0)
