"""What the rooms above rely on, for every codec: shapes, ranges, nested books, refusals."""

from functools import partial

import pytest
import torch
from tiny_codec import tiny_codec
from tiny_transformers_codecs import SETTINGS, tiny_transformers_codec

from codec.encodec_codec import EncodecCodec
from codec.protocols import Codec
from codec.seeds import generator

BUILDERS = {
    "spectral": tiny_codec,
    "spectral-mono": lambda: tiny_codec(channels=1, num_codebooks=1),
    "encodec-24khz": lambda: EncodecCodec.untrained("24khz", 3.0, num_filters=2),
    "encodec-48khz": lambda: EncodecCodec.untrained("48khz", 6.0, num_filters=4),
} | {f"transformers-{kind}": partial(tiny_transformers_codec, kind) for kind in SETTINGS}


@pytest.fixture(scope="module", params=BUILDERS)
def codec(request) -> Codec:
    return BUILDERS[request.param]()


def noise(codec: Codec, batch: int, samples: int) -> torch.Tensor:
    shape = (batch, codec.channels, samples)
    return torch.rand(shape, generator=generator(samples, "noise")) * 1.6 - 0.8


def test_it_is_a_codec(codec):
    assert isinstance(codec, Codec)
    assert codec.sample_rate > 0
    assert codec.channels in (1, 2)
    assert codec.frame_rate > 0


@pytest.mark.parametrize("frames", [1, 2, 7])
@pytest.mark.parametrize("excess", [-1, 0, 1])
def test_any_length_makes_codes_and_audio(codec, frames, excess):
    samples = frames * codec.hop_length + excess
    codes = codec.encode(noise(codec, 2, samples))
    assert codes.shape == (2, codec.num_codebooks, -(-samples // codec.hop_length))
    assert codes.dtype == torch.int64
    assert 0 <= codes.min() <= codes.max() < codec.codebook_size
    audio = codec.decode(codes)
    assert audio.shape == (2, codec.channels, codes.shape[-1] * codec.hop_length)
    assert audio.dtype == torch.float32
    assert torch.isfinite(audio).all()


def test_one_sample_is_enough(codec):
    codes = codec.encode(noise(codec, 1, 1))
    assert codes.shape == (1, codec.num_codebooks, 1)


def test_frames_come_at_the_frame_rate(codec):
    seconds = 3
    codes = codec.encode(noise(codec, 1, seconds * codec.sample_rate))
    assert codes.shape[-1] == pytest.approx(seconds * codec.frame_rate, abs=3)


def test_a_row_alone_equals_the_row_in_a_batch(codec):
    audio = noise(codec, 3, 5 * codec.hop_length + 11)
    codes = codec.encode(audio)
    decoded = codec.decode(codes)
    for row in range(3):
        alone = codec.encode(audio[row : row + 1])
        assert torch.equal(alone, codes[row : row + 1])
        assert torch.allclose(codec.decode(alone), decoded[row : row + 1], atol=1e-5)


def test_the_first_books_are_enough(codec):
    codes = codec.encode(noise(codec, 1, 4 * codec.hop_length))
    for books in range(1, codec.num_codebooks + 1):
        audio = codec.decode(codes[:, :books])
        assert audio.shape == codec.decode(codes).shape
        assert torch.isfinite(audio).all()


def test_no_gradient_is_kept(codec):
    codes = codec.encode(noise(codec, 1, codec.hop_length).requires_grad_())
    assert not codec.decode(codes).requires_grad


def test_bad_audio_is_refused(codec):
    good = noise(codec, 1, codec.hop_length)
    with pytest.raises(ValueError, match=r"audio must be \(B, C, S\)"):
        codec.encode(good[0])
    with pytest.raises(ValueError, match="channels"):
        codec.encode(torch.cat([good] * 3, dim=1))
    with pytest.raises(ValueError, match="empty"):
        codec.encode(good[..., :0])
    with pytest.raises(ValueError, match="floating point"):
        codec.encode((good * 100).to(torch.int16))
    for value in (torch.nan, torch.inf):
        bad = good.clone()
        bad[0, 0, 3] = value
        with pytest.raises(ValueError, match="NaN or infinite"):
            codec.encode(bad)


def test_bad_codes_are_refused(codec):
    K, V = codec.num_codebooks, codec.codebook_size
    good = torch.zeros(1, K, 2, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"codes must be \(B, K, T\)"):
        codec.decode(good[0])
    with pytest.raises(ValueError, match="int64"):
        codec.decode(good.float())
    with pytest.raises(ValueError, match=f"1 to {K} codebooks"):
        codec.decode(torch.cat([good, good], dim=1))
    with pytest.raises(ValueError, match="0 frames"):
        codec.decode(good[..., :0])
    for value in (-1, V):
        with pytest.raises(ValueError, match=rf"\[0, {V}\)"):
            codec.decode(good + value)
