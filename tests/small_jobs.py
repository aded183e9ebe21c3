"""Rows of small render jobs, and what a finished one left, to be compared."""

import random
from pathlib import Path
from typing import Any

from pipelines.rendering.manifest import read_manifest
from pipelines.rendering.rows import hash_file

Row = dict[str, Any]
CHANGING = ("timings", "attempts")


def make_rows(count: int, seed: int = 0) -> list[Row]:
    """Short items of several lengths, settings and formats."""
    draw = random.Random(seed)
    return [
        {
            "id": f"item {index}",
            "prompt": draw.choice(["a slow waltz", "fast", "calm piano at night"]),
            "duration_s": draw.choice([0.11, 0.2, 0.3]),
            "format": draw.choice(["wav", "flac"]),
            "guidance": draw.choice([1.0, 3.0]),
            "steps": 1,
        }
        for index in range(count)
    ]


def contents(folder: Path) -> dict[str, Any]:
    """Every file a user sees, byte for byte, and the manifest but for clocks and attempts."""
    files: dict[str, Any] = {
        path.name: hash_file(path)
        for path in folder.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and path.suffix not in (".json", ".jsonl")
    }
    for entry in read_manifest(folder).values():
        assert files[entry.audio] == entry.audio_sha256
        values = {name: value for name, value in entry.__dict__.items() if name not in CHANGING}
        values["machine"] = values["machine"]["device"]  # and not the size of batches
        files[f"entry of {entry.id}"] = values
    return files
