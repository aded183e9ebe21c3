"""Loops in C against the operators of PyTorch that they stand for, with every build that runs."""

import pytest
import torch
from tiny_pipeline import tiny_pipeline
from torch.nn import functional as F

from codec.native import inner_loops
from codec.native.library import Library, NativeError
from codec.phase import starting_phases
from codec.spectrogram import LogMel, overlapped
from codec.stereo import ParametricStereo
from decoder.diffusion_decoder import rotary_table, rotate


def without_library() -> Library:
    raise NativeError("not built")


def both_ways(work, library: Library, monkeypatch: pytest.MonkeyPatch):
    """What a function returns in C and with PyTorch."""
    monkeypatch.setattr(inner_loops, "load_library", lambda: library)
    in_c = work()
    monkeypatch.setattr(inner_loops, "load_library", without_library)
    return in_c, work()


@pytest.mark.parametrize("bins", [2, 33, 1025])
@pytest.mark.parametrize("frames", [1, 66])
def test_phases(library, monkeypatch, bins, frames):
    draws = torch.Generator().manual_seed(bins + frames)
    magnitude = 10 * torch.rand(3, frames + 1, bins, generator=draws) ** 6
    magnitude[1, :, ::2] = 0
    phase, floor = torch.rand(2, 3, bins, generator=draws)

    def work():
        sizes = {"n_fft": 2 * bins - 2, "hop_length": max(1, bins // 3)}
        return starting_phases(magnitude[:, 1:], magnitude[:, 0], phase, floor, 1000, **sizes)

    in_c, with_torch = both_ways(work, library, monkeypatch)
    assert float((in_c - with_torch).abs().max()) < 1e-3
    assert torch.allclose(in_c.abs(), torch.ones(()), atol=1e-6)
    monkeypatch.setattr(inner_loops, "load_library", lambda: library)
    magnitude, phase, floor = magnitude[1:2], phase[1:2], floor[1:2]
    assert torch.equal(work(), in_c[1:2])  # a row does not depend on those beside it


@pytest.mark.parametrize(("width", "hop", "frames"), [(7, 3, 1), (16, 5, 4), (2048, 441, 66)])
def test_overlapping_frames(library, monkeypatch, width, hop, frames):
    pieces, window = torch.randn(2, frames, width), torch.rand(width)
    in_c, with_torch = both_ways(lambda: overlapped(pieces, window, hop), library, monkeypatch)
    assert in_c.shape == (2, (frames - 1) * hop + width)
    assert torch.allclose(in_c, with_torch, atol=1e-5)


def test_complex_numbers(library, monkeypatch):
    numbers, factor = torch.randn(2, 5, 37, dtype=torch.complex64), torch.rand(2, 1, 37)
    for work in (
        lambda: inner_loops.scale_complex(numbers.transpose(0, 1), factor.transpose(0, 1)),
        lambda: inner_loops.normalize_complex(numbers[..., ::2]),
        lambda: inner_loops.normalize_complex(torch.zeros(3, dtype=torch.complex64)),
    ):
        in_c, with_torch = both_ways(work, library, monkeypatch)
        assert torch.allclose(in_c, with_torch, atol=1e-6)


@pytest.mark.parametrize("bands", [1, 7, 32, 128])
def test_mixing(library, monkeypatch, bands):
    stereo, frames = ParametricStereo(LogMel(n_fft=3072, mel_break_hz=450.0), bands), 5
    mono = torch.randn(2, frames, 1537, dtype=torch.complex64)
    image = torch.cat([10 * torch.randn(2, bands, frames), torch.rand(2, bands, frames)], dim=1)
    image[1, :, 2] = 0  # a frame that is mono
    levels = torch.randn(2, 128, frames)
    in_c, with_torch = both_ways(lambda: stereo.mix(mono, image, levels), library, monkeypatch)
    assert in_c.shape == (2, 2, frames, 1537)
    assert torch.allclose(in_c, with_torch, atol=1e-5)
    assert not in_c[1, 1, 2].abs().any()


@pytest.mark.parametrize(("width", "heads"), [(4, 2), (36, 3), (60, 2), (256, 4)])
def test_heads(library, monkeypatch, width, heads):
    monkeypatch.setattr(inner_loops, "load_library", lambda: library)
    qkv, head = torch.randn(2, 10, 3 * width), width // heads
    gains, rotation = torch.rand(2, head), rotary_table(5, 2, head, qkv.device)
    found = inner_loops.prepare_heads(qkv, (gains[0], gains[1]), rotation, heads, 1e-7)
    for gain, part, computed in zip(gains, qkv.chunk(3, dim=-1), found, strict=False):
        apart = part.view(2, 10, heads, head).transpose(1, 2)
        expected = rotate(F.rms_norm(apart, (head,), gain, 1e-7), rotation)
        assert torch.allclose(computed, expected, atol=1e-5)


def test_what_they_do_not_take(monkeypatch):
    plain = torch.zeros(2)
    monkeypatch.setattr(inner_loops, "load_library", without_library)
    assert not inner_loops.runs_in_c(plain)
    monkeypatch.undo()
    assert not inner_loops.runs_in_c(plain, plain.double())
    assert not inner_loops.runs_in_c(torch.zeros(2, device="meta"))
    assert not inner_loops.runs_in_c(torch.zeros(2, requires_grad=True))


def test_a_piece_sounds_the_same(library, monkeypatch):
    pipeline = tiny_pipeline()
    draws = torch.Generator().manual_seed(1)
    shape = (2, pipeline.codec.num_codebooks, 60)
    codes = torch.randint(pipeline.codec.codebook_size, shape, generator=draws)
    work = lambda: pipeline.decode(codes, 3)  # noqa: E731
    in_c, with_torch = both_ways(work, library, monkeypatch)
    # a peak of the spectrum that is hardly one may move by rounding, so single samples differ more
    assert float((in_c - with_torch).square().mean().sqrt() / with_torch.std()) < 5e-4
