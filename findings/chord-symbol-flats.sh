#!/usr/bin/env bash
# Expected: music21's ChordSymbol reads chord symbols as lead sheets write them, or refuses them.
# Found: a flat is "-" there, so "Bb7" is read as B with the figure "b7": B D# F# A, every note but
#   one a semitone off, without a warning. "Bbm7" and "Bb" alone raise, so only some symbols go wrong.
#   pychord reads all of them as written.
# Matters: chords that a person types become the plan that a piece obeys; one parser turns some of
#   them into other chords in silence.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet music21==9.9.1 pychord==1.4.1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from music21.harmony import ChordSymbol
from pychord import Chord

print("music21", version("music21"), "pychord", version("pychord"))
found = {}
for symbol in ("Bb7", "Eb7", "Ab9", "B-7", "Bb", "Bbm7"):
    try:
        notes = [pitch.name for pitch in ChordSymbol(symbol).pitches]
    except ValueError as error:
        notes = str(error).split(";")[0]
    found[symbol] = notes
    written = Chord(symbol).components() if "-" not in symbol else ""
    print(f"{symbol:5} music21 {notes}  pychord {written}")
assert found["Bb7"] == ["B", "D#", "F#", "A"], "a flat is read as a flat now"
assert found["B-7"] == ["B-", "D", "F", "A-"]
assert found["Bb"].startswith("Invalid chord abbreviation")
assert Chord("Bb7").components() == ["Bb", "D", "F", "Ab"]
PYTHON
