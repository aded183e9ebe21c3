"""Phases carried from frame to frame, beside the true ones and beside plain loops."""

import math

import pytest
import torch

from codec.phase import _peaks, _sums_along_chains, carry_phases, scatter_floor

N_FFT, HOP = 512, 100


def frames(audio: torch.Tensor) -> torch.Tensor:
    """(S,) samples -> (1, F, N_FFT / 2 + 1) complex."""
    return torch.fft.rfft(audio.unfold(-1, N_FFT, HOP) * torch.hann_window(N_FFT))[None]


def carried(spectrum: torch.Tensor) -> torch.Tensor:
    """Phases of all frames but the first, in cycles, from the first one's true phases."""
    magnitude, phase = spectrum.abs(), spectrum.angle() / (2 * math.pi)
    return carry_phases(magnitude[:, 1:], magnitude[:, 0], phase[:, 0], n_fft=N_FFT, hop_length=HOP)


def distance(found: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """Measure the distance of phases from a spectrum's own, in cycles between 0 and 1/2."""
    difference = found - spectrum.angle() / (2 * math.pi)
    return (difference - difference.round()).abs()


def test_sines_keep_their_phases():
    """Two sines between bins: every bin of their lobes, twenty frames on."""
    time = torch.arange(N_FFT + 20 * HOP, dtype=torch.float64)
    bins = torch.tensor([20.3, 91.8])
    audio = sum(torch.sin(2 * math.pi * b * time / N_FFT + b) for b in bins.double()).float()
    spectrum = frames(audio)
    heard = spectrum.abs()[:, 1:] > 0.1 * spectrum.abs().max()
    assert heard.sum() >= 20 * 6
    assert distance(carried(spectrum), spectrum[:, 1:])[heard].max() < 0.15


def test_a_click_keeps_its_place_in_the_window():
    """The slope along the bins is the group delay; from one frame to the next it moves by a hop."""
    audio = torch.zeros(N_FFT + 4 * HOP)
    audio[N_FFT // 2 + 2 * HOP - 60] = 1.0
    spectrum = frames(audio)
    slope = carried(spectrum)[0, :, 1:].diff(dim=-1)
    wanted = (spectrum[0, 1:, 1:] / spectrum[0, 1:, :-1]).angle() / (2 * math.pi)
    inside = [0, 1]  # later frames lack the click a hop before or after
    for frame in inside:
        error = slope[frame, 5:-5] - wanted[frame, 6:-5]
        assert (error - error.round()).abs().median() < 0.1


def test_frames_cut_anywhere_carry_on():
    """The phases of later frames follow from those of the last of the earlier ones."""
    noise = torch.randn(N_FFT + 12 * HOP, generator=torch.Generator().manual_seed(0))
    magnitude = frames(noise).abs()
    sizes = {"n_fft": N_FFT, "hop_length": HOP}
    start = torch.rand(1, N_FFT // 2 + 1, generator=torch.Generator().manual_seed(1))
    whole = carry_phases(magnitude[:, 1:], magnitude[:, 0], start, **sizes)
    later = carry_phases(magnitude[:, 5:], magnitude[:, 4], whole[:, 3], **sizes)
    difference = later - whole[:, 4:]
    assert (difference - difference.round()).abs().max() < 1e-3


def test_a_row_alone_equals_the_row_in_a_batch():
    magnitude = torch.rand(3, 9, 33, generator=torch.Generator().manual_seed(0))
    phase = torch.rand(3, 33, generator=torch.Generator().manual_seed(1))
    sizes = {"n_fft": 64, "hop_length": 16}
    together = carry_phases(magnitude[:, 1:], magnitude[:, 0], phase, **sizes)
    for row in range(3):
        one = slice(row, row + 1)
        alone = carry_phases(magnitude[one, 1:], magnitude[one, 0], phase[one], **sizes)
        assert torch.allclose(alone[0], together[row], atol=1e-5)


@pytest.mark.parametrize("level", [0.0, 1e-20, 1.0])
def test_flat_frames_are_finite(level):
    flat = torch.full((2, 3, 33), level)
    found = carry_phases(flat, flat[:, 0], torch.zeros(2, 33), n_fft=64, hop_length=16)
    assert torch.isfinite(found).all()


def test_every_bin_belongs_to_the_nearest_peak():
    level = torch.rand(2, 4, 17, generator=torch.Generator().manual_seed(3))
    peak, nearest = _peaks(level)
    for row, frame in enumerate(level.view(-1, 17)):
        inner = [b for b in range(1, 16) if frame[b - 1] <= frame[b] > frame[b + 1]]
        peaks = [0, *inner, 16]
        here = peak[(peak >= row * 17) & (peak < (row + 1) * 17)] - row * 17
        assert here.tolist() == peaks
        for index in range(17):
            owner = int(peak[nearest[row * 17 + index]]) - row * 17
            assert abs(owner - index) == min(abs(b - index) for b in peaks)


@pytest.mark.parametrize("longest", [1, 2, 5, 8])
def test_sums_along_chains(longest):
    draws = torch.Generator().manual_seed(longest)
    value = torch.rand(6 * longest, generator=draws)
    parent = torch.arange(6 * longest) - torch.randint(1, 7, (6 * longest,), generator=draws)
    depth = torch.arange(6 * longest) // 6
    root = depth == 0
    parent = torch.where(root, 0, depth * 6 - 6 + parent % 6)
    wanted = value.clone()
    for index in range(6, 6 * longest):
        wanted[index] += wanted[parent[index]]
    assert torch.allclose(_sums_along_chains(value, parent, root, longest), wanted, atol=1e-5)


def test_the_floor_is_scattered_and_the_rest_is_not():
    """What is 60 dB below its frame's loudest; alike for a frame whatever block it comes in."""
    magnitude = torch.rand(2, 7, 33, generator=torch.Generator().manual_seed(0)) + 0.1
    magnitude[:, :, 20:] *= 1e-5
    cycles = torch.zeros(2, 7, 33)
    draws = torch.rand(2, 33, generator=torch.Generator().manual_seed(1))
    whole = scatter_floor(cycles, magnitude, draws, 5)
    assert not whole[:, :, :20].any()
    assert bool((whole[:, :, 20:] > 0).all())
    assert not torch.equal(whole[:, 0, 20:], whole[:, 1, 20:])
    assert not torch.equal(whole[0], whole[1])
    later = scatter_floor(cycles[:, 3:], magnitude[:, 3:], draws, 8)
    assert torch.equal(whole[:, 3:], later)
