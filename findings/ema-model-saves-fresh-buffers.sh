#!/usr/bin/env bash
# Expected: EMAModel.save_pretrained of diffusers saves the model that was trained, with averaged weights.
# Found: it builds a new model from the config and copies averaged parameters into it. Buffers (codebooks of
#   vector-quantize-pytorch, running means of batch normalization, stored scales) are those of a model
#   that was never trained; nothing is said, and from_pretrained loads them. A codec saved so decodes
#   every code to noise.
# Matters: codecs keep what they learned in buffers. Partita averages them beside the
#   parameters (pipelines/training/weight_average.py).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 diffusers==0.42.1 vector-quantize-pytorch==1.32.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from diffusers.training_utils import EMAModel
from vector_quantize_pytorch import VectorQuantize

for name in ("diffusers", "vector-quantize-pytorch", "torch"):
    print(name, version(name))


class Codec(ModelMixin, ConfigMixin):
    @register_to_config
    def __init__(self, dim: int = 8):
        super().__init__()
        self.encode = torch.nn.Linear(dim, dim)
        self.book = VectorQuantize(dim, codebook_size=64, decay=0.8, threshold_ema_dead_code=2)

    def forward(self, x):
        return self.book(self.encode(x))


torch.manual_seed(0)
data = torch.randn(64, 32, 8) @ torch.diag(torch.tensor([3.0, 2.0, 1.0, 0.1, 0.1, 0.1, 0.1, 0.1]))
model = Codec()
average = EMAModel(model.parameters(), model_cls=Codec, model_config=model.config)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for _ in range(20):
    quantized, _, commitment = model.train()(data)
    commitment.backward()
    optimizer.step()
    optimizer.zero_grad()
    average.step(model.parameters())
model.save_pretrained("trained")
average.save_pretrained("averaged")


def error(folder: str) -> float:
    """Power that quantizing loses over that of the latents."""
    codec = Codec.from_pretrained(folder).eval()
    with torch.no_grad():
        latents, (quantized, _, _) = codec.encode(data), codec(data)
    return float((latents - quantized).square().mean() / latents.square().mean())


trained, averaged = error("trained"), error("averaged")
buffers = [dict(Codec.from_pretrained(f).named_buffers()) for f in ("trained", "averaged")]
changed = [name for name in buffers[0] if not torch.equal(buffers[0][name], buffers[1][name])]
print(f"quantizing loses {trained:.3f} of the power in the model, {averaged:.3f} in the saved average")
print("buffers that differ:", ", ".join(changed))
assert trained < 0.2 and averaged > 0.8
assert any("embed" in name for name in changed)
PYTHON
