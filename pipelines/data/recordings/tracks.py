"""List the audio files to prepare, with what is known about each before it is opened."""

import os
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from codec.audio_file import OTHER_SUFFIXES
from codec.whole_file import printable
from pipelines.data.recordings.track import Track, source_of
from pipelines.data.recordings.track_metadata import METADATA_NAMES, Described

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3"),
    *(".aif", ".aiff", ".aifc", ".caf", ".w64", ".rf64", ".au", ".snd"),
)
ARCHIVE_SUFFIXES = (".zip", ".pk3")


@dataclass
class TrackList:
    """Hold what was found in an input."""

    tracks: list[Track]  # sorted by name, no name twice
    # rows of metadata that were left out, one sentence each with file and line
    faults: list[str] = field(default_factory=list)
    # number of files that are no audio, by suffix
    other_files: Counter[str] = field(default_factory=Counter)


def find_tracks(source: str | Path) -> TrackList:
    """List the audio files of a folder, an archive, a metadata file or a text file of paths.

    Folders are searched recursively, with the archives in them. A ``metadata.jsonl`` or
    ``metadata.csv`` describes the files beside and below it. A missing file that a list or a row
    names is kept, so that the report shows it.

    Raises:
        ValueError: the input does not exist, or is a binary file.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"the input {path} does not exist")
    if path.is_dir():
        found = find_in_folder(path)
    elif path.suffix.lower() in ARCHIVE_SUFFIXES:
        found = TrackList(find_in_archive(path, path.stem))
    elif path.suffix.lower() in (".jsonl", ".csv"):
        described = Described()
        described.read(path, PurePosixPath())
        found = TrackList(described.join([], path.parent), described.faults)
    else:
        found = TrackList(read_list(path))
    unique = {track.name: track for track in found.tracks}  # a list may name a file twice
    found.tracks = sorted(unique.values(), key=lambda track: track.name)
    return found


def find_in_folder(folder: Path) -> TrackList:
    """List the audio files below a folder and in its archives, with their metadata."""
    described = Described()
    found = TrackList([])
    for path in sorted(folder.rglob("*")):
        name = printable(path.relative_to(folder))
        if path.is_dir():
            continue
        if path.name in METADATA_NAMES:
            described.read(path, PurePosixPath(name).parent)
        elif is_audio(path.name):
            found.tracks.append(Track(name, path, source=source_of(name, folder)))
        elif path.suffix.lower() in ARCHIVE_SUFFIXES:
            found.tracks += find_in_archive(path, source_of(name, folder), prefix=f"{name}/")
        else:
            found.other_files[printable(path.suffix.lower()) or "no suffix"] += 1
    found.tracks = described.join(found.tracks, folder)
    found.faults = described.faults
    return found


def find_in_archive(path: Path, source: str, prefix: str = "") -> list[Track]:
    """List the audio members of a zip archive; an unreadable archive is one unreadable track."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if is_audio(member)]
    except (zipfile.BadZipFile, OSError):
        return [Track(prefix.rstrip("/") or printable(path.name), path, source=source)]
    return [Track(prefix + member, path, member, source) for member in members]


def read_list(path: Path) -> list[Track]:
    """Read a text file of paths, one a line, relative to its folder; ``#`` starts a comment."""
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if b"\0" in content:
        raise ValueError(
            f"the input {path} must be a folder, an archive, a metadata file or a text file of "
            "paths, got a binary file"
        )
    tracks = []
    for line in content.splitlines():
        entry = os.fsdecode(line.strip())
        if entry and not entry.startswith("#"):
            source = printable(Path(entry).parent.name or path.stem)
            tracks.append(Track(printable(entry), path.parent / entry, source=source))
    return tracks


def is_audio(name: str) -> bool:
    """Return whether a file's suffix is one of audio."""
    suffixes = (*AUDIO_SUFFIXES, *OTHER_SUFFIXES)  # the report names what is not read
    return name.lower().endswith(suffixes) and not name.rsplit("/", 1)[-1].startswith(".")
