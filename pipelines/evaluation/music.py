"""Tempo, key and instruments of a clip, and whether they are what was asked for.

Detectors err: on 40 rendered pieces with known labels librosa's tempo was right within 4 % for
60 % and its key for 70 %. Report a detector's score on ground truth beside a model's.
"""

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from codec.resampling import resample
from pipelines.errors import import_package
from pipelines.evaluation.pair import check_clip, check_duration

ANALYSIS_RATE = 22_050
TEMPO_HOP = 256
CHROMA_HOP = 2048
MIN_MUSIC_S = 3.0
PITCH_CLASSES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
SPELLINGS = {"DB": 1, "D#": 3, "GB": 6, "G#": 8, "A#": 10, "CB": 11, "E#": 5, "FB": 4, "B#": 0}
# Krumhansl and Kessler (1982), probe-tone ratings from the tonic upwards
MAJOR_PROFILE = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR_PROFILE = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


class Key(NamedTuple):
    """A key: pitch class of the tonic (C is 0), whether it is minor."""

    tonic: int
    minor: bool

    def __str__(self) -> str:
        return f"{PITCH_CLASSES[self.tonic]} {'minor' if self.minor else 'major'}"

    @property
    def relative(self) -> "Key":
        """The key with the same notes and the other mode."""
        return Key((self.tonic + (3 if self.minor else -3)) % 12, not self.minor)


class TempoScore(NamedTuple):
    """Whether a tempo is the asked one, and whether it is that, its half or its double."""

    exact: bool
    octave: bool


class KeyScore(NamedTuple):
    """Whether a key is the asked one; that or its relative; whether the mode is right."""

    exact: bool
    relative: bool
    mode: bool


def parse_key(text: str) -> Key:
    """Read a key such as ``"D minor"``, ``"Bb major"`` or ``"f# min"``.

    Raises:
        ValueError: not a note followed by a mode.
    """
    words = text.split()
    modes = {"major": False, "maj": False, "minor": True, "min": True}
    if len(words) == 2 and words[1].lower() in modes:
        names = {name.upper(): number for number, name in enumerate(PITCH_CLASSES)} | SPELLINGS
        note = words[0].upper().replace("♭", "B").replace("♯", "#")
        if note in names:
            return Key(names[note], modes[words[1].lower()])
    raise ValueError(f'a key must be a note and "major" or "minor", got {text!r}')


def estimate_tempo(audio: Tensor, sample_rate: int) -> float:
    """Tempo in beats per minute (librosa: autocorrelation of the onset strength).

    librosa's choice among the lags of the autocorrelation (one lag is 2 to 4 % at fast tempos) is
    refined by a parabola through the peak of its highest multiple within 4 s.

    Args:
        audio: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz, at least 3 s.
        sample_rate: Hz.

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
        slack = 1 + math.ceil(multiple * 0.5) if multiple == 1 else 2
        center = round(refined * multiple)
        lags = np.arange(max(center - slack, 1), min(center + slack, length - 2) + 1)
        if not len(lags):
            break
        best = int(lags[np.argmax(correlation[lags])])
        left, middle, right = correlation[best - 1 : best + 2]
        curvature = left - 2 * middle + right
        if middle < left or middle < right or curvature >= 0:
            continue  # no peak at this multiple
        refined = (best + 0.5 * (left - right) / curvature) / multiple
    return float(refined)


def score_tempo(estimate_bpm: float, asked_bpm: float, tolerance: float = 0.04) -> TempoScore:
    """Compare tempos within a relative tolerance, exactly and up to a factor of two."""
    hits = [abs(estimate_bpm / (asked_bpm * factor) - 1) <= tolerance for factor in (1.0, 0.5, 2.0)]
    return TempoScore(hits[0], any(hits))


def estimate_key(audio: Tensor, sample_rate: int) -> Key:
    """The key whose Krumhansl-Kessler profile correlates best with the mean chroma.

    Args:
        audio: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz, at least 3 s.
        sample_rate: Hz.

    Raises:
        MissingPackageError: librosa is not installed.
        UnmeasurableError: silent or shorter than 3 s.
    """
    librosa = import_package("librosa", "key")
    samples = _analysis_samples(audio, sample_rate)
    chroma = librosa.feature.chroma_cqt(y=samples, sr=ANALYSIS_RATE, hop_length=CHROMA_HOP)
    return key_of_chroma(chroma.mean(1))


def key_of_chroma(chroma: np.ndarray) -> Key:
    """The best of 24 keys for a (12,) chroma vector, C first (Krumhansl and Schmuckler)."""
    best, best_correlation = Key(0, False), -math.inf
    for minor, profile in ((False, MAJOR_PROFILE), (True, MINOR_PROFILE)):
        for tonic in range(12):
            correlation = float(np.corrcoef(np.roll(profile, tonic), chroma)[0, 1])
            if correlation > best_correlation:
                best, best_correlation = Key(tonic, minor), correlation
    return best


def score_key(estimate: Key, asked: Key) -> KeyScore:
    """Compare keys: exact, exact or relative, and mode alone."""
    exact = estimate == asked
    return KeyScore(exact, exact or estimate == asked.relative, estimate.minor == asked.minor)


def _analysis_samples(audio: Tensor, sample_rate: int) -> np.ndarray:
    check_clip(audio)
    check_duration(audio, sample_rate, MIN_MUSIC_S)
    return resample(audio.mean(0), sample_rate, ANALYSIS_RATE).numpy()
