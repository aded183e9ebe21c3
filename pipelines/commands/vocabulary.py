"""``partita vocabulary``: the words that a prompt's planner and prior were trained on."""

import argparse
import json
import textwrap


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print it for a program")


def run(args: argparse.Namespace) -> int:
    """Print the words by what they name."""
    from pipelines.inference.prompt_words import vocabulary

    words = vocabulary()
    if args.json:
        print(json.dumps(words, ensure_ascii=False))
        return 0
    for name, known in words.items():
        print(f"{name} ({len(known)})")
        print(textwrap.fill(", ".join(known), 96, initial_indent="  ", subsequent_indent="  "))
    return 0
