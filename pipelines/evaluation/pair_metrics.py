"""Measure a clip, alone or against its original; a string says why a metric has no value."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version

from torch import Tensor

from pipelines.errors import MissingPackageError
from pipelines.evaluation import artifacts, perceptual, spectral, stereo_image
from pipelines.evaluation.averages import Measurements
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.loudness import integrated_loudness

Measure = Callable[[], float | Sequence[float]]
BAND_NAMES = ("original_side_db", "side_db", "coherence_error")
BANDS = tuple(f"{name}/{band:02}" for name in BAND_NAMES for band in range(32))
"""Names of what is measured in each of 32 bands, for the picture of the stereo image."""
PACKAGES = ("torch", "visqol-python", "zimtohrli", "librosa", "aisfx")


def compare(
    reference: Tensor, estimate: Tensor, sample_rate: int, seams_s: Sequence[float] = ()
) -> Measurements:
    """Measure a clip against its original; ``seams_s`` says where its windows were joined (s)."""
    pair = (reference, estimate, sample_rate)
    measures: dict[tuple[str, ...], Measure] = {
        ("visqol",): lambda: perceptual.visqol(*pair),
        ("zimtohrli",): lambda: perceptual.zimtohrli(*pair, mono_sum=True),
        ("zimtohrli_stereo",): lambda: perceptual.zimtohrli(*pair),
        ("mel_distance",): lambda: spectral.mel_distance(*pair),
        ("stft_distance",): lambda: spectral.stft_distance(reference, estimate),
        ("si_sdr_db",): lambda: spectral.si_sdr(reference, estimate),
        ("movement_ratio",): lambda: spectral.movement_ratio(*pair),
        ("filled_hz", "occupied_hz"): lambda: spectral.spectrum_fill(*pair),
        ("level_difference_error_db", "coherence_error"): lambda: stereo_image.stereo_error(*pair),
        ("side_over_mid_db", "side_over_mid_error_db"): lambda: stereo_image.side_over_mid(
            reference, estimate
        ),
        BANDS: lambda: stereo_image.band_image(*pair).flatten().tolist(),
        **{
            (f"visqol_{part}", f"zimtohrli_{part}"): partial(stereo_image.part_quality, *pair, part)
            for part in stereo_image.PARTS
        },
        ("third_octave_error_db",): lambda: stereo_image.third_octave_error(*pair),
        ("mono_level_db", "mono_worst_band_db"): lambda: stereo_image.mono_sum(*pair),
        ("loudness_change_lu", "loudness_error_lu"): lambda: loudness_change(*pair),
        ("rest_noise_dbfs", "rest_original_dbfs", "rest_s"): lambda: artifacts.rest_noise(*pair),
        **_faults(estimate, sample_rate),
    }
    if seams_s:
        seams = partial(artifacts.seam_excess, estimate, sample_rate, seams_s)
        measures["seam_difference_db", "seam_movement_ratio"] = seams
    return measure_all(measures)


def measure_sound(audio: Tensor, sample_rate: int) -> Measurements:
    """Measure loudness and faults of a clip that has no original."""
    return measure_all(
        {
            ("loudness_lufs",): lambda: integrated_loudness(audio, sample_rate),
            ("peak",): lambda: float(audio.abs().amax()),
            **_faults(audio, sample_rate),
        }
    )


def measure_all(measures: dict[tuple[str, ...], Measure]) -> Measurements:
    """Call each function for the numbers that its key names, or note why there are none."""
    measured: Measurements = {}
    for names, measure in measures.items():
        try:
            result = measure()
        except (UnmeasurableError, MissingPackageError) as reason:
            measured.update(dict.fromkeys(names, str(reason)))
            continue
        numbers = result if isinstance(result, Sequence) else (result,)
        for name, number in zip(names, numbers, strict=True):
            measured[name] = number if math.isfinite(number) else "infinite"
    return measured


def package_versions() -> dict[str, str]:
    """Find the versions of the packages that the numbers depend on, or "not installed"."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def loudness_change(reference: Tensor, estimate: Tensor, sample_rate: int) -> tuple[float, float]:
    """Measure how much louder the estimate is than its original (LU), with and without its sign."""
    found, original = (integrated_loudness(clip, sample_rate) for clip in (estimate, reference))
    return found - original, abs(found - original)


def _faults(audio: Tensor, sample_rate: int) -> dict[tuple[str, ...], Measure]:
    return {
        ("clicks_per_minute",): lambda: artifacts.clicks_per_minute(audio, sample_rate),
        ("clipped_fraction",): lambda: artifacts.clipped_fraction(audio),
        ("dc_offset",): lambda: artifacts.dc_offset(audio),
        ("silent_fraction",): lambda: artifacts.silent_fraction(audio, sample_rate),
    }
