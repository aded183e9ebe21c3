"""Checks that every metric makes of its clips."""

import torch
from torch import Tensor

from pipelines.evaluation.reasons import UnmeasurableError

MIN_DURATION_S = 1.0  # below it ViSQOL has too few patches to compare
SILENCE_PEAK = 1e-4  # -80 dBFS


def check_clip(audio: Tensor) -> None:
    """Check one clip.

    Raises:
        ValueError: not (C, S) with at least one sample, or holding NaN or infinity.
        UnmeasurableError: silent, that is, no sample above -80 dBFS.
    """
    if audio.ndim != 2 or audio.numel() == 0:
        raise ValueError(f"a clip must be (C, S) and not empty, got {tuple(audio.shape)}")
    if not torch.isfinite(audio).all():
        raise ValueError("a clip must be finite, got NaN or infinity")
    if float(audio.abs().amax()) < SILENCE_PEAK:
        raise UnmeasurableError("the clip is silent")


def check_pair(reference: Tensor, estimate: Tensor) -> None:
    """Check two clips to be compared; the estimate may be silent.

    Raises:
        ValueError: the clips are not both (C, S), differ in shape, or hold NaN or infinity.
        UnmeasurableError: the reference is silent.
    """
    if reference.ndim != 2 or reference.shape != estimate.shape:
        raise ValueError(
            "reference and estimate must both be (C, S) and equal in shape, "
            f"got {tuple(reference.shape)} and {tuple(estimate.shape)}"
        )
    if not torch.isfinite(estimate).all():
        raise ValueError("the estimate must be finite, got NaN or infinity")
    check_clip(reference)


def check_duration(audio: Tensor, sample_rate: int, minimum_s: float = MIN_DURATION_S) -> None:
    """Raise UnmeasurableError for a clip shorter than ``minimum_s``."""
    seconds = audio.shape[-1] / sample_rate
    if seconds < minimum_s:
        raise UnmeasurableError(f"{seconds:.2f} s is shorter than {minimum_s:g} s")
