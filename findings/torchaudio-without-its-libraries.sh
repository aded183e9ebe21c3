#!/usr/bin/env bash
# Expected: torchaudio needs the native libraries of its wheel; without them it cannot be imported.
# Found: a library that does not load stops `import torchaudio` (OSError). A library that is not there
#   does not: torchaudio imports, computes mel spectrograms and resamples as with it, and only what has
#   no Python version (forced alignment) raises when it is called.
# Matters: beside a torch without CUDA, torchaudio's wheel from PyPI cannot load its libraries, and
#   takes encodec and half of diffusers along. Renaming three files helps where reinstalling does not
#   (python -m codec.torchaudio_libraries).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 torchaudio==2.11.0 numpy==2.2.6
cat > "$folder/compute.py" <<'PYTHON'
import math
from importlib.metadata import version

import torch
import torchaudio

print("torchaudio", version("torchaudio"), "torch", torch.__version__)
tone = torch.sin(2 * math.pi * 440 * torch.arange(16000) / 16000)
mel = torchaudio.transforms.MelSpectrogram(16000, n_fft=512, n_mels=40)(tone)
half = torchaudio.functional.resample(tone, 16000, 8000)
peak = int(torch.fft.rfft(half).abs().argmax())
print("mel spectrogram", tuple(mel.shape), "finite:", bool(mel.isfinite().all()))
print("resampled to 8 kHz:", half.numel(), "samples, loudest at", peak, "Hz")
assert mel.shape == (40, 63) and mel.isfinite().all() and half.numel() == 8000 and peak == 440
try:
    torchaudio.functional.forced_align(
        torch.zeros(1, 4, 3), torch.ones(1, 2, dtype=torch.int32), blank=0
    )
except Exception as error:
    print("forced_align:", type(error).__name__)
else:
    raise SystemExit("forced_align works without its library now")
PYTHON
libraries=$(find "$folder/venv" -path '*torchaudio/lib/*torchaudio*.so')
echo "libraries of the wheel: $(echo "$libraries" | wc -l)"
for library in $libraries; do : > "$library"; done
if "$folder/venv/bin/python" -c 'import torchaudio' 2> "$folder/error"; then
    echo "empty libraries: import works now" >&2
    exit 1
fi
echo "libraries that do not load: $(tail -n 1 "$folder/error" | cut -d: -f1)"
grep -q OSError "$folder/error"
rm $libraries
echo "libraries removed:"
"$folder/venv/bin/python" "$folder/compute.py"
