#!/usr/bin/env bash
# Expected: an Ogg Vorbis file decodes to as many samples as its last page says.
# Found: where all audio lies on one page, as libsndfile writes a short tone, FFmpeg's libraries decode
#   128 samples fewer than libsndfile. With the first packet, which holds no samples, on a page of its
#   own both agree.
# Matters: a loop of a game that plays through FFmpeg gets a gap of 3 ms. Partita writes two pages
#   (codec/ogg.py).
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


def by_ffmpeg(data):
    with av.open(io.BytesIO(data)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


found = {}
for name, seconds in (("one page", 0.25), ("many pages", 20)):
    count = round(44100 * seconds)
    rng = np.random.default_rng(0)
    tone = 0.3 * np.sin(0.05 * np.arange(count)) + (seconds > 1) * 0.1 * rng.standard_normal(count)
    stream = io.BytesIO()
    soundfile.write(stream, tone, 44100, format="OGG", subtype="VORBIS")
    data = stream.getvalue()
    own = len(soundfile.read(io.BytesIO(data))[0])
    found[name] = own - by_ffmpeg(data)
    print(f"{name:10} {data.count(b'OggS')} pages, libsndfile {own} samples, FFmpeg {by_ffmpeg(data)}")
assert found == {"one page": 128, "many pages": 0}
PYTHON
