"""Stage two: a run's VQ-VAE gets the priors that were learned on its codes."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyro
import torch

from pyro_genmodels._checks import check
from pyro_genmodels._progress import progress_shown
from pyro_genmodels.data import DataSource
from pyro_genmodels.data.files import read_manifest
from pyro_genmodels.models import (
    AutoregressiveModel,
    LearnedPrior,
    VectorQuantizedModel,
    learned_priors,
)
from pyro_genmodels.models.vqvae import code_model
from pyro_genmodels.training.checkpoint import (
    BEST,
    COMPLETE,
    FOLDER,
    LAST,
    SECTION,
    CheckpointError,
    check_resumable,
    describe,
    find_checkpoint,
    load,
    load_source,
    read,
    run_data,
    save,
)
from pyro_genmodels.training.codes import are_codes_of, encode_codes, raster_order
from pyro_genmodels.training.fitting import fit, is_helper
from pyro_genmodels.training.samples import save_picture
from pyro_genmodels.training.settings import TrainingSettings, settings_for

CODES, PRIOR = "codes", "prior"


def fit_prior(
    run: str | os.PathLike[str],
    *,
    priors: Sequence[LearnedPrior] | None = None,
    source: DataSource | None = None,
    resume: bool = False,
    overwrite: bool = False,
    accept_other_data: bool = False,
    allow: Collection[str] = (),
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> list[dict[str, float]]:
    """Train the priors of a run's VQ-VAE on the codes of its data, and complete it.

    The data are encoded once, into ``RUN/codes``; the priors are trained in ``RUN/prior``, a run
    folder of its own, by :func:`fit`; then the model with its priors is written, whole or not at
    all, beside the first stage's checkpoint, which stays as it is. From then on :func:`load` gives
    the model with its priors.

    Parts of the priors in eval mode stay in it, unless all priors are: then all train but what was
    in eval mode when they were last trained.

    Args:
        run: Folder of a trained VQ-VAE.
        priors: A prior for each map, from the top; ``learned_priors(model)`` by default.
        source: The data, where the run was trained on the caller's own, or where they lie now.
        resume: Go on with a training of the priors, interrupted or not.
        overwrite: Train priors anew, though the run has some.
        accept_other_data: Train on the codes of other data than the run was trained on.
        allow: Full names of classes outside this package that may be imported.
        callbacks: Further callbacks of Lightning's.
        **settings: Fields of :class:`TrainingSettings`; ``num_samples`` is that of the completed
            model's picture.

    Returns:
        One row an epoch, in nats per example and bits per code.

    Raises:
        ValueError: If the run is no VQ-VAE's, the priors do not fit it, a setting is impossible, or
            the data are others than the run's and not accepted.
        FileExistsError: If the run has priors, or an interrupted training of them, and is neither
            to be resumed nor overwritten.
        CheckpointError: If the run has no checkpoint that can be read.
        ImportError: If the ``train`` extra is not installed.
    """
    folder = Path(run)
    model = check_prior_run(folder, resume=resume, overwrite=overwrite, allow=allow)
    chosen = settings_for(AutoregressiveModel, **settings)
    if priors is None:
        pyro.set_rng_seed(chosen.seed)
        priors = learned_priors(model)
    coder = _coder(model, priors)
    written = read(first_stage(folder))[SECTION]["written"]
    if source is None:
        source = load_source(folder, allow=allow, accept_other_data=accept_other_data)
    else:
        run_data(folder).check_same(source, accept_other_data=accept_other_data)
    if resume and not accept_other_data:
        _check_same_codes(folder, model, source, written)
    with progress_shown(chosen.progress):
        device = _device(chosen)
        codes = encode_codes(model.to(device), source, folder / CODES, written=written)
    within = {**settings, "num_samples": 0, "callbacks": callbacks}
    within["accept_other_data"] = accept_other_data
    history = fit(coder, codes, run=folder / PRIOR, resume=resume, overwrite=overwrite, **within)
    if not is_helper():
        _complete(folder, model.cpu(), [prior.cpu() for prior in priors], source, chosen)
    return history


def check_prior_run(
    run: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    allow: Collection[str] = (),
) -> VectorQuantizedModel:
    """Check that a run can get priors, and return its first stage's model.

    Raises:
        ValueError: If the run is no VQ-VAE's.
        FileExistsError: If it has priors, or an interrupted training of them, and is neither to
            be resumed nor overwritten.
        CheckpointError: If it has no checkpoint that can be read.
    """
    folder = Path(run)
    check(folder.is_dir(), "run", "be a run folder", f"'{folder}'")
    model = load(first_stage(folder), allow=allow)
    rule = "hold a VQ-VAE to learn a prior for"
    check(model.has_second_stage, "run", rule, type(model).__name__)
    model = cast(VectorQuantizedModel, model)
    if is_helper() or overwrite:
        return model
    # An overwriting that was interrupted left the old priors, and something to go on with.
    goes_on = resume and (folder / PRIOR / FOLDER / LAST).is_file()
    if (folder / FOLDER / COMPLETE).is_file() and not goes_on:
        raise FileExistsError(f"'{folder}' has a learned prior already: overwrite it")
    if (folder / PRIOR / FOLDER).exists() and not resume:
        raise FileExistsError(f"'{folder / PRIOR}' holds a run already: resume it or overwrite it")
    return model


def check_priors(
    run: str | os.PathLike[str],
    priors: Sequence[LearnedPrior],
    *,
    resume: bool = False,
    **settings: Any,
) -> None:
    """Check that the training of a run's priors can go on with these, if it is to.

    Raises:
        ValueError: If a setting is impossible, or not one to go on with.
        CheckpointError: If the checkpoint is of other priors, or cannot be read.
    """
    chosen = settings_for(AutoregressiveModel, **settings)
    last = Path(run) / PRIOR / FOLDER / LAST
    if resume and last.is_file():
        check_resumable(code_model(priors), last, chosen)


def first_stage(run: str | os.PathLike[str]) -> Path:
    """Return the checkpoint of a run's first stage.

    Raises:
        CheckpointError: If there is none.
    """
    found = find_checkpoint(run, BEST, LAST)
    if found is None:
        raise CheckpointError(f"`run` must be a folder with a checkpoint; got '{run}'.")
    return found


def _coder(model: VectorQuantizedModel, priors: Sequence[LearnedPrior]) -> AutoregressiveModel:
    given = [(tuple(prior.code_shape), prior.num_codes) for prior in priors]
    wanted = [(tuple(law.code_shape), law.num_codes) for law in model.code_priors]
    check(given == wanted, "priors", f"be over {wanted}", given)
    for prior in priors:
        raster = torch.equal(prior.net.order.cpu(), raster_order(prior.code_shape))
        check(raster, "priors", "have networks in raster order", type(prior.net).__name__)
    coder = code_model(priors)
    # Made in training mode; the priors of a model that was loaded are in eval mode, all of them.
    coder.training = any(prior.training for prior in priors)
    fits = (coder.num_classes, coder.context_shape) in (
        (None, None),
        (model.num_classes, model.context_shape),
    )
    check(fits, "priors", "take the model's context or none", coder.num_classes)
    return coder


def _check_same_codes(
    folder: Path, model: VectorQuantizedModel, source: DataSource, written: Mapping[str, Any]
) -> None:
    codes = folder / CODES
    if (folder / PRIOR / FOLDER / LAST).is_file() and read_manifest(codes) is not None:
        same = are_codes_of(model, source, codes, written)
        check(same, "resume", "go on with the codes of the same model and data", "other ones")


def _device(settings: TrainingSettings) -> str:
    cuda = settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return "cuda" if cuda else "cpu"


def _complete(
    folder: Path,
    model: VectorQuantizedModel,
    priors: Sequence[LearnedPrior],
    data: DataSource,
    settings: TrainingSettings,
) -> None:
    model.set_code_priors(priors)
    model.eval()
    own = read(first_stage(folder))[SECTION]
    kept = {name: own[name] for name in ("data", "source") if name in own}
    description = {**describe(model, None), **kept}
    contents = {SECTION: {**description, "weights": model.state_dict()}}
    save(contents, folder / FOLDER / COMPLETE)
    with progress_shown(settings.progress):
        save_picture(model, data, folder, settings)
