#!/usr/bin/env bash
# Expected: a forward pass in eval mode draws no random numbers, so greedy generation leaves every
#   random generator of the program where it was.
# Found: MusicGen's decoder in transformers asks Python's own generator for a number in every layer of
#   every step, in eval mode too and with layerdrop 0: it decides about dropping the layer before it
#   looks whether it trains. Eight greedy steps of four layers move `random` by 32 numbers.
# Matters: whoever shuffles, samples prompts or augments with `random` gets other draws after
#   generating than before, by as many as were generated, and seeds of PyTorch do not help. Partita's
#   prior of MusicGen's weights restores the generator's state after each of its steps.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 transformers==5.24.0
"$folder/venv/bin/python" - <<'PYTHON'
import random
import warnings
from importlib.metadata import version

import torch

warnings.simplefilter("ignore")
from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

print("transformers", version("transformers"), "torch", torch.__version__)
LAYERS, STEPS = 4, 8
torch.manual_seed(0)
config = MusicgenDecoderConfig(
    vocab_size=32, hidden_size=16, ffn_dim=32, num_hidden_layers=LAYERS, num_attention_heads=2,
    num_codebooks=2, layerdrop=0.0, pad_token_id=32, bos_token_id=32,
)
model = MusicgenForCausalLM(config).eval()
codes = torch.zeros(2, 1, dtype=torch.long)

random.seed(0)
with torch.no_grad():
    for _ in range(STEPS):
        model(input_ids=codes)
after = random.random()

random.seed(0)
for _ in range(LAYERS * STEPS):
    random.random()
expected = random.random()
print("training mode:", model.training, "  layerdrop:", config.layerdrop)
print("the generator has moved by", LAYERS, "x", STEPS, "numbers:", after == expected)
assert after == expected, "the forward pass moves the generator by another number of draws now"
PYTHON
