"""``list``: models and data sources."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Print names with their summaries."""
    from pyro_genmodels.cli._names import data_makers, model_makers, summary

    for title, makers in (("models", model_makers()), ("data", data_makers())):
        print(f"{title}:")
        for name, maker in sorted(makers.items(), key=lambda item: item[0].lower()):
            print(f"  {name:<22}{summary(maker)}")
    return 0
