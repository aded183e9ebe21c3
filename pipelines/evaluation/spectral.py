"""Compare signal and spectrum of a clip with its original's."""

from functools import lru_cache

import torch
from torch import Tensor

from codec.spectrogram import LogMel
from pipelines.evaluation.clip_checks import UnmeasurableError, check_pair

DAC_SETTINGS = ((2048, 150), (512, 80))  # window in samples, mel bands
CLAMP = 1e-5
OCCUPIED_DB, FILLED_DB = 70.0, 20.0
LEVEL_FLOOR = 1e-12  # power under which a band counts as empty


def stft_distance(reference: Tensor, estimate: Tensor) -> float:
    """Compute the multi-scale STFT distance of the DAC paper's table, lower is better.

    Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (2023), section 4.3, as
    its ``scripts/evaluate.py`` computes it: the sum over Hann windows of 2048 and 512 samples (hop
    a quarter) of mean |log10 max(X, 1e-5)^2 - log10 max(Y, 1e-5)^2| + mean |X - Y|, X and Y the
    magnitudes of the unnormalized transforms at the clip's own rate.
    """
    check_pair(reference, estimate)
    return sum(
        _log_and_linear_l1(magnitude(reference, window), magnitude(estimate, window))
        for window, _ in DAC_SETTINGS
    )


def mel_distance(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Compute :func:`stft_distance` on 150 and 80 Slaney-normalized mel bands of the magnitudes."""
    check_pair(reference, estimate)
    total = 0.0
    for window, bands in DAC_SETTINGS:
        filters = mel_filters(window, bands, sample_rate)
        mels = [magnitude(clip, window) @ filters for clip in (reference, estimate)]
        total += _log_and_linear_l1(*mels)
    return total


def si_sdr(reference: Tensor, estimate: Tensor) -> float:
    """Compute the scale-invariant signal-to-distortion ratio in dB, higher is better.

    Le Roux et al., "SDR: half-baked or well done?" (2019), on the mean-free samples of all
    channels taken as one signal (one gain for the whole clip). Infinite for a scaled copy; a
    codec that invents phase scores near or below zero without sounding bad.
    """
    check_pair(reference, estimate)
    target = (reference - reference.mean()).double().flatten()
    received = (estimate - estimate.mean()).double().flatten()
    projection = (received @ target) / (target @ target) * target
    error = (received - projection).square().sum()
    if error <= 1e-20 * projection.square().sum():
        return float("inf")
    return float(10 * torch.log10(projection.square().sum() / error))


def movement_ratio(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Divide the estimate's mean change of the log-mel from frame to frame by the original's.

    1 is right, below 1 is smeared.
    """
    check_pair(reference, estimate)
    analysis = log_mel_analysis(sample_rate)
    original, found = (
        float(analysis(clip.unsqueeze(0)).diff(dim=-1).abs().mean())
        for clip in (reference, estimate)
    )
    if not original > 0:
        raise UnmeasurableError("the original's spectrum does not move")
    return found / original


def spectrum_fill(reference: Tensor, estimate: Tensor, sample_rate: int) -> tuple[float, float]:
    """Find how far up, in 128 mel bands, the estimate holds about the original's energy.

    The original occupies a band that lies at most 70 dB under its loudest; the band is filled where
    mean powers differ by at most 20 dB.

    Returns:
        The upper edge (Hz) of the highest filled band up to which 95 % of the occupied bands are
        filled (so that noise above a hole does not count), and of the highest occupied band.
    """
    check_pair(reference, estimate)
    filters = mel_filters(2048, 128, sample_rate)
    original, found = (
        decibels(magnitude(clip, 2048).square().mean(dim=(0, 1)) @ filters)
        for clip in (reference, estimate)
    )
    occupied = original >= original.max() - OCCUPIED_DB
    filled = occupied & ((found - original).abs() <= FILLED_DB)
    share = filled.cumsum(0) / occupied.cumsum(0).clamp(min=1)
    reached = filled & (share >= 0.95)
    step = sample_rate / 2048
    edges = torch.tensor([float(b.nonzero().max()) * step if b.any() else 0.0 for b in filters.T])
    return float(edges[reached].max()) if reached.any() else 0.0, float(edges[occupied].max())


def magnitude(audio: Tensor, window_length: int) -> Tensor:
    """Compute (C, F, window_length / 2 + 1) magnitudes of (C, S), Hann window, hop of a quarter."""
    return stft(audio, window_length).abs()


def stft(audio: Tensor, window_length: int) -> Tensor:
    """Compute the complex spectrum behind :func:`magnitude`.

    Raises:
        UnmeasurableError: the clip is shorter than half a window.
    """
    if audio.shape[-1] <= window_length // 2:
        raise UnmeasurableError(f"shorter than half a window of {window_length} samples")
    window = torch.hann_window(window_length)
    spectrum = torch.stft(
        audio, window_length, window_length // 4, window=window, return_complex=True
    )
    return spectrum.transpose(1, 2)  # (C, F, window_length / 2 + 1)


@lru_cache(maxsize=16)
def mel_filters(window_length: int, num_bands: int, sample_rate: int) -> Tensor:
    """Build (window_length / 2 + 1, num_bands) mel triangles of area one on Slaney's scale."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(
        window_length // 2 + 1, 0.0, sample_rate / 2, num_bands, sample_rate, "slaney", "slaney"
    )


@lru_cache(maxsize=8)
def log_mel_analysis(sample_rate: int, num_mels: int = 128) -> LogMel:
    """Build the codec's log-mel analysis at 100 frames a second for any sample rate."""
    return LogMel(sample_rate=sample_rate, hop_length=sample_rate // 100, num_mels=num_mels)


def decibels(power: Tensor) -> Tensor:
    """Convert power to dB, at least -120."""
    return 10 * power.clamp(min=LEVEL_FLOOR).log10()


def _log_and_linear_l1(left: Tensor, right: Tensor) -> float:
    logarithms = [2 * spectrum.clamp(min=CLAMP).log10() for spectrum in (left, right)]
    return float((logarithms[0] - logarithms[1]).abs().mean() + (left - right).abs().mean())
