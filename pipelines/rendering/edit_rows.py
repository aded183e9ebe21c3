"""The ``edit`` field of a row: a source and a stretch, checked before anything is rendered."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipelines.rendering.edit_files import source_duration
from pipelines.rendering.item import RenderItem

EDITS = {"spans_s": ("from_s", "to_s"), "add_s": ("add_s",), "strength": ("strength",)}
"""For every argument of an edit, the names of its numbers in a row."""


def open_edit(item: RenderItem, row: dict[str, Any], folder: Path) -> RenderItem:
    """Check a row's edit and let the item be as long as what comes of it."""
    edit = row["edit"]
    if "codes" in row or "duration_s" in row:
        raise ValueError("an edit has its source's length, and no codes and duration_s beside it")
    if not isinstance(edit, dict) or not isinstance(edit.get("source"), str):
        raise ValueError(f"edit must be an object with a source, got {edit!r:.60}")
    if {*edit} - {"source"} not in [{*names} for names in EDITS.values()]:
        wanted = "; ".join(" and ".join(names) for names in EDITS.values())
        raise ValueError(f"edit must hold source and one of {wanted}, got {[*edit]}")
    for name, value in edit.items():
        if name != "source" and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"edit: {name} must be a number, got {value!r:.40}")
    path = (folder / edit["source"]).resolve()
    seconds = source_duration(path)
    if "to_s" in edit and not 0 <= edit["from_s"] < edit["to_s"] <= seconds + 1e-9:
        raise ValueError(
            f"edit: from_s and to_s must lie in the {seconds:.2f} s of the source, in this order"
        )
    if not 0 < edit.get("strength", 1) <= 1 or not edit.get("add_s", 1) > 0:
        raise ValueError("edit: strength must lie in (0, 1], and add_s be positive")
    seconds += edit.get("add_s", 0)
    made = {**edit, "sha256": hash_file(path)}
    settings = replace(item.settings, duration_s=seconds, edit=made)
    return replace(item, settings=settings, source=str(path))


def hash_file(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
