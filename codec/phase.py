"""Phases guessed from magnitudes alone, from frame to frame: where Griffin-Lim starts."""

import math

import torch
from torch import Tensor

from codec.native.inner_loops import find_phases, runs_in_c

HANN_SPREAD = 0.25645
"""Time over frequency spread of the Gaussian nearest to a Hann window, by its squared length."""
FLOOR = 1e-3
"""Share of a frame's largest magnitude below which only the spectrogram's floor is left."""
_STRIDE = 389
"""Coprime to the number of bins, so that neighboring frames read different draws."""
DEEPEST = 1e-4
"""Share of a frame's largest magnitude below which logarithms are noise."""


def starting_phases(
    magnitude: Tensor,
    before: Tensor,
    phase: Tensor,
    draws: Tensor,
    first_frame: int,
    *,
    n_fft: int,
    hop_length: int,
) -> Tensor:
    """Carry phases on, draw those of the floor, and return (B, F, N) complex of modulus one.

    In C where that runs. Arguments are those of :func:`carry_phases` and :func:`scatter_floor`.
    """
    if runs_in_c(magnitude, before, phase, draws):
        levels, loudest = _levels(magnitude, before)
        return find_phases(
            levels,
            magnitude,
            FLOOR * loudest[:, 1:-1, 0],
            draws,
            phase,
            (_STRIDE * first_frame, _STRIDE),
            hop_length / n_fft,
            _slope_of_growth(n_fft, hop_length),
        )
    cycles = carry_phases(magnitude, before, phase, n_fft=n_fft, hop_length=hop_length)
    return turned(scatter_floor(cycles, magnitude, draws, first_frame))


def _levels(magnitude: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, F + 2, N) log magnitudes, the last frame's twice, and each frame's largest."""
    levels = torch.cat([before[:, None], magnitude, magnitude[:, -1:]], dim=1)
    loudest = levels.amax(-1, keepdim=True)
    return torch.maximum(levels, DEEPEST * loudest + 1e-9).log(), loudest


def carry_phases(
    magnitude: Tensor, before: Tensor, phase: Tensor, *, n_fft: int, hop_length: int
) -> Tensor:
    """Continue the phases of one frame through the frames after it.

    The phase of every spectral peak advances by the peak's frequency, which a parabola through its
    log magnitudes estimates, from the phase of the frame before at its bin; the bins nearest to the
    peak follow it (single pass spectrogram inversion, Beauregard, Harish and Wyse 2015). Across
    these bins the phase follows the group delay that the change of the log magnitudes in time
    implies (Prusa, Balazs and Sondergaard 2017, eq. 8), which puts an attack where it belongs
    inside its window.

    Args:
        magnitude: (B, F, N) of the frames, N = n_fft / 2 + 1.
        before: (B, N) magnitudes of the frame before them.
        phase: (B, N) phases of that frame, in cycles.
        n_fft: samples in the Hann window.
        hop_length: samples between frames.

    Returns:
        (B, F, N) phases in cycles, against the window's first sample.
    """
    B, F, N = magnitude.shape
    levels, _ = _levels(magnitude, before)
    across = _across(levels[:, 2:] - levels[:, :-2], n_fft, hop_length).flatten()
    level = levels[:, 1:-1].contiguous()
    peak, nearest = _peaks(level)
    bin_of_peak = peak % N
    turn = (hop_length / n_fft) * (bin_of_peak + _offset(level.flatten(), peak, bin_of_peak, N))

    # what each peak adds to the one that its bin was locked to a frame before, if there is one
    first = peak // N % F == 0
    earlier = (peak - N).clamp(min=0)
    start = phase.flatten().index_select(0, peak // (F * N) * N + bin_of_peak)
    gain = turn % 1.0 - across[peak] + torch.where(first, start, across[earlier])
    total = _sums_along_chains(gain, nearest[earlier], first, F)
    return (across + total.index_select(0, nearest)).view(B, F, N)


def scatter_floor(cycles: Tensor, magnitude: Tensor, draws: Tensor, first_frame: int) -> Tensor:
    """Give bins 60 dB below their frame's loudest a random phase.

    Only the floor of the spectrogram is there. Coherent phases would turn it into clicks at the
    frame rate; with random phases it stays faint noise.

    Args:
        cycles: (B, F, N) phases.
        magnitude: (B, F, N).
        draws: (B, N) uniform in [0, 1); every frame reads them from another place.
        first_frame: index of the first of the frames.

    Returns:
        (B, F, N) phases in cycles.
    """
    F, N = magnitude.shape[1:]
    frames = torch.arange(first_frame, first_frame + F, device=draws.device)
    place = (torch.arange(N, device=draws.device) + _STRIDE * frames[:, None]) % N  # (F, N)
    floor = magnitude < FLOOR * magnitude.amax(-1, keepdim=True)
    return torch.where(floor, draws[:, place], cycles)


def _sums_along_chains(value: Tensor, parent: Tensor, root: Tensor, longest: int) -> Tensor:
    """Add to each of (P,) values those of its parent, its parent's parent, up to a root.

    Pointers double (Hillis and Steele 1986): every round sums chains of twice the length, so
    that there are few operators for many frames.
    """
    end = value.numel()  # an extra element that adds nothing
    parent = torch.cat([torch.where(root, end, parent), parent.new_tensor([end])])
    value = torch.cat([value, value.new_zeros(1)])
    for _ in range((longest - 1).bit_length()):
        value = value + value.index_select(0, parent)
        parent = parent.index_select(0, parent)
    return value[:-1]


def _across(growth: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Integrate the (B, F, N) change of log magnitude over two frames to phase (cycles).

    Whole cycles are left out: sums of small numbers are rounded less.
    """
    slope = growth * _slope_of_growth(n_fft, hop_length)
    between = 0.5 * (slope[..., 1:] + slope[..., :-1]) + 0.5  # half a cycle: the window's center
    return torch.nn.functional.pad(between.cumsum(-1), (1, 0)) % 1.0


def _slope_of_growth(n_fft: int, hop_length: int) -> float:
    """Return how the phase's slope (cycles per bin) follows from two frames' growth (nepers)."""
    return -HANN_SPREAD * n_fft / (4 * math.pi * hop_length)


def _peaks(level: Tensor) -> tuple[Tensor, Tensor]:
    """Find the peaks of (B, F, N), as flat positions, and the nearest one to each bin.

    A frame's first and last bin count, so that no bin is nearest to another frame's peak.
    """
    inner = (level[..., 1:-1] >= level[..., :-2]) & (level[..., 1:-1] > level[..., 2:])
    peak = torch.nn.functional.pad(inner, (1, 1), value=True).flatten().nonzero()[:, 0]
    middle = (peak[1:] + peak[:-1] + 1) // 2
    starts = torch.zeros(level.numel(), dtype=torch.int32, device=level.device)
    starts[middle] = 1
    return peak, starts.cumsum(0, dtype=torch.int32)


def _offset(level: Tensor, peak: Tensor, bin_of_peak: Tensor, num_bins: int) -> Tensor:
    """Find how far a parabola's top lies from each peak's bin, in bins; zero at the edges."""
    inner = (bin_of_peak > 0) & (bin_of_peak < num_bins - 1)
    place = torch.where(inner, peak, 1)
    below, here, above = (level.index_select(0, place + step) for step in (-1, 0, 1))
    bend = (below - 2 * here + above).clamp(max=-1e-6)
    return torch.where(inner, (0.5 * (below - above) / bend).clamp(-0.5, 0.5), 0.0)


def turned(cycles: Tensor) -> Tensor:
    """Make complex numbers of modulus one; torch.polar takes twice the time."""
    angle = cycles * (2 * math.pi)
    return torch.complex(angle.cos(), angle.sin())
