#!/usr/bin/env bash
# Expected: an MP3 of variable bit rate is decoded to its end, with or without the Xing frame, which
#   only says how long it is.
# Found: without that frame, libsndfile takes the first frames' bit rate for the whole file's, and what
#   it guesses is where decoding ends: 5.6 s of 20, without an error, by blocks too. FFmpeg's libraries
#   decode all of it.
# Matters: a dataset loses two thirds of such a track in silence. Partita compares the length with what
#   the container holds, and names the file (codec/audio_file.py).
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

RATE = 44100
KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # MPEG-1, layer III

print("soundfile", version("soundfile"), soundfile.__libsndfile_version__, "av", version("av"))


def seconds_by_ffmpeg(data):
    with av.open(io.BytesIO(data)) as container:
        return sum(frame.samples for frame in container.decode(audio=0)) / RATE


def seconds_by_blocks(data):
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        return sum(len(block) for block in file.blocks(4096)) / RATE


time_s = np.arange(20 * RATE) / RATE
tone = 0.1 * np.sin(2 * np.pi * 220 * time_s)
noise = 0.3 * np.random.default_rng(0).standard_normal(len(time_s))
stream = io.BytesIO()
soundfile.write(
    stream, np.where(time_s < 10, tone + noise, tone), RATE,
    format="MP3", bitrate_mode="VARIABLE", compression_level=0.2,
)
whole = stream.getvalue()
first_frame = 144 * KBPS[whole[2] >> 4] * 1000 // RATE + (whole[2] >> 1 & 1)
assert whole[:2] == b"\xff\xfb" and b"Xing" in whole[:first_frame]
found = {}
for name, data in (("with Xing", whole), ("without", whole[first_frame:])):
    said = soundfile.info(io.BytesIO(data)).duration
    found[name] = (round(said, 1), round(seconds_by_blocks(data), 1), round(seconds_by_ffmpeg(data)))
    print(f"{name:10} libsndfile says {found[name][0]} s, reads {found[name][1]} s; "
          f"FFmpeg decodes {found[name][2]} s")
assert found == {"with Xing": (20.0, 20.0, 20), "without": (5.6, 5.6, 20)}
PYTHON
