"""``partita prepare report``: what a prepared dataset holds and what was left out."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", type=Path, help="folder of a prepared dataset")


def run(args: argparse.Namespace) -> int:
    """Print ``report.md``."""
    path = args.dataset / "report.md"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: {args.dataset} is no prepared dataset")
    print(path.read_text(), end="")
    return 0
