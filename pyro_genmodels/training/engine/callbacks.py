"""What happens beside the steps: progress bar, checkpoints, metrics, pictures."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
from tqdm.auto import tqdm

from pyro_genmodels import plotting
from pyro_genmodels.training.checkpoint import BEST, FOLDER, LAST, SECTION, save
from pyro_genmodels.training.engine.training_module import TrainingModule
from pyro_genmodels.training.history import write_csv
from pyro_genmodels.training.samples import picture_title, save_picture

# Pictures may take this share of the time: sampling an autoregressive model outlasts an epoch.
_PICTURE_SHARE = 0.1


class Progress(lightning.Callback):
    """One bar over all steps, with the epoch's mean loss and the last validation result."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: Any = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the bar at the step where training stands."""
        total = int(trainer.estimated_stepping_batches)
        self.unit = "bits/dim" if pl_module.counts_bits else "nats"
        self.bar = tqdm(
            total=total,
            initial=trainer.global_step,
            unit="step",
            dynamic_ncols=True,
            # What matters comes first: a narrow terminal cuts off the rest.
            bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left, {rate_fmt}",
            disable=not trainer.is_global_zero,
            mininterval=0.2,
        )

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step; tqdm itself decides when to draw, and only then is the text made."""
        if self.bar.update(1):
            self._annotate(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Show the validation result."""
        self._annotate(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Leave the finished bar on the screen."""
        self.bar.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """End the bar's line, so that the message has its own."""
        if self.bar is not None:
            self.bar.close()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Say what the wait is for."""
        self.bar.set_description_str(f"epoch {trainer.current_epoch + 1}: validating")

    def _annotate(self, trainer: Any, module: TrainingModule) -> None:
        history = _journal(trainer).history
        fresh = module.training_nats()
        nats = history[-1]["training_nats"] if fresh is None and history else fresh
        text = f"epoch {trainer.current_epoch + 1}: loss {_shown(module.in_units(nats or 0.0))}"
        if history:
            text += f", val {_shown(module.in_units(history[-1]['validation_nats']))}"
        self.bar.set_description_str(f"{text} {self.unit}", refresh=False)


class Journal(lightning.Callback):
    """Keeps the history, the best and the last checkpoint, and the clock.

    The history is part of the checkpoint and the CSV file is written from it, so that a resumed
    run has each epoch once.

    Args:
        run: The run's folder.
        other_data: Whether a resumed run goes on with other data: validation results on those of
            before do not count against those to come.
    """

    def __init__(self, run: Path, *, other_data: bool = False) -> None:
        super().__init__()
        self.run, self._other_data = run, other_data
        self.history: list[dict[str, float]] = []
        self.elapsed, self._since = 0.0, time.monotonic()
        self._whole_epoch = True

    def state_dict(self) -> dict[str, Any]:
        """Return history and time spent."""
        return {"history": self.history, "elapsed": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up history and time again."""
        self.history, self.elapsed = state["history"], state["elapsed"]
        if self._other_data:
            of_before = ("validation_nats", "validation_bits_per_dim")
            blank = [dict.fromkeys(row.keys() & of_before, math.nan) for row in self.history]
            self.history = [row | gone for row, gone in zip(self.history, blank, strict=True)]

    @property
    def seconds(self) -> float:
        """Seconds of training, over all parts of the run."""
        return self.elapsed + time.monotonic() - self._since

    @property
    def best(self) -> float:
        """Best validation result so far, in nats per example; infinite before a finite one."""
        return min(self._validated(), default=math.inf)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop at the time limit; write the last checkpoint between epochs' ends if asked to."""
        settings = pl_module.settings
        late = settings.max_time is not None and self.seconds >= settings.max_time
        every = settings.checkpoint_every
        last_batch = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if last_batch:
            trainer.should_stop = trainer.should_stop or late
        elif late or (every is not None and trainer.global_step % every == 0):
            self._save_last(trainer)
            # The checkpoint stands within the epoch: what follows now must not be written over it.
            self._whole_epoch, trainer.should_stop = not late, late

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Note the epoch's results; keep the weights if they are the best."""
        row = self._row(trainer, pl_module)
        # While none is finite the latest counts: a run has best weights in any case.
        fresh, best = row["validation_nats"], self.best
        if (math.isfinite(fresh) and fresh < best) or not math.isfinite(best):
            self._save_best(trainer, pl_module)
        self.history = [*self.history, row]
        if trainer.is_global_zero:
            write_csv(self.history, self.run / "metrics.csv")
        _log(trainer, row)
        self._stop_if_no_better(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Write the last checkpoint."""
        if self._whole_epoch:
            pl_module.restart_mean()
            self._save_last(trainer)

    def _row(self, trainer: Any, module: TrainingModule) -> dict[str, float]:
        training, validation = module.training_nats() or math.nan, module.validation_nats()
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "seconds": round(self.seconds, 3),
            "learning_rate": trainer.optimizers[0].param_groups[0]["lr"],
            "training_nats": training,
            "validation_nats": validation,
        }
        if module.counts_bits:
            row["training_bits_per_dim"] = module.in_units(training)
            row["validation_bits_per_dim"] = module.in_units(validation)
        return row | module.rates

    def _validated(self) -> list[float]:
        """Each epoch's validation result, infinite where it is not finite: a NaN has no order."""
        values = [row["validation_nats"] for row in self.history]
        return [value if math.isfinite(value) else math.inf for value in values]

    def _stop_if_no_better(self, trainer: Any, module: TrainingModule) -> None:
        patience = module.settings.patience
        values = self._validated()
        if patience is not None and len(values) - 1 - values.index(min(values)) >= patience:
            trainer.should_stop = True

    def _save_last(self, trainer: Any) -> None:
        trainer.save_checkpoint(self.run / FOLDER / LAST)

    def _save_best(self, trainer: Any, module: TrainingModule) -> None:
        if trainer.is_global_zero:
            save({SECTION: module.snapshot()}, self.run / FOLDER / BEST)


class Pictures(lightning.Callback):
    """Draws samples and learning curves while training goes on, as often as is cheap.

    Args:
        run: The run's folder.
    """

    def __init__(self, run: Path) -> None:
        super().__init__()
        self.run, self.spent, self._since = run, 0.0, time.monotonic()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw, unless drawing has taken more than its share of the time."""
        start = time.monotonic()
        if trainer.is_global_zero and self.spent <= _PICTURE_SHARE * (start - self._since):
            epoch = trainer.current_epoch + 1
            model, source = pl_module.model, pl_module.source
            save_picture(model, source, self.run, pl_module.settings, epoch, is_preview=True)
            self._save_curves(trainer, pl_module)
            self.spent += time.monotonic() - start

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Draw the curves to their end."""
        if trainer.is_global_zero:
            self._save_curves(trainer, pl_module)

    def _save_curves(self, trainer: Any, module: TrainingModule) -> None:
        title = picture_title(module.model, module.source)
        plotting.save_curves(_journal(trainer).history, self.run / "curves.png", title=title)


def _shown(loss: float) -> str:
    return f"{loss:.4f}" if abs(loss) < 1000 else f"{loss:.1f}"


def _journal(trainer: Any) -> Journal:
    return next(c for c in trainer.callbacks if isinstance(c, Journal))


def _log(trainer: Any, row: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))
