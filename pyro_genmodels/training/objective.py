"""From settings to the loss that is trained."""

from __future__ import annotations

from pyro_genmodels.models import ELBOLoss, GenerativeModel
from pyro_genmodels.training.settings import TrainingSettings


def make_loss(model: GenerativeModel, settings: TrainingSettings) -> ELBOLoss:
    """Return the loss of a model under these settings.

    Raises:
        ValueError: If the model has nothing to train, or an objective of its own beside which
            there is no importance-weighted bound.
    """
    return ELBOLoss(
        model,
        num_particles=settings.num_particles,
        importance=settings.objective != "elbo",
        doubly_reparameterized=settings.objective == "dreg",
    )
