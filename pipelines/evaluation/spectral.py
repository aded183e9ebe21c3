"""Signal and spectrum comparison of a clip with its original."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from codec.spectrogram import LogMel
from pipelines.evaluation.clip_checks import check_pair
from pipelines.evaluation.reasons import UnmeasurableError

DAC_WINDOWS = (2048, 512)  # samples
DAC_MEL_BANDS = (150, 80)
CLAMP = 1e-5
LEVEL_FLOOR = 1e-12  # power under which a band counts as empty


class SpectrumFill(NamedTuple):
    """Hold how far up the spectrum is filled, and how far up the original's is (Hz)."""

    filled_hz: float
    occupied_hz: float


class StereoError(NamedTuple):
    """Errors of the stereo image: level difference in dB, coherence in [0, 1]."""

    level_difference_db: float
    coherence: float


class MonoSum(NamedTuple):
    """Measure what summing to mono does to the estimate but not to the original (dB)."""

    level_db: float
    worst_band_db: float


def stft_distance(reference: Tensor, estimate: Tensor) -> float:
    """Multi-scale STFT distance of the DAC paper's table, lower is better.

    Kumar et al., "High-Fidelity Audio Compression with Improved RVQGAN" (2023), section 4.3, as
    its ``scripts/evaluate.py`` computes it: the sum over Hann windows of 2048 and 512 samples (hop
    a quarter) of mean |log10 max(X, 1e-5)^2 - log10 max(Y, 1e-5)^2| + mean |X - Y|, X and Y the
    magnitudes of the unnormalized transforms at the clip's own rate.

    Args:
        reference: (C, S) float32 in [-1, 1]; S at least 1025.
        estimate: the same shape.
    """
    check_pair(reference, estimate)
    return sum(
        _log_and_linear_l1(magnitude(reference, window), magnitude(estimate, window))
        for window in DAC_WINDOWS
    )


def mel_distance(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Multi-scale mel distance of the DAC paper's table, lower is better.

    As :func:`stft_distance`, on 150 and 80 Slaney-normalized mel bands of the magnitudes.

    Args:
        reference: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz; S at least 1025.
        estimate: the same shape.
        sample_rate: Hz.
    """
    check_pair(reference, estimate)
    total = 0.0
    for window, bands in zip(DAC_WINDOWS, DAC_MEL_BANDS, strict=True):
        filters = mel_filters(window, bands, sample_rate)
        mels = [magnitude(clip, window) @ filters for clip in (reference, estimate)]
        total += _log_and_linear_l1(*mels)
    return total


def si_sdr(reference: Tensor, estimate: Tensor) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, higher is better.

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


def movement(audio: Tensor, sample_rate: int) -> float:
    """Mean absolute change of the log-mel from frame to frame, in nats at 100 frames a second."""
    log_mel = log_mel_analysis(sample_rate)(audio.unsqueeze(0))  # (1, C, M, F)
    return float(log_mel.diff(dim=-1).abs().mean())


def movement_ratio(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Movement of the estimate's log-mel over the original's: 1 is right, below 1 is smeared."""
    check_pair(reference, estimate)
    original = movement(reference, sample_rate)
    if not original > 0:
        raise UnmeasurableError("the original's spectrum does not move")
    return movement(estimate, sample_rate) / original


def spectrum_fill(
    reference: Tensor,
    estimate: Tensor,
    sample_rate: int,
    within_db: float = 20.0,
    occupied_db: float = 70.0,
) -> SpectrumFill:
    """Find how far up, in 128 mel bands, the estimate holds about the original's energy.

    Args:
        reference: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz.
        estimate: the same shape.
        sample_rate: Hz.
        within_db: the largest difference of mean band power that counts as filled.
        occupied_db: the original occupies a band that lies at most so far under its loudest.

    Returns:
        ``filled_hz``, the upper edge of the highest filled band up to which 95 % of the occupied
        bands are filled (so that noise above a hole does not count), and ``occupied_hz``, of the
        highest occupied band: what ``filled_hz`` is to be held against.
    """
    check_pair(reference, estimate)
    original = band_levels_db(reference, sample_rate)
    difference = band_levels_db(estimate, sample_rate) - original
    occupied = original >= original.max() - occupied_db
    filled = occupied & (difference.abs() <= within_db)
    share = filled.cumsum(0) / occupied.cumsum(0).clamp(min=1)
    reached = filled & (share >= 0.95)
    edges = torch.tensor(mel_edges_hz(len(original), sample_rate))
    return SpectrumFill(
        float(edges[reached].max()) if reached.any() else 0.0, float(edges[occupied].max())
    )


def stereo_error(reference: Tensor, estimate: Tensor, sample_rate: int) -> StereoError:
    """Error of the stereo image over 32 mel bands and blocks of 8 frames (about 90 ms).

    In every tile within 50 dB of the original's loudest, the level difference between left and
    right (dB, held within 30) and the coherence |sum L R*| / sqrt(sum |L|^2 sum |R|^2) (Breebaart
    et al., "Parametric coding of stereo audio", 2005) are compared with the original's; the mean
    absolute differences are returned, both 0 for an intact image.

    Raises:
        UnmeasurableError: the clips are not stereo.
    """
    check_pair(reference, estimate)
    _check_stereo(reference)
    original, decoded = (stereo_cues(clip, sample_rate) for clip in (reference, estimate))
    power = original[2]
    loud = power >= power.max() * 10**-5
    return StereoError(
        float((original[0] - decoded[0]).abs()[loud].mean()),
        float((original[1] - decoded[1]).abs()[loud].mean()),
    )


def mono_sum(reference: Tensor, estimate: Tensor, sample_rate: int) -> MonoSum:
    """Level that the mono sum loses (negative) by cancellation between the estimate's channels.

    The level of (L + R) / 2 against the mean power of both channels, of the estimate minus of the
    original: over the whole clip, and in the band (of 32 mel bands within 50 dB of the original's
    loudest) that loses most, which a comb shows first.

    Raises:
        UnmeasurableError: the clips are not stereo.
    """
    check_pair(reference, estimate)
    _check_stereo(reference)
    original, original_stereo = _mono_and_stereo_power(reference, sample_rate)
    decoded, decoded_stereo = _mono_and_stereo_power(estimate, sample_rate)
    change = _decibels(decoded / decoded_stereo) - _decibels(original / original_stereo)
    whole = _decibels(decoded.sum() / decoded_stereo.sum())
    whole = whole - _decibels(original.sum() / original_stereo.sum())
    loud = original_stereo >= original_stereo.max() * 10**-5
    return MonoSum(float(whole), float(change[loud].min()))


def stereo_cues(audio: Tensor, sample_rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """Level difference (dB), coherence and power of (block, band) tiles of a (2, S) clip."""
    left, right = _stft(audio, 2048)
    filters = mel_filters(2048, 32, sample_rate)
    cross = left * right.conj()
    parts = (left.abs().square(), right.abs().square(), cross.real, cross.imag)
    power_left, power_right, real, imaginary = (_in_blocks(part @ filters) for part in parts)
    level = _decibels(power_left) - _decibels(power_right)
    norm = (power_left * power_right).sqrt().clamp(min=LEVEL_FLOOR)
    coherence = (real.square() + imaginary.square()).sqrt() / norm
    return level.clamp(-30, 30), coherence.clamp(max=1.0), power_left + power_right


def magnitude(audio: Tensor, window_length: int) -> Tensor:
    """(C, S) -> (C, F, window_length / 2 + 1) magnitudes, Hann window, hop of a quarter."""
    return _stft(audio, window_length).abs()


def band_levels_db(audio: Tensor, sample_rate: int, num_bands: int = 128) -> Tensor:
    """(C, S) -> (num_bands,) power in mel bands, mean over time and channels, in dB."""
    power = magnitude(audio, 2048).square().mean(dim=(0, 1))
    return _decibels(power @ mel_filters(2048, num_bands, sample_rate))


def mel_edges_hz(num_bands: int, sample_rate: int) -> list[float]:
    """Upper edge of each mel band (Slaney's scale, 0 to half the sample rate), in Hz."""
    filters = mel_filters(2048, num_bands, sample_rate)
    step = sample_rate / 2048
    return [float(band.nonzero().max()) * step if band.any() else 0.0 for band in filters.T]


@lru_cache(maxsize=16)
def mel_filters(window_length: int, num_bands: int, sample_rate: int) -> Tensor:
    """(window_length / 2 + 1, num_bands) mel triangles of area one on Slaney's scale."""
    from torchaudio.functional import melscale_fbanks

    return melscale_fbanks(
        window_length // 2 + 1, 0.0, sample_rate / 2, num_bands, sample_rate, "slaney", "slaney"
    )


@lru_cache(maxsize=8)
def log_mel_analysis(sample_rate: int, num_mels: int = 128) -> LogMel:
    """The codec's log-mel analysis at 100 frames a second for any sample rate."""
    return LogMel(sample_rate=sample_rate, hop_length=sample_rate // 100, num_mels=num_mels)


def _stft(audio: Tensor, window_length: int) -> Tensor:
    if audio.shape[-1] <= window_length // 2:
        raise UnmeasurableError(f"shorter than half a window of {window_length} samples")
    window = torch.hann_window(window_length)
    spectrum = torch.stft(
        audio, window_length, window_length // 4, window=window, return_complex=True
    )
    return spectrum.transpose(1, 2)  # (C, F, window_length / 2 + 1)


def _log_and_linear_l1(left: Tensor, right: Tensor) -> float:
    logarithms = [2 * spectrum.clamp(min=CLAMP).log10() for spectrum in (left, right)]
    return float((logarithms[0] - logarithms[1]).abs().mean() + (left - right).abs().mean())


def _in_blocks(frames: Tensor, length: int = 8) -> Tensor:
    """(F, M) -> (ceil(F / length), M): means over blocks of frames, the last one padded."""
    missing = -frames.shape[0] % length
    frames = torch.cat([frames, frames.new_zeros(missing, frames.shape[1])])
    return frames.unflatten(0, (-1, length)).mean(1)


def _mono_and_stereo_power(audio: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    spectrum = _stft(audio, 2048)
    filters = mel_filters(2048, 32, sample_rate)
    mono = spectrum.mean(0).abs().square().mean(0) @ filters
    stereo = spectrum.abs().square().mean(dim=(0, 1)) @ filters
    return mono.clamp(min=LEVEL_FLOOR), stereo.clamp(min=LEVEL_FLOOR)


def _decibels(power: Tensor) -> Tensor:
    return 10 * power.clamp(min=LEVEL_FLOOR).log10()


def _check_stereo(audio: Tensor) -> None:
    if audio.shape[0] != 2:
        raise UnmeasurableError(f"not stereo: {audio.shape[0]} channel(s)")
