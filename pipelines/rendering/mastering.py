"""Bring pieces to a loudness: one gain each, a limiter where it is asked for, nothing clipped."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.loudness import block_loudness, gated_loudness
from pipelines.rendering.limiter import limit

LOUDNESS_RANGE = (-60, 0)  # LUFS that may be asked for
CEILING_RANGE = (-20, 0)  # dB
GAIN_STEPS = 100  # to the decibel
MAX_CORRECTIONS = 10  # of the gain
MOST_LIMITING_DB = 6.0  # where a loudness is asked for on the command line
LIMITER_MARGIN_DB = 0.1  # for what lies between the limiter's samples
LOUDNESS_TOLERANCE = 0.05  # LU

TRUE_PEAK_TAPS = (
    *(0.001708984375, 0.010986328125, -0.0196533203125, 0.033203125, -0.0594482421875),
    *(0.1373291015625, 0.97216796875, -0.102294921875, 0.047607421875, -0.026611328125),
    *(0.014892578125, -0.00830078125),
    *(-0.0291748046875, 0.029296875, -0.0517578125, 0.089111328125, -0.16650390625),
    *(0.465087890625, 0.77978515625, -0.2003173828125, 0.1015625, -0.0582275390625),
    *(0.0330810546875, -0.0189208984375),
)
"""Phases 0 and 1 of BS.1770's four-fold interpolator, twelve taps each; 3 and 2 are 0 and 1
reversed."""
NUM_TAPS = 12
PIECE = 1 << 17  # samples interpolated at once, so that memory does not grow with length


@dataclass(frozen=True)
class Mastered:
    """Hold a piece at its final level, and how it got there."""

    audio: Tensor  # (C, S) float32 on the CPU
    loudness_lufs: float | None  # of ``audio``, integrated; None where it cannot be measured
    true_peak_db: float | None  # of ``audio``, in dB of full scale; None for digital silence
    # what was applied to every sample, a multiple of 0.01 dB; 0 left them as they were. A
    # limiter, which a note tells of, came behind it.
    gain_db: float
    notes: tuple[str, ...] = ()  # what was not done as asked, one sentence each


def master(
    audio: Tensor,
    sample_rate: int,
    loudness_lufs: float | None,
    true_peak_ceiling_db: float = -1.0,
    most_limiting_db: float = 0.0,
) -> Mastered:
    """Bring a piece to an integrated loudness (ITU-R BS.1770-4) under a true-peak ceiling.

    One gain for the whole piece: dynamics stay, nothing is clipped. Where the ceiling allows less
    gain than the loudness asks for, peaks are limited by up to ``most_limiting_db``, and beyond
    that the piece stays quieter; a note says either. Gains are rounded down to 0.01 dB, so that
    rounding errors of the measurement do not reach the audio.

    Args:
        audio: (C, S) float32, C 1 or 2; samples may exceed [-1, 1].
        sample_rate: Hz.
        loudness_lufs: -60 to 0; None only keeps the ceiling. A piece that is silent or never
            exceeds -70 LUFS is left alone; one shorter than a gating block (0.4 s) is measured
            without gates.
        true_peak_ceiling_db: the highest level between samples, in dB of full scale, -20 to 0.
        most_limiting_db: 0 for no limiter.

    Raises:
        ValueError: not (C, S), more than two channels, NaN, or a level out of its range.
    """
    check_range("loudness_lufs", loudness_lufs, LOUDNESS_RANGE)
    check_range("true_peak_ceiling_db", true_peak_ceiling_db, CEILING_RANGE)
    audio = audio.detach().cpu().float()
    notes = []
    asked, blocks = 0.0, None
    try:
        blocks = block_loudness(audio, sample_rate)
        if loudness_lufs is not None:
            asked = gain_to_loudness(blocks, loudness_lufs)
    except UnmeasurableError as error:
        if loudness_lufs is not None:
            notes.append(f"not brought to {loudness_lufs:g} LUFS: {error}")
    level = decibels(true_peak(audio))
    headroom = true_peak_ceiling_db - level
    if loudness_lufs is not None and most_limiting_db > 0 and headroom < asked:
        loud, raised_db, note = limited(
            audio, sample_rate, loudness_lufs, true_peak_ceiling_db, headroom + most_limiting_db
        )
        found = master(loud, sample_rate, loudness_lufs, true_peak_ceiling_db)
        said = found.notes if missed(found, loudness_lufs) else ()
        gain_db = round(raised_db + found.gain_db, 2)
        return replace(found, gain_db=gain_db, notes=(*notes, note, *said))
    gain_db = math.floor(min(asked, headroom) * GAIN_STEPS) / GAIN_STEPS
    if headroom < asked:
        notes.append(
            f"the true-peak ceiling of {true_peak_ceiling_db:g} dB allows a gain of "
            f"{gain_db:.2f} dB of {asked:.2f} dB"
        )
    if gain_db != 0:
        audio = (audio.double() * 10 ** (gain_db / 20)).float()
    return Mastered(
        audio,
        loudness_at(blocks, gain_db),
        round(level + gain_db, 2) if math.isfinite(level) else None,
        gain_db,
        tuple(notes),
    )


def limited(
    audio: Tensor, sample_rate: int, loudness_lufs: float, ceiling_db: float, most_gain_db: float
) -> tuple[Tensor, float, str]:
    """Raise a piece against a limiter until it has a loudness, or the gain is at its most.

    Returns:
        The limited piece, the gain before the limiter (dB), and a note.
    """
    gain_db, loud, depth_db = 0.0, audio, 0.0
    for _ in range(MAX_CORRECTIONS):
        missing = loudness_lufs - gated_loudness(block_loudness(loud, sample_rate))
        gain_db = min(gain_db + missing, most_gain_db)
        raised = audio * 10 ** (gain_db / 20)
        loud, depth_db = limit(raised, sample_rate, ceiling_db - LIMITER_MARGIN_DB)
        if abs(missing) < LOUDNESS_TOLERANCE or gain_db == most_gain_db:
            break
    return loud, gain_db, f"peaks were limited by up to {depth_db:.1f} dB"


def missed(found: Mastered, loudness_lufs: float) -> bool:
    """Return whether a piece has not the loudness that was asked for."""
    level = found.loudness_lufs
    return level is None or abs(level - loudness_lufs) > 2 * LOUDNESS_TOLERANCE


def check_range(name: str, value: float | None, limits: tuple[float, float]) -> None:
    """Raise ValueError for a level that cannot be asked for, NaN included."""
    low, high = limits
    if value is not None and not low <= value <= high:
        raise ValueError(f"{name} must lie in [{low}, {high}], got {value}")


def gain_to_loudness(blocks: Tensor, loudness_lufs: float) -> float:
    """Find the gain (dB) at which blocks of these loudnesses reach an integrated loudness.

    A gain moves blocks across the absolute gate, so one difference is not always enough.
    """
    gain_db = 0.0
    for _ in range(MAX_CORRECTIONS):
        missing = loudness_lufs - gated_loudness(blocks + gain_db)
        gain_db += missing
        if abs(missing) < 0.5 / GAIN_STEPS:
            break
    return gain_db


def loudness_at(blocks: Tensor | None, gain_db: float) -> float | None:
    """Measure the integrated loudness (LUFS) of blocks after a gain, None where there is none."""
    try:
        return None if blocks is None else round(gated_loudness(blocks + gain_db), 2)
    except UnmeasurableError:
        return None


def true_peak(audio: Tensor) -> float:
    """Measure the largest magnitude of four-fold oversampled audio (ITU-R BS.1770-4, annex 2).

    Steady sines up to 4/9 of the sample rate read within 0.3 dB; no sample is larger. Takes (C, S)
    float32; 1 is full scale.
    """
    taps = torch.tensor(TRUE_PEAK_TAPS).view(2, 1, NUM_TAPS)
    kernel = torch.cat([taps, taps.flip(-1)])  # (4, 1, 12), a row per phase
    padded = torch.nn.functional.pad(audio.float(), (NUM_TAPS - 1, NUM_TAPS - 1))
    peaks = [float(audio.abs().max())]
    for start in range(0, padded.shape[-1] - NUM_TAPS + 1, PIECE):
        piece = padded[:, None, start : start + PIECE + NUM_TAPS - 1]  # (C, 1, s)
        peaks.append(float(torch.conv1d(piece, kernel).abs().max()))
    return max(peaks)


def decibels(level: float) -> float:
    """Convert a linear level to dB, -inf for 0."""
    return 20 * math.log10(level) if level > 0 else -math.inf
