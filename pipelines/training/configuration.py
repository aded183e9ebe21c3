"""Turn YAML and a command line into configured objects (jsonargparse), with one-line errors."""

import re
import sys
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_type_hints

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


ANYWHERE = ("--config", "--print_config", "--resume", "--help")
"""Options that may come before ``--config``, which overrides all others before it."""


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not YAML, or a key stands twice, of which YAML would keep the last; the
            message names the file.
    """
    text = Path(path).read_bytes()
    try:
        refuse_twins(path, yaml.compose(text, yaml.SafeLoader))
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error


def refuse_twins(path: str | Path, node: Any) -> None:
    """Raise ValueError for the first key of a YAML file that stands twice in its mapping."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        for index, (key, value) in enumerate(node.value):
            if key.value in keys[:index]:
                line = key.start_mark.line + 1
                raise ValueError(f"{path} line {line}: {key.value} stands there twice")
            refuse_twins(path, value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            refuse_twins(path, item)


class ConfigFile(ActionConfigFile):
    """Read ``--config FILE.yaml``; the message about a file that cannot be read names it."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: Any = None) -> None:
        if isinstance(values, str) and Path(values).is_file():
            read_yaml(values)
        try:
            super().__call__(parser, cfg, values, option_string)
        except (ArgumentError, UnicodeDecodeError) as error:
            raise ArgumentError(None, f"{values}: {error}") from error


class ConfigParser(ArgumentParser):
    """Parses ``--config FILE.yaml`` and ``--PART.FIELD`` for every field of every part.

    Args:
        program: name shown in ``--help``.
        parts: name -> class whose constructor takes the fields.
        resumable: whether there is ``--resume``.
    """

    def __init__(
        self,
        program: str = "",
        parts: dict[str, Any] | None = None,
        resumable: bool = True,
        **options: Any,
    ) -> None:
        options = {"exit_on_error": False, "allow_abbrev": False} | options
        super().__init__(prog=program, **options)
        self.parts = parts or {}
        if parts is None:
            return  # jsonargparse makes a parser of the same class for a field that has fields
        text = "YAML file; later options override it"
        self.add_argument("--config", action=ConfigFile, help=text)
        for name, part in self.parts.items():
            self.add_class_arguments(part, name)
        if resumable:
            text = "continue from the last checkpoint"
            self.add_argument("--resume", action="store_true", help=text)


def parse(parser: ConfigParser, argv: list[str] | None = None) -> Namespace:
    """Parse a command line; nothing is built.

    Raises:
        ValueError: an unknown key, a wrong type, or an option that a file after it overrides.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    options = [word.split("=")[0] for word in argv]
    last = max((at for at, option in enumerate(options) if option == "--config"), default=0)
    for option in options[:last]:
        if option.startswith("--") and option not in ANYWHERE:
            raise ValueError(f"{option} must come after --config, which would override it")
    # jsonargparse prints as soon as the option is read, without what comes after it
    argv.sort(key=lambda word: word.startswith("--print_config"))
    try:
        settings = parser.parse_args(argv)
        refuse_nulls(parser, settings)
        return settings
    except ArgumentError as error:
        message = str(error)
        for old, new in RENAMED.items():
            if re.search(rf"\b{old}\b", message):
                message += f"; {old} is now {new}"
        raise ValueError(message) from error


def refuse_nulls(parser: ConfigParser, settings: Namespace) -> None:
    """Raise ValueError for a value that cannot be null in Python, but may in jsonargparse."""
    if not isinstance(settings.get("resume", False), bool):
        raise ValueError(f"resume must be true or false, got {settings.resume!r}")
    for name, part in parser.parts.items():
        for field, hint in get_type_hints(part.__init__).items():
            if field == "return" or NoneType in get_args(hint):
                continue
            if settings[name][field] is None:
                raise ValueError(f"{name}.{field} must not be null")


@kept_process_settings()
def build(parser: ConfigParser, settings: Namespace) -> dict[str, Any]:
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
    parser = ConfigParser(program, parts)
    return build(parser, parse(parser, argv))
