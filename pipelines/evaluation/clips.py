"""Choose the clips of an evaluation, from files or prepared data, without chance."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import soundfile

from codec.audio_file import AudioClip, read_audio
from pipelines.data.recordings.tracks import AUDIO_SUFFIXES
from pipelines.data.shards import evenly_spaced


class EvaluationClip(Protocol):
    """Names a clip, and reads it only when it is measured."""

    @property
    def name(self) -> str:
        """Name the clip as no other of the evaluation."""

    def read(self) -> AudioClip:
        """Read the clip's sound at its own sample rate."""


@dataclass(frozen=True)
class FileClip:
    """Reads a stretch of an audio file."""

    path: Path
    start_s: float
    duration_s: float

    @property
    def name(self) -> str:
        """Join folder, file and start, as ``"music/Sean Hawk - Imperia.ogg@61.2s"``."""
        return f"{self.path.parent.name}/{self.path.name}@{self.start_s:.1f}s"

    def read(self) -> AudioClip:
        """Read the stretch."""
        return read_audio(self.path, start_s=self.start_s, duration_s=self.duration_s)


@dataclass(frozen=True)
class PreparedClip:
    """Reads the first seconds of a clip of a prepared dataset that keeps its audio."""

    folder: Path
    split: str
    index: int
    name: str
    duration_s: float

    def read(self) -> AudioClip:
        """Decode the clip's FLAC bytes.

        Raises:
            ValueError: the dataset was prepared without audio.
        """
        from pipelines.data.prepared import open_prepared

        row = open_prepared(self.folder, self.split).select_columns(["audio"])[self.index]
        if not row["audio"]:
            raise ValueError(
                f"{self.folder} holds no audio: prepare it with audio kept to evaluate on it"
            )
        return read_audio(row["audio"], duration_s=self.duration_s)


@dataclass(frozen=True)
class ClipChoice:
    """Holds chosen clips, and what could not be chosen: path and reason."""

    clips: list[EvaluationClip]
    skipped: list[tuple[str, str]]


def choose_clips(
    data: Sequence[Path],
    count: int,
    duration_s: float = 10.0,
    min_track_s: float = 0.0,
    split: str = "validation",
) -> ClipChoice:
    """Choose clips without chance: the same data gives the same list.

    Data are audio files, folders of them (searched deeply), or one prepared dataset. A file shorter
    than ``duration_s`` gives all it has; one shorter than ``min_track_s`` is left out.

    Returns:
        Files in the order of their names, spread evenly over the list where there are more than
        wanted, one clip from the middle of each; where there are fewer, several clips of each
        file, from the middles of equal parts that do not overlap.

    Raises:
        ValueError: bad numbers, or no usable clip.
        FileNotFoundError: a path does not exist.
    """
    if count < 1 or not duration_s > 0:
        raise ValueError(
            f"count and duration_s must be positive, got count={count}, duration_s={duration_s}"
        )
    if len(data) == 1 and (data[0] / "dataset.json").is_file():
        return ClipChoice(_prepared_clips(data[0], split, count, duration_s), [])
    lengths, skipped = _file_lengths(_list_files(data), min_track_s)
    clips = _file_clips(lengths, count, duration_s)
    if not clips:
        raise ValueError(f"no usable audio file in {', '.join(map(str, data))}")
    return ClipChoice(list(clips), skipped)


def _prepared_clips(
    folder: Path, split: str, count: int, duration_s: float
) -> list[EvaluationClip]:
    from pipelines.data.prepared import open_prepared

    names = open_prepared(folder, split)["id"]
    chosen = evenly_spaced(names, count)
    return [PreparedClip(folder, split, index, names[index], duration_s) for index in chosen]


def _list_files(data: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in data:
        if path.is_dir():
            found = (file for file in path.rglob("*") if file.suffix.lower() in AUDIO_SUFFIXES)
            files.extend(sorted(found))
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"{path} does not exist")
    return list(dict.fromkeys(files))


def _file_lengths(
    files: list[Path], min_track_s: float
) -> tuple[list[tuple[Path, float]], list[tuple[str, str]]]:
    lengths, skipped, faulty = [], [], []
    for path in files:
        try:
            length = float(soundfile.info(path).duration)
        except (RuntimeError, OSError) as error:
            skipped.append((str(path), f"unreadable: {error}"))
            faulty.append(str(path))
            continue
        if length <= 0:
            skipped.append((str(path), "empty"))
            faulty.append(str(path))
        elif length < min_track_s:
            skipped.append((str(path), f"{length:.1f} s, shorter than {min_track_s:g} s"))
        else:
            lengths.append((path, length))
    if faulty:
        warnings.warn(f"{len(faulty)} file(s) skipped: {', '.join(faulty)}", stacklevel=3)
    return lengths, skipped


def _file_clips(lengths: list[tuple[Path, float]], count: int, duration_s: float) -> list[FileClip]:
    number = len(lengths)
    clips: list[FileClip] = []
    for index, chosen in enumerate(evenly_spaced(lengths, count)):
        path, length = lengths[chosen]
        wanted = (count - index + number - 1) // number if count > number else 1
        parts = max(1, min(wanted, int(length // duration_s)))
        for part in range(parts):
            middle = (part + 0.5) * length / parts
            start = max(0.0, round(middle - duration_s / 2, 3))
            clips.append(FileClip(path, start, duration_s))
    return clips
