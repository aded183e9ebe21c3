"""Turn YAML and a command line into configured objects (jsonargparse), with one-line errors."""

import re
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace

from codec.process_settings import kept_process_settings

RENAMED = {
    "quantise_from": "losses.quantize_from",
    "plan_dropout": "data.whole_plan_dropout (no plan) and data.players_dropout (a plan that does "
    "not say who plays)",
}
"""What fields of older configs are called now."""


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not YAML; the message names the file.
    """
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error


class ConfigFile(ActionConfigFile):
    """Read ``--config FILE.yaml``; the message about a file that cannot be read names it."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        try:
            super().__call__(parser, cfg, values, option_string)
        except (ArgumentError, UnicodeDecodeError) as error:
            raise ArgumentError(None, f"{values}: {error}") from error


def build_parser(program: str, parts: dict[str, Any]) -> ArgumentParser:
    """Make a parser with ``--config FILE.yaml`` and ``--PART.FIELD`` for every field of every part.

    Args:
        program: name shown in ``--help``.
        parts: name -> class whose constructor takes the fields.
    """
    parser = ArgumentParser(prog=program, exit_on_error=False)
    parser.add_argument("--config", action=ConfigFile, help="YAML file; later options override it")
    for name, part in parts.items():
        parser.add_class_arguments(part, name)
    parser.add_argument("--resume", action="store_true", help="continue from the last checkpoint")
    return parser


def parse(parser: ArgumentParser, argv: list[str] | None = None) -> Namespace:
    """Parse a command line with ``build_parser``'s parser; nothing is built.

    Raises:
        ValueError: an unknown key or a wrong type.
    """
    try:
        return parser.parse_args(argv)
    except ArgumentError as error:
        message = str(error)
        for old, new in RENAMED.items():
            if re.search(rf"\b{old}\b", message):
                message += f"; {old} is now {new}"
        raise ValueError(message) from error


@kept_process_settings()
def build(parser: ArgumentParser, settings: Namespace) -> dict[str, Any]:
    """Build every part; equal settings give equal initial weights.

    Raises:
        ValueError: a value that a part refuses.
    """
    torch.manual_seed(settings.training.seed)
    # the name changed in jsonargparse 4.49
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes
    built = instantiate(settings).as_dict()
    del built["config"]
    return built


def configure(program: str, parts: dict[str, Any], argv: list[str] | None = None) -> dict[str, Any]:
    """Parse a command line and build the arguments of a trainer: every part, and ``resume``.

    Raises:
        ValueError: an unknown key, a wrong type, or a value that a part refuses.
    """
    parser = build_parser(program, parts)
    return build(parser, parse(parser, argv))
