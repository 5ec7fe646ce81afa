"""Training on Lightning's Trainer: runs, checkpoints, averaged weights, evaluation.

Importing this package needs no extra; :func:`fit` needs ``train``.
"""

from pyro_genmodels.training.batches import check_source, facts_of
from pyro_genmodels.training.checkpoint import CheckpointError, load, load_source
from pyro_genmodels.training.codes import encode_codes
from pyro_genmodels.training.evaluation import Evaluation, evaluate
from pyro_genmodels.training.fitting import check_run, fit, is_helper, prepare_run
from pyro_genmodels.training.prior_stage import check_prior_run, check_priors, fit_prior
from pyro_genmodels.training.samples import draw_samples, rejection_sample
from pyro_genmodels.training.settings import TrainingSettings, settings_for

__all__ = [
    "CheckpointError",
    "Evaluation",
    "TrainingSettings",
    "check_prior_run",
    "check_priors",
    "check_run",
    "check_source",
    "draw_samples",
    "encode_codes",
    "evaluate",
    "facts_of",
    "fit",
    "fit_prior",
    "is_helper",
    "load",
    "load_source",
    "prepare_run",
    "rejection_sample",
    "settings_for",
]
