"""What several commands share: the pipeline they load and the file they will write."""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipelines.inference.shipped import SHIPPED as SHIPPED

if TYPE_CHECKING:
    from pipelines.inference.music_generator import MusicGenerator

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings], args: argparse.Namespace) -> Settings:
    """Build a dataclass from the arguments that are called like its fields."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: value for name, value in vars(args).items() if name in names})


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--pipeline`` and ``--quiet``."""
    parser.add_argument(
        "--pipeline",
        default=str(SHIPPED),
        metavar="DIR_OR_ID",
        help="saved pipeline, hub id, or partita-tiny: the model that ships (default)",
    )
    parser.add_argument("--quiet", action="store_true", help="print the result and errors only")


def add_lora_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--lora``, for the commands that generate."""
    parser.add_argument(
        "--lora",
        action="append",
        default=[],
        metavar="DIR[:STRENGTH]",
        help="an adapter of partita finetune, and how much of it (default: 1); may be repeated",
    )


def parse_loras(entries: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """Read ``FOLDER`` or ``FOLDER:STRENGTH`` entries of a command line.

    Raises:
        FileNotFoundError: there is no such adapter.
    """
    parsed = []
    for entry in entries:
        path, colon, strength = entry.rpartition(":")
        try:
            parsed.append((path, float(strength)) if colon else (entry, 1.0))
        except ValueError:
            parsed.append((entry, 1.0))
        if not Path(parsed[-1][0]).exists():
            raise FileNotFoundError(f"--lora {entry}: {parsed[-1][0]} does not exist")
    return tuple(parsed)


def load_pipeline(
    name: str, quiet: bool, loras: Sequence[tuple[str, float]] = ()
) -> "MusicGenerator":
    """Load a pipeline onto the fastest device, and say on standard error how long that took."""
    start = time.perf_counter()
    import torch

    from pipelines.inference.music_generator import MusicGenerator

    pipeline = MusicGenerator.from_pretrained(name)
    if loras:
        from pipelines.inference.lora import add_loras

        add_loras(pipeline, loras)
    if torch.cuda.is_available():
        pipeline.to("cuda")
    pipeline.set_progress_bar_config(disable=quiet, desc="writing", unit="frame")
    if not quiet:
        print(f"loaded {name} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return pipeline


def check_output(path: str, formats: tuple[str, ...]) -> Path:
    """Raise before any work is done unless a file of these formats could be written there."""
    target = Path(path)
    suffix = target.suffix.removeprefix(".").lower()
    if suffix not in formats:
        wanted = ", ".join(f".{name}" for name in formats)
        raise ValueError(f"{path}: the name must end in one of {wanted}")
    if target.is_dir():
        raise IsADirectoryError(f"{path} is a folder")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target.parent} does not exist, {path} cannot be written")
    return target
