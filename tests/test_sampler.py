"""The sampler against closed forms; streaming, seeds, seams and length."""

import math
from itertools import islice, pairwise

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_codec import tiny_codec

from codec.seeds import generator
from codec.stages import run
from decoder.diffusion_decoder import DiffusionDecoder
from decoder.painting import check_conditions
from decoder.sampler import CrossFade, FlowSampler, Window, fade_in, window_grid

CODEC = tiny_codec()
SIZES = {
    "channels": 2,
    "num_mels": 16,
    "patch_bands": 16,
    "latent_dim": 8,
    "num_codebooks": 3,
    "width": 32,
    "num_layers": 2,
    "num_heads": 2,
    "window_frames": 12,
    "overlap_frames": 6,
}


class Decay(DiffusionDecoder):
    """The field dx/d(angle) = x: from pi / 2 down to 0 it divides by e^(pi / 2)."""

    def forward(self, point, angle, coarse, latents, num_books, positions=None):
        return point


def still_decoder(**sizes: int) -> DiffusionDecoder:
    """Untrained, it moves nothing; its detail is too small to see, so the decode is the coarse."""
    return DiffusionDecoder(**(SIZES | sizes), detail_std=1e-6)


def random_decoder(**sizes: int) -> DiffusionDecoder:
    """Weights far from zero, so that a wrong condition shows."""
    decoder = DiffusionDecoder(**(SIZES | sizes)).eval()
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.1)
    return decoder


def sampler(decoder: DiffusionDecoder | None = None) -> FlowSampler:
    return FlowSampler(CODEC, decoder or random_decoder(), FlowMatchEulerDiscreteScheduler())


def random_codes(batch: int, frames: int, books: int = 3) -> torch.Tensor:
    return torch.randint(16, (batch, books, frames), generator=generator(frames, "codes"))


def random_window(frames: int = 5) -> Window:
    draws = torch.Generator().manual_seed(0)
    shape = (2, 2, 16, 4 * frames)
    coarse, noise = (torch.randn(shape, generator=draws) for _ in range(2))
    latents = torch.randn(2, frames, 8, generator=draws)
    return Window(coarse, latents, noise, 3, torch.zeros(2, 2, 0, 4 * frames))


@pytest.mark.parametrize("num_steps", range(1, 17))
def test_standing_still_leaves_noise_of_the_details_size_whatever_the_steps(num_steps):
    window = random_window()
    decoder = DiffusionDecoder(**SIZES, detail_std=0.2, noise_temperature=0.5)
    solved = sampler(decoder).solve(window, num_steps)
    assert torch.allclose(solved, window.coarse + 0.1 * window.noise, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 4, 11, 16])
def test_euler_on_a_linear_field(num_steps):
    window = random_window()
    solved = sampler(Decay(**SIZES, detail_std=0.5)).solve(window, num_steps)
    left = (1 - math.pi / 2 / num_steps) ** num_steps
    assert torch.allclose(solved, window.coarse + 0.5 * left * window.noise, atol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_turns_reach_a_detail_that_is_known_exactly(num_steps):
    window = random_window()
    detail = torch.randn(window.noise.shape, generator=torch.Generator().manual_seed(1))

    class KnowsDetail(DiffusionDecoder):
        def forward(self, point, angle, coarse, latents, num_books, positions=None):
            return (angle.cos() * point - detail) / angle.sin()

    expected = window.coarse + 0.5 * detail
    decoders = {turns: KnowsDetail(**SIZES, detail_std=0.5, turns=turns) for turns in (True, False)}
    solved = {
        turns: sampler(decoder).solve(window, num_steps) for turns, decoder in decoders.items()
    }
    assert torch.allclose(solved[True], expected, atol=1e-5)
    assert not torch.allclose(solved[False], expected, atol=0.1)


def test_the_error_falls_with_the_steps():
    """First order: about half the error at twice the steps."""
    window = random_window()
    exact = window.coarse + 0.5 * window.noise * math.exp(-math.pi / 2)
    errors = [
        float((sampler(Decay(**SIZES, detail_std=0.5)).solve(window, steps) - exact).abs().mean())
        for steps in (8, 16)
    ]
    assert 1.8 < errors[0] / errors[1] < 2.3, errors


@torch.no_grad()
def test_normal_data_keep_their_variance():
    """The ideal field of normal data of unit variance is zero: noise stays as large as the detail.

    Euler on the straight path would leave half the deviation after two steps.
    """
    window = random_window(frames=40)
    solved = sampler(DiffusionDecoder(**SIZES, detail_std=0.5)).solve(window, 2)
    assert float((solved - window.coarse).std()) == pytest.approx(0.5, rel=0.02)


def test_the_angle_given_to_the_network_runs_from_noise_to_the_detail():
    seen = []

    class Watch(DiffusionDecoder):
        def forward(self, point, angle, coarse, latents, num_books, positions=None):
            seen.append((angle.tolist(), num_books.tolist()))
            return coarse

    sampler(Watch(**SIZES)).solve(random_window(), 4)
    angles = [angle for angle, _ in seen]
    assert angles == [[pytest.approx(math.pi / 2 * (4 - step) / 4)] for step in range(4)]
    assert all(books == [3] for _, books in seen)


@pytest.mark.parametrize("num_steps", [1, 4, 7, 16])
@torch.no_grad()
def test_it_solves_as_diffusers_scheduler_does_to_the_bit(num_steps):
    window, decoder = random_window(), random_decoder()
    scheduler = FlowMatchEulerDiscreteScheduler()
    angles = [math.pi / 2 * (1 - step / num_steps) for step in range(num_steps)]
    scheduler.set_timesteps(sigmas=angles)
    x, books = decoder.config.noise_temperature * window.noise, torch.full((1,), 3)
    for timestep, angle in zip(scheduler.timesteps, angles, strict=True):
        at = torch.full((1,), angle)
        velocity = decoder(x, at, window.coarse, window.latents, books)
        x = scheduler.step(velocity, timestep, x, return_dict=False)[0]
    expected = window.coarse + decoder.config.detail_std * x
    assert torch.equal(sampler(decoder).solve(window, num_steps), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"shift": 3.0},
        {"use_dynamic_shifting": True},
        {"shift_terminal": 0.1},
        {"invert_sigmas": True},
        {"stochastic_sampling": True},
        {"use_karras_sigmas": True},
    ],
)
def test_a_scheduler_that_would_take_other_steps_is_refused(options):
    """The network would be asked at other angles than those at which the solver stands."""
    (name,) = options
    with pytest.raises(ValueError, match=f"the scheduler's {name} must be .*, got {options[name]}"):
        FlowSampler(CODEC, random_decoder(), FlowMatchEulerDiscreteScheduler(**options))


def test_a_shift_set_later_and_a_scheduler_of_another_kind_are_refused():
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_shift(3.0)
    with pytest.raises(ValueError, match=r"the scheduler's shift must be 1\.0, got 3\.0"):
        FlowSampler(CODEC, random_decoder(), scheduler)
    with pytest.raises(ValueError, match="must be a FlowMatchEulerDiscreteScheduler, got DDIM"):
        FlowSampler(CODEC, random_decoder(), DDIMScheduler())


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
