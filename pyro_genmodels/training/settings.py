"""How to train: one flat list of settings, shared by Python, the command line and YAML."""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any, Literal

from pyro_genmodels._checks import (
    check,
    check_choice,
    check_integers,
    check_positive,
    integers_declared,
)
from pyro_genmodels.models import GenerativeModel

_POSITIVE = ("max_epochs", "batch_size", "learning_rate", "num_particles", "devices")
_POSITIVE_IF_GIVEN = ("max_time", "epsilon", "gradient_clip", "patience", "checkpoint_every")


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of a training run.

    Args:
        max_epochs: Passes over the training data.
        max_time: Seconds of training, over all resumed parts, after which it stops early.
        batch_size: Examples a step, on each device.
        objective: What is trained: the model's own objective, ``"elbo"``; or, of a model whose own
            is a plain ELBO, the importance-weighted bound of ``num_particles`` draws, ``"iwae"``.
            With many draws the encoder's gradient drowns in noise: ``"dreg"`` is the same bound,
            with the doubly reparameterized gradient. Validation is by the bound that is trained.
        num_particles: Draws from the guide for each example.
        learning_rate: Step size of the optimizer, at its peak.
        em_starts: Starts of expectation-maximisation, of a model that it fits
            (:attr:`GenerativeModel.fits_by_em <pyro_genmodels.models.GenerativeModel.fits_by_em>`),
            in the place of training by gradients; 0 trains such a model by gradients, as all others
            are.
        optimizer: Rule that updates the parameters.
        standardize: Set the shift and scale of continuous data by the training data, so that
            networks see data of mean zero and deviation one; see :meth:`GenerativeModel.standardize
            <pyro_genmodels.models.GenerativeModel.standardize>`. Nats stay those of the data. A
            model that has been trained before, or whose parameters came from a run, is left as it
            is, as are data with levels or in a bounded range.
        weight_decay: Weight decay of the optimizer.
        epsilon: What the optimizer adds to its denominator, if it has one; torch's own by default.
        schedule: Course of the learning rate: constant, along a half cosine, or exponential.
        final_learning_rate: Where that course ends; by default the cosine at zero, the exponential
            at a hundredth of the peak.
        schedule_by: What the course runs over: all ``"steps"``, or ``"time"`` up to ``max_time``,
            so that it ends with a limited time on a machine of any speed (one device only; such a
            run cannot be repeated to the bit).
        warmup_steps: Steps over which the learning rate rises linearly from zero.
        gradient_clip: Largest norm of the whole gradient; none by default.
        ema_decay: Decay of the averaged weights that are validated, kept and loaded; none averages
            nothing.
        on_nan: What follows a batch whose loss or gradient is not finite: to ``"stop"`` with an
            error, or to ``"skip"`` the batch with a warning (one device only). Either names epoch
            and step.
        precision: Numeric precision of Lightning: 32-true, 16-mixed, bf16-mixed or 64-true.
        accelerator: Lightning's accelerator: auto, cpu, gpu ...
        devices: Number of devices; several train with DistributedDataParallel.
        patience: Epochs without a better validation result after which training stops.
        checkpoint_every: Also write the last checkpoint every so many steps.
        num_workers: Processes that load data which are not in memory.
        num_samples: Samples on the picture drawn during training; 0 draws none.
        seed: Seed of the random numbers and of the order of the data.
        progress: Show a progress bar.

    Raises:
        ValueError: If a setting is impossible.
    """

    max_epochs: int = 100
    max_time: float | None = None
    batch_size: int = 128
    learning_rate: float = 1e-3
    objective: Literal["elbo", "iwae", "dreg"] = "elbo"
    num_particles: int = 1
    em_starts: int = 5
    optimizer: Literal["adam", "adamw", "adamax", "rmsprop", "sgd"] = "adam"
    standardize: bool = True
    weight_decay: float = 0.0
    epsilon: float | None = None
    schedule: Literal["constant", "cosine", "exponential"] = "constant"
    final_learning_rate: float | None = None
    schedule_by: Literal["steps", "time"] = "steps"
    warmup_steps: int = 0
    gradient_clip: float | None = None
    ema_decay: float | None = None
    on_nan: Literal["stop", "skip"] = "stop"
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"] = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    patience: int | None = None
    checkpoint_every: int | None = None
    num_workers: int = 0
    num_samples: int = 64
    seed: int = 0
    progress: bool = True

    def __post_init__(self) -> None:
        check_integers(integers_declared(type(self).__annotations__), vars(self))
        for name, hint in typing.get_type_hints(type(self)).items():
            if typing.get_origin(hint) is Literal:
                check_choice(name, getattr(self, name), typing.get_args(hint))
        self._check_final_rate()
        rule = "be 'stop' on several devices, which go in step"
        check(self.on_nan == "stop" or self.devices == 1, "on_nan", rule, repr(self.on_nan))
        timed = self.max_time is not None and self.devices == 1
        rule = "be 'steps' without max_time, and on several devices"
        check(timed or self.schedule_by == "steps", "schedule_by", rule, repr(self.schedule_by))
        given = {name: value for name, value in vars(self).items() if value is not None}
        names = (*_POSITIVE, *_POSITIVE_IF_GIVEN)
        check_positive(**{name: given[name] for name in names if name in given})
        for name in ("weight_decay", "em_starts", "warmup_steps", "num_workers", "num_samples"):
            check(given[name] >= 0, name, "be at least 0", given[name])
        # 2**31: the seed of an epoch's order is the seed and the epoch side by side in 63 bits.
        check(0 <= self.seed < 2**31, "seed", "be from 0 to 2**31 - 1", self.seed)
        if self.ema_decay is not None:
            check(0 < self.ema_decay < 1, "ema_decay", "lie between 0 and 1", self.ema_decay)

    def _check_final_rate(self) -> None:
        final, peak = self.final_learning_rate, self.learning_rate
        if final is not None and self.schedule != "constant":
            above = final > 0 if self.schedule == "exponential" else final >= 0
            rule = f"lie between 0 and learning_rate, {peak:g}"
            check(above and final <= peak, "final_learning_rate", rule, final)

    def rate(self, progress: float) -> float:
        """Return the learning rate over its peak, after this part of its course.

        Args:
            progress: From 0 to 1.
        """
        final = self.final_learning_rate
        if self.schedule == "cosine":
            last = (final or 0.0) / self.learning_rate
            return last + (1 - last) * 0.5 * (1 + math.cos(math.pi * progress))
        if self.schedule == "exponential":
            last = 0.01 if final is None else final / self.learning_rate
            return float(last**progress)
        return 1.0


def settings_for(model: GenerativeModel | type[GenerativeModel], **given: Any) -> TrainingSettings:
    """Return the settings given, the model family's own where none is given.

    Raises:
        ValueError: If a name is unknown or a value impossible.
    """
    known = {field.name for field in dataclasses.fields(TrainingSettings)}
    chosen = {**model.training_defaults, **given}
    for name in chosen:
        check(name in known, "settings", f"be among {', '.join(sorted(known))}", repr(name))
    return TrainingSettings(**chosen)
