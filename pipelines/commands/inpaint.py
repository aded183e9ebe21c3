"""``partita inpaint``: a stretch of a piece is written anew."""

import argparse

from pipelines.inference.edit_arguments import add_edit_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", help="a token file of generate --tokens, or an audio file")
    parser.add_argument(
        "--from",
        dest="starts",
        type=float,
        action="append",
        required=True,
        metavar="S",
        help="where it begins, in s; with --to, several times for several stretches",
    )
    parser.add_argument(
        "--to", dest="ends", type=float, action="append", required=True, metavar="S", help="ends"
    )
    add_edit_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Fill the stretches, and write the whole piece."""
    if len(args.starts) != len(args.ends):
        raise ValueError("--from and --to go together, each as often as the other")
    from pipelines.rendering.edit_files import run_file_edit

    return run_file_edit(args, spans_s=[*zip(args.starts, args.ends, strict=True)])
