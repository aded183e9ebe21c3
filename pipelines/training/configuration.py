"""YAML and command line to configured objects (jsonargparse), and one-line errors."""

import sys
from collections.abc import Callable
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from codec.process_settings import kept_process_settings


def build_parser(program: str, parts: dict[str, Any]) -> ArgumentParser:
    """A parser with ``--config FILE.yaml`` and ``--PART.FIELD`` for every field of every part.

    Args:
        program: name shown in ``--help``.
        parts: name -> class whose constructor takes the fields.
    """
    parser = ArgumentParser(prog=program, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file; later options override it")
    for name, part in parts.items():
        parser.add_class_arguments(part, name)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    return parser


def parse(program: str, parts: dict[str, Any], argv: list[str] | None = None) -> Namespace:
    """Parse and build: the result holds one instance per part and ``resume``.

    Raises:
        ValueError: an unknown key, a wrong type, or a value that a part refuses.
    """
    parser = build_parser(program, parts)
    try:
        settings = parser.parse_args(argv)
    except ArgumentError as error:
        raise ValueError(str(error)) from error
    torch.manual_seed(settings.training.seed)  # initial weights are the seed's too
    built = {name: part(**settings[name].as_dict()) for name, part in parts.items()}
    return Namespace(**built, resume=settings.resume)


@kept_process_settings()
def run_script(
    program: str, function: Callable[..., Any], parts: dict[str, Any], argv: list[str] | None
) -> int:
    """Parse, call ``function(**parts, resume=...)``; a user's mistake is one line and exit 2."""
    try:
        settings = parse(program, parts, argv)
        function(**{name: settings[name] for name in parts}, resume=settings.resume)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"{program}: error: {error}".replace("\n", " "), file=sys.stderr)
        return 2
    return 0
