"""Command line: ``pyro-genmodels train | evaluate | sample | compress | list`` and others.

This module imports nothing but the standard library, so that ``--help`` answers at once; each
command imports what it needs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from collections.abc import Sequence

from pyro_genmodels.cli.usage import UsageError, split_data_options

_DESCRIPTION = "Train, score and sample likelihood-based deep generative models."
_EXAMPLES = """examples:
  pyro-genmodels train vae --data digits
  pyro-genmodels train pixelcnn --data ising --data.beta 0.3 --max_epochs 20
  pyro-genmodels train vae --data digits --help      every option of this model
  pyro-genmodels train prior runs/vqvae-digits-1     the second stage of a VQ-VAE
  pyro-genmodels train --run runs/vae-digits-1 --resume
  pyro-genmodels evaluate runs/vae-digits-1
"""
# Each command's module has `add_arguments(parser)` and `run(arguments, rest)`.
_COMMANDS = {
    "train": "train a model into a run folder, then score it on the test data",
    "evaluate": "score a run's best weights again",
    "sample": "draw samples of a run's model into a picture",
    "reconstruct": "draw test data beside their reconstructions",
    "compress": "compress data with a run's model",
    "decompress": "bring data back that were compressed with a run's model",
    "data": "show what a file, a folder or a named source of data holds",
    "list": "list models and data sources",
}
_WRONG, _INTERRUPTED = 2, 130
# Torch prints some of its errors in bold.
_TERMINAL_CODES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; the process's own by default.

    Returns:
        Exit status: 0, 1 after an error (one line on stderr), 2 for a wrong command line, 130
        after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        return _dispatch([word for word in words if word != "--debug"])
    except KeyboardInterrupt as interrupt:
        print("; ".join(["interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough; Python must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            raise
        print(f"error: {_one_line(error)}", file=sys.stderr)
        return _WRONG if isinstance(error, UsageError) else 1


def _dispatch(words: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="pyro-genmodels",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, description=summary, allow_abbrev=False, add_help=name != "train"
        )
        if name in words[:1]:
            module = importlib.import_module(f"pyro_genmodels.cli.commands.{name}")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    train = words[:1] == ["train"]
    words, of_data = (words, []) if train else split_data_options(words)
    parsed, rest = parser.parse_known_args(words)
    if of_data and "data" not in parsed:
        rest = [*rest, *of_data]
    parsed.data_words = of_data
    if rest and parsed.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return parsed.run(parsed, rest)


def _one_line(error: Exception) -> str:
    # Pyro adds shapes of sites to an error's text, even where there are none.
    text = _TERMINAL_CODES.sub("", str(error))
    text = " ".join(text.split()).partition(" Trace Shapes:")[0]
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        text = f"{error.strerror}: '{error.filename}'"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        text = f"{error.name} is not installed; it comes with: pip install 'pyro-genmodels[train]'"
    elif isinstance(error, KeyError | IndexError | AssertionError) or not text:
        text = f"{type(error).__name__}: {text}"
    return text
