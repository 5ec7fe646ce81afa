"""Training on Lightning's Trainer: runs, checkpoints, averaged weights, evaluation.

Importing this package needs no extra; :func:`fit` needs ``train``.
"""

from pyro_genmodels.training._checkpoint import CheckpointError, load, load_source
from pyro_genmodels.training._evaluate import Evaluation, evaluate
from pyro_genmodels.training._fit import check_run, fit, is_helper, prepare_run
from pyro_genmodels.training._samples import draw_samples
from pyro_genmodels.training._settings import TrainingSettings, settings_for

__all__ = [
    "CheckpointError",
    "Evaluation",
    "TrainingSettings",
    "check_run",
    "draw_samples",
    "evaluate",
    "fit",
    "is_helper",
    "load",
    "load_source",
    "prepare_run",
    "settings_for",
]
