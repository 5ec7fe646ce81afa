"""Draw the pages' pictures: ``python docs/pictures.py [RUN]``.

Those of ``mixtures.md`` are of the digits, those of ``hidden_markov.md`` of what its blocks
compute. Those of ``diffusion.md`` need a run, one of VDM on digits: ``pyro-genmodels train vdm
--data digits --conditional --model.context_dropout 0.1 --max_epochs 30``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pyro
import torch

from pyro_genmodels import data, models, plotting, training
from pyro_genmodels.plotting.saving import saved_figure

HERE = Path(__file__).parent / "_static"


def regimes() -> None:
    """Draw the page's third series, and how probable it is that a day is turbulent."""
    text = (HERE.parent / "hidden_markov.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    page: dict[str, Any] = {}
    for block in blocks[:3]:
        exec(block, page)
    returns, truth = page["returns"][2], page["regimes"][2] == 1
    days = range(len(returns))
    with saved_figure(HERE / "regimes.png", size=(8, 4)) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        for axes in (above, below):
            bottom, top = (-8, 8) if axes is above else (0, 1)
            shade = {"color": "0.85", "step": "mid", "label": "turbulent in truth"}
            axes.fill_between(days, bottom, top, where=truth, **shade)
            axes.set_ylim(bottom, top)
        above.plot(days, returns, linewidth=0.8)
        above.set(ylabel="return")
        below.plot(days, page["filtered"][2].detach(), linewidth=1, color="C1", label="filtered")
        below.plot(days, page["smoothed"][2].detach(), color="C0", label="smoothed")
        below.set(xlabel="day", ylabel="probability")
        below.legend()
        below.margins(x=0)


def diffusion(run: str) -> None:
    """Draw a chain for each of six labels, and the bound by noise level over the test digits."""
    pyro.set_rng_seed(0)
    model = training.load(run)
    states, levels = model.trajectory(1, torch.arange(6), num_states=9)
    plotting.save_trajectory(states[:, 0], levels, HERE / "diffusion_chains.png")
    x, label = (part[:100] for part in data.Digits().test.tensors)
    rates = model.rates(x.float(), label)["z"]
    plotting.save_rates(rates, model.levels(), HERE / "diffusion_rates.png")


def mixtures() -> None:
    """Draw the mean of each of ten components of the digits, and what they impute."""
    pyro.set_rng_seed(0)
    source = data.Digits()
    model = models.categorical_mixture((1, 8, 8), 10, num_levels=17, missing=True)
    model.fit_em(source.train.tensors[0].float(), num_starts=1, tol=1e-4)
    levels = torch.arange(17, dtype=torch.float64)
    means = (model.conditional.probabilities() @ levels).reshape(10, 1, 8, 8)
    plotting.save_samples(means, 17, HERE / "mixture_components.png", columns=10)
    whole = source.test.tensors[0][:10].float()
    holes = whole.clone()
    holes[..., 4:, :] = torch.nan
    guess = model.impute(holes, num_samples=20).mean(0)
    rows = torch.cat([whole, holes.nan_to_num(), guess])
    plotting.save_samples(rows, 17, HERE / "mixture_imputed.png", columns=10)


if __name__ == "__main__":
    mixtures()
    regimes()
    for each in sys.argv[1:]:
        diffusion(each)
