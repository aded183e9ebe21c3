"""Measure how far off single tones come back from a codec: harmony depends on that.

Chroma, on which key and chord measures are built, does not show it: its usual implementation adapts
to the tuning of a clip (findings/chroma-hides-detuning.sh).
"""

import math

import torch
from torch import Tensor

from pipelines.errors import MissingPackageError
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.systems import System

SAMPLE_RATE = 44_100
PITCHES = [48 + 1.5 * step + 0.37 * (step % 2) for step in range(24)]
"""MIDI pitches from 131 to 970 Hz, half of them between the keys."""
TONE_S = 1.0
LEVEL = 0.3


def play_tones() -> Tensor:
    """Make (2, S) of one sine after the other, the same on both channels."""
    time = torch.arange(round(TONE_S * SAMPLE_RATE)) / SAMPLE_RATE
    tones = [LEVEL * torch.sin(2 * math.pi * frequency(pitch) * time) for pitch in PITCHES]
    return torch.cat(tones).expand(2, -1).clone()


def frequency(pitch: float) -> float:
    """Convert a MIDI pitch to Hz."""
    return 440 * 2 ** ((pitch - 69) / 12)


def tone_errors(audio: Tensor) -> list[float]:
    """Measure how far the loudest partial of every tone lies from its pitch.

    Args:
        audio: (C, S) float32, a reconstruction of :func:`play_tones`; its first channel is read.

    Returns:
        Distances in cents, the smallest first; infinite for a silent tone.
    """
    length = round(TONE_S * SAMPLE_RATE)
    window = torch.hann_window(round(0.7 * length))
    found = []
    for index, pitch in enumerate(PITCHES):
        start = index * length + (length - len(window)) // 2
        part = audio[0, start : start + len(window)] * window
        peak = int(torch.fft.rfft(part, n=8 * length).abs().argmax())  # an eighth of a hertz
        hertz = peak * SAMPLE_RATE / (8 * length)
        found.append(abs(1200 * math.log2(hertz / frequency(pitch))) if peak else math.inf)
    return sorted(found)


def tone_values(system: System) -> dict[str, float | str]:
    """Measure a system: median and ninth decile of its tones' errors (cents), or why not."""
    try:
        audio, _ = system.reconstruct(play_tones(), SAMPLE_RATE)
    except (MissingPackageError, UnmeasurableError) as reason:
        return {"tone_cents": str(reason)}
    errors: list[float | str] = [
        error if math.isfinite(error) else "silent" for error in tone_errors(audio)
    ]
    return {
        "tone_cents": errors[len(errors) // 2],
        "tone_cents_9_of_10": errors[math.ceil(0.9 * len(errors)) - 1],
    }
