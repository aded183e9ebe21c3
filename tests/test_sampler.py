"""The sampler: streaming, seeds, seams and length."""

from itertools import islice, pairwise

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_codec import tiny_codec
from tiny_sampler import (
    CODEC,
    SIZES,
    random_codes,
    random_decoder,
    sampler,
    still_decoder,
)

from codec.stages import run
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.painting import check_conditions
from decoder.sampler import CrossFade, FlowSampler, fade_in, window_grid


def test_it_paints_around_the_coarse_spectrogram():
    codes = random_codes(2, 30)
    fine = sampler(still_decoder()).decode_spectrogram(codes, [0, 1])
    assert torch.allclose(fine, CODEC.decode_spectrogram(codes), atol=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 6, 11, 12, 13, 17, 18, 19, 24, 30, 37])
def test_any_length(frames):
    fine = sampler().decode_spectrogram(random_codes(1, frames), [0], num_steps=1)
    assert fine.shape == (1, 2, 16, 4 * frames)
    assert torch.isfinite(fine).all()


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_the_cut_of_the_stream_does_not_matter(sizes):
    codes = random_codes(1, sum(sizes))
    flow = sampler()
    whole = flow.decode_spectrogram(codes, [3], num_steps=1)
    pieces = torch.cat(list(flow.stream(codes.split(sizes, dim=-1), [3], num_steps=1)), dim=-1)
    assert torch.equal(pieces, whole)


def test_a_row_alone_equals_the_row_in_a_batch():
    codes, seeds = random_codes(3, 29), [5, 0, 5]
    flow = sampler()
    together = flow.decode_spectrogram(codes, seeds, num_steps=3)
    for row, seed in enumerate(seeds):
        alone = flow.decode_spectrogram(codes[row : row + 1], [seed], num_steps=3)
        assert torch.allclose(alone[0], together[row], atol=1e-4)


def test_seeds():
    codes, flow = random_codes(1, 9).expand(2, -1, -1), sampler()
    first, second = flow.decode_spectrogram(codes, [0, 1])
    assert (first - second).abs().mean() > 0.05
    again = flow.decode_spectrogram(codes, [0, 1])
    assert torch.equal(again[0], first)


def test_global_randomness_is_neither_used_nor_moved():
    codes, flow = random_codes(1, 9), sampler()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = flow.decode_spectrogram(codes, [0])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(flow.decode_spectrogram(codes, [0]), first)


@pytest.mark.parametrize("books", [1, 2])
def test_fewer_books_than_the_codec_has(books):
    fine = sampler().decode_spectrogram(random_codes(1, 14, books), [0], num_steps=2)
    assert fine.shape == (1, 2, 16, 56)


def test_the_default_steps_are_the_decoders():
    codes = random_codes(1, 5)
    flow = sampler(random_decoder(default_steps=2))
    expected = flow.decode_spectrogram(codes, [0], num_steps=2)
    assert torch.equal(flow.decode_spectrogram(codes, [0]), expected)


@pytest.mark.parametrize("steps", [0, -1, 17])
def test_steps_out_of_range(steps):
    with pytest.raises(ValueError, match=rf"num_steps must lie in \[1, 16\], got {steps}"):
        sampler().decode_spectrogram(random_codes(1, 3), [0], num_steps=steps)


def test_one_seed_per_row():
    with pytest.raises(ValueError, match="seeds must be one per row, got 1 for 2 rows"):
        sampler().decode_spectrogram(random_codes(2, 3), [0])


def test_the_stream_starts_before_its_codes_end():
    """Windows only are held: an endless stream yields, and reads no further than it must."""
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield random_codes(1, 1)

    stream = sampler().stream(endless(), [0], num_steps=1)
    frames = 0
    for _ in range(20):
        frames += next(stream).shape[-1] // 4
        assert read - frames <= 12 + 2 * CODEC.decoder_reach + 1
    assert frames > 100


def test_seams_do_not_show():
    """Movement from frame to frame inside the cross-fades is that of everywhere else.

    The random decoder moves the coarse spectrogram by most of its own spread, by its noise and
    context, so the windows do paint something and do differ where they overlap.
    """
    codes, flow = random_codes(1, 150), sampler()
    fine = flow.decode_spectrogram(codes, [0], num_steps=4)[0]
    assert (fine - CODEC.decode_spectrogram(codes)[0]).abs().mean() > 0.5
    movement = fine.diff(dim=-1).abs().mean(dim=(0, 1))
    frame = torch.arange(len(movement))
    in_fade = (frame >= 24) & (frame % 24 >= 8) & (frame % 24 < 16)
    assert 0.95 < movement[in_fade].mean() / movement[~in_fade].mean() < 1.05
    assert movement[in_fade].max() < 1.1 * movement[~in_fade].max()


def test_windows_see_the_same_noise_and_conditions():
    """Where windows overlap, a prediction without context paints the same twice."""
    codes = random_codes(1, 40)
    decoder = DiffusionDecoder(**SIZES)
    flow = sampler(decoder)
    windows = []
    flow.solve = lambda window, steps: windows.append(window) or window.coarse
    flow.decode_spectrogram(codes, [0])
    assert len(windows) > 3
    whole = CODEC.normalize(CODEC.decode_spectrogram(codes))
    spans = list(islice(window_grid(12, 6), len(windows)))
    for span, window in zip(spans, windows, strict=True):
        frames = window.latents.shape[1]
        assert frames == span.frames or span is spans[-1]
        expected = whole[..., 4 * span.start : 4 * (span.start + frames)]
        assert torch.allclose(window.coarse, expected, atol=1e-4)
    for span, (before, after) in zip(spans[:-1], pairwise(windows), strict=True):
        shared = min(4 * span.overlap, after.noise.shape[-1])
        later = before.noise[..., -4 * span.overlap :][..., :shared]
        assert torch.equal(later, after.noise[..., :shared])


def test_a_short_window_waits_for_as_many_frames_as_it_shares():
    """And not for all that a codec of long reach sees; what it does wait for, it uses."""
    codec = tiny_codec(decoder_layers=4, kernel_size=7)
    assert codec.decoder_reach == 12
    decoder = still_decoder(window_frames=40, overlap_frames=10)
    flow = FlowSampler(codec, decoder, FlowMatchEulerDiscreteScheduler())
    stage, codes = flow.stage([0], 1), random_codes(1, 40)
    first = next(window_grid(40, 10))
    needed = first.frames + first.overlap
    stage.input.push(codes[..., : needed - 1])
    assert stage.pull() is None
    stage.input.push(codes[..., needed - 1 : needed])
    fine = stage.pull()
    expected = codec.decode_spectrogram(codes[..., :needed])[..., : fine.shape[-1]]
    assert torch.allclose(fine, expected, atol=1e-3)


@pytest.mark.parametrize("overlap", [1, 2, 4, 7, 24])
def test_cross_fade_keeps_what_agrees(overlap):
    """Windows cut from one signal join to that signal; the outer parts come from one side."""
    signal = torch.randn(1, 100, generator=torch.Generator().manual_seed(0))
    fade, size = CrossFade(), 2 * overlap
    joined, start = [], 0
    while start + size < 100:
        joined.append(fade.join(signal[:, start : start + size], overlap))
        start += size - overlap
    joined.append(fade.join(signal[:, start:], 0))
    assert torch.allclose(torch.cat(joined, dim=-1), signal, atol=1e-6)
    third, rise = overlap // 3, fade_in(overlap)
    assert (rise[:third] == 0).all()
    assert (rise[overlap - third :] == 1).all()
    assert (rise.diff() >= 0).all()


def test_the_first_third_of_an_overlap_is_final_at_once():
    assert CrossFade().join(torch.zeros(1, 40), 24).shape == (1, 24)


def test_the_grid_grows_to_the_decoders_windows_and_stays_there():
    grid = list(islice(window_grid(128, 24), 7))
    assert [(span.start, span.frames, span.overlap) for span in grid] == [
        (0, 11, 3),
        (8, 16, 5),
        (19, 25, 8),
        (36, 37, 12),
        (61, 56, 18),
        (99, 84, 24),
        (159, 125, 24),
    ]
    later = list(islice(window_grid(128, 24), 12))[-2:]
    assert [(span.frames, span.overlap) for span in later] == [(128, 24), (128, 24)]
    assert next(window_grid(10, 5)).frames == 10  # never longer than the decoder's own


def test_windows_that_grow_cover_the_piece_whatever_its_length():
    """This decoder paints the coarse spectrogram, so that a hole would show."""
    flow = sampler(still_decoder(window_frames=40, overlap_frames=10))
    for frames in (1, 16, 17, 24, 33, 60, 90, 160):
        codes = random_codes(1, frames)
        fine = flow.decode_spectrogram(codes, [0], num_steps=1)
        assert torch.allclose(fine, CODEC.decode_spectrogram(codes), atol=1e-3)


@pytest.mark.parametrize("read", [1, 15, 30, 47])
def test_a_saved_stage_continues_exactly(read):
    flow = sampler(random_decoder(window_frames=30))
    codes = random_codes(1, 60)
    whole = flow.decode_spectrogram(codes, [3], num_steps=1)
    first, second = flow.stage([3], 1), flow.stage([3], 1)
    pieces = []
    for index in range(read):
        first.input.push(codes[..., index : index + 1])
        pieces += iter(first.pull, None)
    second.load_state_dict(first.state_dict())
    pieces += run([second], [codes[..., read:]])
    assert torch.equal(torch.cat(pieces, dim=-1), whole)


def test_a_codecs_stereo_image_passes_the_decoder_unchanged():
    codec = tiny_codec(stereo_bands=8)
    painter = FlowSampler(codec, random_decoder(channels=1), FlowMatchEulerDiscreteScheduler())
    codes = random_codes(2, 30)
    fine = painter.decode_spectrogram(codes, [0, 1], 1)
    coarse = codec.decode_spectrogram(codes)
    assert fine.shape == coarse.shape == (2, 1, 32, 120)
    assert torch.allclose(fine[:, :, 16:], coarse[:, :, 16:], atol=1e-4)
    assert not torch.allclose(fine[:, :, :16], coarse[:, :, :16], atol=1e-2)


def test_a_decoder_of_two_channels_is_refused_by_a_codec_with_an_image():
    with pytest.raises(ValueError, match="channels differs: decoder 2, codec 1"):
        check_conditions(tiny_codec(stereo_bands=8), random_decoder())
