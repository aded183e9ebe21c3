"""``partita loop``: bars that can be repeated without a seam, exact to the sample."""

import argparse

from pipelines.inference.edit_arguments import add_edit_arguments, run_edit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help='for example "funk with saxophone and drums"')
    parser.add_argument("--bars", type=int, default=8, help="length")
    add_edit_arguments(parser, needs_prompt=True)


def run(args: argparse.Namespace) -> int:
    """Generate and write the loop."""
    return run_edit(
        args, lambda pipeline, options: pipeline.loop(args.prompt, args.bars, **options)
    )
