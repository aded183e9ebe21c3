"""Measure integrated loudness after ITU-R BS.1770-4, by pyloudnorm."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.evaluation.clip_checks import UnmeasurableError, check_clip, check_duration

BLOCK_S = 0.4
STEP_S = 0.1
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU


def integrated_loudness(audio: Tensor, sample_rate: int) -> float:
    """Measure the loudness of a mono or stereo clip in LUFS, gated as BS.1770-4 asks.

    A full-scale sine of 997 Hz in one channel reads -3.01.

    Raises:
        UnmeasurableError: silent, shorter than a block of 0.4 s, or wholly under the gate.
        ValueError: not (C, S), or more than two channels.
    """
    check_duration(audio, sample_rate, BLOCK_S)
    return gated_loudness(block_loudness(audio, sample_rate))


def gated_loudness(loudness: Tensor) -> float:
    """Average blocks given by their loudness (LUFS) to integrated loudness.

    Raises:
        UnmeasurableError: wholly under the gate.
    """
    loudness = loudness[loudness > ABSOLUTE_GATE]
    if not len(loudness):
        raise UnmeasurableError(f"the clip never exceeds {ABSOLUTE_GATE:g} LUFS")
    return mean_level(loudness[loudness > mean_level(loudness) + RELATIVE_GATE])


def block_loudness(audio: Tensor, sample_rate: int) -> Tensor:
    """Measure blocks of 0.4 s that start every 0.1 s; a shorter clip is one block.

    Returns:
        (N,) float64 in LUFS, -inf for silence.

    Raises:
        UnmeasurableError: the clip is silent.
        ValueError: not (C, S), or more than two channels.
    """
    check_clip(audio)
    if audio.shape[0] > 2:
        raise ValueError(f"loudness takes one or two channels, got {audio.shape[0]}")
    length = audio.shape[1]
    width, step = math.ceil(BLOCK_S * sample_rate), round(STEP_S * sample_rate)
    if length >= width:  # without a last, incomplete block, which pyloudnorm would count
        return _measure_blocks(audio[:, : length - (length - width) % step], sample_rate, BLOCK_S)
    # a zero and half a sample more, so that rounding drops no sample of the only block
    block_s = (length + 0.5) / sample_rate
    blocks = _measure_blocks(F.pad(audio, (0, 1)), sample_rate, block_s)
    return blocks[:1] + 10 * math.log10(1 + 0.5 / length)


def mean_level(levels_db: Tensor) -> float:
    """Average the powers behind levels in dB."""
    return float(10 * (10 ** (levels_db / 10)).mean().log10())


def _measure_blocks(audio: Tensor, sample_rate: int, block_s: float) -> Tensor:
    import pyloudnorm  # and with it scipy

    # of pyloudnorm's filters only these have the coefficients of the recommendation
    meter = pyloudnorm.Meter(sample_rate, filter_class="DeMan", block_size=block_s)
    meter.integrated_loudness(audio.T.double().numpy())
    return torch.tensor(meter.blockwise_loudness, dtype=torch.float64)
