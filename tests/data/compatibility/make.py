"""Makes the runs of this folder: saved by version 0.1.0, before modules moved into families.

Run it only to add what a new format needs, never to renew what an older version wrote:
``python make.py FOLDER``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_genmodels import compression, models, training
from pyro_genmodels.cli import main

SMALL = ["--data.train", "64", "--data.validation", "16", "--data.test", "16"]
QUICK = ["--max_epochs", "2", "--batch_size", "16", "--num_samples", "0", "--seed", "1"]
QUICK += ["--progress", "false", "--accelerator", "cpu"]
PRIOR = ["--prior.max_epochs", "1", "--prior.model.hidden_channels", "4"]
PRIOR += ["--prior.model.num_blocks", "1", "--prior.model.num_layers", "1"]
SIDE = {"nvae": 8}
RUNS: dict[str, tuple[str, list[str]]] = {
    "vae": ("VAE", ["hidden=[8]", "latent_dim=2"]),
    "beta_vae": ("BetaVAE", ["hidden=[8]", "latent_dim=2", "first_beta=0.5", "warmup_steps=4"]),
    "realnvp": ("realnvp", ["width=4", "num_couplings=1", "num_scales=1", "num_blocks=1"]),
    "glow": ("glow", ["width=4", "num_steps=1", "num_scales=1"]),
    "pixelcnn": ("pixelcnn", ["hidden_channels=4", "num_blocks=1"]),
    "pixelcnn_pp": ("pixelcnn_pp", ["hidden_channels=4", "num_resnets=1", "num_scales=1"]),
    "nvae": ("NVAE", ["channels=4", "latent_channels=2", "num_groups=[1]", "num_cells=1"]),
    "vqvae": ("VQVAE", ["hidden_channels=4", "residual_channels=4", "num_codes=4", "code_dim=2"]),
}
MORE = {"nvae": ["num_blocks=1", "cells_per_block=1"], "vqvae": ["num_blocks=1", "reduction=2"]}


def command(*words: object) -> None:
    """Run the command line."""
    status = main([str(word) for word in words])
    assert status == 0, words


def train(name: str, run: Path) -> None:
    """Train a run, and drop what a test does not read."""
    maker, options = RUNS[name]
    side = SIDE.get(name, 4)
    words = ["train", maker, "--data", "ising", "--data.height", side, "--data.width", side]
    words += [f"--model.{option}" for option in [*options, *MORE.get(name, [])]]
    words += ["--stages", "all", *PRIOR] if name == "vqvae" else []
    command(*words, *SMALL, *QUICK, "--run", run)
    for pattern in ("**/*.png", "**/metrics.csv"):
        for path in run.glob(pattern):
            path.unlink()
    for path in run.rglob("tensorboard"):
        shutil.rmtree(path)
    if name not in ("vae", "vqvae"):
        (run / "checkpoints" / "last.ckpt").unlink()


def scores(run: Path, x: torch.Tensor) -> dict[str, Any]:
    """Score data in float64, by what their model has: codes, log-probabilities, weights."""
    model = training.load(run).double()
    pyro.set_rng_seed(0)
    found: dict[str, Any] = {"x": x}
    with torch.no_grad():
        found["log_weights"] = model.log_weights(x, num_particles=3)
        if isinstance(model, models.VectorQuantizedModel):
            found["codes"] = list(model.code_maps(x))
    return found


def make_param_store(folder: Path) -> None:
    """Train a small VAE by SVI and save Pyro's store."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    vae = models.VAE((3,), latent_dim=2, network=models.VAENetwork(hidden=(4,)))
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(3):
        svi.step(torch.randn(8, 3))
    pyro.get_param_store().save(str(folder / "param_store.pt"))
    params = {name: value.detach() for name, value in pyro.get_param_store().items()}
    torch.save(params, folder / "param_store_values.pt")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    for name in RUNS:
        train(name, folder / name)
        x = training.load_source(folder / name).test[:8][0]
        torch.save(scores(folder / name, x), folder / name / "scores.pt")
    resumed = folder / "resumed"
    shutil.copytree(folder / "vae", resumed)
    command("train", "--run", resumed, "--resume", "--max_epochs", 4)
    state = torch.load(resumed / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    torch.save(state, folder / "vae" / "resumed.pt")
    torch.save(training.load(resumed).state_dict(), folder / "vae" / "resumed_loaded.pt")
    shutil.rmtree(resumed)
    model = training.load(folder / "pixelcnn")
    x = torch.load(folder / "pixelcnn" / "scores.pt")["x"]
    (folder / "pixelcnn" / "compressed.bin").write_bytes(compression.compress_images(model, x))
    make_param_store(folder)
