"""What a MIDI file's note-ons and note-offs mean."""

import io

import mido
import pytest

from pipelines.data.midi_file import read_midi


def midi(*events: tuple[str, int, int]) -> bytes:
    """A file of one track: kind, pitch and ticks since the event before."""
    file = mido.MidiFile(ticks_per_beat=480)
    track = file.add_track()
    track += [mido.Message(kind, note=pitch, time=ticks) for kind, pitch, ticks in events]
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


@pytest.mark.parametrize(
    ("events", "notes"),
    [
        # struck again while it sounds: the first ends there
        ([("note_on", 60, 0), ("note_on", 60, 480), ("note_off", 60, 480)], [(0, 480), (480, 960)]),
        (
            [("note_on", 60, 0), ("note_on", 60, 100), ("note_on", 60, 100), ("note_off", 60, 100)],
            [(0, 100), (100, 200), (200, 300)],
        ),
        # a note-off for each note-on: they overlap
        (
            [
                ("note_on", 60, 0),
                ("note_on", 60, 480),
                ("note_off", 60, 480),
                ("note_off", 60, 480),
            ],
            [(0, 960), (480, 1440)],
        ),
        # another pitch between them changes nothing
        (
            [("note_on", 60, 0), ("note_on", 64, 480), ("note_off", 60, 480), ("note_off", 64, 0)],
            [(0, 960), (480, 960)],
        ),
    ],
)
def test_every_struck_note_is_read(events, notes):
    (track,) = read_midi(midi(*events)).tracks
    assert sorted((note.start, note.end) for note in track.notes) == notes
