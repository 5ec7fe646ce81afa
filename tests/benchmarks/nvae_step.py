"""What an NVAE step costs: ``python tests/benchmarks/nvae_step.py``.

The same networks, objective and optimizer in a hand-written loop without Pyro, under ``ELBOLoss``,
with checkpointing, and under Pyro's ``SVI``: with one optimizer for all parameters (`JointOptim`),
with Pyro's, which has one for each, and with Pyro's estimator too; forward and backward pass and
Adamax, on one thread. All run in one process, interleaved step by step, so
that a change of the machine's speed meets all alike; what is printed is medians and their ratios.
``--clock cpu`` counts the thread's own time, for a machine with other work. The bytes are those of
unique storages that live from the forward to the backward pass, parameters and buffers aside.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from pyro.optim import PyroOptim
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_genmodels.models import NVAE, ELBOLoss, NVAENetwork, NVAEObjective
from pyro_genmodels.models.nvae.hierarchy import clamped_normal
from pyro_genmodels.models.nvae.objective import balancing_coefficients, group_weights
from pyro_genmodels.optim import JointOptim
from tests.grouped import grouped

Step = Callable[[Tensor], None]


class HandWritten(nn.Module):
    """The objective of training written out over the model's own networks."""

    def __init__(self, model: NVAE) -> None:
        super().__init__()
        self.nets, self.likelihood = model.hierarchy, model.likelihood
        self.regularizer = model.regularizer
        self.coefficient = model.latent_scale.beta
        self.weights = group_weights(model.hierarchy.sizes.num_groups)

    def forward(self, x: Tensor) -> Tensor:
        nets, x = self.nets, x.float()
        decoder, features = nets.decoder, nets.features(x, None)
        state, numbers, rates = decoder.begin(None), None, []
        for group in range(len(features)):
            if group:
                state = decoder.advance(group, decoder.combine(group - 1, state, z))
                numbers = decoder.prior(group, state)
                p = clamped_normal(*numbers.chunk(2, -3))
            else:
                zeros = state.new_zeros(nets.sizes.latent_shape(0))
                p = clamped_normal(zeros, zeros)
            change = decoder.posterior(group, features[group], state)
            both = change if numbers is None else change + numbers
            q = clamped_normal(*both.chunk(2, -3))
            z = q.loc + q.scale * torch.randn_like(q.scale)
            rates.append(kl_divergence(q, p))
        state = decoder.combine(group, state, z)
        distortion = -self.likelihood(decoder.decode(state)).log_prob(x)
        terms = torch.stack(rates, -1)
        rate = self.coefficient * (terms @ balancing_coefficients(rates, self.weights))
        return (distortion + rate).mean() + self.regularizer(1.0)


def optimizer_step(loss: nn.Module) -> Step:
    optimizer = torch.optim.Adamax(loss.parameters(), lr=1e-3)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()

    return step


def svi_step(model: NVAE, optimizer: PyroOptim, make_elbo: Callable[..., Any]) -> Step:
    svi = SVI(model.model, model.guide, optimizer, make_elbo(max_plate_nesting=1))

    def step(x: Tensor) -> None:
        svi.step(x)

    return step


def svi_steps(options: dict[str, Any]) -> dict[str, Step]:
    joint = partial(JointOptim, torch.optim.Adamax, {"lr": 1e-3})
    pyros = partial(pyro.optim.Adamax, {"lr": 1e-3})
    return {
        "SVI, JointOptim": svi_step(make(options), joint(), NVAE.make_elbo),
        "SVI, Pyro's Adamax": svi_step(make(options), pyros(), NVAE.make_elbo),
        "SVI, Pyro's ELBO, JointOptim": svi_step(make(options), joint(), TraceMeanField_ELBO),
        "SVI, Pyro's ELBO and Adamax": svi_step(make(options), pyros(), TraceMeanField_ELBO),
    }


def make(options: dict[str, Any], *, checkpointing: bool = False) -> NVAE:
    torch.manual_seed(0)
    return NVAE(
        **grouped(NVAE, options),
        objective=NVAEObjective(warmup_steps=10**9),
        network=NVAENetwork(checkpointing=checkpointing),
    )


def kept_bytes(loss: nn.Module, x: Tensor) -> int:
    """Bytes of what a forward pass leaves for its backward pass."""
    before = _storages(_all_tensors())
    saved: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        value = loss(x)
    # What a checkpoint keeps, it keeps in a Python closure: the cells' inputs.
    after = _storages(_all_tensors()) | _storages(saved)
    del value
    return sum(size for key, size in after.items() if key not in before)


def _all_tensors() -> list[Tensor]:
    # By type: isinstance asks objects for their class, and some deprecated ones warn.
    return [o for o in gc.get_objects() if issubclass(type(o), Tensor)]


def _storages(tensors: Any) -> dict[int, int]:
    real = [t for t in tensors if t.device.type != "meta"]
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in real}


def medians(
    steps: dict[str, Step], x: Tensor, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 2):
        for name, step in steps.items():
            start = clock()
            step(x)
            if repeat >= 2:
                seconds[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


LARGER: dict[str, Any] = {
    "event_shape": (3, 16, 16),
    "num_levels": 256,
    "num_groups": (2, 4),
    "channels": 24,
    "num_cells": 2,
}
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "small, as by default, 8x8": ({"event_shape": (1, 8, 8), "num_levels": 17}, 64),
    "larger, 16x16": (LARGER, 16),
    "larger, 16x16, whole batch": (LARGER, 64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    clock = time.perf_counter if arguments.clock == "wall" else time.thread_time
    torch.set_num_threads(1)
    pyro.enable_validation(False)
    for title, (options, batch) in SIZES.items():
        x = torch.randint(options["num_levels"], (batch, *options["event_shape"]))
        losses = {
            "hand-written": HandWritten(make(options)),
            "ELBOLoss": ELBOLoss(make(options), validate=False),
            "ELBOLoss, checkpointing": ELBOLoss(make(options, checkpointing=True), validate=False),
        }
        steps = {name: optimizer_step(loss) for name, loss in losses.items()}
        steps |= svi_steps(options)
        result = medians(steps, x, arguments.repeats, clock)
        kept = {name: kept_bytes(loss, x) for name, loss in losses.items()}
        print(f"{title}, batch {batch}, median of {arguments.repeats} steps")
        for name, seconds in result.items():
            time_ratio = seconds / result["hand-written"]
            row = f"  {name:28} {seconds * 1e3:9.1f} ms {time_ratio:6.3f}x"
            if name in kept:
                byte_ratio = kept[name] / kept["ELBOLoss"]
                row += f"  {kept[name] / batch / 2**20:7.2f} MiB/image kept {byte_ratio:6.3f}x"
            print(row)
        rise = result["ELBOLoss, checkpointing"] / result["ELBOLoss"]
        print(f"  checkpointing: {rise:.2f} times as long")


if __name__ == "__main__":
    main()
