"""One call trains a model into a run folder, or takes an interrupted run up again."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pyro

from pyro_genmodels._checks import check, require
from pyro_genmodels._modules import begin_training
from pyro_genmodels._progress import progress_shown
from pyro_genmodels.data import DataSource
from pyro_genmodels.models import GenerativeModel
from pyro_genmodels.training.batches import check_dataset, check_source, in_memory, whole
from pyro_genmodels.training.checkpoint import (
    BEST,
    COMPLETE,
    FOLDER,
    LAST,
    SECTION,
    check_resumable,
    load_weights,
    read,
    run_data,
)
from pyro_genmodels.training.history import best_epoch
from pyro_genmodels.training.objective import make_loss
from pyro_genmodels.training.samples import save_picture
from pyro_genmodels.training.settings import TrainingSettings, settings_for

if TYPE_CHECKING:
    import lightning.pytorch as lightning

    from pyro_genmodels.training.engine.callbacks import Journal
    from pyro_genmodels.training.engine.training_module import TrainingModule


# One epoch at a rate that moves nothing, after expectation-maximisation: it validates the fit, and
# writes all that a run has.
_AFTER_EM: Mapping[str, Any] = MappingProxyType(
    {
        "max_epochs": 1,
        "learning_rate": 1e-12,
        "final_learning_rate": None,
        "schedule": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "ema_decay": None,
    }
)


def fit(
    model: GenerativeModel,
    source: DataSource,
    *,
    run: str | os.PathLike[str],
    resume: bool = False,
    overwrite: bool = False,
    accept_other_data: bool = False,
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> list[dict[str, float]]:
    """Train a model with Lightning.

    The run's folder gets ``metrics.csv``, ``checkpoints/best.ckpt`` and ``last.ckpt``,
    ``samples.png``, ``curves.png`` and TensorBoard's logs. The last checkpoint is written after
    each epoch; a run that was killed at any moment and resumed ends with the same parameters, bit
    for bit, as one that was not (same settings, CPU).

    A model that ``fit_em`` fits, such as a mixture of Gaussians, is fitted by that, unless
    ``em_starts=0``; one epoch then validates it and writes the run's files.

    What is frozen stays as it is: parameters with ``requires_grad=False``, and the buffers of parts
    in eval mode of a model in training mode. A model in eval mode is put in training mode, but for
    the parts that were so held when it was last trained, and quantisers held by ``freeze()``. So
    call ``model.train()`` before ``eval()`` on a part of a model that was loaded or trained before,
    and ``model.train()`` alone to train all parts again.

    Args:
        model: The model; it ends in eval mode with its best (averaged) weights.
        source: Data that fit it.
        run: Folder for all that training writes.
        resume: Go on from the folder's last checkpoint, from the start if there is none yet.
        overwrite: Train anew into a folder that holds a run.
        accept_other_data: Resume on other data than the run was trained on, which are its data
            from then on: results of before do not count when the best weights are chosen.
        callbacks: Further callbacks of Lightning's.
        **settings: Fields of :class:`TrainingSettings`; the model family's own by default.

    Returns:
        One row an epoch: epoch, step, seconds, losses in nats per example and bits/dim.
        :func:`diagnosis` says whether they look like those of a run that was too short or overfits.

    Raises:
        ValueError: If a setting is impossible, or the data do not fit the model or are constant in
            a column, which cannot be standardised; or if they are others than those of the run to
            resume, unless they are accepted.
        CheckpointError: If the checkpoint to resume from cannot be read.
        FileExistsError: If the folder holds a run and neither ``resume`` nor ``overwrite``.
        TrainingError: If a loss is not finite or a parameter gets no gradient.
        ImportError: If the ``train`` extra is not installed.
    """
    accepted = {"resume": resume, "accept_other_data": accept_other_data}
    chosen = check_run(model, source, run, **accepted, **settings)
    last = Path(run) / FOLDER / LAST
    resumes = resume and last.is_file()
    # Compared before the run is touched: results on other data are no measure of the weights.
    changed = resumes and accept_other_data and bool(run_data(last).differences(source))
    from pyro_genmodels.training.engine.callbacks import Journal

    with _undone_unless_trained(model), progress_shown(chosen.progress):
        if chosen.standardize and not resumes and not model.is_trained:
            model.standardize(source.train)
        # The scale is settled: by the data, by the run to resume, or by the caller.
        model.standardization.awaits_batch = False
        folder = prepare_run(run, resume=resume, overwrite=overwrite)
        model.expect_examples(len(source.train))  # type: ignore[arg-type]
        if _uses_em(model, chosen) and not resumes:
            _fit_by_em(model, source, chosen)
        journal = Journal(folder, other_data=changed)
        return _train(model, source, journal, chosen, callbacks, last if resumes else None)


def _uses_em(model: GenerativeModel, settings: TrainingSettings) -> bool:
    return model.fits_by_em and settings.em_starts > 0


def _fit_by_em(model: Any, source: DataSource, settings: TrainingSettings) -> None:
    x, labels = whole(source.train, model)
    known = {} if labels is None else {"labels": labels}
    result = model.fit_em(x, num_starts=settings.em_starts, seed=settings.seed, **known)
    if settings.progress and not is_helper():
        print(f"expectation-maximisation: {result}")


@contextmanager
def _undone_unless_trained(model: GenerativeModel) -> Iterator[None]:
    """Unset the scale if the training fails before its first step: it may be of other data."""
    units = model.standardization
    was_set, awaited = units.is_set, units.awaits_batch
    try:
        yield
    except BaseException:
        if not model.is_trained:
            units.awaits_batch = awaited
            if not was_set:
                units.unset()
                model.shared_pass.clear()
        raise


def check_run(
    model: GenerativeModel,
    source: DataSource,
    run: str | os.PathLike[str],
    *,
    resume: bool = False,
    accept_other_data: bool = False,
    **settings: Any,
) -> TrainingSettings:
    """Check all that can be known before a run, while its folder is still as it was.

    Returns:
        The settings given, the model family's own where none is given.

    Raises:
        ValueError: If a setting is impossible, of any model or of this one, the data do not fit
            the model, cannot be standardised or are not those of the run to resume, or the
            checkpoint to resume from does not fit.
        ImportError: If the ``train`` extra is not installed.
    """
    chosen = settings_for(model, **settings)
    if _uses_em(model, chosen):
        chosen = replace(chosen, **_AFTER_EM)
    make_loss(model, chosen)
    for module in ("lightning.pytorch", "matplotlib.figure"):
        require(module, extra="train")
    check_source(source, model)
    for data in (source.train, source.validation):
        check_dataset(data, model)
    last = Path(run) / FOLDER / LAST
    if resume and last.is_file():
        before = check_resumable(model, last, chosen)
        if "standardize" in settings:
            rule = f"be {before}, as before, or left out"
            check(before == chosen.standardize, "standardize", rule, chosen.standardize)
        chosen = replace(chosen, standardize=before)
        run_data(last).check_same(source, accept_other_data=accept_other_data)
    elif chosen.standardize and in_memory(source.train) and not model.is_trained:
        model.check_columns(source.train)  # of other data, one pass more would cost too much
    return chosen


def prepare_run(
    run: str | os.PathLike[str], *, resume: bool = False, overwrite: bool = False
) -> Path:
    """Make the run's folder.

    Raises:
        FileExistsError: If it holds a run and neither ``resume`` nor ``overwrite``; or, to resume,
            if priors were learned for the codes that its model has.
        OSError: If it cannot be written to.
    """
    folder = Path(run)
    checkpoints = folder / FOLDER
    if is_helper():
        return folder
    if checkpoints.exists() and not resume and not overwrite:
        raise FileExistsError(f"'{folder}' holds a run already: resume it or overwrite it")
    if resume and (checkpoints / COMPLETE).is_file():
        raise FileExistsError(f"'{folder}' has priors for its codes as they are: overwrite it")
    checkpoints.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK) or not os.access(checkpoints, os.W_OK):
        raise PermissionError(f"'{folder}' cannot be written to")
    if overwrite and not resume:
        for name in (COMPLETE, BEST, LAST):
            (checkpoints / name).unlink(missing_ok=True)
        # Priors of a first stage that is no more.
        shutil.rmtree(folder / "prior" / FOLDER, ignore_errors=True)
    return folder


def is_helper() -> bool:
    """Say whether this process was started by Lightning to drive a further device."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def _train(
    model: GenerativeModel,
    source: DataSource,
    journal: Journal,
    settings: TrainingSettings,
    callbacks: Sequence[Any],
    last: Path | None,
) -> list[dict[str, float]]:
    from pyro_genmodels.training.engine.callbacks import Pictures, Progress
    from pyro_genmodels.training.engine.training_module import TrainingModule

    folder = journal.run
    beside = [journal, Pictures(folder), *([Progress()] if settings.progress else []), *callbacks]
    pyro.set_rng_seed(settings.seed)
    begin_training(model)
    module = TrainingModule(model, source, settings, lambda: journal.seconds)
    with _quiet():
        trainer = _trainer(folder, settings, beside)
        try:
            _fit(trainer, module, last)
        finally:
            module.scope.close()
    _take_best(model, folder)
    if trainer.is_global_zero:
        save_picture(model, source, folder, settings, best_epoch(journal.history))
    return journal.history


def _fit(trainer: lightning.Trainer, module: TrainingModule, last: Path | None) -> None:
    # On Ctrl-C Lightning has the signal ignored from then on, and exits the process by itself.
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if in_main else None
    try:
        trainer.fit(module, ckpt_path=last, weights_only=True)
    except SystemExit:
        if not trainer.interrupted:
            raise
    finally:
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
    if trainer.interrupted:
        raise KeyboardInterrupt


def _trainer(folder: Path, settings: TrainingSettings, callbacks: list[Any]) -> lightning.Trainer:
    import lightning.pytorch as lightning
    from lightning.pytorch.loggers import TensorBoardLogger

    from pyro_genmodels.training.engine.checkpoint_io import WholeFiles

    return lightning.Trainer(
        accelerator=settings.accelerator,
        devices=settings.devices,
        precision=settings.precision,
        max_epochs=settings.max_epochs,
        gradient_clip_val=settings.gradient_clip,
        callbacks=callbacks,
        plugins=[WholeFiles()],
        logger=TensorBoardLogger(folder, name="tensorboard", version=""),
        default_root_dir=folder,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,  # the batches know the processes that share them
        inference_mode=False,  # tensors cached while validating must serve in training too
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _take_best(model: GenerativeModel, folder: Path) -> None:
    path = folder / FOLDER / BEST
    if path.is_file():
        model.cpu()
        load_weights(model, read(path)[SECTION]["weights"], path)
    model.eval()


@contextmanager
def _quiet() -> Any:
    """Silence what Lightning says of matters that are settled here."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        settled = ("does not have many workers", "log_every_n_steps", "in eval mode at the start")
        for about in (*settled, "isinstance.treespec", "Your `IterableDataset` has `__len__`"):
            warnings.filterwarnings("ignore", f".*{about}")
        try:
            yield
        finally:
            logger.setLevel(level)
