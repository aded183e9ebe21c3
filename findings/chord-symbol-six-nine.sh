#!/usr/bin/env bash
# Expected: pychord reads "C6/9", the usual lead-sheet spelling of a sixth with a ninth, as C E G A D,
#   or refuses it.
# Found: a number behind a slash is an inversion there, counted round and round: "C6/9" is C6 in its
#   ninth inversion, E G A C, without the ninth and without a warning. The ninth is only in "C69".
# Matters: chords that a person types become the plan that a piece obeys, and a note is lost in silence.
#   Partita writes "6/9" as "69" and refuses other numbers behind a slash before it asks pychord.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pychord==1.4.1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from pychord import Chord

print("pychord", version("pychord"))
found = {symbol: Chord(symbol).components() for symbol in ("C69", "C6/9", "C/E")}
for symbol, notes in found.items():
    print(f"{symbol:5} {notes}")
assert found["C69"] == ["C", "E", "G", "A", "D"]
assert found["C6/9"] == ["E", "G", "A", "C"], "a sixth with a ninth is read as such now"
PYTHON
