"""Standard MIDI files, written from scores and read back as notes in beats."""

import struct
from collections import defaultdict
from dataclasses import dataclass, field

from pipelines.data.scores.score import Note, Part, Score

TICKS_PER_QUARTER = 480
DRUM_CHANNEL = 9
_SIGNATURES = {"4/4": (4, 2), "3/4": (3, 2), "2/4": (2, 2), "6/8": (6, 3)}


def write_midi(score: Score, tail_s: float = 2.0) -> bytes:
    """A type-1 MIDI file: one tempo track, then one track per part.

    Args:
        score: at most 15 pitched parts.
        tail_s: seconds of silence after the last note, for reverberation to die away.

    Raises:
        ValueError: more than 15 pitched parts.
    """
    quarters = 1.5 if score.meter.division == 3 else 1.0  # quarter notes in a beat
    ticks = TICKS_PER_QUARTER * quarters
    channels = iter(c for c in range(16) if c != DRUM_CHANNEL)
    end = round((score.num_beats + tail_s * score.tempo_bpm / 60) * ticks)
    numerator, denominator = _SIGNATURES[score.meter.name]
    microseconds = round(60e6 / (score.tempo_bpm * quarters))
    head = b"\x00\xff\x51\x03" + microseconds.to_bytes(3, "big")
    head += b"\x00\xff\x58\x04" + bytes((numerator, denominator, 24, 8))
    tracks = [head + _delta(end) + b"\xff\x2f\x00"]
    for part in score.parts:
        channel = DRUM_CHANNEL if part.is_drums else next(channels, None)
        if channel is None:
            raise ValueError(f"a score must have at most 15 pitched parts, got {len(score.parts)}")
        tracks.append(_track(part, channel, ticks, end))
    header = b"MThd" + struct.pack(">IHHH", 6, 1, len(tracks), TICKS_PER_QUARTER)
    return header + b"".join(b"MTrk" + struct.pack(">I", len(t)) + t for t in tracks)


def _track(part: Part, channel: int, ticks: float, end: int) -> bytes:
    events: list[tuple[int, int, bytes]] = []
    settings = ((0, 0), (7, part.volume), (10, part.pan), (91, part.reverb), (93, part.chorus))
    for controller, value in settings:
        events.append((0, 0, bytes((0xB0 | channel, controller, value))))
    events.append((0, 1, bytes((0xC0 | channel, part.program))))
    for note in part.notes:
        on = round(note.start * ticks)
        off = max(on + 1, round((note.start + note.duration) * ticks))
        events.append((on, 3, bytes((0x90 | channel, note.pitch, note.velocity))))
        events.append((off, 2, bytes((0x80 | channel, note.pitch, 0))))
    out, now = b"", 0
    for time, _, message in sorted(events):
        out += _delta(time - now) + message
        now = time
    return out + _delta(max(0, end - now)) + b"\xff\x2f\x00"


def _delta(value: int) -> bytes:
    """A variable-length quantity."""
    out = bytes((value & 0x7F,))
    while value := value >> 7:
        out = bytes((value & 0x7F | 0x80,)) + out
    return out


@dataclass
class MidiFile:
    """A MIDI file's notes in quarter notes.

    Attributes:
        tempos: (quarter, beats a minute) changes, in order.
        signature: numerator and denominator of the first time signature.
        notes: by (channel, program): notes whose times are in quarter notes.
    """

    tempos: list[tuple[float, float]] = field(default_factory=list)
    signature: tuple[int, int] = (4, 4)
    notes: dict[tuple[int, int], list[Note]] = field(default_factory=lambda: defaultdict(list))


def read_midi(data: bytes) -> MidiFile:
    """Read notes, programs, tempo and meter of a MIDI file.

    Raises:
        ValueError: not a MIDI file, or one that is cut off or counts time in frames.
    """
    if data[:4] != b"MThd" or len(data) < 14:
        raise ValueError("not a MIDI file: it must start with MThd")
    _, _, division = struct.unpack(">HHH", data[8:14])
    if division & 0x8000 or not division:
        raise ValueError(f"MIDI division must count ticks per quarter note, got {division:#x}")
    events: list[tuple[int, int, int, bytes]] = []
    position, track = 14, 0
    while position + 8 <= len(data):
        kind, size = (
            data[position : position + 4],
            *struct.unpack(">I", data[position + 4 : position + 8]),
        )
        body = data[position + 8 : position + 8 + size]
        if len(body) < size:
            raise ValueError(f"MIDI track {track} must hold {size} bytes, got {len(body)}")
        if kind == b"MTrk":
            events += _events(body, track)
            track += 1
        position += 8 + size
    return _collect(sorted(events, key=lambda event: (event[0], event[2])), division)


def _events(body: bytes, track: int) -> list[tuple[int, int, int, bytes]]:
    """(tick, status, order, data bytes) of one track; meta events have status 0xFF."""
    out, i, tick, status = [], 0, 0, 0
    try:
        while i < len(body):
            delta, i = _quantity(body, i)
            tick += delta
            if body[i] & 0x80:
                status, i = body[i], i + 1
            if status == 0xFF or status in (0xF0, 0xF7):
                head, i = (body[i : i + 1], i + 1) if status == 0xFF else (b"", i)
                size, i = _quantity(body, i)
                out.append((tick, status, 0, head + body[i : i + size]))
                i += size
            else:
                size = 1 if status >> 4 in (0xC, 0xD) else 2
                order = 1 if status >> 4 != 9 or not body[i + 1] else 2
                out.append((tick, status, order, body[i : i + size]))
                i += size
    except IndexError as error:
        raise ValueError(f"MIDI track {track} is cut off") from error
    return out


def _quantity(body: bytes, i: int) -> tuple[int, int]:
    value = 0
    while True:
        value = value << 7 | body[i] & 0x7F
        i += 1
        if not body[i - 1] & 0x80:
            return value, i


def _collect(events: list[tuple[int, int, int, bytes]], division: int) -> MidiFile:
    result = MidiFile()
    programs = [0] * 16
    sounding: dict[tuple[int, int], tuple[int, int, int]] = {}
    seen_signature = False
    for tick, status, _, data in events:
        kind, channel = status >> 4, status & 15
        if status == 0xFF and data[:1] == b"\x51":
            result.tempos.append((tick / division, 60e6 / int.from_bytes(data[1:4], "big")))
        elif status == 0xFF and data[:1] == b"\x58" and not seen_signature:
            result.signature, seen_signature = (data[1], 2 ** data[2]), True
        elif kind == 0xC:
            programs[channel] = data[0]
        elif kind in (8, 9):
            started = sounding.pop((channel, data[0]), None)
            if started:
                start, velocity, program = started
                note = Note(start / division, max(1, tick - start) / division, data[0], velocity)
                result.notes[channel, program].append(note)
            if kind == 9 and data[1]:
                sounding[channel, data[0]] = (tick, data[1], programs[channel])
    return result
