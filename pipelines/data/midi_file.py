"""Read and write MIDI files as symusic scores, with one-line errors."""

import math
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import symusic
from symusic.core import ScoreTick

NUM_PITCHED_CHANNELS = 15
"""Channels for pitched tracks: the tenth of a MIDI file's sixteen is for drums."""


def read_midi(source: str | Path | bytes | ScoreTick) -> ScoreTick:
    """Read a Standard MIDI File of type 0 or 1.

    A note-off without a note-on and a note-on that never ends are left out; notes that overlap on
    one pitch end in the order in which they began; a note of length 0 gets one tick.

    Args:
        source: a path, a file's bytes, or a score, which is only checked.

    Returns:
        The score in ticks, with one track per track, channel and program.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is no MIDI file, truncated, of type 2 (several songs in one file) or
            timed in frames, or a tempo is not positive.
    """
    name = "MIDI"
    if isinstance(source, str | Path):
        name = str(source)
        if not Path(source).is_file():
            raise FileNotFoundError(f"{source} does not exist")
        source = Path(source).read_bytes()
    if isinstance(source, bytes):
        source = _parse(source, name)
    elif not isinstance(source, ScoreTick):
        raise ValueError(f"MIDI must be a path, bytes or a symusic Score in ticks, got {source!r}")
    if source.ticks_per_quarter < 1:
        raise ValueError(f"{name}: ticks per quarter note must be positive, got 0")
    for tempo in source.tempos:
        if not (0 < tempo.qpm < math.inf):
            raise ValueError(f"{name}: a tempo must be positive and finite, got {tempo.qpm}")
    return source


def _parse(data: bytes, name: str) -> ScoreTick:
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError(f"{name} is not a MIDI file: it must start with MThd")
    if data[8:10] == b"\x00\x02":
        raise ValueError(f"{name}: MIDI type 2 holds several songs, types 0 and 1 hold one")
    try:
        score: Any = symusic.Score.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError and worse on damaged files
        reason = " ".join(str(error).split()).removesuffix(": iostream error")
        raise ValueError(f"{name} is not a whole MIDI file: {reason}") from error
    return score


def midi_bytes(score: ScoreTick, tail_s: float = 0.0) -> bytes:
    """Write a type-1 MIDI file, with a channel for each track of :func:`hold_apart`.

    Args:
        score: a score in ticks.
        tail_s: seconds of silence after the last note, for reverberation to die away.
    """
    out: Any = hold_apart(score)
    pitched = sum(not track.is_drum for track in out.tracks)
    if pitched > NUM_PITCHED_CHANNELS:
        warnings.warn(
            f"{pitched} pitched tracks share the {NUM_PITCHED_CHANNELS} channels of a MIDI file: "
            "a player may give some the wrong instrument",
            stacklevel=2,
        )
    if tail_s:
        qpm = score.tempos[-1].qpm if score.tempos else 120.0
        tail = round(tail_s * qpm / 60 * score.ticks_per_quarter)
        out.markers.append(symusic.TextMeta(score.end() + tail, "end"))
    return out.dumps_midi()


def hold_apart(score: ScoreTick) -> ScoreTick:
    """Move notes that lie inside another of their pitch and track to tracks of their own.

    On one channel they could not be written: notes of one pitch end in the order they began.
    """
    out: Any = symusic.Score(score.ticks_per_quarter)
    out.tempos.extend(score.tempos)
    out.time_signatures.extend(score.time_signatures)
    for track in score.tracks:
        for notes in _without_nesting(track.notes):
            part: Any = symusic.Track(name=track.name, program=track.program, is_drum=track.is_drum)
            part.notes.extend(notes)
            out.tracks.append(part)
    return out


def _without_nesting(notes: Any) -> list[list[Any]]:
    """Split notes into the fewest voices in which notes of one pitch end as they began."""
    voices: list[list[Any]] = []
    ends: list[dict[int, int]] = []  # for each voice: pitch -> the last end so far
    for note in sorted(notes, key=lambda n: (n.start, n.end, n.pitch, n.velocity)):
        free = (i for i, last in enumerate(ends) if last.get(note.pitch, 0) <= note.end)
        voice = next(free, len(voices))
        if voice == len(voices):
            voices.append([])
            ends.append(defaultdict(int))
        voices[voice].append(note)
        ends[voice][note.pitch] = note.end
    return voices
