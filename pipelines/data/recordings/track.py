"""Identify an audio file to prepare, with what is known about it before it is opened."""

import zipfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

from codec.whole_file import printable


@dataclass(frozen=True)
class Track:
    """Identify one audio file, alone or inside an archive."""

    name: str  # unique in the dataset; a POSIX path relative to the input
    path: Path  # the file, or the archive that holds it
    member: str = ""  # name inside the archive, "" for a plain file
    source: str = ""  # package, folder or collection; ``validation_source`` names sources
    split: str = ""  # "train" or "validation" where it is given, "" where it is to be drawn
    # ``captions`` and ``TEXT_KEYS``, all optional
    metadata: dict[str, Any] = field(default_factory=dict)
    # all other known facts (``bpm``, ``key``...)
    labels: dict[str, Any] = field(default_factory=dict)
    stems: tuple[Path, ...] = ()  # further files of equal length that are mixed with ``path``
    notes: tuple[str, ...] = ()  # what was put right in the metadata, one sentence each
    fault: str = ""  # why the file cannot be used, known before it is opened

    def open(self) -> Path | BytesIO:
        """Return the path of the file, or its bytes where it is in an archive."""
        if not self.member:
            return self.path
        with zipfile.ZipFile(self.path) as archive:
            return BytesIO(archive.read(self.member))

    def stamp(self) -> list[Any]:
        """Identify the version of a track's files: names, sizes and times of change."""
        stamp: list[Any] = [self.name, self.member]
        for path in (self.path, *self.stems):
            found = path.stat() if path.is_file() else None
            stamp.append([found.st_size, found.st_mtime_ns] if found else None)
        return stamp


def source_of(name: str, folder: Path) -> str:
    """Return the first folder below the input, or the input's own name."""
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else printable(folder.resolve().name)
