"""The command line of diffusion models: groups as options, samplers, guidance and editing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("lightning", reason="comes with the train extra")

from pyro_genmodels import models, training
from pyro_genmodels.cli import main
from tests.small_runs import SETTINGS, SHAPE, train_runs
from tests.test_cli_mistakes import contents, refuse

TINY = {"network": models.DenoisingNetwork(channels=8, num_blocks=1), "num_steps": 4}
WORDS = "--model.network.channels 8 --model.network.num_blocks 1 --model.num_steps 4"
SHORT = " ".join(f"--{name}={str(value).lower()}" for name, value in SETTINGS.items())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusion model of labels, and a VAE, on sixty images of four levels."""
    folder = tmp_path_factory.mktemp("runs")
    vdm = models.vdm(SHAPE, num_levels=4, num_classes=3, context_dropout=0.2, **TINY)
    network = models.VAENetwork(hidden=(4,))
    vae = models.VAE(SHAPE, num_levels=4, latent_dim=2, network=network)
    train_runs(folder, {"vdm": vdm, "vae": vae})
    return folder


def drawn(words: str, runs: Path, tmp_path: Path) -> torch.Tensor:
    out = tmp_path / "x.pt"
    assert main(["sample", str(runs / "vdm"), *words.split(), "--out", str(out)]) == 0
    samples: torch.Tensor = torch.load(out)
    return samples


@pytest.mark.parametrize(
    ("name", "words", "group", "expected"),
    [
        ("vdm", "", "network", {"channels": 8}),
        ("ddpm", "--model.variance forward --model.context_dropout 0", "network", {"channels": 8}),
        (
            "diffusion_model",
            "--model.denoising velocity --model.objective.kind simple --model.encoding bits",
            "objective",
            {"kind": "simple"},
        ),
    ],
)
def test_groups_are_options(
    name: str, words: str, group: str, expected: dict[str, object], tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 4, (40, *SHAPE)).astype(np.uint8)
    np.save(tmp_path / "x.npy", images)
    data = f"--data {tmp_path}/x.npy --data.num_levels 4 --run {tmp_path}/run"
    command = f"train {name} {data} {SHORT} {WORDS} {words}"
    assert main(command.split()) == 0
    options = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]
    assert expected.items() <= options[group].items()
    model = training.load(tmp_path / "run")
    assert isinstance(model, models.DiffusionModel)
    assert model.num_steps == 4


def test_few_steps_draw_from_another_model(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ("", "--num_steps 4", "--sampler ancestral --guidance 1"):
        drawn(f"--num 3 {words}", runs, tmp_path)
        assert "scored" not in capsys.readouterr().out
    drawn("--num 3 --num_steps 2", runs, tmp_path)
    assert "not drawn from the model that is scored: 2 steps\n" in capsys.readouterr().out
    drawn("--num 3 --sampler dpm --num_steps 2 --guidance 2 --label 2", runs, tmp_path)
    shown = capsys.readouterr().out
    assert "model that is scored: sampler dpm, 2 steps, guidance 2\n" in shown


def test_guidance_ignores_or_heeds_the_label(runs: Path, tmp_path: Path) -> None:
    words = "--num 4 --sampler ddim --num_steps 3"
    assert torch.equal(
        drawn(f"{words} --guidance 0 --label 0", runs, tmp_path),
        drawn(f"{words} --guidance 0 --label 2", runs, tmp_path),
    )
    assert torch.equal(
        drawn(f"{words} --label 1", runs, tmp_path),
        drawn(f"{words} --guidance 1 --label 1", runs, tmp_path),
    )


def test_pictures_say_how_they_were_drawn(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    save = "pyro_genmodels.plotting.save_samples"
    monkeypatch.setattr(save, lambda *_, title, **__: titles.append(title))
    command = f"sample {runs}/vdm --num 3 --sampler heun --num_steps 2 --out {tmp_path}/x.png"
    assert main(command.split()) == 0
    assert titles[0].endswith("epoch 1, sampler heun, num_steps 2")


@pytest.mark.parametrize(
    "words", ["", "--noise_level 0.25", "--deterministic --num_steps 2", "--sampler ddim"]
)
def test_reconstructions_are_drawn(words: str, runs: Path, tmp_path: Path) -> None:
    command = f"reconstruct {runs}/vdm --num 3 {words} --out {tmp_path}/x.png"
    assert main(command.split()) == 0
    assert (tmp_path / "x.png").stat().st_size > 0


def test_scores_say_how_many_steps(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(runs / "vdm"), "--particles", "2"]) == 0
    assert "bits/dim" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample {}/vdm --sampler euler", "`sampler` must be a Sampler or one of 'ancestral', "),
        ("sample {}/vdm --num_steps -3", "`num_steps` must be "),
        ("sample {}/vdm --num_steps 0", "`num_steps` must be "),
        ("sample {}/vdm --guidance nan --label 1", "`guidance` must be "),
        ("sample {}/vae --sampler dpm", "`sampler` must be left out, VAE has none; got dpm"),
        ("sample {}/vae --num_steps 3", "`num_steps` must be left out, VAE has none; got 3"),
        ("sample {}/vdm --temperature 0.5", "`temperature` must be left out, DiffusionModel has"),
        ("reconstruct {}/vdm --noise_level 1.5", "`noise_level` must "),
        ("reconstruct {}/vdm --sampler euler", "`sampler` must be a Sampler or one of"),
        ("reconstruct {}/vae --noise_level 0.5", "`noise_level` must be left out, VAE has none"),
    ],
)
def test_an_impossible_option_is_named(
    words: str, message: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(runs)
    refuse(words.format(runs).split(), message, capsys, status=2)
    assert contents(runs) == before
