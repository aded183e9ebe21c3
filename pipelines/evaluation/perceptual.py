"""Compare a clip with its original perceptually: ViSQOL and zimtohrli, both at 48 kHz."""

from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from codec.process_settings import cpu_threads
from codec.resampling import resample
from pipelines.errors import import_package
from pipelines.evaluation.clip_checks import check_duration, check_pair

LISTENING_RATE = 48_000  # Hz; both metrics are defined at this rate only
MIN_DURATION_S = 1.0  # below it ViSQOL has too few patches to compare


def visqol(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Compute ViSQOL in audio mode: a mean opinion score (MOS-LQO) from 1 to 5, higher is better.

    Channels are averaged to mono first, as the original program does. Hines et al., "ViSQOLAudio"
    (2015); Chinen et al., "ViSQOL v3" (2020); computed by visqol-python, whose audio mode equals
    Google's C++ program on its conformance files. The support vector model's best score is 4.73.
    """
    check_pair(reference, estimate)
    check_duration(reference, sample_rate, MIN_DURATION_S)
    api = _visqol_api()
    mono = [to_listening_rate(clip.mean(0), sample_rate) for clip in (reference, estimate)]
    with cpu_threads(None):  # visqol-python leaves PyTorch with another number
        return float(api.measure_from_arrays(*mono, sample_rate=LISTENING_RATE).moslqo)


def zimtohrli(
    reference: Tensor, estimate: Tensor, sample_rate: int, mono_sum: bool = False
) -> float:
    """Compute the zimtohrli distance: 0 for identical sound, lower is better (Google, 2024).

    With ``mono_sum`` the average of the channels is compared. Otherwise each channel is compared
    with its own original and the distances are averaged, so that an error of the stereo image
    counts.
    """
    check_pair(reference, estimate)
    check_duration(reference, sample_rate, MIN_DURATION_S)
    meter = import_package("zimtohrli", "zimtohrli distance").Pyohrli()
    if mono_sum:
        reference, estimate = reference.mean(0, keepdim=True), estimate.mean(0, keepdim=True)
    distances = [
        meter.distance(to_listening_rate(left, sample_rate), to_listening_rate(right, sample_rate))
        for left, right in zip(reference, estimate, strict=True)
    ]
    return float(np.mean(distances))


def to_listening_rate(signal: Tensor, sample_rate: int) -> np.ndarray:
    """Resample (S,) from ``sample_rate`` to 48 kHz."""
    return resample(signal, sample_rate, LISTENING_RATE).numpy().astype(np.float64)


@lru_cache(maxsize=1)
def _visqol_api() -> Any:
    package = import_package("visqol", "ViSQOL", "pip install partita[evaluate] (visqol-python)")
    api = package.VisqolApi()
    api.create(mode="audio")
    return api
