"""``data``: what a file, a folder or a named source holds, and which models suit it."""

from __future__ import annotations

import argparse
from pathlib import Path

from pyro_genmodels.cli.usage import usage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "data", metavar="SOURCE", help="a file, a folder or a name (see `list`); options --data.X"
    )
    parser.add_argument("--out", type=Path, help="picture of training data to write (.png)")


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Read and describe the data."""
    from pyro_genmodels.cli import plan
    from pyro_genmodels.cli.arrays import check_output
    from pyro_genmodels.cli.description import print_models, print_source, save_examples

    if arguments.out is not None:
        check_output(arguments.out, (".png",), argument="out")
    with usage():
        name = plan.find_source(arguments.data)
        words = [*plan.words_of_path(arguments.data), *arguments.data_words]
    source, _ = plan.make_source(name, words, {})
    print_source(source)
    if arguments.out is not None:
        save_examples(source, arguments.out)
        print(arguments.out)
    print_models(source, [arguments.data, *arguments.data_words])
    return 0
