"""Arguments that belong together: one object, its short form, options, files of before."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch

from pyro_genmodels import _migration, models, transforms
from pyro_genmodels._checks import require
from pyro_genmodels._configuration import (
    ArgumentGroup,
    argument_groups,
    build,
    configuration,
    resolve,
)
from pyro_genmodels._migration import migrated_options
from pyro_genmodels.cli import main
from pyro_genmodels.training import TrainingSettings

GROUPS = {
    name: found
    for name in models.__all__
    if inspect.isclass(found := getattr(models, name)) and issubclass(found, ArgumentGroup)
}
MOVED = [(name, old, to) for name, moved in _migration.MOVED.items() for old, to in moved.items()]
SHAPES = {"SequenceVQVAE": (64,), "NVAE": (1, 8, 8), "VQVAE": (1, 8, 8), "VQVAE2": (1, 8, 8)}


def make(name: str, **options: Any) -> models.GenerativeModel:
    torch.manual_seed(0)
    if name == "SequenceVQVAE":
        options = {"num_levels": 4, **options}
    made: models.GenerativeModel = getattr(models, name)(SHAPES.get(name, (6,)), **options)
    return made


def remade(model: models.GenerativeModel) -> models.GenerativeModel:
    torch.manual_seed(0)
    found: models.GenerativeModel = build(configuration(model))
    return found


def same(one: models.GenerativeModel, other: models.GenerativeModel) -> bool:
    """Whether two models have the same parameters and buffers, and train alike."""
    a, b = one.state_dict(), other.state_dict()
    equal = a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    costs = [getattr(model, "latent_cost", None) for model in (one, other)]
    kept = [None if cost is None else cost.parts for cost in costs]
    scales = [(m.latent_scale.beta, m.latent_scale.warmup_steps) for m in (one, other)]
    return equal and kept[0] == kept[1] and scales[0] == scales[1]


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_a_group_has_defaults_and_is_rebuilt(name: str) -> None:
    group = GROUPS[name]()
    assert build(configuration(group)) == group
    assert group == GROUPS[name].of(None) == GROUPS[name].of(group)
    first = dataclasses.fields(group)[0].name
    value = getattr(group, first)
    if value is not None:
        assert GROUPS[name].of(value) == group
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(group, first, value)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        GROUPS[name](other=1)


@pytest.mark.parametrize(
    ("name", "short", "long"),
    [
        ("VAE", {"posterior": "full"}, {"posterior": models.GaussianPosterior("full")}),
        ("VAE", {"network": "mlp"}, {"network": models.VAENetwork(hidden=(400,))}),
        ("VAE", {"objective": 3.0}, {"objective": models.KLObjective(beta=3.0)}),
        ("BetaVAE", {}, {"objective": models.KLObjective(beta=4.0)}),
        ("NVAE", {"network": (1,)}, {"network": models.NVAENetwork(num_groups=(1,))}),
        ("VQVAE", {"codebook": 7}, {"codebook": models.Codebook(num_codes=7)}),
        ("VQVAE2", {"network": 2}, {"network": models.VQVAE2Network(reduction=2)}),
        ("SequenceVQVAE", {"wavenet": 8}, {"wavenet": models.WaveNetSizes(channels=8)}),
        ("DeltaVAE", {"commitment": "sequence"}, {"commitment": models.RateCommitment()}),
    ],
)
def test_short_forms_make_the_same_model(
    name: str, short: dict[str, Any], long: dict[str, Any]
) -> None:
    one, other = make(name, **short), make(name, **long)
    assert same(one, other)
    assert same(one, remade(one))
    assert same(one, remade(other))


@pytest.mark.parametrize(("name", "old", "to"), MOVED)
def test_what_has_moved_is_where_it_is_said_to_be(
    name: str, old: str, to: _migration.Moved
) -> None:
    part, _, attribute = name.partition(".")
    maker = getattr({"models": models, "transforms": transforms}[part], attribute)
    assert old not in inspect.signature(maker).parameters
    group = argument_groups(maker)[to.argument]
    assert group is resolve(to.group)
    names = [field.name for field in dataclasses.fields(group)]
    assert to.field in names
    assert names[0] == _migration._FIRST_FIELD[to.group]
    if old in _migration.STILL_TAKEN.get(name, ()):
        return
    hint = f"`{old}` is now `{to.argument}={group.__name__}({to.field}=...)`"
    with pytest.raises(TypeError, match=re.escape(hint)):
        maker((6,), **{old: 1})


@pytest.mark.parametrize("cls", [models.VAE, models.BetaVAE])
def test_own_networks_are_still_taken_where_they_were(cls: Any) -> None:
    encoder, decoder = torch.nn.Linear(6, 4), torch.nn.Linear(2, 12)
    with pytest.warns(FutureWarning, match=r"`encoder` is now `network=VAENetwork\(encoder="):
        vae = cls((6,), latent_dim=2, encoder=encoder, decoder=decoder)
    assert vae.encoder is encoder
    assert vae.decoder is decoder
    with pytest.warns(FutureWarning, match="`decoder`"):
        vae = cls((6,), latent_dim=2, network=models.VAENetwork(hidden=(5,)), decoder=decoder)
    assert vae.decoder is decoder
    assert next(vae.encoder.parameters()).shape == (5, 6)
    with (
        pytest.warns(FutureWarning, match="`encoder`"),
        pytest.raises(ValueError, match="`encoder` must be left out: `network` has one"),
    ):
        cls((6,), latent_dim=2, encoder=encoder, network=models.VAENetwork(encoder=encoder))
    with pytest.raises(TypeError, match="`capacity` is now"):
        models.BetaVAE((6,), latent_dim=2, encoder=encoder, capacity=3.0)


@pytest.mark.parametrize(
    ("name", "before", "now"),
    [
        (
            "models.VAE",
            {"event_shape": [6], "network": "conv", "hidden": [8], "posterior": "full"},
            {"event_shape": [6], "network": {"kind": "conv", "hidden": [8]}, "posterior": "full"},
        ),
        (
            "models.BetaVAE",
            {"capacity": 25.0, "posterior": "low_rank", "posterior_rank": 2},
            {"objective": {"capacity": 25.0}, "posterior": {"covariance": "low_rank", "rank": 2}},
        ),
        (
            "models.VQVAE",
            {"num_codes": 8, "code_dim": 4, "reduction": 2},
            {"codebook": {"num_codes": 8, "dim": 4}, "network": {"reduction": 2}},
        ),
        ("models.MyOwn", {"num_codes": 8}, {"num_codes": 8}),
    ],
)
def test_descriptions_of_before_are_regrouped(
    name: str, before: dict[str, Any], now: dict[str, Any]
) -> None:
    described = {"class": name, "arguments": before}
    found = _migration.migrated(described, 2, defaults=False)["arguments"]
    plain = {
        key: value["arguments"] if isinstance(value, dict) and "class" in value else value
        for key, value in found.items()
    }
    assert plain == now
    # What this version writes stays as it is, also where it names no format, as a user's file.
    described = {"class": name, "arguments": now}
    assert _migration.migrated(described, 1, defaults=False)["arguments"] == now


def planned(words: list[str], config: dict[str, Any] | None = None) -> models.GenerativeModel:
    """Return the model of a command line."""
    from pyro_genmodels.cli.commands import train
    from pyro_genmodels.cli.plan import make_plan

    parser = argparse.ArgumentParser(add_help=False)
    train.add_arguments(parser)
    known, rest = parser.parse_known_args(words)
    known.name = None if config else rest.pop(0)
    return make_plan(known, rest, config or {}).build_model()


@pytest.mark.parametrize(
    ("name", "words", "config", "options"),
    [
        (
            "betavae",
            ["--model.objective.beta", "3", "--model.network.hidden", "[8]"],
            {"objective": {"beta": 3.0}, "network": {"hidden": [8]}},
            {"objective": models.KLObjective(beta=3.0), "network": models.VAENetwork(hidden=(8,))},
        ),
        (
            "betavae",
            ["--model.objective", "3", "--model.objective.warmup_steps=5"],
            {
                "objective": {
                    "class": "models.KLObjective",
                    "arguments": {"beta": 3.0, "warmup_steps": 5},
                }
            },
            {"objective": models.KLObjective(3.0, warmup_steps=5)},
        ),
        (
            "betavae",
            ["--model.objective.capacity", "25"],
            {"capacity": 25.0},  # as before: what has no format is read as of any
            {"objective": models.KLObjective(capacity=25.0)},
        ),
        (
            "vae",
            ["--model.posterior", "low_rank", "--model.posterior.rank", "2"],
            {"posterior": "low_rank", "posterior_rank": 2},
            {"posterior": models.GaussianPosterior("low_rank", rank=2)},
        ),
        (
            "vae",
            ["--model.posterior", "{covariance: full}", "--model.network", "mlp"],
            {"posterior": "full", "network": "mlp"},
            {"posterior": "full", "network": "mlp"},
        ),
        (
            "vae",
            [
                "--model.prior",
                "AR1Prior",
                "--model.prior.correlation=.5",
                "--model.prior.num_steps=4",
            ],
            {"prior": {"class": "AR1Prior", "arguments": {"correlation": 0.5, "num_steps": 4}}},
            {"prior": models.AR1Prior(0.5, num_steps=4)},
        ),
    ],
)
def test_python_command_line_and_files_agree(
    name: str, words: list[str], config: dict[str, Any], options: dict[str, Any]
) -> None:
    require("jsonargparse", extra="train")
    by_words = planned([name, "--data", "digits", *words])
    file = migrated_options({"name": name, "source": "digits", "model": config}, find_name(name))
    by_file = planned([], file)
    pyro.set_rng_seed(TrainingSettings().seed)
    maker = getattr(models, find_name(name).rpartition(".")[2])
    by_hand = maker((1, 8, 8), num_levels=17, **options)
    assert same(by_words, by_hand)
    assert same(by_file, by_hand)
    for argument, group in argument_groups(maker).items():
        given = [
            group.of(model.current_arguments().get(argument))
            for model in (by_words, by_file, by_hand)
        ]
        assert given[0] == given[1] == given[2], argument


@pytest.mark.parametrize(
    "words",
    [
        ["--model.conditional.objective", "3"],
        ["--model.conditional.objective", "{beta: 3}"],
        ["--model.conditional.objective.beta", "3"],
    ],
)
def test_groups_of_a_part_are_given_as_those_of_a_model(words: list[str]) -> None:
    require("jsonargparse", extra="train")
    part = ["--model.conditional", "BetaVAE", "--model.conditional.num_classes", "10"]
    model = planned(["semisupervisedvae", "--data", "digits", *part, *words])
    assert isinstance(model, models.SemiSupervisedVAE)
    assert float(model.conditional.beta) == 3.0


@pytest.mark.parametrize(
    ("name", "option", "hint"),
    [
        ("AutoregressiveModel", "distribution", "is now known by the network"),
        ("glow", "cache-size", "with_cache"),
    ],
)
def test_options_that_are_gone_say_why(name: str, option: str, hint: str) -> None:
    require("jsonargparse", extra="train")
    with pytest.raises(ValueError, match=f"is not an option any more: .*{hint}"):
        planned([name, "--data", "digits", f"--model.{option}", "1"])


def find_name(name: str) -> str:
    from pyro_genmodels.cli.names import find, model_makers

    return "models." + find(name, model_makers(), "model")


@pytest.mark.parametrize(("name", "old", "to"), [row for row in MOVED if "models." in row[0]])
def test_old_options_name_the_new_ones(
    name: str, old: str, to: _migration.Moved, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    require("jsonargparse", extra="train")
    words = ["train", name.partition(".")[2], "--data", "digits", "--run", str(tmp_path / "run")]
    assert main([*words, f"--model.{old}", "1"]) == 2
    shown = capsys.readouterr().err
    assert f"--model.{old} is now --model.{to.argument}.{to.field}\n" in shown
    assert not (tmp_path / "run").exists()


def test_fields_are_checked_and_named() -> None:
    for wrong, message in (
        (lambda: models.KLObjective(free_bits=-1.0), "`free_bits` must be at least 0; got -1"),
        (lambda: models.KLObjective(rate=1.0, capacity=1.0), "`rate` must be None with a cap"),
        (lambda: models.GaussianPosterior(rank=0), "`posterior.rank` must be at least 1; got 0"),
        (
            lambda: models.GaussianPosterior(log_scale=float("nan")),
            "`posterior.log_scale` must be finite; got nan",
        ),
        (lambda: models.VQVAENetwork(reduction=3), "`reduction` must be a power of two; got 3"),
        (lambda: models.RateCommitment(num_steps=1), "`commitment.num_steps` must be at least 2"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            wrong()


class OneLayer(models.VAENetwork):
    """A group with a constructor of its own."""

    def __init__(self, width: int = 8) -> None:
        super().__init__(hidden=(width,))


@pytest.mark.parametrize("given", [{}, {"width": 5}])
def test_a_group_with_a_constructor_of_its_own_is_rebuilt(given: dict[str, int]) -> None:
    model = models.VAE((6,), latent_dim=2, network=OneLayer(**given))
    described = configuration(model)["arguments"]["network"]
    assert described["arguments"] == given
    allowed = [f"{__name__}.OneLayer"]
    assert build(described, allow=allowed) == OneLayer(**given)
    rebuilt = build(configuration(model), allow=allowed)
    rebuilt.load_state_dict(model.state_dict())


@pytest.mark.parametrize("name", sorted(GROUPS))
def test_another_group_is_refused_by_name(name: str) -> None:
    group = GROUPS[name]
    first = dataclasses.fields(group)[0].name
    message = f"`{name}` must be given as an object of that class, or by its `{first}` alone; got "
    other = models.Codebook() if name != "Codebook" else models.KLObjective()
    for wrong in (other, {first: None}):
        with pytest.raises(ValueError, match=re.escape(message)):
            group.of(wrong)


def test_a_preset_changes_by_the_fields_of_a_group() -> None:
    changed = models.preset("NVAE", "digits", network={"channels": 8})
    published = models.presets()["NVAE"]["digits"]["model"]["network"]
    sizes = changed.hierarchy.sizes
    assert (sizes.channels, list(sizes.num_groups)) == (8, published["num_groups"])
