#!/usr/bin/env bash
# Expected: a reader of a valid MP3 without a table of contents reads it to its end, or says that it
#   guessed the length.
# Found: libsndfile guesses the length from the first frames' bit rate and then reads no further. Of a
#   variable-rate file that begins loud and ends quiet it reads too little, without an error; of one
#   that begins quiet it promises too much. FFmpeg reads both whole.
# Matters: tracks in a training set end early, or are refused as cut short. Partita counts the frames and
#   puts a table in front (codec/mp3_frames.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soundfile==0.14.0 av==15.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
from importlib.metadata import version

import av
import numpy as np
import soundfile

print("soundfile", version("soundfile"), soundfile.__libsndfile_version__, "av", version("av"))
RATE, SECONDS = 44100, 20


def without_table(data):
    place = max(data.find(b"Xing"), data.find(b"Info"))
    return data[data.index(b"\xff\xfb", place) :]


noise = np.random.default_rng(0).standard_normal((RATE * SECONDS, 2))
quiet_first = np.where(np.arange(RATE * SECONDS) < RATE * SECONDS // 2, 0.001, 0.2)
found = {}
for name, level in (("loud, then quiet", quiet_first[::-1]), ("quiet, then loud", quiet_first)):
    stream = io.BytesIO()
    options = {"bitrate_mode": "VARIABLE", "compression_level": 0.3}
    soundfile.write(
        stream, noise * level[:, None], RATE, format="MP3", subtype="MPEG_LAYER_III", **options
    )
    data = without_table(stream.getvalue())
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        promised, read = file.frames / RATE, len(file.read()) / RATE
    with av.open(io.BytesIO(data)) as container:
        whole = sum(frame.samples for frame in container.decode(audio=0)) / RATE
    found[name] = promised, read, whole
    print(f"{name}: libsndfile promises {promised:.1f} s, reads {read:.1f} s; FFmpeg {whole:.1f} s")
promised, read, whole = found["loud, then quiet"]
assert read < 0.95 * SECONDS and abs(whole - SECONDS) < 0.2
promised, read, whole = found["quiet, then loud"]
assert promised > 1.05 * SECONDS and abs(whole - SECONDS) < 0.2
PYTHON
