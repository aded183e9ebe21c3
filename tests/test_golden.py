"""Committed weights turn committed audio into the committed outputs.

``PYTHONPATH=.:tests python -m golden.make_golden`` writes them anew.
"""

import pytest
import torch
from golden.make_golden import FOLDER, outputs
from safetensors.torch import load_file

from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder

TOLERANCE = {"spectrogram": 1e-3, "coarse": 1e-3, "fine": 5e-3, "preview": 2e-2}


@pytest.fixture(scope="module")
def values() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "values.safetensors")


@pytest.fixture(scope="module")
def found(values) -> dict[str, torch.Tensor]:
    codec = SpectralCodec.from_pretrained(FOLDER / "codec")
    decoder = DiffusionDecoder.from_pretrained(FOLDER / "decoder")
    return outputs(codec, decoder, values["audio"])


def test_the_codes_are_the_committed_ones(values, found):
    assert torch.equal(found["codes"], values["codes"])


@pytest.mark.parametrize("name", TOLERANCE)
def test_the_outputs_are_the_committed_ones(values, found, name):
    assert found[name].shape == values[name].shape
    scale = float(values[name].abs().max())
    assert torch.allclose(found[name], values[name], atol=TOLERANCE[name] * scale)
