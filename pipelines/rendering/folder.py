"""The folder of a job: files that appear whole, a manifest, and one run at a time."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from pipelines.rendering import manifest
from pipelines.rendering.item import RenderItem
from pipelines.rendering.manifest import ManifestEntry
from pipelines.rendering.rows import hash_file

JOB_NAME = "job.json"
LOCK_NAME = ".render.lock"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoomError(OSError):
    """The disk, the quota or the largest file allowed is full."""


class RenderFolder:
    """A folder that one run at a time writes into.

    Args:
        path: of the folder, made if missing.

    Attributes:
        entries: the manifest's, by id.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.entries: dict[str, ManifestEntry] = {}
        self._lock: BinaryIO | None = None

    def __enter__(self) -> "RenderFolder":
        """Lock, read the manifest, and remove what a killed run left half-written.

        Raises:
            ValueError: another run is at work here, or the manifest is damaged.
            OSError: the folder cannot be written.
        """
        with explain_full_disk(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LOCK_NAME).open("ab")
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"another run is rendering into {self.path}") from None
            for part in self.path.glob(".*.part"):
                part.unlink()
            self.entries = manifest.read_manifest(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._lock is not None:
            self._lock.close()  # which unlocks

    def is_whole(self, entry: ManifestEntry) -> bool:
        """Whether an entry's files are there as they were written."""
        if entry.status != "done":
            return False
        files = ((entry.audio, entry.audio_sha256), (entry.tokens, entry.tokens_sha256))
        return all(
            (self.path / name).is_file() and hash_file(self.path / name) == sha256
            for name, sha256 in files
        )

    def check_unknown_files(self, items: list[RenderItem]) -> None:
        """Raise ValueError if a folder without a job holds a file that an item would replace."""
        if (self.path / JOB_NAME).is_file():
            return
        for item in items:
            for name in (item.audio_name, item.tokens_name):
                if (self.path / name).exists():
                    raise ValueError(
                        f"{self.path / name} exists and is no render's: choose another folder"
                    )

    def rewrite(self, entries: list[ManifestEntry]) -> None:
        """Replace the manifest, unless it is already so."""
        with explain_full_disk(self.path):
            content = b"".join(map(manifest.format_entry, entries))
            path = self.path / manifest.NAME
            if not path.is_file() or path.read_bytes() != content:
                manifest.write_manifest(self.path, entries)
        self.entries = {entry.id: entry for entry in entries}

    def add(self, entry: ManifestEntry, audio: bytes = b"", tokens: bytes = b"") -> None:
        """Put an item's files under their names, then its line into the manifest.

        Raises:
            NoRoomError: there is no room; nothing is left half-written but, at most, the last line
                of the manifest.
        """
        with explain_full_disk(self.path):
            if entry.audio:
                self._write(entry.audio, audio)
                self._write(entry.tokens, tokens)
            manifest.append_entry(self.path, entry)
        self.entries[entry.id] = entry

    def remove_files(self, entry: ManifestEntry) -> None:
        """Delete the files of an entry that is to be made anew under other settings."""
        for name in (entry.audio, entry.tokens):
            if name:
                (self.path / name).unlink(missing_ok=True)

    def _write(self, name: str, data: bytes) -> None:
        part = self.path / f".{name}.part"
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.path / name)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def is_locked(path: Path) -> bool:
    """Whether a run is at work in a folder."""
    try:
        with (path / LOCK_NAME).open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@contextmanager
def explain_full_disk(path: Path) -> Iterator[None]:
    """Turn a full disk into a :class:`NoRoomError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise NoRoomError(
            f"no room to write {path} ({error.strerror}): make room and run the same command "
            "again; finished items are kept"
        ) from error


def keep_order(entries: dict[str, ManifestEntry], ids: list[str]) -> list[ManifestEntry]:
    """Entries of other jobs first, then those of ``ids`` in their order."""
    wanted = set(ids)
    others = [entry for id, entry in entries.items() if id not in wanted]
    return others + [entries[id] for id in ids if id in entries]


def first_difference(entry: ManifestEntry, identity: dict[str, object], pipeline_hash: str) -> str:
    """What an entry was made with and what is wanted now, "" where they are the same."""
    old = replace(entry).__dict__
    found = {name: old[name] for name in identity} | {"pipeline": entry.pipeline_hash}
    wanted = identity | {"pipeline": pipeline_hash}
    for name, value in flatten(wanted).items():
        if flatten(found).get(name) != value:
            return f"{name} was {flatten(found).get(name)!r}, is now {value!r}"
    return ""


def flatten(values: dict[str, object]) -> dict[str, object]:
    """RenderSettings beside the other fields."""
    inner = values.get("settings")
    assert isinstance(inner, dict)
    return {**{key: value for key, value in values.items() if key != "settings"}, **inner}
