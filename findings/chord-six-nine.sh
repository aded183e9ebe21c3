#!/usr/bin/env bash
# Expected: C6/9, the usual name of C E G A D, is read as that chord or refused.
# Found: pychord takes the slash for an inversion and gives C6 from its third on, E G A C, without the
#   ninth. music21 refuses C6/9, and reads C69 as C A D, without third and fifth. Neither warns.
# Matters: a plan typed by a person loses notes by the parser that reads it. Partita's plans know triads
#   alone, and say so.
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


def read(function):
    try:
        return function()
    except ValueError as error:
        return str(error).split(";")[0]


found = {}
for symbol in ("C6/9", "C69"):
    found[symbol] = (
        read(lambda: [pitch.name for pitch in ChordSymbol(symbol).pitches]),
        read(lambda: Chord(symbol).components()),
    )
    print(f"{symbol:5} music21 {found[symbol][0]}  pychord {found[symbol][1]}")
assert found["C6/9"][0].startswith("Invalid chord abbreviation")
assert found["C6/9"][1] == ["E", "G", "A", "C"]
assert found["C69"] == (["C", "A", "D"], ["C", "E", "G", "A", "D"])
PYTHON
