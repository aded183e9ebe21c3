#!/usr/bin/env bash
# Expected: MIDI that a tokenizer encodes and decodes comes back at its tempo, with its notes, on a grid.
# Found: miditok's default tempos are 32 equal steps from 40 to 250, none of them 120: a piece at 120 comes
#   back at 121.29, one at 137 at 134.84, one at 30 at 40. A note held for 16 beats ends after 12, every
#   second and third note of a triplet lies a twenty-fourth of a beat off, and notes outside the piano's keys
#   are gone. Nothing is said.
# Matters: what is written from such tokens is 1.3 s ahead of its score after two minutes, and no loss shows
#   it. Partita sets tempos, range and lengths itself (pipelines/data/notes/note_tokenizer.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet miditok==3.1.0 symusic==0.6.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from miditok import REMI, TokenizerConfig
from symusic import Note, Score, Tempo, TimeSignature, Track

print("miditok", version("miditok"), "symusic", version("symusic"))
tokenizer = REMI(TokenizerConfig(use_tempos=True))
TICKS = 480


def returned(notes: list[tuple[int, int, int]], bpm: float = 120.0):
    """Encode and decode (start, duration, pitch) in ticks of 480; also the tempo in beats a minute."""
    score, track = Score(TICKS), Track(program=0)
    for start, duration, pitch in notes:
        track.notes.append(Note(start, duration, pitch, 100))
    score.tracks.append(track)
    score.tempos.append(Tempo(0, bpm))
    score.time_signatures.append(TimeSignature(0, 4, 4))
    decoded = tokenizer.decode(tokenizer(score))
    scale = TICKS // decoded.tpq
    found = [
        (note.start * scale, note.duration * scale, note.pitch)
        for track in decoded.tracks
        for note in track.notes
    ]
    return found, [round(tempo.qpm, 2) for tempo in decoded.tempos]


one = [(0, TICKS, 60)]
tempos = {bpm: returned(one, bpm)[1] for bpm in (30.0, 90.0, 120.0, 137.0)}
for bpm, found in tempos.items():
    print(f"{bpm:g} bpm comes back as {found}")
held, _ = returned([(0, 16 * TICKS, 60)])
print(f"a note of 16 beats comes back with {held[0][1] / TICKS:g}")
triplets, _ = returned([(160 * index, 160, 60) for index in range(6)])
print("triplets at", [160 * index for index in range(6)], "come back at", [n[0] for n in triplets])
kept, _ = returned([(0, TICKS, 15), (0, TICKS, 60), (0, TICKS, 112)])
print("of the pitches 15, 60 and 112 there are left", [note[2] for note in kept])
assert tempos[120.0] == [121.29] and tempos[137.0] == [134.84] and tempos[30.0] == [40.0]
assert held[0][1] == 12 * TICKS
assert [note[0] for note in triplets] == [0, 180, 300, 480, 660, 780]
assert [note[2] for note in kept] == [60]
PYTHON
