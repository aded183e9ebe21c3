"""Safetensors files with JSON in their metadata: read whole, every fault named in one line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor


def read_safetensors(path: str | Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read a file's metadata and tensors.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is truncated or no safetensors file (a pickle is never loaded).
    """
    if Path(path).is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a safetensors file")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            return file.metadata() or {}, {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error


def check_version(path: str | Path, metadata: dict[str, str], version: int) -> None:
    """Raise a ``ValueError`` unless the metadata name this ``format_version``."""
    found = metadata.get("format_version")
    if found != str(version):
        raise ValueError(f"{path}: format_version must be {version}, got {found}")


def read_facts(path: str | Path, metadata: dict[str, str], names: Sequence[str]) -> dict[str, Any]:
    """Parse the named entries of the metadata; ValueError where one is missing or no JSON."""
    missing = [name for name in names if name not in metadata]
    if missing:
        raise ValueError(f"{path}: the metadata lack {missing[0]!r}")
    try:
        return {name: json.loads(metadata[name]) for name in names}
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: the metadata are damaged: {error}") from error
