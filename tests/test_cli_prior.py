"""``train prior`` and ``--stages all``: both stages of a VQ-VAE from the command line."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("jsonargparse")
pytest.importorskip("lightning.pytorch")

from pyro_genmodels import models, nets, training
from pyro_genmodels.cli import main, prior
from pyro_genmodels.cli.plan import Plan
from pyro_genmodels.data import Digits, mu_law_encode

QUICK = ["--max_epochs", "1", "--num_samples", "4", "--progress", "false", "--accelerator", "cpu"]
NETWORK = "--model.network."
SIZES = ["--model.codebook", "6", "--model.codebook.dim", "3", f"{NETWORK}hidden_channels", "4"]
SMALL = [*SIZES, f"{NETWORK}residual_channels", "3", f"{NETWORK}reduction", "2"]
PRIOR = ["--model.hidden-channels", "8", "--model.num_blocks", "1", "--model.num_layers", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vqvae"
    words = ["train", "vqvae", "--data", "digits", "--run", str(folder), *SMALL, *QUICK]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="module")
def completed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completed") / "vqvae"
    shutil.copytree(trained, folder)
    assert main(["train", "prior", str(folder), *PRIOR, *QUICK]) == 0
    return folder


def test_a_run_gets_its_prior(
    trained: Path, completed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(trained)]) == 0
    assert "under the uniform prior" in capsys.readouterr().out
    assert main(["evaluate", str(completed)]) == 0
    assert "under the learned prior" in capsys.readouterr().out
    results = [yaml.safe_load((f / "result.json").read_text()) for f in (trained, completed)]
    assert results[1]["nats"]["mean"] < results[0]["nats"]["mean"]
    assert results[1]["prior"] == "learned"
    assert (completed / "prior" / "config.yaml").is_file()


def test_samples_say_which_prior_they_are_from(
    completed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.pt"
    words = ["sample", str(completed), "--num", "3", "--out", str(out)]
    assert main(words) == 0
    assert "learned prior" in capsys.readouterr().out
    warm = torch.load(out)
    assert main([*words, "--temperature", "0.3"]) == 0
    assert warm.shape == torch.load(out).shape == (3, 1, 8, 8)


def test_both_stages_at_once_equal_one_after_the_other(completed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    second = [word.replace("--", "--prior.") for word in [*PRIOR, "--max_epochs", "1"]]
    words = ["train", "vqvae", "--data", "digits", "--run", str(folder), *SMALL, *QUICK]
    assert main([*words, "--stages", "all", *second]) == 0
    before, after = (training.load(f).state_dict() for f in (completed, folder))
    assert before.keys() == after.keys()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_both_stages_of_sequences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The audio preset, made small: levels in, levels out, codes under a WaveNet of their own."""
    folder, path = tmp_path / "run", tmp_path / "levels.npy"
    waves = torch.sin(torch.rand(60, 1) * torch.arange(64.0))
    np.save(path, mu_law_encode(waves, 16).numpy())
    sizes = {"network.hidden_channels": 8, "network.reduction": 8, "codebook": 6}
    sizes |= {"wavenet.channels": 4, "wavenet.skip_channels": 4, "wavenet.num_blocks": 1}
    sizes |= {"wavenet.layers_per_block": 3, "codebook.dim": 3}
    small = [f"--model.{name}={value}" for name, value in sizes.items()]
    second = ["--prior.max_epochs", "1", "--prior.model.hidden_channels", "4"]
    words = ["train", "sequence_vqvae", "--preset", "vctk", "--run", str(folder), *small, *QUICK]
    words += ["--data", "from_file", "--data.path", str(path), "--data.num_levels", "16"]
    assert main([*words, "--batch_size", "16", "--stages", "all", *second]) == 0
    whole = training.load(folder)
    assert isinstance(whole, models.SequenceVQVAE)
    assert isinstance(whole.prior.net, nets.WaveNetNet)
    assert "under the learned prior" in capsys.readouterr().out
    assert whole.sample(2, temperature=0.9).shape == (2, 64)


def test_both_stages_patch_by_patch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    few = ["--data.train", "256", "--data.validation", "64", "--data.test", "64"]
    words = ["train", "vqvae", "--data", "mosaic", "--preset", "mosaic", *few, *QUICK]
    second = ["--prior.max_epochs", "1", "--prior.model.hidden_channels", "8"]
    assert main([*words, "--run", str(folder), "--stages", "all", *second]) == 0
    assert "no sizes are published for preset mosaic" in capsys.readouterr().out
    whole = training.load(folder)
    assert isinstance(whole, models.VQVAE)
    assert (whole.prior_kind, type(whole.encoder)) == ("learned", nets.PatchEncoder)


def test_priors_at_published_sizes(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A preset gives the priors' options; words change some, and other models have none."""
    shared = {name: False if name == "progress" else 0 for name in prior._SHARED}
    settings = {**shared, "accelerator": "cpu", "precision": "32-true", "devices": 1}
    plan = Plan("VQVAE2", "Digits", Digits(), models.VQVAE2, {}, {}, settings, ())
    words = ["--model.num_heads=4", "--batch_size=3"]
    second = prior.second_stage(plan, words, every=True, preset="imagenet256")
    assert second is not None
    found = models.presets()["VQVAE2"]["imagenet256"]["prior"]
    assert second.model.items() >= {**found["model"], "num_heads": 4}.items()
    assert second.settings["batch_size"] == 3
    assert second.settings["learning_rate"] == found["training"]["learning_rate"]
    assert main(["train", "prior", str(trained), "--preset", "cifar10"]) == 2
    assert "no priors of VQVAE are published" in capsys.readouterr().err


def test_a_stage_reads_what_it_writes(tmp_path: Path) -> None:
    """To resume is to read it; what was planned is not written over a training that has begun."""
    resumed = Namespace(config=None, resume=True, name="prior")
    before = prior.make_plan(["--model.num_heads=2", "--batch_size=3"], {})
    assert prior.PriorPlan.read(resumed, tmp_path) == {}
    before.write_ahead(tmp_path, resume=True)
    assert prior.make_plan([], prior.PriorPlan.read(resumed, tmp_path)) == before
    assert prior.PriorPlan.read(Namespace(config=None, resume=False, name="prior"), tmp_path) == {}
    (tmp_path / "prior" / "checkpoints").mkdir()
    other = prior.make_plan(["--batch_size=4"], {})
    other.write_ahead(tmp_path, resume=True)
    assert prior.PriorPlan.read(resumed, tmp_path)["batch_size"] == 3
    other.write_ahead(tmp_path, resume=False)
    assert prior.PriorPlan.read(resumed, tmp_path)["batch_size"] == 4


def test_an_interrupted_second_stage_goes_on(completed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(completed, tmp_path / "run")
    (folder / "checkpoints" / "complete.ckpt").unlink()
    assert main(["train", "prior", str(folder), "--resume", "--max_epochs", "2"]) == 0
    assert len((folder / "prior" / "metrics.csv").read_text().splitlines()) == 3
    assert training.load(folder).prior_kind == "learned"  # type: ignore[attr-defined]


@pytest.mark.parametrize("interrupted", ["fit", "fit_prior"])
def test_both_stages_resume_with_the_options_of_the_prior(
    interrupted: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Those of the words and of a preset, whichever stage was interrupted."""
    folder, config = tmp_path / "run", tmp_path / "run" / "prior" / "config.yaml"
    preset = {"model": {"num_blocks": 1, "num_layers": 2}, "training": {"learning_rate": 2e-3}}
    known = {"VQVAE": {"small": {"model": {}, "training": {}, "prior": preset}}}
    monkeypatch.setattr(models, "presets", lambda: known)
    words = ["train", "vqvae", "--data", "digits", "--run", str(folder), *SMALL, *QUICK]
    words += ["--preset", "small", "--stages", "all", "--prior.model.hidden_channels", "8"]
    resume = ["train", "--run", str(folder), "--resume", "--stages", "all"]

    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(training, interrupted, interrupt)
        assert main([*words, "--prior.max_epochs", "1"]) == 130
    assert "--resume --stages all" in capsys.readouterr().err or interrupted == "fit_prior"
    planned = yaml.safe_load(config.read_text())
    assert main([*resume, "--seed", "7"]) == 0
    assert yaml.safe_load(config.read_text()) == {**planned, "seed": 7}
    assert planned["model"].items() >= {"hidden_channels": 8, **preset["model"]}.items()
    assert planned.items() >= {"max_epochs": 1, **preset["training"]}.items()
    assert training.load(folder).prior_kind == "learned"  # type: ignore[attr-defined]


def test_training_anew_forgets_what_was_planned(completed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(completed, tmp_path / "run")
    words = ["train", "vqvae", "--data", "digits", "--run", str(folder), *SMALL, *QUICK]
    assert main([*words, "--overwrite"]) == 0
    assert not (folder / "prior" / "config.yaml").exists()


def test_an_interrupted_overwriting_goes_on(
    completed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(completed, tmp_path / "run")
    old = (folder / "checkpoints" / "complete.ckpt").read_bytes()
    words = ["train", "prior", str(folder)]

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("pyro_genmodels.training.prior_stage._complete", interrupted)
        assert main([*words, "--overwrite", *PRIOR, *QUICK, "--seed", "3"]) == 130
    assert (folder / "checkpoints" / "complete.ckpt").read_bytes() == old
    assert main([*words, "--resume"]) == 0
    assert (folder / "checkpoints" / "complete.ckpt").read_bytes() != old


def test_priors_that_cannot_be_resumed_leave_the_run_as_it_was(
    completed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(completed, tmp_path / "run")
    before = (folder / "prior" / "config.yaml").read_bytes()
    words = ["train", "prior", str(folder), "--resume"]
    assert main([*words, "--model.hidden_channels", "12"]) == 1
    assert "must fit its model" in capsys.readouterr().err
    assert (folder / "prior" / "config.yaml").read_bytes() == before


MISTAKES = [
    ("train prior", "train prior must be given RUN"),
    ("train prior {none}", "`run` must be a run folder"),
    ("train prior {run}", "has a learned prior already: overwrite it"),
    ("train prior {run} --conditional", "--conditional does not go with `train prior`"),
    ("train prior {run} --stages all", "`stages` must be left out"),
    ("train prior {run} --resume --overwrite", "--resume and --overwrite exclude each other"),
    ("train prior {run} --overwrite --model.hidden_chanels 3", "did you mean --model.hidden_chann"),
    ("train prior {run} --overwrite --max_epochs 0", "`max_epochs` must be positive"),
    ("train prior {run} --overwrite --model.num_heads 0", "`num_heads` must be positive"),
    ("train prior {vae}", "`run` must hold a VQ-VAE to learn a prior for; got VAE"),
    ("train --run {run} --resume", "has priors for its codes as they are"),
    ("train vae --data digits --stages all --run {none}", "VAE has no second stage"),
    ("train vqvae --data digits --run {none} --prior.max_epochs 3", "`stages` must be all"),
    (
        "train vqvae --data digits --stages all --run {none} --prior.max_epoch 3",
        "did you mean --max_epochs",
    ),
    ("sample {vae} --temperature 0.5", "`temperature` must be left out"),
    ("sample {trained} --temperature 0.5", "`temperature` must be 1 under a uniform prior"),
    ("sample {run} --temperature -1", "`temperature` must be finite, not negative"),
]


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vae"
    small = ["--model.network.hidden", "[4]", "--model.latent_dim", "2"]
    assert main(["train", "vae", "--data", "digits", "--run", str(folder), *small, *QUICK]) == 0
    return folder


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_costs_nothing(
    words: str,
    message: str,
    trained: Path,
    completed: Path,
    vae: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {f: f.read_bytes() for f in completed.rglob("*") if f.is_file()}
    capsys.readouterr()
    places = {"run": completed, "vae": vae, "trained": trained, "none": tmp_path / "none"}
    at_work = ("`run` must", "has a learned prior", "has priors for")
    failed = any(part in message for part in at_work)
    assert main(words.format(**places).split()) == (1 if failed else 2)
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert shown.count("\n") == 1
    assert message in shown
    assert {f: f.read_bytes() for f in completed.rglob("*") if f.is_file()} == before
    assert not (tmp_path / "none").exists()


def test_help_shows_the_options_of_the_prior(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "prior", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--model.hidden_channels" in shown
    assert "--max_epochs" in shown
