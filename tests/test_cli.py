"""The command line: short commands that work, every option reachable, one line for an error."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import pyro_genmodels
from pyro_genmodels import data, training
from pyro_genmodels.cli import main
from pyro_genmodels.cli.names import data_makers, model_makers

QUICK = ["--max_epochs", "1", "--num_samples", "4", "--progress", "false", "--accelerator", "cpu"]
SMALL = ["--model.network.hidden", "[8]", "--model.latent_dim", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "vae"
    words = ["train", "vae", "--data", "digits", "--run", str(folder), *SMALL, *QUICK]
    assert main(words) == 0
    return folder


def test_a_run_leaves_its_folder(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    pictures = {"samples.png", "curves.png"}
    assert names >= {"config.yaml", "metrics.csv", "result.json", "checkpoints"} | pictures
    model = pyro_genmodels.load(run)
    assert model.latent_dim == 2  # type: ignore[attr-defined]


@pytest.mark.parametrize("beta", ["1", "3"])
def test_training_names_an_objective_that_is_no_bound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], beta: str
) -> None:
    words = ["train", "beta_vae", "--data", "digits", "--run", str(tmp_path / "run"), *SMALL]
    assert main([*words, *QUICK, "--model.objective.beta", beta]) == 0
    line = f"objective: not the ELBO alone, but with beta {beta}\n"
    assert (line in capsys.readouterr().out) == (beta == "3")


def test_evaluate_prints_the_same_again(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for _ in range(2):
        assert main(["evaluate", str(run)]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]
    result = yaml.safe_load((run / "result.json").read_text())
    assert f"{result['nats']['mean']:.2f}" in outputs[0]
    assert "bits/dim" in outputs[0]
    assert "ELBO" in outputs[0]


def test_sample_and_reconstruct_write(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.pt"
    assert main(["sample", str(run), "--num", "5", "--out", str(out)]) == 0
    assert torch.load(out).shape == (5, 1, 8, 8)
    assert main(["sample", str(run), "--out", str(tmp_path / "x.png")]) == 0
    assert main(["reconstruct", str(run), "--out", str(tmp_path / "r.png")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"x.pt", "x.png", "r.png"}


def test_reconstruct_without_draws(run: Path, tmp_path: Path) -> None:
    drawn, *means = [tmp_path / f"{number}.png" for number in range(3)]
    for seed, path in enumerate((drawn, *means)):
        how = [] if path == drawn else ["--deterministic"]
        options = ["--seed", str(seed), "--out", str(path), *how]
        assert main(["reconstruct", str(run), *options]) == 0
    assert means[0].read_bytes() == means[1].read_bytes() != drawn.read_bytes()


def test_a_run_trains_anew_from_its_configuration(run: Path, tmp_path: Path) -> None:
    config = str(run / "config.yaml")
    assert main(["train", "--config", config, "--run", str(tmp_path / "again")]) == 0
    for key, value in training.load(run).state_dict().items():
        assert torch.equal(value, training.load(tmp_path / "again").state_dict()[key]), key


def test_a_run_resumes(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["--run", str(folder), *SMALL, *QUICK]
    assert main(["train", "vae", "--data", "digits", *words]) == 0
    assert main(["train", "--run", str(folder), "--resume", "--max_epochs", "2"]) == 0
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("name", sorted(model_makers()))
def test_every_argument_of_every_model_is_an_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", name, "--help"]) == 0
    shown = capsys.readouterr().out
    for argument, parameter in inspect.signature(model_makers()[name]).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            assert f"--model.{argument} " in shown
    assert "--max_epochs" in shown


@pytest.mark.parametrize("name", sorted(data_makers()))
def test_every_argument_of_every_source_is_an_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "vae", "--data", name, "--help"]) == 0
    shown = capsys.readouterr().out
    for argument in inspect.signature(data_makers()[name]).parameters:
        assert argument == "validate_args" or f"--data.{argument} " in shown


def test_parts_are_described_dotted_or_in_yaml(tmp_path: Path) -> None:
    common = ["--data", "digits", *QUICK, "--num_samples", "0"]
    dotted = ["--model.net", "PixelCNNNet", "--model.net.hidden-channels", "4"]
    first = ["train", "autoregressive-model", *common, *dotted, "--model.net.num_blocks=1"]
    assert main([*first, "--run", str(tmp_path / "dotted")]) == 0
    config = {
        "name": "FlowModel",
        "source": "digits",
        "model": {
            "transforms": {
                "class": "transforms.RealNVP",
                "arguments": {"logit_margin": 0.05},
            }
        },
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    words = ["train", "--config", str(tmp_path / "config.yaml"), *QUICK, "--num_samples", "0"]
    assert main([*words, "--run", str(tmp_path / "yaml"), "--batch_size", "1000"]) == 0
    assert training.load(tmp_path / "dotted").net.num_levels == 17  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "words",
    [
        ["variational"],
        ["ConditionalRealNVP", "--model.dequantization.context_shape", "[1, 8, 8]"],
    ],
    ids=["by-name", "a-flow"],
)
def test_a_learned_dequantisation_is_an_option(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--model.width", "4", "--model.num_couplings", "1", "--num_samples", "0"]
    words = [
        "train",
        "realnvp",
        "--data",
        "digits",
        *QUICK,
        *small,
        "--model.dequantization",
        *words,
    ]
    assert main([*words, "--run", str(tmp_path)]) == 0
    assert "variational-dequantisation bound" in capsys.readouterr().out
    assert training.load(tmp_path).dequantizer is not None  # type: ignore[attr-defined]


def test_a_preset_gives_way_to_options_and_data(tmp_path: Path) -> None:
    config = {"model": {"num_layers": 2}, "batch_size": 500}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    words = ["train", "nice", "--data", "digits", "--preset", "MNIST", *QUICK, "--num_samples", "0"]
    words += ["--config", str(tmp_path / "mine.yaml"), "--model.width", "8"]
    folder = tmp_path / "run"
    assert main([*words, "--run", str(folder)]) == 0
    used = yaml.safe_load((folder / "config.yaml").read_text())
    model = {name: used["model"][name] for name in ("width", "num_layers", "base", "event_shape")}
    assert model == {"width": 8, "num_layers": 2, "base": "logistic", "event_shape": [1, 8, 8]}
    settings = {name: used[name] for name in ("batch_size", "schedule", "learning_rate")}
    assert settings == {"batch_size": 500, "schedule": "constant", "learning_rate": 1e-3}
    assert used["model"]["num_levels"] == 17
    resume = ["train", "--run", str(folder), "--resume", "--max_epochs", "2"]
    assert main([*resume, "--preset", "mnist"]) == 2
    assert main(resume) == 0


@pytest.mark.parametrize("name", ["glow", "nice"])
def test_flows_train_at_small_sizes(name: str, tmp_path: Path) -> None:
    words = ["train", name, "--data", "digits", *QUICK, "--model.width", "4", "--conditional"]
    words += ["--model.num_steps", "1"] if name == "glow" else []
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    assert main(["sample", str(tmp_path / "run"), "--num", "2", "--label", "3"]) == 0


def test_a_conditional_model_takes_the_labels(tmp_path: Path) -> None:
    words = ["train", "vae", "--data", "digits", "--conditional", *SMALL, *QUICK]
    assert main([*words, "--run", str(tmp_path / "run")]) == 0
    assert training.load(tmp_path / "run").num_classes == 10
    out = tmp_path / "x.pt"
    assert main(["sample", str(tmp_path / "run"), "--label", "3", "--out", str(out)]) == 0
    assert main(["reconstruct", str(tmp_path / "run")]) == 0


def test_a_known_truth_gives_the_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--data.train", "200", "--data.validation", "50", "--data.test", "50"]
    words = ["train", "vae", "--data", "ising", "--data.height", "4", "--data.width", "4", *sizes]
    assert main([*words, *SMALL, *QUICK, "--run", str(tmp_path / "run")]) == 0
    assert "gap to the true distribution" in capsys.readouterr().out
    assert isinstance(training.load_source(tmp_path / "run"), data.Sampled)


EVIL = "model:\n  encoder: {class: trap.Evil}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("train vea --data digits", "unknown model 'vea': did you mean VAE"),
        ("train vae --data digitz", "unknown data 'digitz': did you mean Digits"),
        ("train --data digits", "must be given NAME"),
        ("train vae", "must be given --data"),
        ("train glow --data digits --preset cifar", "unknown preset 'cifar': did you mean cifar10"),
        ("train vae --data digits --preset cifar10", "`preset` must be left out: VAE has no pres"),
        ("train vae --data digits --max_epochs x", "max_epochs"),
        ("train vae --data digits --max_epochs 0 --run {tmp}/r", "`max_epochs` must be positive"),
        ("train vae --data digits --model.latent_dim x", "model.latent_dim"),
        ("train vae --data digits --model.latent_dim 0", "`latent_dim` must be positive; got 0."),
        ("train vae --data digits --model.width 3", "model.width"),
        ("train vae --data digits --model.network.encoder os.system", "got 'os.system'"),
        ("train vae --data digits --config {tmp}/evil.yaml", "got 'trap.Evil'"),
        ("train vae --data digits --config {tmp}/none.yaml", "none.yaml"),
        ("train vae --data digits --config {tmp}/broken.yaml", "must be YAML"),
        ("train pixelcnn --data eightgaussians", "`data` must be discrete for pixelcnn"),
        ("train vae --data eightgaussians --conditional", "have data with labels"),
        ("train vae --data digits --run {tmp}/file/run", "file"),
        ("train vae --data digits --resume", "must come with the run's folder"),
        ("train vae --data mnist", "data.root"),
        ("train vae --data mnist --data.root {tmp}", "must hold MNIST's files"),
        ("evaluate {tmp}/nowhere", "must be a checkpoint or a folder with one"),
        ("evaluate {tmp}/file", "must be a whole checkpoint"),
        ("sample {tmp}", "must be a checkpoint or a folder with one"),
    ],
)
def test_an_error_is_one_line(
    words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "evil.yaml").write_text(EVIL)
    (tmp_path / "broken.yaml").write_text("a: [1\nb: :")
    at_work = ("none.yaml", "be YAML", "hold MNIST's", "must be a checkpoint", "whole checkpoint")
    failed = "file/run" in words or any(part in message for part in at_work)
    assert main(words.format(tmp=tmp_path).split()) == (1 if failed else 2)
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_run_folder_is_kept(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "vae", "--data", "digits", "--run", str(run)]) == 1
    assert "holds a run already" in capsys.readouterr().err


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(ValueError, match="unknown model"):
        main(["--debug", "train", "vea", "--data", "digits"])


def test_list_shows_every_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*model_makers(), *data_makers()))


@pytest.mark.parametrize(
    ("words", "limit", "heavy"),
    [
        ([], 1.0, {"torch", "yaml", "numpy"}),
        (["evaluate"], 1.0, {"torch", "yaml", "numpy"}),
        (["train", "vae"], 5.0, {"lightning", "torchvision", "sklearn", "matplotlib"}),
    ],
)
def test_help_answers_fast(words: list[str], limit: float, heavy: set[str]) -> None:
    code = (
        "import sys\nfrom pyro_genmodels.cli import main\n"
        f"try: main({[*words, '--help']!r})\nexcept SystemExit: pass\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    before = os.times()
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = os.times()
    # Processor time: a busy machine must not fail the test, a heavy import shall.
    spent = after.children_user + after.children_system
    spent -= before.children_user + before.children_system
    assert shown.stderr.strip() == "[]"
    assert "--help" in shown.stdout
    assert spent < limit
