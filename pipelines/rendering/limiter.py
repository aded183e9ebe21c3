"""Limit true peaks, looking ahead; no kept library for Python does under a free license."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.resampling import resample

WINDOW_S = 0.02  # how long before and behind a peak the gain is on its way
OVERSAMPLING = 4


def limit(audio: Tensor, sample_rate: int, ceiling_db: float) -> tuple[Tensor, float]:
    """Turn a (C, S) piece down where its four-fold oversampled peaks would exceed a ceiling (dB).

    The gain that every sample needs is held for a window on both sides (a moving minimum) and then
    smoothed over as long, so that it has arrived when a peak comes and never exceeds what is
    needed (as in Giannoulis et al. 2012, section 2.4, with look-ahead).

    Returns:
        The audio, whose peaks between samples may exceed the ceiling by rounding alone, and the
        deepest reduction (dB).
    """
    dense = resample(audio, sample_rate, OVERSAMPLING * sample_rate).abs().amax(0)
    dense = F.pad(dense, (0, max(0, OVERSAMPLING * audio.shape[1] - dense.shape[0])))
    peaks = F.max_pool1d(dense[None, None], OVERSAMPLING + 1, OVERSAMPLING, OVERSAMPLING // 2)
    peaks = torch.maximum(peaks[0, 0, : audio.shape[1]], audio.abs().amax(0))
    needed = (10 ** (ceiling_db / 20) / peaks.clamp(min=1e-9)).clamp(max=1.0)
    reach = max(1, round(WINDOW_S * sample_rate / 2))
    held = -F.max_pool1d(F.pad(-needed[None, None], (reach, reach), value=-1.0), 2 * reach + 1, 1)
    window = torch.hann_window(2 * reach + 3, periodic=False)[1:-1]
    padded = F.pad(held, (reach, reach), mode="replicate")
    gain = torch.conv1d(padded, (window / window.sum())[None, None])[0, 0]
    return audio * torch.minimum(gain, torch.ones(())), max(
        0.0, -20 * math.log10(float(gain.min()))
    )
