"""List the audio files to prepare, with what is known about each before it is opened."""

import json
import zipfile
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3")
ARCHIVE_SUFFIXES = (".zip", ".pk3")
METADATA_NAME = "metadata.jsonl"
CAPTION_KEYS = ("captions", "caption", "text")
TEXT_KEYS = ("title", "genre", "artist", "license", "attribution", "source")


@dataclass(frozen=True)
class Track:
    """Identify one audio file, alone or inside an archive.

    Args:
        name: unique in the dataset; a POSIX path relative to the input.
        path: the file, or the archive that holds it.
        member: name inside the archive, "" for a plain file.
        source: package, folder or collection; ``validation_source`` names sources.
        split: "train" or "validation" where it is given, "" where it is to be drawn.
        metadata: ``captions`` and ``TEXT_KEYS``, all optional.
        labels: all other known facts (``bpm``, ``key``...).
        stems: further files of equal length that are mixed with ``path``.
    """

    name: str
    path: Path
    member: str = ""
    source: str = ""
    split: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, Any] = field(default_factory=dict)
    stems: tuple[Path, ...] = ()

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


def find_tracks(source: str | Path) -> list[Track]:
    """List the audio files of a folder, an archive, a ``metadata.jsonl`` or a text file of paths.

    Folders are searched recursively, with the archives in them. A ``metadata.jsonl`` describes the
    files beside and below it. A missing file that a list or a ``metadata.jsonl`` names is kept, so
    that the report shows it.

    Args:
        source: the folder or file.

    Returns:
        Tracks sorted by name.

    Raises:
        ValueError: the input does not exist, or a line of a list cannot be understood.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(f"the input {path} does not exist")
    if path.is_dir():
        tracks = find_in_folder(path)
    elif path.suffix.lower() in ARCHIVE_SUFFIXES:
        tracks = find_in_archive(path, path.stem)
    elif path.suffix.lower() == ".jsonl":
        tracks = list_described(path)
    else:
        tracks = read_list(path)
    unique = {track.name: track for track in tracks}  # a list may name a file twice
    return sorted(unique.values(), key=lambda track: track.name)


def find_in_folder(folder: Path) -> list[Track]:
    """List the audio files below a folder and in its archives, with their metadata."""
    described: dict[str, dict[str, Any]] = {}
    tracks: list[Track] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.name == METADATA_NAME:
            described |= {
                (PurePosixPath(name).parent / file_name).as_posix(): row
                for file_name, row in read_metadata(path).items()
            }
        elif is_audio(path.name):
            tracks.append(Track(name, path, source=source_of(name, folder)))
        elif path.suffix.lower() in ARCHIVE_SUFFIXES:
            tracks += find_in_archive(path, source_of(name, folder), prefix=f"{name}/")
    found = {track.name for track in tracks}
    for name in described.keys() - found:
        tracks.append(Track(name, folder / name, source=source_of(name, folder)))
    return [describe(track, described.get(track.name, {})) for track in tracks]


def find_in_archive(path: Path, source: str, prefix: str = "") -> list[Track]:
    """List the audio members of a zip archive; an unreadable archive is one unreadable track."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if is_audio(member)]
    except (zipfile.BadZipFile, OSError):
        return [Track(prefix.rstrip("/") or path.name, path, source=source)]
    return [Track(prefix + member, path, member, source) for member in members]


def list_described(path: Path) -> list[Track]:
    """List the files that one ``metadata.jsonl`` names."""
    folder = path.parent
    return [
        describe(Track(name, folder / name, source=source_of(name, folder)), row)
        for name, row in read_metadata(path).items()
    ]


def read_list(path: Path) -> list[Track]:
    """Read a text file of paths, one a line, relative to its folder; ``#`` starts a comment."""
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"the input {path} must be a folder, an archive, a metadata.jsonl or a text file of "
            "paths, got a binary file"
        ) from error
    tracks = []
    for line in lines:
        entry = line.strip()
        if entry and not entry.startswith("#"):
            source = Path(entry).parent.name or path.stem
            tracks.append(Track(entry, path.parent / entry, source=source))
    return tracks


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of an AudioFolder ``metadata.jsonl`` by ``file_name``.

    Raises:
        ValueError: a line is not a JSON object or has no ``file_name``.
    """
    rows = {}
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} line {number} is not JSON: {error}") from error
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise ValueError(f"{path} line {number} must be an object with a file_name")
        rows[PurePosixPath(row.pop("file_name")).as_posix()] = row
    return rows


def describe(track: Track, row: dict[str, Any]) -> Track:
    """Add a metadata row to a track; keys that are not text keys become labels."""
    row = dict(row)
    captions = [text for key in CAPTION_KEYS for text in as_texts(row.pop(key, None))]
    metadata: dict[str, Any] = {key: str(row.pop(key)) for key in TEXT_KEYS if row.get(key)}
    labels = row.pop("labels", None)
    if not isinstance(labels, dict):
        labels = {} if labels is None else {"labels": labels}
    split = str(row.pop("split", "") or "")
    labels = labels | {key: value for key, value in row.items() if value is not None}
    if captions:
        metadata["captions"] = captions
    source = metadata.get("source", track.source)
    return replace(track, source=source, split=split, metadata=metadata, labels=labels)


def as_texts(value: Any) -> list[str]:
    """Return a caption or a list of captions as a list without empty ones."""
    values = value if isinstance(value, list) else [value]
    return [str(text).strip() for text in values if text is not None and str(text).strip()]


def is_audio(name: str) -> bool:
    """Return whether a file's suffix is one that libsndfile reads."""
    return name.lower().endswith(AUDIO_SUFFIXES) and not name.rsplit("/", 1)[-1].startswith(".")


def source_of(name: str, folder: Path) -> str:
    """Return the first folder below the input, or the input's own name."""
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else folder.resolve().name
