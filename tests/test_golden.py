"""Committed weights turn committed inputs into the committed outputs.

``PYTHONPATH=.:tests python -m golden.make_golden`` (and ``golden.make_prior``) write them anew.
"""

import pytest
import torch
from golden import make_prior
from golden.make_golden import FOLDER, outputs
from safetensors.torch import load_file
from tiny_prior import ALL_BACKBONES

from codec.spectral_codec import SpectralCodec
from decoder.diffusion_decoder import DiffusionDecoder
from prior import Prior

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


@pytest.mark.parametrize("backbone", ALL_BACKBONES)
def test_a_prior_writes_the_committed_codes(backbone):
    values = load_file(make_prior.FOLDER / "values.safetensors")
    prior = Prior.from_pretrained(make_prior.FOLDER / backbone).eval()
    with torch.no_grad():
        written = make_prior.outputs(prior, *make_prior.conditions(values))
    for name, codes in written.items():
        assert torch.equal(codes, values[f"{backbone}.{name}"]), name
