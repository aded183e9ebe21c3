#!/usr/bin/env bash
# Expected: mir_eval.beat.evaluate(beats, beats) gives 1 for every measure, however short the clip.
# Happens: it drops all beats before 5 s first. A perfect estimate of a clip of five seconds scores 0
#   in all ten measures, with a warning that the beats are empty; in a clip of ten seconds wrong
#   beats in the first half cost nothing. mir_eval.beat.f_measure itself drops nothing.
# Matters here: generated takes and edits last ten seconds and less. Beats of such clips must be
#   scored with the single measures, after trim_beats(beats, 0) or without it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet mir_eval==0.8.2 numpy==2.3.5
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import importlib.metadata

import mir_eval
import numpy as np

print("mir_eval", importlib.metadata.version("mir_eval"))
short = np.arange(0.5, 5, 0.5)
scores = mir_eval.beat.evaluate(short, short)
print("a perfect estimate of 5 s, evaluate:", dict(scores))
assert set(scores.values()) == {0.0}
print("... f_measure:", mir_eval.beat.f_measure(short, short))
assert mir_eval.beat.f_measure(short, short) == 1.0

truth = np.arange(0.5, 10, 0.5)
late = np.where(truth < 5, truth + 0.25, truth)  # half a beat late for the first half
scores = mir_eval.beat.evaluate(truth, late)
print("10 s, the first half wrong: evaluate", scores["F-measure"], end=", ")
print("f_measure", round(mir_eval.beat.f_measure(truth, late), 3))
assert scores["F-measure"] == 1.0
assert mir_eval.beat.f_measure(truth, late) < 0.6
PYTHON
