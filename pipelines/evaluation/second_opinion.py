"""Estimate tempo and key by published methods, beside the detectors that were fitted here.

On 40 rendered pieces with known labels librosa's tempo was right within 4 % for 60 %, and the
Krumhansl-Kessler key for 70 %.
"""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipelines.data.scores import keys
from pipelines.errors import MissingPackageError, import_package
from pipelines.evaluation.clip_checks import UnmeasurableError, check_clip, check_duration
from pipelines.evaluation.detector_features import ANALYSIS_RATE, mono_samples

MIN_MUSIC_S = 3.0  # for tempo and key
TEMPO_HOP = 256
CHROMA_HOP = 2048


@dataclass(frozen=True)
class SecondOpinion:
    """Holds librosa's tempo and the Krumhansl-Kessler key ("D minor"); None where there is none."""

    tempo_bpm: float | None = None
    key: str | None = None


def get_second_opinion(audio: Tensor, sample_rate: int) -> SecondOpinion:
    """Estimate tempo and key; None for a silent or short clip, or without librosa."""
    try:
        tempo_bpm = estimate_tempo(audio, sample_rate)
        return SecondOpinion(tempo_bpm, str(estimate_key(audio, sample_rate)))
    except (MissingPackageError, UnmeasurableError):
        return SecondOpinion()


def estimate_tempo(audio: Tensor, sample_rate: int) -> float:
    """Estimate the tempo in beats per minute (librosa: autocorrelation of the onset strength).

    librosa chooses among the lags of the autocorrelation, and one lag is 2 to 4 % at fast tempos;
    its choice is refined (:func:`refine_period`).

    Raises:
        MissingPackageError: librosa is not installed.
        UnmeasurableError: silent or shorter than 3 s.
    """
    librosa = import_package("librosa", "tempo")
    samples = _analysis_samples(audio, sample_rate)
    onset = librosa.onset.onset_strength(y=samples, sr=ANALYSIS_RATE, hop_length=TEMPO_HOP)
    rough = float(
        librosa.feature.tempo(onset_envelope=onset, sr=ANALYSIS_RATE, hop_length=TEMPO_HOP)[0]
    )
    frame_rate = ANALYSIS_RATE / TEMPO_HOP
    return 60 * frame_rate / refine_period(onset - onset.mean(), 60 * frame_rate / rough)


def refine_period(envelope: np.ndarray, period: float, reach_s: float = 4.0) -> float:
    """Sharpen a period (in frames) on the autocorrelation of an envelope.

    Climbs from the rough period through its multiples up to ``reach_s`` seconds, each time to the
    highest lag within half a frame's error a beat, where a parabola gives the fraction.
    """
    length = len(envelope)
    power = np.abs(np.fft.rfft(envelope, 2 * length)) ** 2
    correlation = np.fft.irfft(power)[:length]
    longest = min(reach_s * ANALYSIS_RATE / TEMPO_HOP, length / 2)
    refined = period
    for multiple in range(1, int(longest // period) + 1):
        center = round(refined * multiple)
        lags = np.arange(max(center - 2, 1), min(center + 2, length - 2) + 1)
        if not len(lags):
            break
        best = int(lags[np.argmax(correlation[lags])])
        left, middle, right = correlation[best - 1 : best + 2]
        curvature = left - 2 * middle + right
        if middle < left or middle < right or curvature >= 0:
            continue  # no peak at this multiple
        refined = (best + 0.5 * (left - right) / curvature) / multiple
    return float(refined)


def estimate_key(audio: Tensor, sample_rate: int) -> keys.Key:
    """Find the key whose Krumhansl-Kessler profile correlates best with the mean chroma.

    Raises:
        MissingPackageError: librosa is not installed.
        UnmeasurableError: silent or shorter than 3 s.
    """
    librosa = import_package("librosa", "key")
    samples = _analysis_samples(audio, sample_rate)
    chroma = librosa.feature.chroma_cqt(y=samples, sr=ANALYSIS_RATE, hop_length=CHROMA_HOP)
    return keys.estimate_key(chroma.mean(1).tolist())[0]


def _analysis_samples(audio: Tensor, sample_rate: int) -> np.ndarray:
    check_clip(audio)
    check_duration(audio, sample_rate, MIN_MUSIC_S)
    return mono_samples(audio, sample_rate).numpy()
