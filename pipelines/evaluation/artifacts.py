"""Find audible faults of a clip: clicks, seams, clipping, DC offset, silence, noise in rests."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pipelines.evaluation.clip_checks import UnmeasurableError, check_clip, check_pair
from pipelines.evaluation.loudness import mean_level
from pipelines.evaluation.spectral import log_mel_analysis

FRAME_S = 0.05
SILENT_DBFS = -60.0
MIN_REST_S = 0.2
DIFFERENCE_ORDER = 4


def find_clicks(audio: Tensor, sample_rate: int, threshold: float = 12.0) -> list[float]:
    """Find the times of isolated impulses and jumps, in seconds.

    The fourth difference of the signal whitens music and turns a click into a burst of a few
    samples. A click is a sample whose fourth difference exceeds ``threshold`` times the root mean
    square of both neighborhoods from 1 to 12 ms before and after it: the attack of a drum stays
    loud afterwards and passes, an impulse does not. Gaussian noise reaches about 6 in an hour.
    The first and last 12 ms lack a neighborhood and are not searched.
    """
    check_clip(audio)
    difference = _difference(audio)  # (C, S - 4)
    guard, reach = round(0.001 * sample_rate), round(0.012 * sample_rate)
    if difference.shape[-1] <= 2 * reach:
        raise UnmeasurableError(f"shorter than {2 * reach} samples")
    power = difference.square()
    width = reach - guard
    means = F.avg_pool1d(power, width, stride=1)  # of the samples from each one on
    inner = power.shape[-1] - 2 * reach
    before, after = means[..., :inner], means[..., reach + guard + 1 :][..., :inner]
    level = torch.maximum(before, after).sqrt()
    peaks = difference[..., reach : reach + inner].abs()
    # 1e-4: four times the fourth difference of 16-bit rounding, which is no click
    found = (peaks > threshold * level.clamp(min=1e-4)).any(0).nonzero()[:, 0]
    if not len(found):
        return []
    first = torch.ones(len(found), dtype=torch.bool)
    first[1:] = found.diff() > guard
    return ((found[first] + reach + DIFFERENCE_ORDER // 2) / sample_rate).tolist()


def clicks_per_minute(audio: Tensor, sample_rate: int) -> float:
    """Count the clicks of :func:`find_clicks` per minute."""
    return len(find_clicks(audio, sample_rate)) * 60 * sample_rate / audio.shape[-1]


def seam_excess(audio: Tensor, sample_rate: int, times_s: Sequence[float]) -> tuple[float, float]:
    """Measure how far places where windows were joined differ from the rest of the clip.

    Seams in the first or last 0.2 s are left out.

    Returns:
        Energy (dB) of the fourth difference within 2 ms of a seam against the median of the 4 ms
        windows within 100 ms around it, mean over the seams; and the mean movement of the log-mel
        at seams over that everywhere else. Inaudible seams have 0 dB and 1.

    Raises:
        UnmeasurableError: no seam lies inside the clip.
    """
    check_clip(audio)
    duration_s = audio.shape[-1] / sample_rate
    inside = [time for time in times_s if 0.2 <= time <= duration_s - 0.2]
    if not inside:
        raise UnmeasurableError("no seam lies inside the clip")
    power = _difference(audio).square().sum(0)
    half, steps = round(0.002 * sample_rate), 25
    excess = []
    for time in inside:
        center = round(time * sample_rate) - DIFFERENCE_ORDER // 2
        start = center - half - 2 * half * steps
        windows = power[start : start + 2 * half * (2 * steps + 1)].unflatten(0, (-1, 2 * half))
        energies = windows.sum(1).clamp(min=1e-20)
        excess.append(10 * torch.log10(energies[steps] / energies.median()))
    return float(torch.stack(excess).mean()), _movement_at(audio, sample_rate, inside)


def clipped_fraction(audio: Tensor, level: float = 0.999, run_length: int = 3) -> float:
    """Compute the fraction of samples in runs of at least ``run_length`` at ``level`` or above."""
    check_clip(audio)
    at_level = (audio.abs() >= level).float().unsqueeze(0)  # (1, C, S)
    if audio.shape[-1] < run_length:
        return 0.0
    runs = F.avg_pool1d(at_level, run_length, stride=1) > 1 - 0.5 / run_length
    padded = F.pad(runs.float(), (run_length - 1, run_length - 1))
    return float((F.max_pool1d(padded, run_length, stride=1) > 0).float().mean())


def dc_offset(audio: Tensor) -> float:
    """Compute the largest absolute mean of a channel, in [0, 1]."""
    return float(audio.double().mean(-1).abs().amax())


def silent_fraction(audio: Tensor, sample_rate: int) -> float:
    """Compute the fraction of 50 ms frames under -60 dBFS in all channels."""
    return float((frame_levels_dbfs(audio, sample_rate) < SILENT_DBFS).double().mean())


def rest_noise(reference: Tensor, estimate: Tensor, sample_rate: int) -> tuple[float, float, float]:
    """Measure the mean level (dBFS) of the estimate and of the original in the original's rests.

    A rest is a run of silent 50 ms frames; its first and last frame are left out, so that a ringing
    note is not counted. The third number is the rests' length in all (s).

    Raises:
        UnmeasurableError: the original rests for less than 0.2 s in all.
    """
    check_pair(reference, estimate)
    original = frame_levels_dbfs(reference, sample_rate)
    silent = (original < SILENT_DBFS).float()
    inner = -F.max_pool1d(-F.pad(silent[None], (1, 1)), 3, stride=1)[0] > 0.5
    rest_s = float(inner.sum()) * FRAME_S
    if rest_s < MIN_REST_S:
        raise UnmeasurableError(f"the original rests for {rest_s:.2f} s only")
    levels = frame_levels_dbfs(estimate, sample_rate)
    return mean_level(levels[inner]), mean_level(original[inner]), rest_s


def frame_levels_dbfs(audio: Tensor, sample_rate: int) -> Tensor:
    """Measure (C, S) audio in 50 ms frames: (frames,) RMS of the loudest channel in dBFS."""
    width = round(FRAME_S * sample_rate)
    missing = -audio.shape[-1] % width
    frames = F.pad(audio.double(), (0, missing)).unflatten(-1, (-1, width))
    return 10 * frames.square().mean(-1).amax(0).clamp(min=1e-12).log10()


def _difference(audio: Tensor) -> Tensor:
    return audio.double().diff(n=DIFFERENCE_ORDER, dim=-1)


def _movement_at(audio: Tensor, sample_rate: int, times_s: Sequence[float]) -> float:
    log_mel = log_mel_analysis(sample_rate)(audio.float().unsqueeze(0))[0]  # (C, M, F)
    moves = log_mel.diff(dim=-1).abs().mean(dim=(0, 1))
    frame_rate = sample_rate / (sample_rate // 100)
    at_seam = torch.zeros(len(moves), dtype=torch.bool)
    for time in times_s:
        frame = round(time * frame_rate)
        at_seam[max(frame - 1, 0) : frame + 1] = True
    if at_seam.all() or not moves[~at_seam].mean() > 0:
        raise UnmeasurableError("nothing moves away from the seams")
    return float(moves[at_seam].mean() / moves[~at_seam].mean())
