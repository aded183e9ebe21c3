#!/usr/bin/env bash
# Expected: two readers of one MIDI file agree how long its notes are.
# Found: where a pitch is struck again while it sounds, pretty_midi ends both notes at the first
#   note-off; symusic and music21 pair the first note-on with the first note-off and the second with
#   the second. music21 keeps only half of it: the second note ends with the first there as well.
# Matters: repeated notes (tremolo, drums, a held pedal) get other lengths by the reader, so tokens of
#   one file depend on the library that read it; Partita reads with symusic everywhere.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'setuptools<81' mido==1.3.3 pretty_midi==0.2.11 symusic==0.6.0 music21==9.9.1
"$folder/venv/bin/python" -W ignore - "$folder/overlap.mid" <<'PYTHON'
import sys
from importlib.metadata import version

import mido
import music21
import pretty_midi
import symusic

path = sys.argv[1]
file = mido.MidiFile(ticks_per_beat=480)
track = mido.MidiTrack()
file.tracks.append(track)
for kind, velocity, ticks in (
    ("note_on", 64, 0), ("note_on", 100, 480), ("note_off", 0, 480), ("note_off", 0, 480)
):
    track.append(mido.Message(kind, note=60, velocity=velocity, time=ticks))
file.save(path)
print(*(f"{name} {version(name)}" for name in ("mido", "pretty_midi", "symusic", "music21")))

read = {
    "pretty_midi": [
        (note.start * 2, note.end * 2)  # seconds at 120 beats a minute -> beats
        for instrument in pretty_midi.PrettyMIDI(path).instruments
        for note in instrument.notes
    ],
    "symusic": [
        (note.time, note.time + note.duration)
        for track in symusic.Score(path, ttype="quarter").tracks
        for note in track.notes
    ],
}
score = music21.converter.parse(path)
read["music21"] = [
    (float(start), float(start + note.quarterLength))
    for note in score.recurse().notes
    for start in [note.getOffsetInHierarchy(score)]
]
for name, notes in read.items():
    read[name] = sorted((round(float(a), 3), round(float(b), 3)) for a, b in notes)
    print(f"{name:12} (start, end) in beats: {read[name]}")
assert read["symusic"] == [(0, 2), (1, 3)]
assert read["pretty_midi"] == [(0, 2), (1, 2)]
assert read["music21"] == [(0, 2), (1, 2)]
PYTHON
