"""``partita continue``: a piece goes on."""

import argparse

from pipelines.inference.edit_arguments import add_edit_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="a token file of generate --tokens, or an audio file")
    parser.add_argument("--add", type=float, default=10.0, metavar="S", help="new seconds")
    add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Continue the piece, and write all of it."""
    from pipelines.rendering.edit_files import run_file_edit

    return run_file_edit(args, add_s=args.add)
