"""Training on Lightning's Trainer: runs, checkpoints, averaged weights, evaluation.

Importing this package needs no extra; :func:`fit` needs ``train``.
"""

from pyro_genmodels.training.batches import check_source, facts_of
from pyro_genmodels.training.checkpoint import (
    CheckpointError,
    load,
    load_source,
    run_data,
)
from pyro_genmodels.training.codes import encode_codes
from pyro_genmodels.training.data_fingerprint import DataFingerprint, fingerprint_kind
from pyro_genmodels.training.evaluation import Evaluation, evaluate
from pyro_genmodels.training.fitting import check_run, fit, is_helper, prepare_run
from pyro_genmodels.training.history import diagnosis, trained_epoch
from pyro_genmodels.training.prior_stage import check_prior_run, check_priors, fit_prior
from pyro_genmodels.training.samples import (
    draw_picture,
    draw_samples,
    picture_title,
    rejection_sample,
)
from pyro_genmodels.training.settings import TrainingSettings, settings_for

__all__ = [
    "CheckpointError",
    "DataFingerprint",
    "Evaluation",
    "TrainingSettings",
    "check_prior_run",
    "check_priors",
    "check_run",
    "check_source",
    "diagnosis",
    "draw_picture",
    "draw_samples",
    "encode_codes",
    "evaluate",
    "facts_of",
    "fingerprint_kind",
    "fit",
    "fit_prior",
    "is_helper",
    "load",
    "load_source",
    "picture_title",
    "prepare_run",
    "rejection_sample",
    "run_data",
    "settings_for",
    "trained_epoch",
]
