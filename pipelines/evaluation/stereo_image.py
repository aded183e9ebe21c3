"""Compare the stereo image of a clip with its original's: width, bands, and every part's quality.

All functions raise UnmeasurableError for clips that are not stereo.
"""

import torch
from torch import Tensor

from pipelines.evaluation.clip_checks import UnmeasurableError, check_pair, check_stereo
from pipelines.evaluation.perceptual import visqol, zimtohrli
from pipelines.evaluation.spectral import LEVEL_FLOOR, decibels, magnitude, mel_filters, stft

NUM_BANDS = 32
NARROWEST_DB = -40.0
"""A side signal further below the middle is as good as none: levels below count as this one."""
PARTS = ("left", "right", "mid", "side")
LOWEST_THIRD_HZ, HIGHEST_THIRD_HZ = 100.0, 16_000.0
AUDIBLE_DB = 50.0  # tiles and bands that lie further below the original's loudest are not compared


def stereo_error(reference: Tensor, estimate: Tensor, sample_rate: int) -> tuple[float, float]:
    """Compare the stereo image in 32 mel bands and blocks of 8 frames (about 90 ms).

    In every tile within 50 dB of the original's loudest, the level difference between left and
    right (dB, held within 30) and the coherence |sum L R*| / sqrt(sum |L|^2 sum |R|^2) (Breebaart
    et al., "Parametric coding of stereo audio", 2005) are compared with the original's; the mean
    absolute differences are returned, both 0 for an intact image.
    """
    level_error, coherence_error, loud = _tile_errors(reference, estimate, sample_rate)
    return float(level_error[loud].mean()), float(coherence_error[loud].mean())


def mono_sum(reference: Tensor, estimate: Tensor, sample_rate: int) -> tuple[float, float]:
    """Measure the level (dB) that the mono sum loses, negative, by cancellation of the channels.

    The level of (L + R) / 2 against the mean power of both channels, of the estimate minus of the
    original: over the whole clip, and in the band (of 32 mel bands within 50 dB of the original's
    loudest) that loses most, which a comb shows first.
    """
    check_pair(reference, estimate)
    check_stereo(reference)
    original, original_stereo = _mono_and_stereo_power(reference, sample_rate)
    decoded, decoded_stereo = _mono_and_stereo_power(estimate, sample_rate)
    change = decibels(decoded / decoded_stereo) - decibels(original / original_stereo)
    whole = decibels(decoded.sum() / decoded_stereo.sum())
    whole = whole - decibels(original.sum() / original_stereo.sum())
    return float(whole), float(change[_is_loud(original_stereo)].min())


def side_over_mid(reference: Tensor, estimate: Tensor) -> tuple[float, float]:
    """Measure the original's energy of side over middle (dB, within 40), and the error's size."""
    check_pair(reference, estimate)
    original, found = (
        _side_over_middle_db(_middle_and_side(clip).square().mean(1))
        for clip in (reference, estimate)
    )
    return float(original), float((found - original).abs())


def part_quality(reference: Tensor, estimate: Tensor, sample_rate: int, part: str) -> list[float]:
    """Measure ViSQOL and zimtohrli of one of ``PARTS``, against the original's."""
    original, found = (
        torch.cat([clip, _middle_and_side(clip)])[[PARTS.index(part)]]
        for clip in (reference, estimate)
    )
    return [visqol(original, found, sample_rate), zimtohrli(original, found, sample_rate)]


def band_image(reference: Tensor, estimate: Tensor, sample_rate: int) -> Tensor:
    """Measure the image in 32 mel bands.

    Returns:
        (3, 32): side over middle (dB) of the original and of the estimate, and the coherence's
        mean error over tiles of about 90 ms in which the band lies within 50 dB of the clip's
        loudest tile; a band without such a tile reads 0.
    """
    _, coherence_error, loud = _tile_errors(reference, estimate, sample_rate)
    filters = mel_filters(2048, NUM_BANDS, sample_rate)
    ratios = [
        _side_over_middle_db(magnitude(_middle_and_side(clip), 2048).square().mean(1) @ filters)
        for clip in (reference, estimate)
    ]
    error = (coherence_error * loud).sum(0) / loud.sum(0).clamp(min=1)
    return torch.stack([*ratios, error])


def third_octave_error(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Average the absolute difference of level over third-octave bands, 100 Hz to 16 kHz, in dB.

    Power of all channels over the whole clip; bands (edges after IEC 61260-1, base two) that lie
    more than 50 dB below the original's loudest are left out. Mono clips are measured too.
    """
    check_pair(reference, estimate)
    levels = [third_octaves_db(clip, sample_rate) for clip in (reference, estimate)]
    audible = levels[0] >= levels[0].max() - AUDIBLE_DB
    return float((levels[1] - levels[0]).abs()[audible].mean())


def third_octaves_db(audio: Tensor, sample_rate: int) -> Tensor:
    """Sum the power of all channels in every third-octave band below half the rate, in dB."""
    spectrum = torch.fft.rfft(audio.double()).abs().square().sum(0)
    step = sample_rate / audio.shape[-1]
    sums = []
    for center in (LOWEST_THIRD_HZ * 2 ** (index / 3) for index in range(24)):
        low, high = center * 2 ** (-1 / 6), center * 2 ** (1 / 6)
        if center <= HIGHEST_THIRD_HZ * 1.02 and high < sample_rate / 2:
            sums.append(spectrum[int(low / step) + 1 : int(high / step) + 1].sum())
    if not sums:
        raise UnmeasurableError(f"{sample_rate} Hz hold no third-octave band")
    return decibels(torch.stack(sums))


def _tile_errors(
    reference: Tensor, estimate: Tensor, sample_rate: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute (block, band) errors of level difference and coherence, and which tiles are loud."""
    check_pair(reference, estimate)
    check_stereo(reference)
    level, coherence, power = _stereo_cues(reference, sample_rate)
    found_level, found_coherence, _ = _stereo_cues(estimate, sample_rate)
    return (level - found_level).abs(), (coherence - found_coherence).abs(), _is_loud(power)


def _stereo_cues(audio: Tensor, sample_rate: int) -> tuple[Tensor, Tensor, Tensor]:
    """Compute level difference (dB), coherence and power of (block, band) tiles of (2, S)."""
    left, right = stft(audio, 2048)
    filters = mel_filters(2048, NUM_BANDS, sample_rate)
    cross = left * right.conj()
    parts = (left.abs().square(), right.abs().square(), cross.real, cross.imag)
    power_left, power_right, real, imaginary = (_in_blocks(part @ filters) for part in parts)
    level = decibels(power_left) - decibels(power_right)
    norm = (power_left * power_right).sqrt().clamp(min=LEVEL_FLOOR)
    coherence = (real.square() + imaginary.square()).sqrt() / norm
    return level.clamp(-30, 30), coherence.clamp(max=1.0), power_left + power_right


def _in_blocks(frames: Tensor, length: int = 8) -> Tensor:
    """Average blocks of frames, the last one padded: (F, M) -> (ceil(F / length), M)."""
    frames = torch.nn.functional.pad(frames, (0, 0, 0, -frames.shape[0] % length))
    return frames.unflatten(0, (-1, length)).mean(1)


def _mono_and_stereo_power(audio: Tensor, sample_rate: int) -> tuple[Tensor, Tensor]:
    spectrum = stft(audio, 2048)
    filters = mel_filters(2048, NUM_BANDS, sample_rate)
    mono = spectrum.mean(0).abs().square().mean(0) @ filters
    stereo = spectrum.abs().square().mean(dim=(0, 1)) @ filters
    return mono.clamp(min=LEVEL_FLOOR), stereo.clamp(min=LEVEL_FLOOR)


def _is_loud(power: Tensor) -> Tensor:
    return power >= power.max() * 10 ** (-AUDIBLE_DB / 10)


def _middle_and_side(audio: Tensor) -> Tensor:
    """Compute half the sum and half the difference of the channels: (2, S) -> (2, S)."""
    check_stereo(audio)
    left, right = audio
    return torch.stack([left + right, left - right]) / 2


def _side_over_middle_db(powers: Tensor) -> Tensor:
    """Divide powers of side by those of the middle: (2, ...) -> (...) in dB."""
    middle, side = powers.clamp(min=LEVEL_FLOOR)
    return (10 * (side / middle).log10()).clamp(NARROWEST_DB, -NARROWEST_DB)
