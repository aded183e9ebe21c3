"""Read and write MIDI files as symusic scores, with one-line errors."""

import io
import math
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import mido
import symusic
from symusic.core import ScoreTick

from pipelines.data.midi_events import escapes_as_texts

NUM_PITCHED_CHANNELS = 15
"""Channels for pitched tracks: the tenth of a MIDI file's sixteen is for drums."""


def read_midi(source: str | Path | bytes | ScoreTick) -> ScoreTick:
    """Read a Standard MIDI File of type 0 or 1.

    A note-off without a note-on and a note-on that never ends are left out; notes that overlap on
    one pitch end in the order in which they began; a pitch that is struck again without a note-off
    between ends there; a note of length 0 gets one tick.

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
        score: Any = symusic.Score.from_midi(end_struck_notes(escapes_as_texts(data)))
    except Exception as error:  # symusic raises RuntimeError and worse on damaged files
        reason = " ".join(str(error).split()).removesuffix(": iostream error")
        raise ValueError(f"{name} is not a whole MIDI file: {reason}") from error
    return score


def end_struck_notes(data: bytes) -> bytes:
    """Add the note-offs that are missing where a pitch is struck again while it sounds.

    symusic would drop every note-on but the first of such a pitch (findings/). Pitches that have a
    note-off for each note-on stay as they are, and so does a file that mido cannot read.
    """
    try:
        file = mido.MidiFile(file=io.BytesIO(data))
    except Exception:  # damaged: symusic says how
        return data
    added = False
    for track in file.tracks:
        missing: dict[tuple[int, int], int] = defaultdict(int)  # note-ons without a note-off
        for message in track:
            if message.type in ("note_on", "note_off"):
                missing[message.channel, message.note] += 1 if _strikes(message) else -1
        sounding: set[tuple[int, int]] = set()
        messages = []
        for message in track:
            if message.type in ("note_on", "note_off"):
                pitch = message.channel, message.note
                if _strikes(message) and pitch in sounding and missing[pitch] > 0:
                    missing[pitch] -= 1
                    off = mido.Message("note_off", channel=pitch[0], note=pitch[1])
                    messages.append(off.copy(time=message.time))
                    message = message.copy(time=0)
                    added = True
                (sounding.add if _strikes(message) else sounding.discard)(pitch)
            messages.append(message)
        track[:] = messages
    if not added:
        return data
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def _strikes(message: Any) -> bool:
    return message.type == "note_on" and message.velocity > 0


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
