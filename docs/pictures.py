"""Draw the pictures of ``diffusion.md``: ``python docs/pictures.py RUN``.

The run is one of VDM on digits: ``pyro-genmodels train vdm --data digits --conditional
--model.context_dropout 0.1 --max_epochs 30``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyro
import torch

from pyro_genmodels import data, plotting, training

HERE = Path(__file__).parent / "_static"


def main(run: str) -> None:
    """Draw a chain for each of six labels, and the bound by noise level over the test digits."""
    pyro.set_rng_seed(0)
    model = training.load(run)
    states, levels = model.trajectory(1, torch.arange(6), num_states=9)
    plotting.save_trajectory(states[:, 0], levels, HERE / "diffusion_chains.png")
    x, label = (part[:100] for part in data.Digits().test.tensors)
    rates = model.rates(x.float(), label)["z"]
    plotting.save_rates(rates, model.levels(), HERE / "diffusion_rates.png")


if __name__ == "__main__":
    main(sys.argv[1])
