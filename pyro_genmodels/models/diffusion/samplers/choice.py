"""Samplers by name, as the command line gives them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pyro_genmodels._checks import check
from pyro_genmodels.models.diffusion.samplers.ancestral import Ancestral
from pyro_genmodels.models.diffusion.samplers.annealed_langevin import AnnealedLangevin
from pyro_genmodels.models.diffusion.samplers.base import Sampler
from pyro_genmodels.models.diffusion.samplers.ddim import DDIM
from pyro_genmodels.models.diffusion.samplers.dpm_solver import DPMSolver
from pyro_genmodels.models.diffusion.samplers.heun import Heun
from pyro_genmodels.models.diffusion.samplers.pndm import PNDM

SAMPLERS: Mapping[str, type[Sampler]] = MappingProxyType(
    {
        "ancestral": Ancestral,
        "ddim": DDIM,
        "pndm": PNDM,
        "dpm": DPMSolver,
        "heun": Heun,
        "langevin": AnnealedLangevin,
    }
)


def chosen(sampler: str | Sampler) -> Sampler:
    """Return a sampler given as one, or by its name with its defaults.

    Raises:
        ValueError: If there is none of that name.
    """
    if isinstance(sampler, Sampler):
        return sampler
    known = isinstance(sampler, str) and sampler in SAMPLERS
    rule = f"be a Sampler or one of {', '.join(map(repr, SAMPLERS))}"
    check(known, "sampler", rule, repr(sampler))
    return SAMPLERS[sampler]()
