"""``list``: models, data sources and presets."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Print names with their summaries, and the presets of each model."""
    from pyro_genmodels.cli.names import data_makers, model_makers, summary
    from pyro_genmodels.models import presets

    for title, makers in (("models", model_makers()), ("data", data_makers())):
        print(f"{title}:")
        for name, maker in sorted(makers.items(), key=lambda item: item[0].lower()):
            print(f"  {name:<22}{summary(maker)}")
    print("presets:")
    for name, group in sorted(presets().items()):
        print(f"  {name:<22}{', '.join(group)}")
    return 0
