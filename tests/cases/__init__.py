"""One line a component: its name, and how to make a small one to hold to the laws.

There is a module for each sub-package. A key is the exported name, with a variant after a slash.
``tests/test_registry.py`` names the exports that lack a line, ``tests/test_laws.py`` runs every law
of ``pyro_genmodels.testing`` on every line. Parts are made in float32 at their initial parameters;
the battery converts them to float64, moves every parameter and switches to eval mode.
"""

from __future__ import annotations

from tests.cases.case import LABELS, Case, Cases, vivid
from tests.cases.data import DATA_DISTRIBUTIONS
from tests.cases.distributions import DISTRIBUTIONS
from tests.cases.exceptions import EXCEPTIONS, NO_CASE, UNDECIDABLE, UNEXPORTED
from tests.cases.models import FEATURE_MODELS, MODELS, sequence_vqvae
from tests.cases.nets import (
    NETS,
    code_hierarchy,
    gated_net,
    made,
    multiscale,
    pixelrnn,
    snail_net,
    wavenet,
)
from tests.cases.transforms import CONDITIONAL_TRANSFORMS, TRANSFORMS

__all__ = [
    "CONDITIONAL_TRANSFORMS",
    "DATA_DISTRIBUTIONS",
    "DISTRIBUTIONS",
    "EXCEPTIONS",
    "FEATURE_MODELS",
    "LABELS",
    "MODELS",
    "NETS",
    "NO_CASE",
    "TRANSFORMS",
    "UNDECIDABLE",
    "UNEXPORTED",
    "Case",
    "Cases",
    "code_hierarchy",
    "gated_net",
    "made",
    "multiscale",
    "pixelrnn",
    "sequence_vqvae",
    "snail_net",
    "vivid",
    "wavenet",
]
