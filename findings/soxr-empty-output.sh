#!/usr/bin/env bash
# Expected: resampling a sound gives a sound, of at least one sample.
# Found: soxr rounds the length to the nearest: one sample from 44.1 to 16 kHz gives an empty array, two
#   give one, and 100 give 36 where 36.28 last. Nothing is said.
# Matters: the last block of a recording that is resampled block by block can vanish, and an empty array
#   ends a model far from the cause. Partita resamples a recording as one (codec/resampling.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet soxr==1.1.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import soxr

print("soxr", version("soxr"))
sound = np.ones(4410, dtype=np.float32)
found = {count: len(soxr.resample(sound[:count], 44100, 16000)) for count in (1, 2, 5, 100, 4410)}
blocks = sum(len(soxr.resample(sound[i : i + 63], 44100, 16000)) for i in range(0, 4410, 63))
print("samples in and out, 44.1 to 16 kHz:", found)
print("in blocks of 63:", blocks, "in all, where", 4410 * 16000 / 44100, "last")
assert found == {1: 0, 2: 1, 5: 2, 100: 36, 4410: 1600}
assert blocks == 1610
PYTHON
