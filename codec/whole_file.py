"""Files that carry their name only when they are whole, and the reading of JSON objects."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` to write to; rename the file when the body succeeds.

    The bytes are on the disk before the file is renamed, so a killed process or a full disk leaves
    either the old content or the new one under ``path``, never a part of it.
    """
    final = Path(path)
    # keeps the suffix, by which some writers choose a format
    partial = final.with_name(f".{uuid4().hex[:8]}.partial.{final.name}")
    try:
        yield partial
        sync_and_rename(partial, final)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def sync_and_rename(partial: Path, final: Path) -> None:
    """Put a written file under its final name once its bytes are on the disk."""
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(final)


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be written; bytes that are not UTF-8 become ``\\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def write_whole(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write text or bytes under ``path``, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_bytes(
            content.encode(errors="backslashreplace") if isinstance(content, str) else content
        )


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Write indented JSON under ``path``, whole or not at all."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_json_object(path: str | Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        ValueError: it holds something else; the message names the file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a JSON object, got {type(content).__name__}")
    return content


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Yield a folder to fill; it takes its final name when the body succeeds."""
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        replace_folder(partial, target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def replace_folder(partial: Path, target: Path) -> None:
    """Rename ``partial`` to ``target``, putting aside what stood there until that is done."""
    if target.exists():
        aside = target.with_name(f".old-{target.name}")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(target, aside)
        os.replace(partial, target)
        shutil.rmtree(aside)
    else:
        os.replace(partial, target)
