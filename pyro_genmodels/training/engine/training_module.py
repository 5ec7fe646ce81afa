"""A model under Lightning: loss, optimizer, averaged weights, validation, random states."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as lightning
import pyro
import torch
from torch import Tensor

from pyro_genmodels.data import DataSource
from pyro_genmodels.metrics import bits_per_dim
from pyro_genmodels.models import GenerativeModel, NonFiniteELBOError
from pyro_genmodels.training.batches import Batch, Batches
from pyro_genmodels.training.checkpoint import SECTION, describe, fill_in, trained_parameters
from pyro_genmodels.training.engine.average import WeightAverage
from pyro_genmodels.training.objective import make_loss
from pyro_genmodels.training.random import random_state, seeded, set_random_state
from pyro_genmodels.training.settings import TrainingSettings

_OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamax": torch.optim.Adamax,
    "rmsprop": torch.optim.RMSprop,
    "sgd": torch.optim.SGD,
}
# Mean nats from which on a latent unit counts as in use.
_ACTIVE = 0.01
_FUSED = ("adam", "adamw", "sgd")


class TrainingError(RuntimeError):
    """Training cannot go on; the message names epoch, step and cause."""


class TrainingModule(lightning.LightningModule):
    """Lightning's view of a model in training.

    Args:
        model: The model to train.
        source: Its data.
        settings: How to train.
        seconds: Tells how long training has gone on.
    """

    def __init__(
        self,
        model: GenerativeModel,
        source: DataSource,
        settings: TrainingSettings,
        seconds: Callable[[], float],
    ) -> None:
        super().__init__()
        self.seconds = seconds
        self.loss = make_loss(model, settings)
        self.source, self.settings = source, settings
        self.description = describe(model, source)
        self.average: WeightAverage | None = None
        self.scope = ExitStack()
        self._restored: dict[str, Any] | None = None
        self._batches: Batches
        self._all_reached = False
        self._total, self._steps = torch.zeros((), dtype=torch.float64), 0
        self._validation: list[Tensor] = []
        self._buffers_before: list[tuple[Tensor, Tensor]] = []
        self.rates: dict[str, float] = {}

    @property
    def model(self) -> GenerativeModel:
        """The model in training."""
        return self.loss.model

    def train_dataloader(self) -> Batches:
        """Return the shuffled minibatches, this process's share of them."""
        settings, trainer = self.settings, self.trainer
        self._batches = Batches(
            self.source.train,
            self.model,
            settings.batch_size,
            seed=settings.seed,
            num_workers=settings.num_workers,
            rank=trainer.global_rank,
            world_size=trainer.world_size,
        )
        if self._restored is not None:
            # Lightning restores loaders only where a checkpoint lies within an epoch.
            self._batches.load_state_dict(self._restored["place"])
        return self._batches

    def val_dataloader(self) -> Batches:
        """Return the validation data in order; all of them in every process."""
        workers = self.settings.num_workers
        return Batches(
            self.source.validation, self.model, self.settings.batch_size, num_workers=workers
        )

    def configure_optimizers(self) -> Any:
        """Return optimizer and schedule."""
        settings = self.settings
        options: dict[str, Any] = {"lr": settings.learning_rate}
        options["weight_decay"] = settings.weight_decay  # also of zero: AdamW's own is another
        if settings.epsilon is not None and settings.optimizer != "sgd":
            options["eps"] = settings.epsilon
        # Fused steps unscale by themselves, which Lightning's clipping under autocast refuses.
        fused = settings.optimizer in _FUSED and "mixed" not in settings.precision
        # Else all parameters together, which on the processor is not the default.
        options["fused" if fused else "foreach"] = True
        optimizer = _OPTIMIZERS[settings.optimizer](self._parameter_groups(), **options)
        if settings.schedule == "constant" and not settings.warmup_steps:
            return optimizer
        # A function: torch keeps nothing of it in the state, of a bound method its attributes.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._rate(step))
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trainable parameters, those that weight decay leaves alone in the second."""
        trainable = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        undecayed = trainable.keys() & set(self.model.undecayed_parameters())
        if not undecayed or not self.settings.weight_decay:
            return [{"params": list(trainable.values())}]
        decayed = [p for name, p in trainable.items() if name not in undecayed]
        spared = [p for name, p in trainable.items() if name in undecayed]
        return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]

    def _rate(self, step: int) -> float:
        rise = min(1.0, (step + 1) / (self.settings.warmup_steps + 1))
        return self.settings.rate(self._progress(step)) * rise

    def _progress(self, step: int) -> float:
        """Return how much of the training is over, from 0 to 1."""
        limit = self.settings.max_time
        if self.settings.schedule_by == "time" and limit is not None:
            return min(1.0, self.seconds() / limit)
        return min(1.0, step / max(1, int(self.trainer.estimated_stepping_batches)))

    def on_fit_start(self) -> None:
        """Start the average, on the device where the parameters now are."""
        self.average = WeightAverage(self.model, self.settings.ema_decay)
        if self._restored is not None:
            self.average.load_state_dict(self._restored["weights"], self._restored["average_steps"])
            self._all_reached = True

    def on_train_start(self) -> None:
        """Go on with the random states of the checkpoint: nothing else draws from here on."""
        if self._restored is not None:
            set_random_state(self._restored["random"])
            self._total = self._restored["total"].to(self._total)
            self._steps = self._restored["steps"]
            self._restored = None
        if self.trainer.world_size > 1:
            # Each process its own noise; a checkpoint has that of one, so resuming is not exact.
            progress = self.current_epoch * self.trainer.world_size
            pyro.set_rng_seed(self.settings.seed + progress + self.global_rank)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Return the loss in nats per example, nothing of a batch that is skipped."""
        x, context = batch
        skips = self.settings.on_nan == "skip"
        self._buffers_before = [(b, b.clone()) for b in self.model.buffers()] if skips else []
        try:
            loss: Tensor = self.loss(x, context)
        except NonFiniteELBOError as error:
            if not skips:
                raise TrainingError(f"{self._where()}: {error}") from error
            warnings.warn(f"{self._where()} is skipped: {error}", stacklevel=1)
            self._restore_buffers()
            return None
        self._total += loss.detach().cpu()
        self._steps += 1
        return loss

    def on_after_backward(self) -> None:
        """Refuse to train on while a parameter stays as it was."""
        if self._all_reached:
            return
        names = self.loss.unreached_parameters()
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            raise TrainingError(
                f"{self._where()}: every trainable parameter must get a gradient; none reached "
                f"{shown} (freeze what shall not train with requires_grad_(False))."
            )
        self._all_reached = True

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Stop at a gradient that is not finite, or drop it if such a batch is to be skipped."""
        # The scaler of 16-mixed leaves such steps out by itself.
        if self.settings.precision == "16-mixed":
            return
        if _are_finite([p.grad for p in self.parameters() if p.grad is not None]):
            return
        rule = "the gradient must be finite"
        if self.settings.on_nan == "stop":
            raise TrainingError(f"{self._where()}: {rule}.")
        warnings.warn(f"{self._where()} is skipped: {rule}.", stacklevel=1)
        self._restore_buffers()
        optimizer.zero_grad()

    def _restore_buffers(self) -> None:
        """Put buffers back: running statistics that have met a NaN would keep it."""
        for buffer, value in self._buffers_before:
            buffer.copy_(value)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step into the average at once: a checkpoint after the step has both."""
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update()

    def on_validation_start(self) -> None:
        """Validate with averaged weights and with the same noise each time."""
        assert self.average is not None
        self._validation = []
        self.scope.enter_context(seeded(self.settings.seed))
        self.scope.enter_context(self.average.in_place())

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the bound of each example, at beta = 1."""
        x, context = batch
        # One batch tells enough, and the pass is one more.
        if batch_idx == 0 and not self.model.weights_are_costly:
            self.rates = _summary(self.model.rates(x, context))
        self._validation.append(self.loss.bound(x, context).detach().double().cpu())

    def on_validation_end(self) -> None:
        """Put training weights and random states back, after the callbacks had theirs."""
        self.scope.close()

    def training_nats(self) -> float | None:
        """Return the mean loss of the epoch so far, ``None`` before its first step."""
        return float(self._total) / self._steps if self._steps else None

    def restart_mean(self) -> None:
        """Begin a new epoch's mean loss."""
        self._total, self._steps = torch.zeros_like(self._total), 0

    def validation_nats(self) -> float:
        """Return the negative bound of the validation data at beta = 1."""
        return -float(torch.cat(self._validation).mean())

    @property
    def counts_bits(self) -> bool:
        """Whether losses are shown in bits per dimension: of whole discrete data."""
        return self.model.num_levels is not None and not self.model.missing

    def in_units(self, nats: float) -> float:
        """Return bits per dimension if :attr:`counts_bits`, else nats per example."""
        if not self.counts_bits:
            return nats
        return bits_per_dim(nats, self.model.event_shape)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what makes the file a checkpoint of this package."""
        checkpoint[SECTION] = {**self.snapshot(), **self._training_state()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the package's part until the devices are set up."""
        fill_in(checkpoint)
        self._restored = checkpoint[SECTION]

    def snapshot(self) -> dict[str, Any]:
        """Return configuration and (averaged) weights: all that :func:`load` needs."""
        assert self.average is not None
        how = {name: getattr(self.settings, name) for name in ("objective", "num_particles")}
        return {**self.description, **how, "weights": self.average.state_dict()}

    def _training_state(self) -> dict[str, Any]:
        assert self.average is not None
        return {
            "optimizer": self.settings.optimizer,
            "standardize": self.settings.standardize,
            "trained": trained_parameters(self.model),
            "average_steps": self.average.steps,
            "random": random_state(),
            "place": self._batches.state_dict(),
            "total": self._total,
            "steps": self._steps,
        }

    def _where(self) -> str:
        return f"epoch {self.current_epoch + 1}, step {self.global_step + 1}"


def _are_finite(gradients: list[Tensor]) -> bool:
    if not gradients or bool(torch.stack([g.sum() for g in gradients]).sum().isfinite()):
        return True
    # Sums, which cost least, may overflow where no entry does.
    return bool(torch.stack([g.isfinite().all() for g in gradients]).all())


def _summary(rates: Mapping[str, Tensor]) -> dict[str, float]:
    """Return each latent site's mean KL in nats, and how many of its units carry anything."""
    summary: dict[str, float] = {}
    for name, nats in rates.items():
        units = nats.flatten(0, -2).mean(0)
        summary[f"rate_{name}"] = float(units.sum())
        if len(units) > 1:
            summary[f"active_units_{name}"] = int((units > _ACTIVE).sum())
    return summary
