"""``partita vary``: other notes under the same plan."""

import argparse

from pipelines.inference.edit_arguments import add_edit_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="a token file of generate --tokens, or an audio file")
    parser.add_argument(
        "--strength", type=float, default=0.4, help="share of the bars that are new"
    )
    add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the variation."""
    from pipelines.rendering.edit_files import run_file_edit

    return run_file_edit(args, strength=args.strength)
