"""Integrated loudness after ITU-R BS.1770-4, without a package."""

import math

import torch
from torch import Tensor

from pipelines.evaluation.clip_checks import check_clip, check_duration
from pipelines.evaluation.reasons import UnmeasurableError

BLOCK_S = 0.4
STEP_S = 0.1
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU
PIECE_S = 5.0  # filtered at once, so that memory does not grow with length
SETTLING_S = 0.5  # after which nothing is left of the high-pass's answer to a step


def integrated_loudness(audio: Tensor, sample_rate: int) -> float:
    """Loudness of a mono or stereo clip in LUFS, gated as BS.1770-4 asks.

    The K weighting is applied in the frequency domain (the same transfer function, any sample
    rate); a full-scale sine of 997 Hz in one channel reads -3.01.

    Args:
        audio: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz, C 1 or 2, at least 0.4 s.
        sample_rate: Hz.

    Raises:
        UnmeasurableError: silent, shorter than a block, or wholly under the gate.
        ValueError: not (C, S), or more than two channels.
    """
    return gated_loudness(block_loudness(audio, sample_rate))


def gated_loudness(loudness: Tensor) -> float:
    """Integrated loudness (LUFS) of blocks given by their loudness.

    Raises:
        UnmeasurableError: wholly under the gate.
    """
    loudness = loudness[loudness > ABSOLUTE_GATE]
    if not len(loudness):
        raise UnmeasurableError(f"the clip never exceeds {ABSOLUTE_GATE:g} LUFS")
    loudness = loudness[loudness > mean_loudness(loudness) + RELATIVE_GATE]
    return mean_loudness(loudness)


def block_loudness(audio: Tensor, sample_rate: int) -> Tensor:
    """Loudness of 0.4 s blocks that start every 0.1 s: (N,) in LUFS, -inf for silence."""
    check_channels(audio)
    check_duration(audio, sample_rate, BLOCK_S)
    power = weighted_power(audio, sample_rate)
    width, step = round(BLOCK_S * sample_rate), round(STEP_S * sample_rate)
    return -0.691 + 10 * power.unfold(0, width, step).mean(-1).log10()


def check_channels(audio: Tensor) -> None:
    """Raise UnmeasurableError for a silent clip, ValueError for one of more than two channels."""
    check_clip(audio)
    if audio.shape[0] > 2:
        raise ValueError(f"loudness takes one or two channels, got {audio.shape[0]}")


def mean_loudness(loudness: Tensor) -> float:
    """Loudness of the mean power of blocks given by their loudness (LUFS)."""
    return float(10 * (10 ** (loudness / 10)).mean().log10())


def weighted_power(audio: Tensor, sample_rate: int) -> Tensor:
    """(C, S) -> (S,) float64: squared K-weighted samples; channels weigh 1 each."""
    length = round(PIECE_S * sample_rate)
    settling = round(SETTLING_S * sample_rate)
    pieces = []
    for start in range(0, audio.shape[-1], length):
        before = min(start, settling)
        piece = audio[:, start - before : start + length].double()
        pieces.append(k_weighted(piece, sample_rate)[:, before:].square().sum(0))
    return torch.cat(pieces)


def k_weighted(audio: Tensor, sample_rate: int) -> Tensor:
    """Filter (C, S) float64 with BS.1770's shelf and high-pass."""
    length = audio.shape[-1]
    padded = 1 << math.ceil(math.log2(length + round(SETTLING_S * sample_rate)))
    spectrum = torch.fft.rfft(audio, n=padded)
    angle = torch.arange(padded // 2 + 1, dtype=torch.float64) * (2 * math.pi / padded)
    for numerator, denominator in (_shelf(sample_rate), _high_pass(sample_rate)):
        spectrum = spectrum * _response(numerator, angle) / _response(denominator, angle)
    return torch.fft.irfft(spectrum, n=padded)[..., :length]


def _response(coefficients: tuple[float, float, float], angle: Tensor) -> Tensor:
    delays = torch.exp(-1j * angle)
    return coefficients[0] + coefficients[1] * delays + coefficients[2] * delays**2


Biquad = tuple[tuple[float, float, float], tuple[float, float, float]]


def _shelf(sample_rate: int) -> Biquad:
    """Stage 1, the head: BS.1770's coefficients at 48 kHz, carried to any rate by bilinear map."""
    frequency, gain_db, quality = 1681.974450955533, 3.999843853973347, 0.7071752369554196
    k = math.tan(math.pi * frequency / sample_rate)
    high = 10 ** (gain_db / 20)
    band = high**0.4996667741545416
    a0 = 1 + k / quality + k * k
    numerator = (
        (high + band * k / quality + k * k) / a0,
        2 * (k * k - high) / a0,
        (high - band * k / quality + k * k) / a0,
    )
    return numerator, (1.0, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0)


def _high_pass(sample_rate: int) -> Biquad:
    """Stage 2, revised low-frequency B curve."""
    frequency, quality = 38.13547087602444, 0.5003270373238773
    k = math.tan(math.pi * frequency / sample_rate)
    a0 = 1 + k / quality + k * k
    return (1.0, -2.0, 1.0), (1.0, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0)
