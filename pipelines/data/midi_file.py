"""Read and write MIDI files as symusic scores, with one-line errors."""

import io
import math
import warnings
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any

import mido
import symusic
from symusic.core import ScoreTick

NUM_PITCHED_CHANNELS = 15
"""Channels for pitched tracks: the tenth of a MIDI file's sixteen is for drums."""


def read_midi(source: str | Path | bytes | ScoreTick) -> ScoreTick:
    """Read notes, tempi and meters of a Standard MIDI File of type 0 or 1.

    A note-off without a note-on and a note-on that never ends are left out; notes that overlap on
    one pitch end in the order in which they began; a pitch that is struck again without a note-off
    between ends there.

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
    kind = int.from_bytes(data[8:10])
    if kind == 2:
        raise ValueError(f"{name}: MIDI type 2 holds several songs, types 0 and 1 hold one")
    if kind > 2:
        raise ValueError(f"{name} is not a whole MIDI file: there is no type {kind}")
    try:
        # not symusic: it drops notes that are struck again and misreads escapes (findings/)
        return _score_of(mido.MidiFile(file=io.BytesIO(data), clip=True))
    except Exception:  # symusic reads some files that mido refuses, and says what others lack
        try:
            score: Any = symusic.Score.from_midi(data)
        except Exception as error:  # RuntimeError and worse
            reason = " ".join(str(error).split()).removesuffix(": iostream error")
            raise ValueError(f"{name} is not a whole MIDI file: {reason}") from error
    return score


def _score_of(file: mido.MidiFile) -> ScoreTick:
    score: Any = symusic.Score(file.ticks_per_beat)
    for events in file.tracks:
        now = 0
        for event in events:
            now += event.time
            if event.type == "set_tempo":
                score.tempos.append(symusic.Tempo(now, mspq=event.tempo))
            elif event.type == "time_signature":
                meter = symusic.TimeSignature(now, event.numerator, event.denominator)
                score.time_signatures.append(meter)
        for (channel, program), notes in sorted(_read_notes(events).items()):
            track: Any = symusic.Track(name=events.name, program=program, is_drum=channel == 9)
            whole = [symusic.Note(*note) for note in notes if note[1] is not None]
            track.notes.extend(whole)
            score.tracks.extend([track] if whole else [])
    return score


def _read_notes(events: mido.MidiTrack) -> dict[tuple[int, int], list[list[Any]]]:
    """Read start, duration, pitch and velocity of every note-on, by channel and program."""
    missing: Counter[tuple[int, int]] = Counter()  # note-ons without a note-off, by pitch
    for event in events:
        if event.type in ("note_on", "note_off"):
            missing[event.channel, event.note] += 1 if _strikes(event) else -1
    found: dict[tuple[int, int], list[list[Any]]] = defaultdict(list)
    sounding: dict[tuple[int, int], deque[list[Any]]] = defaultdict(deque)
    now, programs = 0, [0] * 16
    for event in events:
        now += event.time
        if event.type == "program_change":
            programs[event.channel] = event.program
        elif event.type in ("note_on", "note_off"):
            pitch = event.channel, event.note
            if sounding[pitch] and (not _strikes(event) or missing[pitch] > 0):
                missing[pitch] -= _strikes(event)
                ended = sounding[pitch].popleft()
                ended[1] = now - ended[0]
            if _strikes(event):
                sounding[pitch].append([now, None, event.note, event.velocity])
                found[event.channel, programs[event.channel]].append(sounding[pitch][-1])
    return found


def _strikes(event: Any) -> bool:
    return event.type == "note_on" and event.velocity > 0


def midi_bytes(score: ScoreTick, tail_s: float = 0.0) -> bytes:
    """Write a type-1 MIDI file, with a channel for each track of :func:`hold_apart`.

    ``tail_s`` of silence follow the last note, for reverberation to die away.
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
