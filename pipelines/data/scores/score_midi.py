"""Write scores as MIDI files, and read the tracks of MIDI files."""

from collections.abc import Iterator
from typing import Any

import symusic
from symusic.core import ScoreTick

from pipelines.data.midi_file import NUM_PITCHED_CHANNELS
from pipelines.data.scores.score import Note, Part, Score

TICKS_PER_QUARTER = 480
VOLUME, PAN, REVERB, CHORUS = 7, 10, 91, 93


def write_midi(score: Score, tail_s: float = 2.0) -> bytes:
    """Write a type-1 MIDI file with one track per part, and silence for reverberation to die away.

    Raises:
        ValueError: more than 15 pitched parts.
    """
    if sum(not part.is_drums for part in score.parts) > NUM_PITCHED_CHANNELS:
        raise ValueError(f"a score must have at most 15 pitched parts, got {len(score.parts)}")
    quarters = 1.5 if score.meter.division == 3 else 1.0  # quarter notes in a beat
    ticks = TICKS_PER_QUARTER * quarters
    midi: Any = symusic.Score(TICKS_PER_QUARTER)
    microseconds = round(60e6 / (score.tempo_bpm * quarters))
    midi.tempos.append(symusic.Tempo(0, mspq=microseconds))
    midi.time_signatures.append(symusic.TimeSignature(0, *map(int, score.meter.name.split("/"))))
    end = round((score.num_beats + tail_s * score.tempo_bpm / 60) * ticks)
    midi.markers.append(symusic.TextMeta(end, "end"))
    midi.tracks.extend([_track(part, ticks) for part in score.parts])
    return midi.dumps_midi()


def _track(part: Part, ticks: float) -> Any:
    track: Any = symusic.Track(program=part.program, is_drum=part.is_drums)
    settings = {VOLUME: part.volume, PAN: part.pan, REVERB: part.reverb, CHORUS: part.chorus}
    track.controls.extend([symusic.ControlChange(0, *setting) for setting in settings.items()])
    for note in part.notes:
        start = round(note.start * ticks)
        end = max(start + 1, round((note.start + note.duration) * ticks))
        track.notes.append(symusic.Note(start, end - start, note.pitch, note.velocity))
    return track


def read_tracks(midi: ScoreTick) -> Iterator[tuple[int, bool, list[Note]]]:
    """Yield program, whether it plays drums, and notes (in quarter notes) of every track."""
    ticks = midi.ticks_per_quarter
    for track in midi.tracks:
        notes = [
            Note(n.start / ticks, n.duration / ticks, n.pitch, n.velocity) for n in track.notes
        ]
        yield track.program, track.is_drum, notes
