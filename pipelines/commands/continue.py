"""``partita continue``: a piece goes on."""

import argparse

from pipelines.inference.edit_arguments import add_edit_arguments, run_edit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita continue``."""
    parser.add_argument("input", help="a token file of generate --tokens, or an audio file")
    parser.add_argument("--add", type=float, default=10.0, metavar="S", help="new seconds")
    add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Continue the piece, and write all of it."""
    from pipelines.rendering.edit_files import edit_file

    return run_edit(
        args,
        lambda pipeline, options: edit_file(
            pipeline, args.input, {"add_s": args.add}, options, args.prompt
        ),
    )
