"""Stage two in a run folder: codes on disk, priors trained on them, the model completed."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("lightning.pytorch")

from pyro_genmodels import data, metrics, models, training
from pyro_genmodels.data import Codes
from pyro_genmodels.models.vqvae.learned_priors import learned_priors
from pyro_genmodels.training import prior_stage
from pyro_genmodels.training.codes import flat_codes
from tests.grouped import grouped

QUICK: dict[str, Any] = {
    "progress": False,
    "num_samples": 0,
    "accelerator": "cpu",
    "batch_size": 32,
    "max_epochs": 1,
}
TINY = {"hidden_channels": 4, "num_blocks": 1, "num_layers": 1, "num_heads": 1, "embedding_size": 3}
SIZES = {"num_levels": 17, "num_codes": 6, "dim": 3, "hidden_channels": 4}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> data.DataSource:
    """Few digits, in a file: a run's data must be found again."""
    path, digits = tmp_path_factory.mktemp("data") / "digits.npz", data.Digits()
    parts = {name: digits.splits[name].tensors for name in digits.splits}  # type: ignore[attr-defined]
    arrays = {name: x[:64].numpy() for name, (x, _) in parts.items()}
    labels = {f"{name}_labels": y[:64].numpy() for name, (_, y) in parts.items()}
    np.savez(path, **arrays, **labels)
    return data.FromFile(str(path), num_levels=17, num_classes=10)


def vqvae2() -> models.VQVAE2:
    torch.manual_seed(0)
    sizes = {**SIZES, "reduction": 2, "residual_channels": 3}
    return models.VQVAE2((1, 8, 8), num_classes=10, **grouped(models.VQVAE2, sizes))


@pytest.fixture(scope="module")
def trained(source: data.DataSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vqvae2"
    training.fit(vqvae2(), source, run=folder, **QUICK)
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture(scope="module")
def completed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completed") / "run"
    shutil.copytree(trained, folder)
    fit(folder)
    return folder


def fit(folder: Path, **options: Any) -> Any:
    priors = learned_priors(training.load(folder / "checkpoints" / "best.ckpt"), **TINY)  # type: ignore[arg-type]
    return training.fit_prior(folder, priors=priors, **{**QUICK, **options})


def test_a_completed_run_keeps_its_first_stage(trained: Path, completed: Path) -> None:
    best = Path("checkpoints") / "best.ckpt"
    assert (completed / best).read_bytes() == (trained / best).read_bytes()
    first: Any = training.load(completed / best)
    whole: Any = training.load(completed)
    assert (first.prior_kind, whole.prior_kind) == ("uniform", "learned")
    before, after = first.state_dict(), whole.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if not k.startswith("priors"))


def test_the_evaluation_gains_what_the_codes_did(completed: Path, source: data.DataSource) -> None:
    first = training.evaluate(training.load(completed / "checkpoints" / "best.ckpt"), source)
    whole = training.evaluate(training.load(completed), source)
    assert first.codes is not None
    assert whole.codes is not None
    assert math.isclose(first.codes.mean, 20 * math.log(6), rel_tol=1e-5)
    gained = first.codes.mean - whole.codes.mean
    assert math.isclose(first.nats.mean - whole.nats.mean, gained, rel_tol=1e-4)
    assert "under the learned prior" in str(whole)
    assert "under the uniform prior" in str(first)


def test_codes_on_disk_are_the_model_s(completed: Path, source: Any) -> None:
    model: Any = training.load(completed)
    codes = Codes(str(completed / "codes"))
    assert [tuple(shape) for shape in codes.code_shapes] == [(2, 2), (4, 4)]
    x, labels = source.test.tensors
    stored, kept = codes.test.tensors
    assert stored.dtype == torch.uint8
    assert torch.equal(stored.long(), flat_codes(model, x, labels))
    assert torch.equal(kept, labels)
    top, bottom = model.encode_codes(x, labels)
    assert torch.equal(stored[:, :4].long(), top.flatten(1))
    assert torch.equal(stored[:, 4:].long(), bottom.flatten(1))


def test_codes_are_mapped_not_read(completed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, load = list[Any](), np.load

    def spy(*arguments: Any, **options: Any) -> Any:
        arrays.append(load(*arguments, **options))
        return arrays[-1]

    monkeypatch.setattr("pyro_genmodels.data.files.codes.np.load", spy)
    splits: Any = Codes(str(completed / "codes")).splits.values()
    assert all(isinstance(array, np.memmap) for array in arrays)
    # The tensors are the mapped arrays themselves, codes and labels of each part.
    tensors = [tensor for dataset in splits for tensor in dataset.tensors]
    assert [x.data_ptr() for x in tensors] == [array.ctypes.data for array in arrays]
    assert [tuple(x.shape) for x in tensors[:2]] == [(64, 20), (64,)]


def test_codes_are_made_once_and_anew_for_another_model_or_other_data(tmp_path: Path) -> None:
    model, folder = vqvae2().eval(), tmp_path / "codes"
    images, labels = torch.randint(17, (40, 1, 8, 8)), torch.arange(40) % 10

    def source(shift: int) -> data.InMemory:
        return data.InMemory(
            ((images + shift) % 17, labels), num_levels=17, num_classes=10, test_fraction=0.25
        )

    def marks() -> tuple[int, str]:
        made = training.encode_codes(model, source(shift), folder)
        return (folder / "train.npy").stat().st_ino, made.fingerprint

    shift = 0
    first = marks()
    assert marks() == first
    shift = 1
    other_data = marks()
    assert other_data[1] != first[1]
    assert other_data[0] != first[0]
    with torch.no_grad():
        model.encoders[0].strided[0].bias += 0.5  # type: ignore[union-attr,operator]
    assert marks()[1] != other_data[1]
    # A prior is no part of what codes depend on.
    before = marks()
    model.set_code_priors(learned_priors(model, **TINY))  # type: ignore[arg-type]
    assert marks() == before
    # Without the manifest, which is written last, nothing is taken for whole.
    (folder / "codes.json").unlink()
    with pytest.raises(ValueError, match=r"codes\.json"):
        Codes(str(folder))
    assert marks()[0] != before[0]
    assert not list(folder.glob(".*"))


def test_half_written_codes_are_never_taken(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise OSError("disk full")
        return flat_codes(*arguments)

    monkeypatch.setattr("pyro_genmodels.training.codes.flat_codes", failing)
    with pytest.raises(OSError, match="disk full"):
        fit(run)
    monkeypatch.undo()
    assert not (run / "codes" / "codes.json").exists()
    assert not list((run / "codes").glob(".*"))
    fit(run)
    assert training.load(run).prior_kind == "learned"  # type: ignore[attr-defined]


def test_the_whole_model_is_written_or_not_at_all(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prior_stage, "save", failing)
    with pytest.raises(KeyboardInterrupt):
        fit(run)
    monkeypatch.undo()
    assert training.load(run).prior_kind == "uniform"  # type: ignore[attr-defined]
    with pytest.raises(FileExistsError, match="resume it or overwrite it"):
        fit(run)
    fit(run, resume=True)
    assert training.load(run).prior_kind == "learned"  # type: ignore[attr-defined]


def test_a_prior_that_is_there_is_not_lost_by_mistake(
    completed: Path, tmp_path: Path, source: data.DataSource
) -> None:
    folder = shutil.copytree(completed, tmp_path / "run")
    before = (folder / "checkpoints" / "complete.ckpt").read_bytes()
    with pytest.raises(FileExistsError, match="has a learned prior already"):
        fit(folder)
    with pytest.raises(FileExistsError, match="has priors for its codes as they are"):
        training.fit(vqvae2(), source, run=folder, resume=True, **QUICK)
    assert (folder / "checkpoints" / "complete.ckpt").read_bytes() == before
    fit(folder, overwrite=True, max_epochs=2)
    assert (folder / "checkpoints" / "complete.ckpt").read_bytes() != before
    # Trained anew, the first stage has other codes.
    training.fit(vqvae2(), source, run=folder, overwrite=True, **QUICK)
    assert training.load(folder).prior_kind == "uniform"  # type: ignore[attr-defined]
    assert training.check_prior_run(folder).prior_kind == "uniform"


@pytest.mark.slow
def test_an_interrupted_training_does_not_go_on_with_other_codes(
    run: Path, source: data.DataSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prior_stage, "_complete", failing)
    with pytest.raises(KeyboardInterrupt):
        fit(run)
    monkeypatch.undo()
    training.fit(vqvae2(), source, run=run, resume=True, **{**QUICK, "max_epochs": 2})
    with pytest.raises(ValueError, match="go on with the codes of the same model and data"):
        fit(run, resume=True)


def test_what_cannot_have_a_prior_is_refused(
    run: Path, tmp_path: Path, source: data.DataSource
) -> None:
    with pytest.raises(ValueError, match="`run` must be a run folder"):
        training.fit_prior(tmp_path / "none")
    other = learned_priors(models.VQVAE((1, 8, 8), codebook=6, num_levels=17), **TINY)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`priors` must be over"):
        training.fit_prior(run, priors=other, **QUICK)
    vae = models.VAE((1, 8, 8), num_levels=17, latent_dim=2, network=models.VAENetwork(hidden=(4,)))
    training.fit(vae, source, run=tmp_path / "vae", **QUICK)
    with pytest.raises(ValueError, match="hold a VQ-VAE to learn a prior for; got VAE"):
        training.fit_prior(tmp_path / "vae", **QUICK)


@pytest.mark.slow
def test_data_of_the_caller_s_own_and_features_as_context(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = grouped(models.VQVAE, {**SIZES, "reduction": 2})
    model = models.VQVAE((1, 8, 8), context_shape=(2,), **sizes)
    x, features = torch.randint(17, (60, 1, 8, 8)), torch.randn(60, 2)
    source = data.InMemory(x, num_levels=17)
    # No source of the package has features beside its images.
    for name in ("train", "validation", "test"):
        setattr(source, name, torch.utils.data.TensorDataset(x[:20], features[:20]))
    training.fit(model, source, run=tmp_path / "run", **QUICK)
    priors = learned_priors(model, **TINY)  # type: ignore[arg-type]
    training.fit_prior(tmp_path / "run", priors=priors, source=source, **QUICK)
    whole: Any = training.load(tmp_path / "run")
    assert whole.sample(2, features[:3]).shape == (2, 3, 1, 8, 8)
    estimate = metrics.elbo(whole, x[:5], features[:5])
    assert torch.isfinite(estimate).all()


def test_rejection_keeps_the_best() -> None:
    drawn: list[torch.Tensor] = []

    def draw(n: int) -> torch.Tensor:
        drawn.append(torch.randn(n, 2))
        return drawn[-1]

    kept = training.rejection_sample(draw, lambda x: x[:, 0], 10, keep=0.02, chunk=64)
    every = torch.cat(drawn)
    assert len(every) == 500
    assert torch.equal(kept, every[every[:, 0].argsort(descending=True)[:10]])
    with pytest.raises(ValueError, match="`keep`"):
        training.rejection_sample(draw, lambda x: x[:, 0], 10, keep=0.0)
    with pytest.raises(ValueError, match="`score`"):
        training.rejection_sample(draw, lambda x: x, 10)


def test_rejection_of_a_model_s_samples_raises_the_score(completed: Path) -> None:
    """The score is a classifier's, here how much ink there is."""
    model: Any = training.load(completed)
    label = torch.tensor(3)

    def draw(n: int) -> torch.Tensor:
        return model.sample(n, label, temperature=0.9)

    def ink(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1).sum(1)

    torch.manual_seed(0)
    kept = training.rejection_sample(draw, ink, 4, keep=0.25)
    assert kept.shape == (4, 1, 8, 8)
    assert ink(kept).mean() > ink(draw(16)).mean()
