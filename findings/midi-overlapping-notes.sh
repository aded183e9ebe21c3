#!/usr/bin/env bash
# Expected: readers of one MIDI file agree which notes it holds and how long they are.
# Found: where a pitch is struck again while it sounds, they do not.
#   Two note-ons, two note-offs: symusic pairs them first with first; pretty_midi and music21 end both
#   notes at the first note-off.
#   Two note-ons, one note-off (MMA writes this): pretty_midi and music21 give two notes, symusic
#   drops the second strike, and every further one.
# Matters: tremolo, drums and repeated chords get other lengths, or vanish, by the library that reads
#   them, and so do the tokens of a file. Partita adds the missing note-offs before symusic reads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet 'setuptools<81' mido==1.3.3 pretty_midi==0.2.11 symusic==0.6.0 music21==9.9.1
"$folder/venv/bin/python" -W ignore - "$folder/notes.mid" <<'PYTHON'
import sys
from importlib.metadata import version

import mido
import music21
import pretty_midi
import symusic

path = sys.argv[1]


def write(*events):
    file = mido.MidiFile(ticks_per_beat=480)
    track = file.add_track()
    for kind, beats in events:
        track.append(mido.Message(kind, note=60, velocity=64, time=480 * beats))
    file.save(path)


def read():
    """(start, end) in beats of every note, by library."""
    midi = pretty_midi.PrettyMIDI(path)  # in seconds, at 120 beats a minute
    score = music21.converter.parse(path)
    notes = {
        "pretty_midi": [(n.start * 2, n.end * 2) for i in midi.instruments for n in i.notes],
        "symusic": [
            (n.time, n.time + n.duration)
            for t in symusic.Score(path, ttype="quarter").tracks
            for n in t.notes
        ],
        "music21": [
            (n.getOffsetInHierarchy(score), n.getOffsetInHierarchy(score) + n.quarterLength)
            for n in score.recurse().notes
        ],
    }
    return {k: sorted((round(float(a), 3), round(float(b), 3)) for a, b in v) for k, v in notes.items()}


print(*(f"{name} {version(name)}" for name in ("mido", "pretty_midi", "symusic", "music21")))
write(("note_on", 0), ("note_on", 1), ("note_off", 1), ("note_off", 1))
two = read()
write(("note_on", 0), ("note_on", 1), ("note_off", 1))
one = read()
for text, found in (("two note-offs", two), ("one note-off", one)):
    for name, notes in found.items():
        print(f"{text:14} {name:12} (start, end) in beats: {notes}")
assert two["symusic"] == [(0, 2), (1, 3)]
assert two["pretty_midi"] == two["music21"] == [(0, 2), (1, 2)]
assert one["symusic"] == [(0, 2)]
assert one["pretty_midi"] == one["music21"] == [(0, 2), (1, 2)]
PYTHON
