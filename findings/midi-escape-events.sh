#!/usr/bin/env bash
# Expected: a MIDI reader passes over the bytes of an escape (an event F7, length, bytes), by which a
#   Standard MIDI File stores messages that are no notes of its own.
# Found: symusic takes F7 for an event without a length and reads the bytes as events. An escape that
#   holds the bytes of a text-like event swallows a note after it without a word; another makes the
#   whole file unreadable. mido refuses every escape with bytes over 127. music21 reads all of them.
# Matters: notes vanish from files of sequencers that store real-time or split messages. Partita
#   reads events with mido, told to cut such bytes to 127 (pipelines/data/midi_file.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet symusic==0.6.0 mido==1.3.3 music21==9.9.1
"$folder/venv/bin/python" -W ignore - "$folder/notes.mid" <<'PYTHON'
import struct
import sys
from importlib.metadata import version

import mido
import music21
import symusic

path = sys.argv[1]


def write(escape):
    """Two quarter notes with an escape between them."""
    on, off = b"\x00\x90\x3c\x40", b"\x83\x60\x80\x3c\x00"
    track = on + off + b"\x00" + escape + on + off + b"\x00\xff\x2f\x00"
    head = b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480)
    with open(path, "wb") as file:
        file.write(head + b"MTrk" + struct.pack(">I", len(track)) + track)


def count(read):
    try:
        return read()
    except Exception as error:
        return type(error).__name__


readers = {
    "symusic": lambda: symusic.Score(path).note_num(),
    "mido": lambda: sum(m.type == "note_on" for m in mido.MidiFile(path)),
    "music21": lambda: len(music21.converter.parse(path).flatten().notes),
}
print(*(f"{name} {version(name)}" for name in readers))
found = {}
for name, escape in (
    ("song select", b"\xf7\x02\xf3\x01"),
    ("bytes like a text", b"\xf7\x04\xff\x90\x07\xf7"),
    ("bytes like a note", b"\xf7\x03\x41\x90\x90"),
):
    write(escape)
    found[name] = {reader: count(read) for reader, read in readers.items()}
    print(f"{name:18} notes found, of 2: {found[name]}")
assert found["song select"] == {"symusic": 2, "mido": "ValueError", "music21": 2}
assert found["bytes like a text"]["symusic"] == 1
assert found["bytes like a note"]["symusic"] == "RuntimeError"
PYTHON
