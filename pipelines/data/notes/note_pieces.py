"""Find notes: those of the scores behind a rendered dataset, or of a folder of MIDI files."""

import itertools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import symusic
from symusic.core import ScoreTick

from codec.whole_file import printable
from pipelines.data.midi_file import read_midi
from pipelines.data.prepared import INFO_NAME, read_info
from pipelines.data.recordings.track import Track, source_of
from pipelines.data.recordings.track_metadata import METADATA_NAMES, Described
from pipelines.data.recordings.track_selection import name_hash
from pipelines.data.scores.score import Score
from pipelines.data.scores.score_jobs import ScoreJob, compose_piece, piece_index
from pipelines.data.scores.score_midi import write_midi
from pipelines.data.scores.score_sound import clip_labels
from pipelines.data.shards import read_split

MIDI_SUFFIXES = (".mid", ".midi", ".kar")


@dataclass(frozen=True)
class NotePiece:
    """Hold one piece, or the part of it that a clip of sound holds."""

    id: str  # unique in the dataset; equal to that of the clip of sound, where there is one
    score: ScoreTick
    captions: list[str] = field(default_factory=list)  # ways to describe it, possibly none
    labels: str = "{}"  # a JSON object
    source: str = ""  # the program, folder or collection that it comes from
    is_end: bool = True  # the music ends with it


def find_pieces(
    source: Path, validation_fraction: float = 0.05
) -> dict[str, Iterator[NotePiece | str]]:
    """Find the pieces of each split; a line of text stands for one that could not be read.

    The source is a dataset made by ``partita prepare scores``, which keeps its splits, or a folder
    of MIDI files, of which a fraction is for validation.

    Raises:
        ValueError: it is neither.
    """
    if not source.is_dir():
        raise ValueError(f"the input {source} is not a folder")
    if (source / INFO_NAME).is_file():
        return find_scores(source)
    return find_midi(source, validation_fraction)


def find_scores(folder: Path) -> dict[str, Iterator[NotePiece | str]]:
    """Compose the notes of every clip of a rendered dataset, in its order and under its ids.

    The scores are composed anew from the dataset's seed, and must carry the labels that it has.
    """
    info = read_info(folder)
    settings = info["settings"]
    if settings.get("command") != "prepare scores":
        raise ValueError(f"{folder} was not made by `partita prepare scores`: it has no scores")
    return {split: score_clips(folder, split, settings) for split in info["splits"]}


def score_clips(folder: Path, split: str, settings: dict[str, Any]) -> Iterator[NotePiece]:
    """Compose the notes of every clip of one split."""
    columns = ["id", "track", "start_s", "duration_s", "captions", "labels", "source", "is_end"]
    rows = read_split(folder / split, columns)
    sources = tuple(sorted(settings["sources"]))
    for _, clips in itertools.groupby(rows, key=lambda row: row["track"]):
        first = next(clips)
        score = compose_piece(ScoreJob(settings["seed"], piece_index(first["id"]), sources))
        notes = read_midi(write_midi(score))
        for row in itertools.chain([first], clips):
            check_same_piece(score, row)
            part = cut(notes, row["start_s"], row["start_s"] + row["duration_s"])
            kept = {name: row[name] for name in ("captions", "labels", "source", "is_end")}
            yield NotePiece(row["id"], part, **kept)


def check_same_piece(score: Score, row: dict[str, Any]) -> None:
    """Raise unless the score has the labels of the clip that was once rendered from it."""
    labels = clip_labels(score, row["start_s"], row["start_s"] + row["duration_s"])
    if json.loads(json.dumps(labels)) != json.loads(row["labels"]):
        raise ValueError(
            f"{row['id']} is composed otherwise than when it was rendered: "
            "make the dataset again with `partita prepare scores`"
        )


def cut(score: ScoreTick, start_s: float, end_s: float) -> ScoreTick:
    """Take the notes that start in a stretch of a score of one tempo, and end them with it."""
    assert len(score.tempos) == 1
    tempo = score.tempos[0]
    ticks = tempo.qpm / 60 * score.ticks_per_quarter
    start, end = round(start_s * ticks), round(end_s * ticks)
    part: Any = symusic.Score(score.ticks_per_quarter)
    part.tempos.append(tempo)
    for track in score.tracks:
        kept: Any = symusic.Track(name=track.name, program=track.program, is_drum=track.is_drum)
        kept.notes.extend(
            symusic.Note(n.start - start, min(n.end, end) - n.start, n.pitch, n.velocity)
            for n in track.notes
            if start <= n.start < end
        )
        if kept.notes:
            part.tracks.append(kept)
    return part


def find_midi(folder: Path, validation_fraction: float) -> dict[str, Iterator[NotePiece | str]]:
    """Find the MIDI files of a folder; metadata files in it describe them."""
    files, faults = list_midi(folder)
    for fault in faults:
        say_skipped(fault)
    if not files:
        raise ValueError(f"{folder} holds no MIDI files ({', '.join(MIDI_SUFFIXES)})")
    free = sorted((file.name for file in files if not file.split), key=name_hash)
    count = math.ceil(validation_fraction * len(free)) if len(free) > 1 else 0
    held_out = {file.name for file in files if file.split == "validation"} | set(free[:count])
    splits = {
        "train": [file for file in files if file.name not in held_out],
        "validation": [file for file in files if file.name in held_out],
    }
    return {split: map(read_piece, chosen) for split, chosen in splits.items() if chosen}


def list_midi(folder: Path) -> tuple[list[Track], list[str]]:
    """List the MIDI files below a folder, in order, and the faulty rows of their metadata."""
    described = Described()
    files = []
    for path in sorted(folder.rglob("*")):
        name = printable(path.relative_to(folder))
        if path.name in METADATA_NAMES:
            described.read(path, PurePosixPath(name).parent)
        elif path.suffix.lower() in MIDI_SUFFIXES and path.is_file():
            files.append(Track(name, path, source=source_of(name, folder)))
    found = described.join(files, folder)
    missing = [file.name for file in found if not file.path.is_file()]
    faults = [*described.faults, *(f"{name} does not exist" for name in missing)]
    return [file for file in found if file.path.is_file()], faults


def read_piece(file: Track) -> NotePiece | str:
    """Read a file's notes, or say why there are none."""
    for note in file.notes:
        print(f"{file.name}: {note}", file=sys.stderr)
    try:
        if file.fault:
            raise ValueError(f"{file.name}: {file.fault}")
        score = read_midi(file.path)
        if not score.note_num():
            raise ValueError(f"{file.path} holds no notes")
    except (ValueError, OSError) as error:
        return str(error)
    captions = file.metadata.get("captions", [])
    return NotePiece(file.name, score, captions, json.dumps(file.labels), file.source)


def say_skipped(line: str) -> None:
    """Say on standard error that a piece was left out."""
    print(f"skipped: {line}", file=sys.stderr)
