#!/usr/bin/env bash
# Expected: a perceptual metric of a decoded clip against its original counts a decode that is 20 dB too
#   soft, or half a second late.
# Found: ViSQOL brings both to one level and aligns them in time: its best score, 4.73, for a hundredth
#   of the amplitude and for a delay of half a second. Zimtohrli barely counts them: 6 dB cost a
#   fiftieth of faint noise, 20 dB half of it, half a second a third.
# Matters: a codec that loses 3 LU, or a pipeline that shifts sound, scores as well as one that does not.
#   Loudness and the place in time have to be measured beside these metrics.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet visqol-python==3.8.0 zimtohrli==0.2.1.post1 numpy==2.2.6
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import zimtohrli
from visqol import VisqolApi

RATE = 48000
rng = np.random.default_rng(0)
time = np.arange(5 * RATE) / RATE
struck = np.exp(-3 * (2 * time % 1))  # twice a second
tones = sum(np.sin(2 * np.pi * hertz * time) for hertz in (220, 277.2, 329.6, 880, 1760))
clip = tones * struck / 10 + 0.002 * rng.normal(size=len(time))
clips = {
    "the same": clip,
    "6 dB softer": clip / 2,
    "20 dB softer": clip / 10,
    "40 dB softer": clip / 100,
    "half a second late": np.roll(clip, RATE // 2),
    "faint noise": clip + 0.01 * rng.normal(size=len(time)),
}

for package in ("visqol-python", "zimtohrli"):
    print(package, version(package))
api = VisqolApi()
api.create(mode="audio")
scores, distances = {}, {}
for name, other in clips.items():
    scores[name] = api.measure_from_arrays(clip, other, sample_rate=RATE).moslqo
    distances[name] = zimtohrli.Pyohrli().distance(clip, other)
    print(f"{name:20} ViSQOL {scores[name]:.2f}  zimtohrli {distances[name]:.4f}")
for name in ("6 dB softer", "20 dB softer", "40 dB softer", "half a second late"):
    assert abs(scores[name] - scores["the same"]) < 0.01, f"ViSQOL hears: {name}"
assert scores["faint noise"] < 3.5, "ViSQOL does not hear faint noise"
assert distances["6 dB softer"] < distances["faint noise"] / 20, "zimtohrli hears 6 dB"
assert distances["20 dB softer"] < distances["faint noise"], "zimtohrli hears 20 dB"
assert distances["half a second late"] < distances["faint noise"] / 2, "zimtohrli hears the delay"
PYTHON
