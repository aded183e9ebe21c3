"""Read what metadata files say about audio files; bad rows are noted by line and left out."""

import unicodedata
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from codec.whole_file import printable
from pipelines.data.caption_length import MAX_TOKENS, shorten_caption
from pipelines.data.plans import plan_of_labels
from pipelines.data.prepared import SPLITS
from pipelines.data.recordings.track import Track, source_of
from pipelines.data.row_files import has_surrogate, read_rows

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
CAPTION_KEYS = ("captions", "caption", "text")
TEXT_KEYS = ("title", "genre", "artist", "license", "attribution", "source")


class Described:
    """Hold the rows of the metadata files of one input, by the file that they describe.

    Attributes:
        rows: name relative to the input -> row; captions of several rows add up.
        faults: rows, or parts of rows, that were left out, one sentence each with file and line.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.faults: list[str] = []

    def read(self, path: Path, parent: PurePosixPath) -> None:
        """Read a metadata file whose names are relative to ``parent``; a bad row is noted."""
        name = printable(path)
        try:
            if not path.read_bytes().strip():
                return
            file = read_rows(path)
        except (ValueError, OSError) as error:
            self.faults.append(f"{name}: {error}")
            return
        self.faults += [f"{name}, {fault}" for fault in file.faults]
        for line, row in file.rows.items():
            try:
                self.add(parent, dict(row))
            except ValueError as error:
                self.faults.append(f"{name}, line {line}: {error}")

    def add(self, parent: PurePosixPath, row: dict[str, Any]) -> None:
        """Add a row; raises ValueError for what of it is left out."""
        file_name = row.pop("file_name", None)
        if not isinstance(file_name, str) or not file_name.strip():
            raise ValueError(f"file_name must be a text that is not empty, got {file_name!r:.80}")
        if "\0" in file_name or has_surrogate(file_name):
            raise ValueError(f"file_name is no name of a file, got {file_name!a:.80}")
        name = (parent / file_name.replace("\\", "/")).as_posix()
        known = self.rows.setdefault(same_name(name), {"file_name": name, "captions": []})
        known["captions"] += [text for key in CAPTION_KEYS for text in as_texts(row.pop(key, None))]
        differing = [  # by their texts, because NaN equals nothing
            name for name in row if repr(known.setdefault(name, row[name])) != repr(row[name])
        ]
        if differing:
            raise ValueError(
                f"{differing[0]} of {name} is {row[differing[0]]!r:.80} here and "
                f"{known[differing[0]]!r:.80} in an earlier row, which counts"
            )

    def join(self, tracks: list[Track], folder: Path) -> list[Track]:
        """Describe tracks by the rows of their names; a row without a file is a missing track.

        Names meet in composed and decomposed Unicode.
        """
        joined, used = [], set()
        for track in tracks:
            name = same_name(track.name)
            used.add(name)
            joined.append(describe(track, self.rows.get(name, {})))
        for key in self.rows.keys() - used:
            name = self.rows[key]["file_name"]
            absent = Track(name, locate(folder / name), source=source_of(name, folder))
            joined.append(describe(absent, self.rows[key]))
        return joined


def read_metadata(path: Path) -> dict[str, dict[str, Any]]:
    """Read the rows of one metadata file, which may have no fault, by the file that they describe.

    Raises:
        ValueError: a row is faulty; the message names its line.
    """
    described = Described()
    described.read(path, PurePosixPath())
    if described.faults:
        raise ValueError(described.faults[0])
    return described.rows


def locate(path: Path) -> Path:
    """Return a path, or that of a file whose name differs in the composition of letters alone."""
    if path.exists() or not path.parent.is_dir():
        return path
    alike = (file for file in path.parent.iterdir() if same_name(file.name) == same_name(path.name))
    return next(alike, path)


def same_name(name: str) -> str:
    """Return a file's name with composed letters: some programs and systems take them apart."""
    return unicodedata.normalize("NFC", name)


def describe(track: Track, row: dict[str, Any]) -> Track:
    """Add a metadata row to a track; keys that are not text keys become labels."""
    notes: list[str] = []
    row = writable({key: value for key, value in row.items() if key != "file_name"}, notes)
    captions = fitting(row.pop("captions", []), notes)
    metadata: dict[str, Any] = {key: str(row.pop(key)) for key in TEXT_KEYS if row.get(key)}
    labels = row.pop("labels", None)
    if not isinstance(labels, dict):
        labels = {} if labels is None else {"labels": labels}
    split = str(row.pop("split", "") or "")
    labels = labels | {key: value for key, value in row.items() if value is not None}
    if "plan" in labels and not is_plan(labels):
        notes.append(f"its label plan is no plan, and left out: {labels.pop('plan')!r:.80}")
    if captions:
        metadata["captions"] = captions
    fault = (
        "" if split in ("", *SPLITS) else f"split must be one of {', '.join(SPLITS)}, got {split!r}"
    )
    return replace(
        track,
        source=metadata.get("source", track.source),
        split="" if fault else split,
        metadata=metadata,
        labels=labels,
        notes=tuple(notes),
        fault=fault,
    )


def writable(value: Any, notes: list[str]) -> Any:
    """Replace halves of surrogate pairs in all texts of a row, and note that."""
    if isinstance(value, str) and has_surrogate(value):
        notes.append(f"half a surrogate pair was replaced in {value!a:.80}")
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {writable(key, notes): writable(item, notes) for key, item in value.items()}
    return [writable(item, notes) for item in value] if isinstance(value, list) else value


def fitting(captions: list[str], notes: list[str]) -> list[str]:
    """Shorten captions that are too long for the text encoder, and note that."""
    short = [shorten_caption(text) for text in captions]
    notes += [
        f"a caption had more than {MAX_TOKENS} tokens and ends now with {cut[-30:]!r}"
        for cut, text in zip(short, captions, strict=True)
        if cut != text
    ]
    return short


def is_plan(labels: dict[str, Any]) -> bool:
    """Return whether labels hold a plan that a prior can read."""
    try:
        plan_of_labels(labels)
    except (ValueError, TypeError, KeyError, AttributeError):
        return False
    return True


def as_texts(value: Any) -> list[str]:
    """Return a caption or a list of captions as a list without empty ones."""
    values = value if isinstance(value, list) else [value]
    return [str(text).strip() for text in values if text is not None and str(text).strip()]
