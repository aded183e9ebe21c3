"""Integrated loudness after ITU-R BS.1770-4, by pyloudnorm."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.evaluation.clip_checks import check_clip, check_duration
from pipelines.evaluation.reasons import UnmeasurableError

BLOCK_S = 0.4
STEP_S = 0.1
ABSOLUTE_GATE = -70.0  # LUFS
RELATIVE_GATE = -10.0  # LU


def integrated_loudness(audio: Tensor, sample_rate: int) -> float:
    """Measure the loudness of a mono or stereo clip in LUFS, gated as BS.1770-4 asks.

    A full-scale sine of 997 Hz in one channel reads -3.01.

    Args:
        audio: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz, C 1 or 2, at least 0.4 s.
        sample_rate: Hz.

    Raises:
        UnmeasurableError: silent, shorter than a block, or wholly under the gate.
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
    return _mean_loudness(loudness[loudness > _mean_loudness(loudness) + RELATIVE_GATE])


def block_loudness(audio: Tensor, sample_rate: int) -> Tensor:
    """Measure blocks of 0.4 s that start every 0.1 s; a shorter clip is one block.

    Args:
        audio: (C, S) float32 at ``sample_rate`` Hz, C 1 or 2.
        sample_rate: Hz.

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


def _measure_blocks(audio: Tensor, sample_rate: int, block_s: float) -> Tensor:
    import pyloudnorm  # and with it scipy

    # of pyloudnorm's filters only these have the coefficients of the recommendation
    meter = pyloudnorm.Meter(sample_rate, filter_class="DeMan", block_size=block_s)
    meter.integrated_loudness(audio.T.double().numpy())
    return torch.tensor(meter.blockwise_loudness, dtype=torch.float64)


def _mean_loudness(loudness: Tensor) -> float:
    return float(10 * (10 ** (loudness / 10)).mean().log10())
