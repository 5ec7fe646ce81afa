"""``compress``: data into a file, to nearly the bits that the run's model gives them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from pyro_genmodels.cli.scoring import add_data, add_model_arguments, add_run
from pyro_genmodels.cli.usage import usage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_run(parser)
    add_data(parser)
    parser.add_argument(
        "--input",
        default="test",
        metavar="DATA",
        help="a .npy or .pt array, a folder of .png pictures, or train, validation or test: that "
        "part of the run's data, or of those of --data (default: test)",
    )
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--num", type=int, help="only the first so many examples")
    parser.add_argument(
        "--chunk_size", type=int, default=256, help="examples evaluated at once (default: 256)"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the CPU (default: 1)")
    add_model_arguments(parser)


def run(arguments: argparse.Namespace, rest: list[str]) -> int:
    """Compress, write and print."""
    from pyro_genmodels import compression
    from pyro_genmodels._checks import check
    from pyro_genmodels._files import written_whole
    from pyro_genmodels.cli import arrays

    arrays.check_output(arguments.output)
    with usage():
        check(arguments.num is None or arguments.num >= 1, "num", "be at least 1", arguments.num)
    model = arrays.load_model(arguments)
    x = arrays.read_data(arguments.input, model, arguments).to(arguments.device)[: arguments.num]
    context = arrays.read_context(model, arguments, len(x), arguments.input)
    options = {"chunk_size": arguments.chunk_size, "threads": arguments.threads}
    with usage(*options):
        data = compression.compress_images(model, x, context, **options)
    report = _report(data, model, x, compression.ideal_bits(model, x, context))
    with written_whole(arguments.output) as temporary:
        temporary.write_bytes(data)
    for line in report:
        print(line)
    print(arguments.output)
    return 0


def _report(data: bytes, model: Any, x: Any, ideal: float) -> list[str]:
    from pyro_genmodels.compression import headers

    size = sum(header.payload_size for header in headers(data))
    levels = model.num_levels
    # What is continuous would be written in single precision.
    raw = x.numel() * (32 if levels is None else math.ceil(math.log2(levels)))
    bits, dims = 8 * len(data), x.numel()
    codes = " of their codes" if model.compresses == "codes" else ""
    over = 8 * size - ideal
    percent = f", {100 * over / ideal:.2f} %" if ideal > 0 else ""
    return [
        f"{len(x)} examples of shape {tuple(model.event_shape)}: {bits:,} bits in {len(data):,} "
        f"bytes, {len(data) - size} of them headers",
        f"  {bits / dims:.4f} bits/dim, {raw / bits:.2f} times smaller than {raw / dims:.0f} bits "
        "an element",
        f"  -log2 p{codes} {ideal:,.1f} bits; the coder takes {over:.1f} more{percent}",
    ]
