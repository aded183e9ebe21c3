#!/usr/bin/env bash
# Expected: a model that accelerate unwraps is the plain model again, so validation computes in float32.
# Found: with mixed precision `prepare` puts an autocasting `forward` on the instance, and
#   `unwrap_model` leaves it there by default: outputs are rounded to bfloat16 outside any autocast
#   block. With keep_fp32_wrapper=False the wrapper is gone for good, so training after it is float32.
# Matters: held-out figures, samples and exports made between two steps are bfloat16's, while the same
#   weights loaded from disk compute in float32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 accelerate==1.15.0
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from accelerate import Accelerator

print("accelerate", version("accelerate"), "torch", torch.__version__)
torch.manual_seed(0)
accelerator = Accelerator(cpu=True, mixed_precision="bf16")
model = torch.nn.Linear(64, 64)
x = torch.randn(8, 64)
plain = model(x).detach()
prepared = accelerator.prepare(model)
errors = {
    "unwrap_model(model)": accelerator.unwrap_model(prepared)(x),
    "the class's own forward": torch.nn.Linear.forward(accelerator.unwrap_model(prepared), x),
    "unwrap_model(model, keep_fp32_wrapper=False)": accelerator.unwrap_model(
        prepared, keep_fp32_wrapper=False
    )(x),
    "the prepared model after that": prepared(x),
}
errors = {name: float((y.detach() - plain).abs().max()) for name, y in errors.items()}
for name, error in errors.items():
    print(f"{name:46} largest error {error:.2e}")
assert errors["unwrap_model(model)"] > 1e-4
assert errors["the class's own forward"] == 0
assert errors["unwrap_model(model, keep_fp32_wrapper=False)"] == 0
assert errors["the prepared model after that"] == 0
PYTHON
