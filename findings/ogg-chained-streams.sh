#!/usr/bin/env bash
# Expected: Ogg streams that follow one another in a file (RFC 3533: chaining, what internet radio
#   records) are read one after the other, or the reader says that it stops.
# Found: libsndfile gives 2**63 - 1 as their length, for which soundfile.read has no memory, and a reader
#   of blocks gets the first stream and an end. FFmpeg reads all.
# Matters: of a recorded programme only the first title gets into a training set, or the file ends the
#   run. Partita counts the streams and refuses the file by name (codec/ogg.py).
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
parts = []
for seed in range(3):
    stream = io.BytesIO()
    noise = 0.1 * np.random.default_rng(seed).standard_normal((5 * 44100, 2))
    soundfile.write(stream, noise, 44100, format="OGG", subtype="VORBIS")
    parts.append(stream.getvalue())
data = b"".join(parts)
with soundfile.SoundFile(io.BytesIO(data)) as file:
    promised, by_libsndfile = file.frames, len(file.read(20 * 44100)) / 44100
with av.open(io.BytesIO(data)) as container:
    by_ffmpeg = sum(frame.samples for frame in container.decode(audio=0)) / 44100
print(f"three streams of 5 s: libsndfile promises {promised} samples and reads")
print(f"{by_libsndfile:.2f} s; FFmpeg reads {by_ffmpeg:.2f} s")
assert promised == 2**63 - 1
assert by_libsndfile == 5
assert by_ffmpeg > 14.9
PYTHON
