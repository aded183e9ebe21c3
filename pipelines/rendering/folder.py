"""Write into the folder of a job: files that appear whole, a manifest, and one run at a time."""

import errno
import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from codec.whole_file import write_whole
from pipelines.rendering import manifest
from pipelines.rendering.edit_files import hash_file
from pipelines.rendering.item import RenderItem
from pipelines.rendering.manifest import ManifestEntry

JOB_NAME = "job.json"
LOCK_NAME = ".render.lock"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FullDiskError(OSError):
    """Report that the disk, the quota or the largest file allowed is full."""


class RenderFolder:
    """Hold a folder that one run at a time writes into, with its manifest's entries by id."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries = manifest.read_manifest(path)

    def is_whole(self, entry: ManifestEntry) -> bool:
        """Tell whether an entry's files are there as they were written."""
        files = ((entry.audio, entry.audio_sha256), (entry.tokens, entry.tokens_sha256))
        return entry.status == "done" and all(
            (self.path / name).is_file() and hash_file(self.path / name) == sha256
            for name, sha256 in files
        )

    def check_unknown_files(self, items: Iterable[RenderItem]) -> None:
        """Raise ValueError if a folder without a job holds a file that an item would replace."""
        if (self.path / JOB_NAME).is_file():
            return
        for item in items:
            for name in (item.audio_name, item.tokens_name):
                if (self.path / name).exists():
                    raise ValueError(
                        f"{self.path / name} exists and is no render's: choose another folder"
                    )

    def rewrite(self, entries: Iterable[ManifestEntry]) -> None:
        """Replace the manifest."""
        self.entries = {entry.id: entry for entry in entries}
        with explain_full_disk(self.path):
            manifest.write_manifest(self.path, self.entries.values())

    def add(self, entry: ManifestEntry, audio: bytes = b"", tokens: bytes = b"") -> None:
        """Put an item's files under their names, then its line into the manifest.

        Raises:
            FullDiskError: the disk is full; at most the manifest's last line is half-written.
        """
        with explain_full_disk(self.path):
            if entry.audio:
                write_whole(self.path / entry.audio, audio)
                write_whole(self.path / entry.tokens, tokens)
            with (self.path / manifest.NAME).open("ab") as file:
                file.write(manifest.format_entry(entry))
        self.entries[entry.id] = entry

    def remove_files(self, entry: ManifestEntry) -> None:
        """Delete the files of an entry that is to be made anew under other settings."""
        for name in filter(None, (entry.audio, entry.tokens)):
            (self.path / name).unlink(missing_ok=True)


@contextmanager
def open_folder(path: Path) -> Iterator[RenderFolder]:
    """Make and lock a folder, read its manifest, and remove what a killed run left half-written.

    Raises:
        ValueError: another run is at work there, or the manifest is damaged.
        OSError: the folder cannot be written.
    """
    with explain_full_disk(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = (path / LOCK_NAME).open("ab")
    with lock:  # closing unlocks
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another run is rendering into {path}") from None
        for partial in path.glob(".*.partial.*"):
            partial.unlink()
        yield RenderFolder(path)


def is_locked(path: Path) -> bool:
    """Tell whether a run is at work in a folder."""
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
    """Turn a full disk into a :class:`FullDiskError` that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise FullDiskError(
            f"no room to write {path} ({error.strerror}): make room and run the same command "
            "again; finished items are kept"
        ) from error
