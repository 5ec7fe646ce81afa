"""Trains a small VAE into the folder given; run by test_resume, which kills it now and then."""

import sys

import torch

from pyro_genmodels import data, models, training

SETTINGS = {
    "max_epochs": 6,
    "batch_size": 64,
    "ema_decay": 0.9,
    "schedule": "cosine",
    "warmup_steps": 10,
    "gradient_clip": 50.0,
    "seed": 3,
    "num_samples": 4,
    "progress": False,
    "checkpoint_every": 7,
    "accelerator": "cpu",
}


def make() -> tuple[models.VAE, data.DataSource]:
    """Dropout and a warm-up of beta, so that random states and buffers matter."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    source = data.Digits()
    model = models.VAE(
        source.event_shape,
        num_levels=17,
        latent_dim=4,
        network=models.VAENetwork(hidden=(32,), dropout=0.2),
        objective=models.KLObjective(warmup_steps=80),
    )
    return model, source


if __name__ == "__main__":
    model, source = make()
    training.fit(model, source, run=sys.argv[1], resume=True, **SETTINGS)
