"""The stereo image of a clip beside its original's: width, bands, and quality of every part."""

from typing import NamedTuple

import torch
from torch import Tensor

from pipelines.evaluation.clip_checks import check_pair
from pipelines.evaluation.perceptual import visqol, zimtohrli
from pipelines.evaluation.reasons import UnmeasurableError
from pipelines.evaluation.spectral import LEVEL_FLOOR, magnitude, mel_filters, stereo_cues

NUM_BANDS = 32
NARROWEST_DB = -40.0
"""A side signal further below the middle is as good as none: levels below count as this one."""
PARTS = ("left", "right", "mid", "side")
LOWEST_THIRD_HZ, HIGHEST_THIRD_HZ = 100.0, 16_000.0
AUDIBLE_DB = 50.0
"""Third-octave bands that lie further below the original's loudest are not compared."""


class SideOverMid(NamedTuple):
    """Energy of (L - R) / 2 over that of (L + R) / 2, in dB, within 40."""

    original_db: float
    error_db: float


class BandImage(NamedTuple):
    """The image of every band, (32,) each."""

    original_db: Tensor
    estimate_db: Tensor
    coherence_error: Tensor


def side_over_mid(reference: Tensor, estimate: Tensor) -> SideOverMid:
    """Hold the original's width and how far (absolute, dB) the estimate's differs.

    Raises:
        UnmeasurableError: the clips are not stereo.
    """
    check_pair(reference, estimate)
    original, heard = (_ratio_db(*part_powers(clip)) for clip in (reference, estimate))
    return SideOverMid(float(original), float((heard - original).abs()))


def part_powers(audio: Tensor) -> tuple[Tensor, Tensor]:
    """Mean power of side and middle of a stereo clip."""
    middle, side = middle_and_side(audio)
    return side.square().mean(), middle.square().mean()


def middle_and_side(audio: Tensor) -> tuple[Tensor, Tensor]:
    """(2, S) -> (S,) half the sum and half the difference of the channels."""
    if audio.shape[0] != 2:
        raise UnmeasurableError(f"not stereo: {audio.shape[0]} channel(s)")
    left, right = audio
    return (left + right) / 2, (left - right) / 2


def part_quality(reference: Tensor, estimate: Tensor, sample_rate: int, part: str) -> list[float]:
    """ViSQOL and zimtohrli of one of ``PARTS``, each against the original's.

    Raises:
        UnmeasurableError: not stereo, or the original's part is silent.
        MissingPackageError: a package is not installed.
    """
    original, heard = (_part(clip, part)[None] for clip in (reference, estimate))
    return [visqol(original, heard, sample_rate), zimtohrli(original, heard, sample_rate)]


def band_image(reference: Tensor, estimate: Tensor, sample_rate: int) -> BandImage:
    """Side over middle in 32 mel bands, of original and estimate, and the coherence's error.

    The error is the mean over tiles of about 90 ms in which the band lies within 50 dB of the
    clip's loudest tile; a band without such a tile reads 0.
    """
    check_pair(reference, estimate)
    filters = mel_filters(2048, NUM_BANDS, sample_rate)
    ratios = []
    for clip in (reference, estimate):
        middle, side = middle_and_side(clip)
        powers = magnitude(torch.stack([side, middle]), 2048).square().mean(1) @ filters
        ratios.append(_ratio_db(*powers))
    original, heard = (stereo_cues(clip, sample_rate) for clip in (reference, estimate))
    loud = (original[2] >= original[2].max() * 10**-5).float()
    error = ((original[1] - heard[1]).abs() * loud).sum(0) / loud.sum(0).clamp(min=1)
    return BandImage(ratios[0], ratios[1], error)


def third_octave_error(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Mean absolute difference of level over third-octave bands from 100 Hz to 16 kHz, in dB.

    Power of all channels over the whole clip; bands (edges after IEC 61260-1, base two) that lie
    more than 50 dB below the original's loudest are left out.
    """
    check_pair(reference, estimate)
    levels = [third_octaves_db(clip, sample_rate) for clip in (reference, estimate)]
    audible = levels[0] >= levels[0].max() - AUDIBLE_DB
    return float((levels[1] - levels[0]).abs()[audible].mean())


def third_octaves_db(audio: Tensor, sample_rate: int) -> Tensor:
    """Power of all channels in every third-octave band with its edges below half the rate, dB."""
    spectrum = torch.fft.rfft(audio.double()).abs().square().sum(0)
    step = sample_rate / audio.shape[-1]
    centers = [LOWEST_THIRD_HZ * 2 ** (index / 3) for index in range(24)]
    sums = []
    for center in centers:
        low, high = center * 2 ** (-1 / 6), center * 2 ** (1 / 6)
        if center <= HIGHEST_THIRD_HZ * 1.02 and high < sample_rate / 2:
            sums.append(spectrum[int(low / step) + 1 : int(high / step) + 1].sum())
    if not sums:
        raise UnmeasurableError(f"{sample_rate} Hz hold no third-octave band")
    return 10 * torch.stack(sums).clamp(min=LEVEL_FLOOR).log10()


def _part(audio: Tensor, part: str) -> Tensor:
    if part in ("mid", "side"):
        return middle_and_side(audio)[PARTS.index(part) - 2]
    middle_and_side(audio)  # refuses what is not stereo
    return audio[PARTS.index(part)]


def _ratio_db(side: Tensor, middle: Tensor) -> Tensor:
    ratio = 10 * (side.clamp(min=LEVEL_FLOOR) / middle.clamp(min=LEVEL_FLOOR)).log10()
    return ratio.clamp(NARROWEST_DB, -NARROWEST_DB)
