"""Compare a clip with its original by all metrics; a string says why a metric has no value."""

import math
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version

from torch import Tensor

from pipelines.errors import MissingPackageError
from pipelines.evaluation import artifacts, perceptual, spectral
from pipelines.evaluation.loudness import integrated_loudness
from pipelines.evaluation.reasons import UnmeasurableError

Measurements = dict[str, float | str]
"""Numbers by name; a string says why there is no number."""
Measure = Callable[[], float | tuple[float, ...]]

PACKAGES = ("torch", "visqol-python", "zimtohrli", "librosa", "aisfx")


def compare(
    reference: Tensor, estimate: Tensor, sample_rate: int, seams_s: Sequence[float] = ()
) -> Measurements:
    """Measure a clip against its original.

    Args:
        reference: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz.
        estimate: the same shape.
        sample_rate: Hz.
        seams_s: where windows of the estimate were joined, in seconds.

    Returns:
        A number for each metric, or a string that says why there is none.
    """
    return measure_all(_measures(reference, estimate, sample_rate, seams_s))


def measure_all(measures: dict[tuple[str, ...], Measure]) -> Measurements:
    """Call each function for the numbers that its key names, or note why there are none."""
    measured: Measurements = {}
    for names, measure in measures.items():
        try:
            result = measure()
        except (UnmeasurableError, MissingPackageError) as reason:
            measured.update(dict.fromkeys(names, str(reason)))
            continue
        numbers = result if isinstance(result, tuple) else (result,)
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


def _measures(
    reference: Tensor, estimate: Tensor, sample_rate: int, seams_s: Sequence[float]
) -> dict[tuple[str, ...], Measure]:
    """Map the names of numbers to the function that returns them."""
    pair = (reference, estimate, sample_rate)
    seam_names = ("seam_difference_db", "seam_movement_ratio")
    return {
        ("visqol",): lambda: perceptual.visqol(*pair),
        ("zimtohrli",): lambda: perceptual.zimtohrli(*pair, mono_sum=True),
        ("zimtohrli_stereo",): lambda: perceptual.zimtohrli(*pair),
        ("mel_distance",): lambda: spectral.mel_distance(*pair),
        ("stft_distance",): lambda: spectral.stft_distance(reference, estimate),
        ("si_sdr_db",): lambda: spectral.si_sdr(reference, estimate),
        ("movement_ratio",): lambda: spectral.movement_ratio(*pair),
        ("filled_hz", "occupied_hz"): lambda: spectral.spectrum_fill(*pair),
        ("level_difference_error_db", "coherence_error"): lambda: spectral.stereo_error(*pair),
        ("mono_level_db", "mono_worst_band_db"): lambda: spectral.mono_sum(*pair),
        ("loudness_change_lu",): lambda: (
            integrated_loudness(estimate, sample_rate) - integrated_loudness(reference, sample_rate)
        ),
        ("rest_noise_dbfs", "rest_original_dbfs", "rest_s"): lambda: artifacts.rest_noise(*pair),
        ("clicks_per_minute",): lambda: artifacts.clicks_per_minute(estimate, sample_rate),
        ("clipped_fraction",): lambda: artifacts.clipped_fraction(estimate),
        ("dc_offset",): lambda: artifacts.dc_offset(estimate),
        ("silent_fraction",): lambda: artifacts.silent_fraction(estimate, sample_rate),
        **(
            {seam_names: lambda: artifacts.seam_excess(estimate, sample_rate, seams_s)}
            if seams_s
            else {}
        ),
    }
