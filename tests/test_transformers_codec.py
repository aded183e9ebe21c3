"""Codecs of transformers: models are taken over whole, and mistakes are named."""

from pathlib import Path

import pytest
import torch
from tiny_transformers_codecs import SETTINGS, tiny_transformers_codec

from codec.transformers_codec import TransformersCodec

KINDS = pytest.mark.parametrize("kind", SETTINGS)


@KINDS
def test_models_are_taken_over_and_saved(kind: str, tmp_path: Path) -> None:
    codec = tiny_transformers_codec(kind)
    taken = TransformersCodec.from_transformers(codec.model, num_codebooks=2)
    draws = torch.Generator().manual_seed(0)
    audio = torch.rand((1, codec.channels, 9 * codec.hop_length), generator=draws) - 0.5
    assert torch.equal(taken.encode(audio), codec.encode(audio)[:, :2])
    taken.save_pretrained(tmp_path)
    loaded = TransformersCodec.from_pretrained(tmp_path)
    assert torch.equal(loaded.encode(audio), taken.encode(audio))
    assert loaded.num_codebooks == 2


def test_mistakes() -> None:
    with pytest.raises(
        ValueError, match="kind must be one of dac, mimi, encodec, xcodec, got 'bert'"
    ):
        TransformersCodec("bert", {})
    with pytest.raises(ValueError, match=r"num_codebooks must lie in \[1, 3\], got 4"):
        TransformersCodec("dac", SETTINGS["dac"], 4)
    with pytest.raises(ValueError, match="is run by EncodecCodec"):
        TransformersCodec("encodec", SETTINGS["encodec"] | {"normalize": True})
