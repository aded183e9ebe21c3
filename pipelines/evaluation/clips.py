"""Choose the clips of an evaluation, from files or prepared data, without chance."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import soundfile

from codec.audio_file import AudioClip, read_audio
from pipelines.data.recordings.tracks import AUDIO_SUFFIXES
from pipelines.data.shards import evenly_spaced


@dataclass(frozen=True)
class EvaluationClip:
    """Names a clip as no other of the evaluation, and reads it only when it is measured.

    ``read`` gives the sound at its own sample rate; it raises ValueError where there is none.
    """

    name: str
    read: Callable[[], AudioClip]


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
    return ClipChoice(clips, skipped)


def _prepared_clips(
    folder: Path, split: str, count: int, duration_s: float
) -> list[EvaluationClip]:
    from pipelines.data.prepared import open_prepared

    rows = open_prepared(folder, split).select_columns(["id", "audio"])

    def read(index: int) -> AudioClip:
        flac = rows[index]["audio"]
        if not flac:
            raise ValueError(
                f"{folder} holds no audio: prepare it with audio kept to evaluate on it"
            )
        return read_audio(flac, duration_s=duration_s)

    chosen = evenly_spaced(rows, count)
    return [EvaluationClip(rows[index]["id"], partial(read, index)) for index in chosen]


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
    lengths, short, faulty = [], [], []
    for path in files:
        try:
            length = float(soundfile.info(path).duration)
        except (RuntimeError, OSError) as error:
            faulty.append((str(path), f"unreadable: {error}"))
            continue
        if length <= 0:
            faulty.append((str(path), "empty"))
        elif length < min_track_s:
            short.append((str(path), f"{length:.1f} s, shorter than {min_track_s:g} s"))
        else:
            lengths.append((path, length))
    if faulty:
        names = ", ".join(name for name, _ in faulty)
        warnings.warn(f"{len(faulty)} file(s) skipped: {names}", stacklevel=3)
    return lengths, faulty + short


def _file_clips(
    lengths: list[tuple[Path, float]], count: int, duration_s: float
) -> list[EvaluationClip]:
    number = len(lengths)
    clips = []
    for index, chosen in enumerate(evenly_spaced(lengths, count)):
        path, length = lengths[chosen]
        wanted = (count - index + number - 1) // number if count > number else 1
        parts = max(1, min(wanted, int(length // duration_s)))
        for part in range(parts):
            middle = (part + 0.5) * length / parts
            start = max(0.0, round(middle - duration_s / 2, 3))
            name = f"{path.parent.name}/{path.name}@{start:.1f}s"
            read = partial(read_audio, path, start_s=start, duration_s=duration_s)
            clips.append(EvaluationClip(name, read))
    return clips
