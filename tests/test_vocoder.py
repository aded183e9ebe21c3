"""Griffin-Lim: streams, seeds, seams, quality, and what the sum to mono keeps."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.protocols import Vocoder
from codec.spectrogram import LogMel
from codec.stages import run
from codec.vocoder import GriffinLim

SMALL = LogMel(sample_rate=8000, n_fft=256, hop_length=64, num_mels=32)
FULL = LogMel()


def small(**settings: int) -> GriffinLim:
    defaults = {
        "num_iterations": 3,
        "block_frames": 10,
        "lookahead_frames": 4,
        "first_block_frames": 3,
    }
    return GriffinLim(SMALL, **(defaults | settings))


def spectrogram(frames: int, batch: int = 1, channels: int = 2) -> torch.Tensor:
    draws = torch.Generator().manual_seed(frames)
    audio = torch.rand((batch, channels, frames * 64), generator=draws) - 0.5
    return SMALL(audio)


def chord(seconds: float, sample_rate: int = 44100) -> torch.Tensor:
    """Three decaying harmonic tones struck every half second, (1, 1, S)."""
    time = torch.arange(int(seconds * sample_rate)) / sample_rate
    decay = torch.exp(-4 * (time % 0.5))
    tones = [
        torch.sin(2 * math.pi * pitch * harmonic * time) / harmonic
        for pitch in (220.0, 277.2, 329.6)
        for harmonic in range(1, 6)
    ]
    return (torch.stack(tones).sum(0) * decay * 0.1)[None, None]


def convergence(log_mel: LogMel, audio: torch.Tensor, target: torch.Tensor) -> float:
    """|| |STFT| - target || / || target || of bands, without the edges."""
    found = log_mel(audio).exp()[..., 5:-5]
    wanted = target.exp()[..., 5:-5]
    return float((found - wanted).norm() / wanted.norm())


def band_levels(audio: torch.Tensor) -> torch.Tensor:
    """(M,) mean power of each band, in dB."""
    return FULL(audio).exp().square().mean(-1)[0, 0].log10() * 10


def test_it_is_a_vocoder():
    assert isinstance(small(), Vocoder)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any))
def test_the_cut_of_the_stream_changes_no_bit(sizes):
    vocoder = small()
    whole = spectrogram(sum(sizes), batch=2)
    pieces = torch.cat(list(vocoder.stream(whole.split(sizes, dim=-1), seed=1)), dim=-1)
    assert torch.equal(pieces, vocoder(whole, seed=1))


@pytest.mark.parametrize("frames", [1, 2, 9, 10, 11, 13, 14, 15, 20, 24, 25, 43])
def test_a_hop_of_audio_per_frame(frames):
    audio = small()(spectrogram(frames))
    assert audio.shape == (1, 2, frames * 64)
    assert audio.dtype == torch.float32
    assert torch.isfinite(audio).all()
    assert audio.abs().max() < 4


@pytest.mark.parametrize("block", [2, 3, 7])
@pytest.mark.parametrize("lookahead", [0, 1, 9])
def test_blocks_shorter_than_a_window(block, lookahead):
    audio = small(block_frames=block, lookahead_frames=lookahead)(spectrogram(23))
    assert audio.shape == (1, 2, 23 * 64)
    assert audio.abs().max() < 4


def test_a_row_alone_equals_the_row_in_a_batch():
    whole = spectrogram(25, batch=3)
    together = small()(whole)
    for row in range(3):
        assert torch.allclose(small()(whole[row : row + 1])[0], together[row], atol=1e-4)


def test_seeds():
    whole = spectrogram(30)
    first, second = small()(whole, seed=0), small()(whole, seed=1)
    assert torch.equal(first, small()(whole, seed=0))
    correlation = (first * second).sum() / (first.norm() * second.norm())
    assert correlation.abs() < 0.9
    state = torch.get_rng_state()
    small()(whole)
    assert torch.equal(torch.get_rng_state(), state)


def test_iterations_bring_the_spectrogram_nearer():
    target = FULL(chord(1.5))
    errors = [
        convergence(FULL, GriffinLim(FULL, iterations)(target), target) for iterations in (1, 4, 16)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[1] < 0.25
    assert errors[2] < 0.2


def test_a_steady_sine_keeps_its_pitch_and_level():
    time = torch.arange(2 * 44100) / 44100
    sine = 0.5 * torch.sin(2 * math.pi * 1000 * time)[None, None]
    audio = GriffinLim(FULL)(FULL(sine))
    spectrum = torch.fft.rfft(audio[0, 0, 4096:-4096] * torch.hann_window(2 * 44100 - 8192))
    peak = int(spectrum.abs().argmax()) * 44100 / (2 * 44100 - 8192)
    assert peak == pytest.approx(1000, abs=25)  # a band is 31 Hz wide
    level = 10 * torch.log10(audio.square().mean() / sine.square().mean())
    assert abs(float(level)) < 2


def test_block_seams_do_not_show():
    """Fourth differences, which a click or a jump of slope dominates, are no larger there."""
    time = torch.arange(4 * 44100) / 44100
    sine = 0.5 * torch.sin(2 * math.pi * 400 * time)[None, None]
    vocoder = GriffinLim(FULL, block_frames=25)
    audio = vocoder(FULL(sine))[0, 0].double()
    jump = audio.diff(n=4).abs()
    seams = [block * 25 * 441 - FULL.padding for block in range(2, 15)]
    at_seams = torch.stack([jump[seam - 6 : seam + 4].max() for seam in seams])
    elsewhere = jump[5000:-5000]
    windows = elsewhere[: len(elsewhere) // 10 * 10].view(-1, 10).amax(-1)
    assert at_seams.max() <= windows.max()
    assert at_seams.median() <= 1.5 * windows.median()


def test_the_sum_to_mono_keeps_level_and_bands():
    """Panned, in-phase material: no band of the sum is off by more than in a channel alone."""
    source = chord(2.0)
    stereo = torch.cat([source, 0.4 * source], dim=1)
    decoded = GriffinLim(FULL)(FULL(stereo))
    wanted, found = stereo.sum(1, keepdim=True), decoded.sum(1, keepdim=True)
    level = 10 * torch.log10(found.square().mean() / wanted.square().mean())
    assert abs(float(level)) < 1.0
    sum_error, left_error = (
        band_levels(decoded_part) - band_levels(part)
        for decoded_part, part in ((found, wanted), (decoded[:, :1], source))
    )
    heard = band_levels(source) > band_levels(source).max() - 40
    assert heard.sum() > 20
    assert (sum_error - left_error)[heard].abs().max() < 0.1
    assert sum_error[heard].mean().abs() < 1.0


def test_the_sum_to_mono_of_unlike_channels_does_not_comb():
    """Different music left and right, the sum's bands against the sum of the channels' powers."""
    left = chord(2.0)
    right = left.roll(11025, dims=-1)
    decoded = GriffinLim(FULL)(FULL(torch.cat([left, right], dim=1)))
    mono = FULL(decoded.sum(1, keepdim=True)).exp().square().mean(-1)
    power = FULL(decoded).exp().square().mean(-1).sum(1, keepdim=True)
    heard = power > power.max() * 1e-4
    gain = 10 * torch.log10(mono / power)[heard]
    assert gain.min() > -1.0  # nothing cancels
    assert gain.max() < 3.5  # equal phases add at most 3 dB


def test_channels_share_their_phase():
    """What intensity panning did is kept: the channels' ratio of levels, sample by sample."""
    source = chord(1.0)
    decoded = GriffinLim(FULL, 2)(FULL(torch.cat([source, 0.25 * source], dim=1)))[0]
    correlation = (decoded[0] * decoded[1]).sum() / (decoded[0].norm() * decoded[1].norm())
    assert correlation > 0.99
    assert float(decoded[1].norm() / decoded[0].norm()) == pytest.approx(0.25, rel=0.05)


def test_an_endless_stream_is_yielded_block_by_block():
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield spectrogram(1)

    stream = small().stream(endless())
    samples = 0
    for _ in range(20):
        samples += next(stream).shape[-1]
        assert read - samples / 64 <= 10 + 4 + 3
    assert samples > 16 * 10 * 64


def test_blocks_grow_from_the_first():
    pieces = list(small().stream([spectrogram(50)]))
    samples = [piece.shape[-1] for piece in pieces]
    samples[0] += SMALL.padding  # the first window reaches back before the first sample
    samples[-1] -= SMALL.padding
    assert [count // 64 for count in samples] == [3, 4, 7, 10, 10, 10, 6]


@pytest.mark.parametrize("read", [1, 8, 20])
def test_a_saved_stage_continues_exactly(read):
    vocoder, whole = small(), spectrogram(40)
    first, second = vocoder.stage(5), vocoder.stage(5)
    first.input.push(whole[..., :read])
    pieces = [*iter(first.pull, None)]
    second.load_state_dict(first.state_dict())
    pieces += run([second], [whole[..., read:]])
    assert torch.equal(torch.cat(pieces, dim=-1), vocoder(whole, seed=5))


def test_silence_stays_silent():
    silence = torch.full((1, 2, 32, 30), SMALL.log_floor)
    assert small()(silence).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_iterations": 0}, "num_iterations must be at least 1, got 0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\), got -0.1"),
        ({"block_frames": 1}, "block_frames must be at least 2, half an overlap, got 1"),
        ({"first_block_frames": 1}, "first_block_frames must be at least 2, half an overlap"),
        ({"lookahead_frames": -1}, "lookahead_frames must not be negative, got -1"),
    ],
)
def test_settings_that_cannot_work(change, message):
    with pytest.raises(ValueError, match=message):
        small(**change)
