"""Files of an older format are read as this version writes them, at any depth."""

from __future__ import annotations

import shutil
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pyro_genmodels import _configuration, _migration, models, nets, training
from pyro_genmodels._checks import require
from pyro_genmodels.cli import main

SAVED = Path(__file__).parent / "data" / "compatibility"
QUICK = ["--max_epochs", "2", "--progress", "false", "--num_samples", "0", "--accelerator", "cpu"]


def widened(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Double the widths, as if an earlier version had counted pairs of hidden units."""
    if name in ("models.VAE", "models.vae"):
        arguments["hidden"] = [2 * size for size in arguments["hidden"]]
    return name, arguments


def without_default(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Drop an argument that a later version no longer has."""
    arguments.pop("projection", None)
    arguments.pop("cache_size", None)
    return name, arguments


def change(patch: pytest.MonkeyPatch, *changes: _migration.Change) -> None:
    patch.setattr(_migration, "CHANGES", {**_migration.CHANGES, 1: changes})


def test_descriptions_change_at_any_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    inner = {"class": "nets.ConvNet", "arguments": {"cache_size": 0, "width": 3}}
    outer = {"class": "models.FlowModel", "arguments": {"transforms": [inner], "cache_size": 1}}
    assert _migration.migrated(outer, 1) is outer
    change(monkeypatch, without_default)
    found = _migration.migrated(outer, 1)
    assert found["arguments"] == {"transforms": [{**inner, "arguments": {"width": 3}}]}
    assert _migration.migrated(outer, 2) is outer


def test_a_checkpoint_is_built_by_its_migrated_description(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(monkeypatch, widened)
    with pytest.raises(training.CheckpointError, match="other shapes"):
        training.load(SAVED / "vae")
    change(monkeypatch, without_default)
    assert training.load(SAVED / "realnvp") is not None


class OfMine(models.BetaVAE):
    """A user's class, with the constructor that it has inherited."""


def test_a_user_s_class_is_migrated_by_the_constructor_it_has(tmp_path: Path) -> None:
    path = tmp_path / "old.ckpt"
    contents = torch.load(SAVED / "beta_vae" / "checkpoints" / "best.ckpt", weights_only=True)
    described = contents["pyro_genmodels"]["model"]
    name = described["class"] = f"{OfMine.__module__}.OfMine"
    torch.save(contents, path)
    found = training.load(path, allow=[name, "no.such.Class"])
    before = training.load(SAVED / "beta_vae")
    assert type(found) is OfMine
    assert found.state_dict().keys() == before.state_dict().keys()
    assert found.latent_scale.beta == before.latent_scale.beta
    with pytest.raises(ValueError, match="`network=VAENetwork"):
        _configuration.build(described, allow=[name])


def test_a_configuration_is_migrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require("lightning.pytorch", extra="train")
    change(monkeypatch, widened)
    run, config = tmp_path / "run", SAVED / "vae" / "config.yaml"
    assert main(["train", "--config", str(config), "--run", str(run), *QUICK]) == 0
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["network"]["hidden"] == [16]


def test_a_glow_of_before_keeps_its_map() -> None:
    """What format 1 wrote had no bound on the amplification; what a user writes has today's."""
    for name in ("transforms.Glow", "transforms.ConditionalGlow"):
        described = {"class": name, "arguments": {"event_shape": [4]}}
        coupling = _migration.migrated(described, 1)["arguments"]["coupling"]
        assert coupling["arguments"]["max_amplification"] is None
        assert _migration.migrated(described, 2) is described
    saved = yaml.safe_load((SAVED / "glow" / "config.yaml").read_text())
    options = _migration.migrated_options(saved, "models.glow")
    assert options["model"]["coupling"]["arguments"]["max_amplification"] is None
    written = {"model": {"event_shape": [4], "width": 8}}
    assert _migration.migrated_options(written, "models.glow")["model"] == written["model"]
    coupling = training.load(SAVED / "glow").transforms[0].flow.parts[0].transform.parts[-1]
    assert {getattr(m, "max_amplification", None) for m in coupling.modules()} == {None}


def test_cache_size_is_dropped_at_any_depth() -> None:
    parts = [
        {"class": "transforms.HalfMask", "arguments": {"inverted": True}},
        {"class": "nets.MLP", "arguments": {"in_features": 2, "out_features": 4}},
    ]
    mask, net = parts
    coupling = {"mask": mask, "net": net, "scale": "exp", "cache_size": 0}
    chain = {"transforms": [{"class": "transforms.AffineCoupling", "arguments": coupling}]}
    waiting = {"event_shape": [3], "num_classes": 2, "cache_size": 1, "width": 8}
    outer = {
        "class": "models.FlowModel",
        "arguments": {
            "event_shape": [3],
            "num_classes": 2,
            "transforms": [
                {"class": "transforms.Chain", "arguments": {**chain, "cache_size": 1}},
                {"class": "transforms.ConditionalRealNVP", "arguments": waiting},
            ],
        },
    }
    with pytest.raises(ValueError, match="cache_size"):
        _configuration.build(outer)
    for written in (1, 2):
        found = _migration.migrated(outer, written)
        assert "cache_size" not in str(found)
        assert _configuration.configuration(_configuration.build(found)) == found
    own = {"class": "my.Flow", "arguments": {"cache_size": 64}}
    assert _migration.migrated(own, 2) is own


@pytest.mark.parametrize("name", ["nice", "realnvp", "glow", "spline_flow"])
def test_cache_size_is_dropped_of_options(name: str) -> None:
    options = {"format": 2, "model": {"event_shape": [4], "cache_size": 0}}
    found = _migration.migrated_options(options, f"models.{name}")["model"]
    assert found == {"event_shape": [4]}


GLOW = {"num_steps": 1, "width": 4}
GROUPED: dict[str, tuple[str, dict[str, Any], str, dict[str, Any]]] = {
    "Glow": ("Glow", {"num_bins": 4, **GLOW}, "coupling", {"num_bins": 4}),
    "Glow/spline": (
        "Glow",
        {"coupling": "spline", "num_bins": 4, "bound": 2.0, **GLOW},
        "coupling",
        {"kind": "spline", "num_bins": 4, "bound": 2.0},
    ),
    "ConditionalGlow": (
        "ConditionalGlow",
        {"log_scale_factor": 1.0, "max_amplification": 10.0, "num_classes": 2, **GLOW},
        "coupling",
        {"log_scale_factor": 1.0, "max_amplification": 10.0},
    ),
    "NeuralSplineFlow": (
        "NeuralSplineFlow",
        {"domain": "unit", "num_bins": 4, "num_couplings": 1},
        "splines",
        {"domain": "unit", "num_bins": 4},
    ),
    "ConditionalNeuralSplineFlow": (
        "ConditionalNeuralSplineFlow",
        {"bound": 2.0, "num_couplings": 1, "num_classes": 2},
        "splines",
        {"bound": 2.0},
    ),
}


@pytest.mark.parametrize("key", GROUPED)
def test_arguments_move_into_their_group(key: str) -> None:
    name, old, argument, fields = GROUPED[key]
    described = {"class": f"transforms.{name}", "arguments": {"event_shape": [2], **old}}
    found = _migration.migrated(described, 2)
    rest = {k: v for k, v in old.items() if k not in fields and k != argument}
    group = found["arguments"].pop(argument)
    assert found["arguments"] == {"event_shape": [2], **rest}
    assert group["arguments"] == fields
    found["arguments"][argument] = group
    made = _configuration.build(found)
    arguments = made.current_arguments()
    assert arguments[argument] == _configuration.build(group)
    again = _configuration.configuration(made)
    assert _migration.migrated(again, 2) is again


@pytest.mark.parametrize("network", [{}, {"network": "mlp"}, {"network": {"hidden": [3]}}])
def test_own_networks_move_from_format_3(network: dict[str, Any]) -> None:
    encoder = {"class": "nets.MLPEncoder", "arguments": {"event_shape": [6], "out_features": 4}}
    own = {"event_shape": [6], "latent_dim": 2, "encoder": encoder}
    found = _migration.migrated({"class": "models.VAE", "arguments": {**own, **network}}, 3)
    made = _configuration.build(found)
    assert isinstance(made.encoder, nets.MLPEncoder)
    assert next(made.decoder.parameters()).shape[0] == (3 if "hidden" in str(network) else 400)


def test_short_forms_and_groups_are_left_alone() -> None:
    group = {"class": "transforms.GlowCoupling", "arguments": {"num_bins": 4}}
    for coupling in ("spline", group):
        new = {"class": "transforms.Glow", "arguments": {"event_shape": [2], "coupling": coupling}}
        assert _migration.migrated(new, 2) is new
    old = {"event_shape": [4], "domain": "unit"}
    found = _migration.migrated_options({"format": 2, "model": old}, "models.spline_flow")["model"]
    assert found["splines"] == {"class": "transforms.Splines", "arguments": {"domain": "unit"}}
    both = {"class": "transforms.NeuralSplineFlow", "arguments": {"splines": "unit", "bound": 1.0}}
    found = _migration.migrated(both, 2)["arguments"]["splines"]["arguments"]
    assert found == {"domain": "unit", "bound": 1.0}
    hint = r"`bound` is now `splines=Splines\(bound=...\)`"
    with pytest.raises(ValueError, match=hint):
        _configuration.build({**both, "arguments": {"event_shape": [2], **both["arguments"]}})


def test_the_name_of_a_distribution_is_dropped() -> None:
    """Format 2 named the distribution beside a network, at any depth."""
    net = {"class": "nets.PixelCNNNet", "arguments": {"event_shape": [1, 2, 2], "num_levels": 3}}
    for name in ("models.AutoregressiveModel", "models.AutoregressiveLikelihood"):
        described = {"class": name, "arguments": {"net": net, "distribution": "PixelCNN"}}
        outer = {"class": "models.VAE", "arguments": {"likelihood": described}}
        found = _migration.migrated(outer, 2)["arguments"]["likelihood"]
        assert found == {"class": name, "arguments": {"net": net}}
        assert _migration.migrated(found, 3) is found
        options = {"format": 2, "name": name[7:], "model": described["arguments"]}
        assert _migration.migrated_options(options, name)["model"] == {"net": net}
    other = {"class": "data.Sampled", "arguments": {"distribution": "Ising"}}
    assert _migration.migrated(other, 1) is other


def test_a_newer_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    require("lightning.pytorch", extra="train")
    config = tmp_path / "config.yaml"
    config.write_text("format: 99\nname: VAE\nsource: Ising\n")
    assert main(["train", "--config", str(config), "--run", str(tmp_path / "run")]) == 1
    assert f"`format` must be {_migration.FORMAT} or older; got 99" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_priors_go_on_though_the_description_has_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The codes' fingerprint is of the arguments as they were written."""
    require("lightning.pytorch", extra="train")
    change(monkeypatch, without_default)
    run = Path(shutil.copytree(SAVED / "vqvae", tmp_path / "vqvae"))
    written = {path: path.stat().st_mtime_ns for path in (run / "codes").iterdir()}
    assert main(["train", "prior", str(run), "--resume", "--max_epochs", "2"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (run / "codes").iterdir()} == written
    last = torch.load(run / "prior" / "checkpoints" / "last.ckpt", weights_only=True)
    assert last["epoch"] == 1


@pytest.mark.parametrize(
    ("written", "named"), [("beta_vae", None), (None, "betavae"), ("vae", "BetaVAE")]
)
def test_a_configuration_is_migrated_by_any_spelling_of_the_model(
    written: str | None, named: str | None, tmp_path: Path
) -> None:
    """The model is named in any case, on the command line or in the file, the former first."""
    require("jsonargparse", extra="train")
    from pyro_genmodels.cli.plan import Plan

    path = tmp_path / "config.yaml"
    own = {} if written is None else {"name": written}
    path.write_text(yaml.safe_dump({**own, "model": {"capacity": 25.0, "hidden": [8]}}))
    arguments = Namespace(config=path, resume=False, name=named)
    model = Plan.read(arguments, None)["model"]
    assert model["objective"]["arguments"] == {"capacity": 25.0}
    assert model["network"]["arguments"] == {"hidden": [8]}


@pytest.mark.parametrize("prefix", ["", "transforms.", "pyro_genmodels.transforms."])
def test_parts_by_their_bare_names_are_migrated(prefix: str, tmp_path: Path) -> None:
    """A run's configuration has the names as they were written on the command line."""
    require("jsonargparse", extra="train")
    from pyro_genmodels.cli.stage import read_config

    path = tmp_path / "config.yaml"
    arguments = {"event_shape": [4], "num_bins": 4, "cache_size": 1}
    part = {"class": f"{prefix}Glow", "arguments": arguments}
    path.write_text(yaml.safe_dump({"format": 2, "name": "VAE", "model": {"prior": [part]}}))
    [found] = read_config(path)["model"]["prior"]
    assert found["class"] == "transforms.Glow"
    assert found["arguments"].keys() == {"event_shape", "coupling"}
    assert found["arguments"]["coupling"]["arguments"] == {"num_bins": 4}


def test_folders_of_images_were_in_colour() -> None:
    described = {"class": "data.ImageFolder", "arguments": {"root": "x", "size": 8}}
    found = _migration.migrated(described, 3)["arguments"]
    assert found == {"root": "x", "size": 8, "mode": "RGB", "listing": None}
    written = {"format": 3, "source": "ImageFolder", "data": {"root": "x", "mode": "L"}}
    assert _migration.migrated_options(written, None)["data"]["mode"] == "L"
    assert _migration.migrated(described, _migration.FORMAT) == described


def test_a_configuration_of_a_user_means_the_defaults_of_today() -> None:
    own = {"source": "ImageFolder", "data": {"root": "x"}}
    assert _migration.migrated_options(own, None)["data"] == {"root": "x"}
    of_a_run = _migration.migrated_options({"format": 3, **own}, None)["data"]
    assert of_a_run == {"root": "x", "mode": "RGB", "listing": None}


@pytest.mark.parametrize("name", ["VAE", "BetaVAE", "DeltaVAE"])
@pytest.mark.parametrize("network", [None, {}, {"activation": "tanh"}, {"hidden": [6]}])
def test_networks_of_images_were_dense_by_default(
    name: str, network: dict[str, Any] | None
) -> None:
    """Before format 4; what a user writes, and what says its kind, is left alone."""
    arguments: dict[str, Any] = {"event_shape": [1, 4, 4]}
    if network is not None:
        arguments["network"] = {"class": "models.VAENetwork", "arguments": network}
    described = {"class": f"models.{name}", "arguments": arguments}
    for written in (2, 3):
        found = _configuration.build(_migration.migrated(described, written))
        expected = getattr(models, name)((1, 4, 4), network=dense(network or {}))
        assert found.state_dict().keys() == expected.state_dict().keys()
    assert _migration.migrated(described, 4) is described
    own = {"class": f"models.{name}", "arguments": {"latent_dim": 4}}
    assert _migration.migrated(own, 1, defaults=False) is own
    said = {"class": "models.VAE", "arguments": {**arguments, "network": "conv"}}
    assert _migration.migrated(said, 1) is said


def dense(options: dict[str, Any]) -> models.VAENetwork:
    return models.VAENetwork("mlp", **options)


def test_a_dense_vae_inside_another_model_stays_dense() -> None:
    inner = {"class": "models.VAE", "arguments": {"event_shape": [1, 4, 4], "num_classes": 2}}
    outer = {"class": "models.SemiSupervisedVAE", "arguments": {"conditional": inner}}
    model = _configuration.build(_migration.migrated(outer, 3))
    assert isinstance(model, models.SemiSupervisedVAE)
    expected = models.VAE((1, 4, 4), num_classes=2, network="mlp")
    assert model.conditional.state_dict().keys() == expected.state_dict().keys()


@pytest.mark.parametrize("network", [None, {}, {"channels": 8}, {"channels": 8, "num_blocks": 3}])
def test_denoising_networks_had_two_blocks_by_default(network: dict[str, Any] | None) -> None:
    """Before format 5."""
    arguments: dict[str, Any] = {"event_shape": [1, 4, 4], "num_levels": 3}
    if network is not None:
        arguments["network"] = {"class": "models.DenoisingNetwork", "arguments": network}
    described = {"class": "models.DiffusionModel", "arguments": arguments}
    found = _configuration.build(_migration.migrated(described, 4))
    sizes = models.DenoisingNetwork(**{"num_blocks": 2, **(network or {})})
    expected = models.DiffusionModel((1, 4, 4), num_levels=3, network=sizes)
    assert found.state_dict().keys() == expected.state_dict().keys()
    assert _migration.migrated(described, 5) is described
    options = {"format": 4, "model": {"num_steps": 8}}
    of_a_run = _migration.migrated_options(options, "models.vdm")["model"]
    assert of_a_run["network"]["arguments"] == {"num_blocks": 2}
