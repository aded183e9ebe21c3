"""What several commands share: the pipeline they load and the file they will write."""

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipelines.inference.shipped import SHIPPED as SHIPPED

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline


def add_pipeline_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--pipeline`` and ``--quiet``."""
    parser.add_argument(
        "--pipeline",
        default=str(SHIPPED),
        metavar="DIR_OR_ID",
        help="saved pipeline, hub id, or partita-tiny: the model that ships (default)",
    )
    parser.add_argument("--quiet", action="store_true", help="print the result and errors only")


def add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare ``--quantize`` and ``--compile``, for the commands that generate."""
    parser.add_argument(
        "--quantize", choices=["int8"], help="keep the prior's weights in eight bits: faster"
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="compile the prior's step: faster after a minute, ten seconds the next time",
    )


def load_pipeline(
    name: str, quiet: bool, quantize: Literal["int8"] | None = None, compile_step: bool = False
) -> "Pipeline":
    """Load a pipeline onto the fastest device, and say on standard error how long that took."""
    start = time.perf_counter()
    import torch

    from codec.process_settings import hidden_progress_bars
    from pipelines.pipeline import Pipeline

    with hidden_progress_bars():
        pipeline = Pipeline.from_pretrained(name, quantize=quantize)
    if torch.cuda.is_available():
        pipeline.to("cuda")
    if compile_step:
        pipeline.prior.compile_step()
    pipeline.set_progress_bar_config(disable=quiet, desc="writing", unit="frame")
    if not quiet:
        print(f"loaded {name} in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return pipeline


def check_output(path: str, formats: tuple[str, ...]) -> Path:
    """Raise before any work is done if the file could not be written under this name.

    Args:
        path: of the file.
        formats: suffixes it may have, without the dot.
    """
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
