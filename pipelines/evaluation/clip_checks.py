"""Check clips as every metric does, and say why there is no number."""

import torch
from torch import Tensor

SILENCE_PEAK = 1e-4  # -80 dBFS


class UnmeasurableError(ValueError):
    """Says why a metric does not apply to a clip; the message fits into a report."""


def check_clip(audio: Tensor) -> None:
    """Check that a clip is (C, S), not empty, finite and not silent.

    Raises:
        ValueError: not (C, S) with at least one sample, or holding NaN or infinity.
        UnmeasurableError: no sample above -80 dBFS.
    """
    if audio.ndim != 2 or audio.numel() == 0:
        raise ValueError(f"a clip must be (C, S) and not empty, got {tuple(audio.shape)}")
    if not torch.isfinite(audio).all():
        raise ValueError("a clip must be finite, got NaN or infinity")
    if float(audio.abs().amax()) < SILENCE_PEAK:
        raise UnmeasurableError("the clip is silent")


def check_pair(reference: Tensor, estimate: Tensor) -> None:
    """Check two clips to be compared: as :func:`check_clip`, but the estimate may be silent."""
    if reference.ndim != 2 or reference.shape != estimate.shape:
        raise ValueError(
            "reference and estimate must both be (C, S) and equal in shape, "
            f"got {tuple(reference.shape)} and {tuple(estimate.shape)}"
        )
    if not torch.isfinite(estimate).all():
        raise ValueError("the estimate must be finite, got NaN or infinity")
    check_clip(reference)


def check_stereo(audio: Tensor) -> None:
    """Raise UnmeasurableError for a clip that has not two channels."""
    if audio.shape[0] != 2:
        raise UnmeasurableError(f"not stereo: {audio.shape[0]} channel(s)")


def check_duration(audio: Tensor, sample_rate: int, minimum_s: float) -> None:
    """Raise UnmeasurableError for a clip shorter than ``minimum_s``."""
    seconds = audio.shape[-1] / sample_rate
    if seconds < minimum_s:
        raise UnmeasurableError(f"{seconds:.2f} s is shorter than {minimum_s:g} s")
