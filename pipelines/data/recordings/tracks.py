"""Which audio files there are to prepare, and what is known about each before it is opened."""

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
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
    """One audio file, alone or inside an archive.

    Args:
        name: unique in the dataset; a POSIX path relative to the input.
        path: the file, or the archive that holds it.
        member: its name inside the archive, "" for a plain file.
        source: package, folder or collection; the unit by which data are split.
        split: "train" or "validation" when that is given, "" when it is to be drawn.
        metadata: what is known: ``captions`` and ``TEXT_KEYS``, all optional.
        labels: every other known fact (``bpm``, ``key``...).
        stems: further files, as long as ``path``, that are added to it to make the music.
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
        """The path of the file, or its bytes when it lies in an archive."""
        if not self.member:
            return self.path
        with zipfile.ZipFile(self.path) as archive:
            return BytesIO(archive.read(self.member))

    def stamp(self) -> list[Any]:
        """What changes when a file does: name, and size and time of change of each."""
        stamp: list[Any] = [self.name, self.member]
        for path in (self.path, *self.stems):
            found = path.stat() if path.is_file() else None
            stamp.append([found.st_size, found.st_mtime_ns] if found else None)
        return stamp


def find_tracks(source: str | Path) -> list[Track]:
    """List the audio files of a folder, an archive, a ``metadata.jsonl`` or a text file of paths.

    Folders are searched recursively, archives inside them too, and any ``metadata.jsonl`` tells
    about the files beside and below it. A missing file that a list or a ``metadata.jsonl`` names
    is kept, so that the report shows it.

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
    return sorted(unique(tracks), key=lambda track: track.name)


def find_in_folder(folder: Path) -> list[Track]:
    """Audio files and archives below a folder, joined with what each ``metadata.jsonl`` says."""
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
    """Audio members of a zip archive; an unreadable archive is one unreadable track."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.namelist() if is_audio(member)]
    except (zipfile.BadZipFile, OSError):
        return [Track(prefix.rstrip("/") or path.name, path, source=source)]
    return [Track(prefix + member, path, member, source) for member in members]


def list_described(path: Path) -> list[Track]:
    """The files that one ``metadata.jsonl`` names, and no others."""
    folder = path.parent
    return [
        describe(Track(name, folder / name, source=source_of(name, folder)), row)
        for name, row in read_metadata(path).items()
    ]


def read_list(path: Path) -> list[Track]:
    """A text file of paths, one a line, relative to its own folder; ``#`` starts a comment."""
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
        if not entry or entry.startswith("#"):
            continue
        tracks.append(
            Track(entry, path.parent / entry, source=Path(entry).parent.name or path.stem)
        )
    return tracks


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Rows of an AudioFolder ``metadata.jsonl`` by ``file_name``.

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
    """Add a metadata row to a track: known words by name, ``labels`` and the rest as labels."""
    row = dict(row)
    captions = [text for key in CAPTION_KEYS for text in as_texts(row.pop(key, None))]
    metadata: dict[str, Any] = {key: str(row.pop(key)) for key in TEXT_KEYS if row.get(key)}
    labels = row.pop("labels", None)
    labels = dict(labels) if isinstance(labels, dict) else as_labels(labels)
    split = str(row.pop("split", "") or "")
    labels |= {key: value for key, value in row.items() if value is not None}
    if captions:
        metadata["captions"] = captions
    return Track(
        track.name,
        track.path,
        track.member,
        metadata.get("source", track.source),
        split,
        metadata,
        labels,
    )


def as_texts(value: Any) -> list[str]:
    """A caption or a list of captions as a list without empty ones."""
    values = value if isinstance(value, list) else [value]
    return [str(text).strip() for text in values if text is not None and str(text).strip()]


def as_labels(value: Any) -> dict[str, Any]:
    """Labels that are not an object are kept under the one key ``labels``."""
    return {} if value is None else {"labels": value}


def unique(tracks: Iterable[Track]) -> list[Track]:
    """Drop a track that is listed twice."""
    return list({track.name: track for track in tracks}.values())


def is_audio(name: str) -> bool:
    """Whether a file's name ends like one that libsndfile reads."""
    return name.lower().endswith(AUDIO_SUFFIXES) and not name.rsplit("/", 1)[-1].startswith(".")


def source_of(name: str, folder: Path) -> str:
    """The first folder below the input, or the input's own name."""
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else folder.resolve().name
