#!/usr/bin/env bash
# Expected: k-means initialization of a residual quantizer sets all codebooks from the first training
#   batch, and a forward pass in eval mode changes nothing.
# Found: with quantize_dropout=True the first training batch sets only the codebooks that dropout left
#   in use. The others stay at zero until a batch reaches them, and a batch in eval mode does too: the
#   first validation clips then become the codebooks.
# Matters: a codec validated early carries entries fitted to its validation data, and two runs that
#   validate at different steps train different codecs. Partita initializes all codebooks at once,
#   with dropout off, before anything is measured.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 vector-quantize-pytorch==1.32.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from vector_quantize_pytorch import ResidualVQ

print("vector-quantize-pytorch", version("vector-quantize-pytorch"), "torch", torch.__version__)


def books_that_are_set(quantizer):
    return [bool(layer._codebook.initted) for layer in quantizer.layers]


torch.manual_seed(0)
quantizer = ResidualVQ(
    dim=8, num_quantizers=6, codebook_size=32, kmeans_init=True, quantize_dropout=True
)
quantizer(torch.randn(4, 512, 8))
after_training = books_that_are_set(quantizer)
before = [layer._codebook.embed.clone() for layer in quantizer.layers]
with torch.no_grad():
    quantizer.eval()(torch.randn(1, 64, 8))
after_evaluation = books_that_are_set(quantizer)
changed = [
    not torch.equal(old, layer._codebook.embed)
    for old, layer in zip(before, quantizer.layers, strict=True)
]
print("codebooks set after a training batch: ", after_training)
print("codebooks set after an eval-mode batch:", after_evaluation)
print("codebooks changed by the eval batch:   ", changed)
assert not all(after_training), "the first batch sets every codebook now"
assert all(after_evaluation) and any(changed), "eval mode leaves codebooks alone now"
PYTHON
