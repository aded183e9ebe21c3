"""Codecs of transformers behind the contract: nothing shifts, and models are taken over whole."""

from pathlib import Path

import pytest
import torch
from tiny_transformers_codecs import SETTINGS, tiny_transformers_codec

from codec.transformers_codec import TransformersCodec

KINDS = pytest.mark.parametrize("kind", SETTINGS)


def noise(codec: TransformersCodec, frames: int, seed: int = 0) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    shape = (1, codec.channels, frames * codec.hop_length)
    return torch.rand(shape, generator=draws) - 0.5


@KINDS
def test_nothing_shifts(kind: str) -> None:
    """What changes at a moment changes codes and audio there, not elsewhere."""
    codec = tiny_transformers_codec(kind)
    hop, at, reach = codec.hop_length, 40, 12
    audio = noise(codec, 80)
    other = audio.clone()
    other[..., at * hop :] = noise(codec, 40, seed=1)
    codes, changed = codec.encode(audio), codec.encode(other)
    different = (codes != changed).any(dim=1)[0]
    early, late = (float(part.float().mean()) for part in (different[: at - reach], different[at:]))
    if kind == "xcodec":  # its HuBERT attends to the whole piece
        assert early < 0.3 < 0.6 < late
    else:
        assert early == 0
        assert different[at - reach : at + 3].any()
    spliced = torch.cat([codes[..., :at], changed[..., at:]], dim=-1)
    moved = (codec.decode(codes) - codec.decode(spliced)).abs()[0].amax(dim=0)
    first = int((moved > 0.01 * moved.max()).nonzero()[0])
    assert (at - reach) * hop <= first <= (at + 2) * hop


@KINDS
def test_models_are_taken_over_and_saved(kind: str, tmp_path: Path) -> None:
    codec = tiny_transformers_codec(kind)
    taken = TransformersCodec.from_transformers(codec.model, num_codebooks=2)
    audio = noise(codec, 9)
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
