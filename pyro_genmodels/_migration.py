"""Files of older versions: what has changed since they were written, one function per change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple, TypeAlias

Change: TypeAlias = Callable[[str, dict[str, Any]], tuple[str, dict[str, Any]]]

FORMAT = 5
"""Format of checkpoints, configurations and codes that this version writes."""


def _unbounded_glow(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Say of a Glow that its amplification has no bound, as it had none.

    Of a configuration's model, only if all options are in it, as in a run's folder: what a user
    writes names no format and means the defaults of today.
    """
    old = name in ("transforms.Glow", "transforms.ConditionalGlow")
    old = old or (name == "models.glow" and {"log_scale_factor", "condition"} <= arguments.keys())
    return name, {"max_amplification": None, **arguments} if old else arguments


def _without_cache_size(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Drop what changed nothing; what is not of this package may well have such an argument."""
    if not _had_cache_size(name):
        return name, arguments
    return name, {key: value for key, value in arguments.items() if key != "cache_size"}


def _had_cache_size(name: str) -> bool:
    builders = ("models.nice", "models.realnvp", "models.glow", "models.spline_flow")
    return name.startswith("transforms.") or name in builders


_OF_A_NET = {"models.AutoregressiveModel", "models.AutoregressiveLikelihood"}


def _by_the_network(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Drop the name of a distribution, which the network knows now."""
    if name not in _OF_A_NET:
        return name, arguments
    return name, {key: value for key, value in arguments.items() if key != "distribution"}


class Moved(NamedTuple):
    """Where a constructor's argument has gone: ``argument=Group(field=...)``."""

    argument: str
    group: str
    field: str


def _into(argument: str, group: str, *fields: str, **renamed: str) -> dict[str, Moved]:
    same = {field: Moved(argument, group, field) for field in fields}
    return same | {old: Moved(argument, group, field) for old, field in renamed.items()}


_FIRST_FIELD = {
    "models.Codebook": "num_codes",
    "models.DenoisingNetwork": "kind",
    "models.GaussianPosterior": "covariance",
    "models.KLObjective": "beta",
    "models.NVAENetwork": "num_groups",
    "models.NVAEObjective": "beta",
    "models.RateCommitment": "kind",
    "models.SequenceVQVAENetwork": "reduction",
    "models.VAENetwork": "kind",
    "models.VQVAE2Network": "reduction",
    "models.VQVAENetwork": "kind",
    "models.WaveNetSizes": "channels",
    "transforms.GlowCoupling": "kind",
    "transforms.Splines": "domain",
}
_OWN_NETWORKS = ("encoder", "decoder")
_NETWORK = _into("network", "models.VAENetwork", "hidden", "activation", "dropout", *_OWN_NETWORKS)
_VAE = {
    **_NETWORK,
    **_into(
        "posterior",
        "models.GaussianPosterior",
        posterior_rank="rank",
        posterior_transforms="transforms",
        posterior_features="features",
    ),
    **_into("objective", "models.KLObjective", "warmup_steps", "free_bits", "free_bits_per"),
}
_BETA = ("beta", "first_beta", "capacity", "capacity_steps", "rate", "rate_step")
_BLOCKS = ("reduction", "hidden_channels", "residual_channels", "num_blocks")
_CODEBOOK = _into("codebook", "models.Codebook", "num_codes", "commitment", code_dim="dim")
_GLOW = _into(
    "coupling",
    "transforms.GlowCoupling",
    "max_amplification",
    "log_scale_factor",
    "num_bins",
    "bound",
)
_SPLINES = _into("splines", "transforms.Splines", "domain", "num_bins", "bound")

MOVED: dict[str, dict[str, Moved]] = {
    "models.glow": _GLOW,
    "models.spline_flow": _SPLINES,
    "transforms.ConditionalGlow": _GLOW,
    "transforms.ConditionalNeuralSplineFlow": _SPLINES,
    "transforms.Glow": _GLOW,
    "transforms.NeuralSplineFlow": _SPLINES,
    "transforms.conditional_glow": _GLOW,
    "transforms.conditional_neural_spline_flow": _SPLINES,
    "transforms.glow": _GLOW,
    "transforms.neural_spline_flow": _SPLINES,
    "models.VAE": _VAE,
    "models.BetaVAE": {**_VAE, **_into("objective", "models.KLObjective", *_BETA)},
    "models.DeltaVAE": {
        **_NETWORK,
        **_into("objective", "models.KLObjective", "warmup_steps"),
        **_into("commitment", "models.RateCommitment", "num_steps"),
    },
    "models.NVAE": {
        **_into(
            "network",
            "models.NVAENetwork",
            "num_groups",
            "latent_channels",
            "channels",
            "num_cells",
            "num_blocks",
            "cells_per_block",
            "num_flows",
            "checkpointing",
        ),
        **_into(
            "objective",
            "models.NVAEObjective",
            "beta",
            "warmup_steps",
            "balancing",
            "regularization",
            "regularization_start",
        ),
    },
    "models.VQVAE": {
        **_CODEBOOK,
        **_into("network", "models.VQVAENetwork", *_BLOCKS, "strided_channels", "projection"),
    },
    "models.VQVAE2": {**_CODEBOOK, **_into("network", "models.VQVAE2Network", *_BLOCKS)},
    "models.SequenceVQVAE": {
        **_CODEBOOK,
        **_into("network", "models.SequenceVQVAENetwork", *_BLOCKS),
        **_into(
            "wavenet",
            "models.WaveNetSizes",
            "dropout",
            wavenet_channels="channels",
            wavenet_skip_channels="skip_channels",
            wavenet_blocks="num_blocks",
            wavenet_layers="layers_per_block",
        ),
    },
}
"""Arguments of before format 4 that are fields of a group of arguments now."""

STILL_TAKEN = dict.fromkeys(("models.VAE", "models.BetaVAE", "models.DeltaVAE"), _OWN_NETWORKS)
"""Those that Python still takes, with a warning; the package had them for long."""


def _regrouped(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Put arguments into the groups that they belong to now."""
    moved = MOVED.get(name, {})
    kept = {key: value for key, value in arguments.items() if key not in moved}
    for old, value in arguments.items():
        if old in moved:
            argument, group, field = moved[old]
            given = _fields(group, kept.get(argument))
            kept[argument] = {"class": group, "arguments": {**given, field: value}}
    return name, kept


def _fields(group: str, given: Any) -> dict[str, Any]:
    """Return the fields of a group that is given as a description, by its first field, or not."""
    if isinstance(given, Mapping):
        return dict(given.get("arguments") or {}) if "class" in given else dict(given)
    return {} if given is None else {_FIRST_FIELD[group]: given}


def _dense_vae(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Say of a VAE that its networks are dense, as they were by default."""
    if name not in ("models.VAE", "models.BetaVAE", "models.DeltaVAE"):
        return name, arguments
    given = _fields("models.VAENetwork", arguments.get("network"))
    if "kind" in given:
        return name, arguments
    network = {"class": "models.VAENetwork", "arguments": {"kind": "mlp", **given}}
    return name, {**arguments, "network": network}


def _two_denoising_blocks(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Say of a diffusion model that its U-Net has two blocks per size, as it had by default."""
    builders = ("ddpm", "improved_ddpm", "vdm", "ncsn", "bit_diffusion")
    if name not in ("models.DiffusionModel", *(f"models.{builder}" for builder in builders)):
        return name, arguments
    given = _fields("models.DenoisingNetwork", arguments.get("network"))
    blocks = {"num_blocks": 2, **given}
    return name, {**arguments, "network": {"class": "models.DenoisingNetwork", "arguments": blocks}}


def moved_hint(names: Collection[str], given: Collection[str]) -> str:
    """Return where old arguments have gone, ``""`` if none of those given has.

    Args:
        names: Public names of a class and its bases, or of a builder.
        given: Names of arguments that it does not take.

    Example:
        >>> moved_hint(["transforms.Glow"], ["num_bins"])
        '`num_bins` is now `coupling=GlowCoupling(num_bins=...)`'
    """
    moved = {old: to for name in names for old, to in MOVED.get(name, {}).items()}
    hints = [
        f"`{old}` is now `{moved[old].argument}="
        f"{moved[old].group.rpartition('.')[2]}({moved[old].field}=...)`"
        for old in given
        if old in moved
    ]
    if "cache_size" in given and any(map(_had_cache_size, names)):
        hints.append("`cache_size` is now set by `with_cache(cache_size)` of a transform")
    if "distribution" in given and not _OF_A_NET.isdisjoint(names):
        hints.append("`distribution` is now known by the network")
    return "; ".join(hints)


def moved_arguments(names: Collection[str], given: Collection[str]) -> dict[str, Moved]:
    """Return where arguments have gone that a class still takes; nothing if it refuses one.

    Args:
        names: Public names of a class and its bases.
        given: Names of arguments that its constructor does not have.
    """
    taken = {old: MOVED[name][old] for name in names for old in STILL_TAKEN.get(name, ())}
    return {old: taken[old] for old in given} if taken.keys() >= set(given) else {}


def _images_in_colour(name: str, arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Say of image folders what was their default: colour, and classes from folders alone."""
    old = {"mode": "RGB", "listing": None} if name == "data.ImageFolder" else {}
    return name, old | arguments


CHANGES: dict[int, tuple[Change, ...]] = {
    1: (_unbounded_glow,),
    2: (_without_cache_size, _by_the_network, _regrouped),
    3: (_regrouped,),
}
"""Changes from a format to the next: ``{1: (renamed_layers, ...)}`` leads from format 1 to 2.

A change takes a class or builder by its public name (``"models.VAE"``) with its arguments, and
returns both as they are now. It leaves alone what is of the new format already: configurations
that a user writes name no format.
"""

CHANGED_DEFAULTS: dict[int, tuple[Change, ...]] = {
    3: (_images_in_colour, _dense_vae),
    4: (_two_denoising_blocks,),
}
"""Likewise, changes that write a default of before: not into configurations without a format.

What a user writes means the defaults of today, and a run of before has all its options in its own.
"""


def migrated(
    description: Any,
    written: int,
    constructors: Mapping[str, str] | None = None,
    *,
    defaults: bool = True,
) -> Any:
    """Return nested ``{"class": name, "arguments": {...}}`` as this version writes them.

    Args:
        description: Plain data with descriptions at any depth.
        written: The format that they were written in.
        constructors: Change these classes alone, which are not of this package: names, each with
            the public name of the class whose constructor it has inherited.
        defaults: Whether what is not there means the default of that format.

    Returns:
        The same object if nothing has changed since.
    """
    tables = (CHANGES, CHANGED_DEFAULTS) if defaults else (CHANGES,)
    numbers = range(written, FORMAT)
    changes = [each for number in numbers for table in tables for each in table.get(number, ())]
    found = _walk(description, changes, constructors)
    return description if found == description else found


def _walk(value: Any, changes: list[Change], constructors: Mapping[str, str] | None) -> Any:
    if isinstance(value, list | tuple):
        return [_walk(item, changes, constructors) for item in value]
    if not isinstance(value, Mapping):
        return value
    found = {key: _walk(item, changes, constructors) for key, item in value.items()}
    arguments = found.get("arguments") or {}
    # Whatever else is there is for who builds it to name.
    if isinstance(found.get("class"), str) and isinstance(arguments, Mapping):
        name, arguments = found["class"], dict(arguments)
        if constructors is None:
            for change in changes:
                name, arguments = change(name, arguments)
        elif name in constructors:
            for change in changes:
                _, arguments = change(constructors[name], arguments)
        found |= {"class": name, "arguments": arguments}
    return found


def migrated_options(config: Mapping[str, Any], maker: str | None) -> dict[str, Any]:
    """Return a command line's configuration, a YAML mapping, as this version writes it.

    Args:
        config: The options. ``format`` is 1 where it is missing.
        maker: Public name of what ``config["model"]`` are the arguments of, if it is known.

    Raises:
        ValueError: If it is of a newer format.
    """
    options = dict(config)
    written = options.pop("format", 1)
    if not isinstance(written, int) or written > FORMAT:
        raise ValueError(f"`format` must be {FORMAT} or older; got {written!r}.")
    for key, name in (("model", maker), ("data", f"data.{options.get('source')}")):
        if options.get(key):
            described = {"class": str(name), "arguments": options[key]}
            known = "format" in config
            options[key] = migrated(described, written, defaults=known)["arguments"]
    return options
