"""Compute what detectors read: onsets (tempo), chroma (key), spectral levels (instruments)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.resampling import resample
from pipelines.data.clip_levels import SAMPLE_RATE
from pipelines.evaluation.spectral import log_mel_analysis

FRAME_RATE = 100  # of the log-mel spectrogram
BANDS = ((0, 12), (12, 40), (40, 80), (80, 128))
NUM_ENVELOPES = len(BANDS) + 1
ONSET_RANGE_NATS = 8.0  # below the loudest
NUM_LAGS = 700
HARMONY_BANDS = 60
HARMONY_FRAMES = 11

ANALYSIS_RATE = 22_050
N_FFT = 8192
HOP_LENGTH = 2048
REGISTERS_HZ = ((50.0, 200.0), (200.0, 800.0), (800.0, 3200.0))
PEAK_FLOOR = 1e-3  # of the loudest bin
QUIET_FLOOR = 0.05  # of the loudest frame
TRIAD_SHARPNESS = 8.0
NUM_VECTORS = 9

POOLING = 2  # frames of 10 ms made one
LEVEL_RANGE_NATS = 9.0  # below the loudest


def mono_samples(audio: Tensor, sample_rate: int) -> Tensor:
    """Mix (C, S) audio and resample it: (S,) at 22,050 Hz."""
    return resample(audio.mean(0), sample_rate, ANALYSIS_RATE)


def mono_log_mel(audio: Tensor, sample_rate: int) -> Tensor:
    """Analyze (C, S) audio as prepared data are: (128, F) natural-log mel at 100 frames/s."""
    analysis = log_mel_analysis(SAMPLE_RATE)
    return mix_channels(analysis(resample(audio, sample_rate, SAMPLE_RATE)[None])[0])


def mix_channels(log_mel: Tensor) -> Tensor:
    """Take the log of the channels' mean magnitude: (C, M, F) -> (M, F)."""
    return log_mel.exp().mean(0).log()


def onset_envelopes(log_mel: Tensor) -> Tensor:
    """Measure how much begins at every frame of (128, F) natural-log mel at 100 frames/s.

    Returns:
        (E, F - 2) rises of four bands over 20 ms, and changes of the smoothed spectrum; local mean
        0, standard deviation 1.
    """
    log_mel = log_mel.clamp(min=float(log_mel.max()) - ONSET_RANGE_NATS)
    rises = (log_mel[:, 2:] - log_mel[:, :-2]).clamp(min=0)
    envelopes = [rises[low:high].mean(0) for low, high in BANDS]
    width = HARMONY_FRAMES
    smooth = F.avg_pool1d(log_mel[None, :HARMONY_BANDS], width, 1, width // 2)[0]
    change = (smooth[:, width + 1 :] - smooth[:, : -width - 1]).abs().mean(0)
    envelopes.append(F.pad(change, (width // 2, width // 2)))
    stacked = torch.stack(envelopes)
    padded = F.pad(stacked[None], (75, 75), mode="replicate")
    centered = stacked - F.avg_pool1d(padded, 151, 1)[0]
    kernel = torch.tensor([[[0.25, 0.5, 0.25]]])
    smoothed = F.conv1d(centered[:, None], kernel, padding=1)[:, 0]
    return smoothed / smoothed.std(1, keepdim=True).clamp(min=1e-6)


def autocorrelations(log_mel: Tensor) -> Tensor:
    """Correlate the onset envelopes of (M, F) log-mel: (E, NUM_LAGS), unbiased, 1 at lag 0."""
    envelopes = onset_envelopes(log_mel)
    length = envelopes.shape[1]
    power = torch.fft.rfft(envelopes, 2 * length).abs().square()
    correlation = torch.fft.irfft(power)[:, :length]
    correlation = correlation / (length - torch.arange(length)).clamp(min=100)
    correlation = correlation / correlation[:, :1].clamp(min=1e-6)
    return F.pad(correlation, (0, max(0, NUM_LAGS - length)))[:, :NUM_LAGS]


def peak_chroma(samples: Tensor) -> Tensor:
    """Sum spectral peaks of (S,) samples at 22,050 Hz: (3, 12, T) by register and pitch class.

    Peaks are placed by a parabola through the log magnitudes; what lies between two semitones
    counts less (squared cosine).
    """
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(samples, N_FFT, HOP_LENGTH, window=window, return_complex=True).abs()
    below, middle, above = spectrum[:-2], spectrum[1:-1], spectrum[2:]
    is_peak = (middle > below) & (middle >= above) & (middle > spectrum.max() * PEAK_FLOOR)
    left, center, right = (part.clamp(min=1e-8).log() for part in (below, middle, above))
    curvature = (left - 2 * center + right).clamp(max=-1e-6)
    offset = (0.5 * (left - right) / curvature).clamp(-0.5, 0.5)
    bins = torch.arange(1, spectrum.shape[0] - 1)[:, None] + offset
    frequency = bins * (ANALYSIS_RATE / N_FFT)
    pitch = 12 * torch.log2(frequency / 440) + 69
    weight = middle * torch.cos(torch.pi * (pitch - pitch.round())).square()
    pitch_class = pitch.round().long() % 12
    chroma = torch.zeros(len(REGISTERS_HZ), 12, spectrum.shape[1])
    for index, (low, high) in enumerate(REGISTERS_HZ):
        counted = is_peak & (frequency >= low) & (frequency < high)
        chroma[index].scatter_add_(0, pitch_class, weight * counted)
    return chroma


def chroma_vectors(samples: Tensor) -> Tensor:
    """Describe (S,) samples at 22,050 Hz for ``KeyFinder``, wherever in the piece its frames lie.

    Returns:
        (9, 12): sums of the chroma by register; these sums with every frame made equally loud; the
        compressed chroma of all registers; how much of the time each major and minor triad sounds.
    """
    registers = peak_chroma(samples)
    levels = registers.sum(1, keepdim=True)
    loudest = levels.amax(-1, keepdim=True) * QUIET_FLOOR + 1e-9
    level = (registers / torch.maximum(levels, loudest)).sum(-1)
    total = registers.sum(0)
    sums = torch.cat([registers.sum(-1), level, total.sqrt().sum(-1)[None]])
    sums = sums / sums.sum(1, keepdim=True).clamp(min=1e-9)
    return torch.cat([sums, triad_shares(total)])


def triad_shares(chroma: Tensor) -> Tensor:
    """Average a soft choice among major and minor triads over time: (12, T) -> (2, 12)."""
    chroma = chroma / chroma.norm(dim=0, keepdim=True).clamp(min=1e-6)
    shapes = torch.zeros(2, 12)
    shapes[0, [0, 4, 7]] = shapes[1, [0, 3, 7]] = 3**-0.5
    triads = torch.stack([shape.roll(root) for shape in shapes for root in range(12)])
    return ((triads @ chroma) * TRIAD_SHARPNESS).softmax(0).mean(1).reshape(2, 12)


def tagger_levels(log_mel: Tensor) -> Tensor:
    """Scale (M, F) natural-log mel at 100 frames/s to levels from 0 to 1 at 50: (M, F / 2)."""
    pairs = log_mel[:, : log_mel.shape[1] // POOLING * POOLING].unflatten(1, (-1, POOLING))
    pooled = pairs.mean(-1)
    return ((pooled - pooled.amax()) / LEVEL_RANGE_NATS + 1).clamp(min=0)
