"""Sample-rate conversion by windowed sinc interpolation, of a whole signal or of a part of it."""

import math
from collections.abc import Callable

import torchaudio.functional as F
from torch import Tensor

ZERO_CROSSINGS = 64
ROLLOFF = 0.9475937167399596
KAISER_BETA = 14.769656459379492
MAX_KERNEL_SIZE = 20_000_000


def resample(audio: Tensor, source_rate: int, target_rate: int) -> Tensor:
    """Convert the sample rate of a whole signal.

    The filter is the ``kaiser_best`` one of librosa and resampy: 64 zero crossings under a Kaiser
    window of beta 14.77.

    Args:
        audio: (..., S) float32 at ``source_rate`` Hz.

    Returns:
        (..., ceil(S * target_rate / source_rate)) float32 at ``target_rate`` Hz.

    Raises:
        ValueError: the two rates have so small a common divisor that the filter bank would take
            gigabytes (47,999 to 44,100 Hz, for example).
    """
    if source_rate == target_rate:
        return audio
    step_in, step_out = steps(source_rate, target_rate)
    if step_out * (2 * filter_radius(source_rate, target_rate) + step_in) > MAX_KERNEL_SIZE:
        raise ValueError(
            f"cannot resample {source_rate} to {target_rate} Hz: their greatest common divisor, "
            f"{source_rate // step_in}, is too small"
        )
    return F.resample(
        audio,
        source_rate,
        target_rate,
        lowpass_filter_width=ZERO_CROSSINGS,
        rolloff=ROLLOFF,
        resampling_method="sinc_interp_kaiser",
        beta=KAISER_BETA,
    )


def resampled_length(num_samples: int, source_rate: int, target_rate: int) -> int:
    """Count the samples that :func:`resample` makes of S: ceil(S * target / source)."""
    step_in, step_out = steps(source_rate, target_rate)
    return -(-num_samples * step_out // step_in)


def resample_part(
    read: Callable[[int, int], Tensor],
    num_samples: int,
    first: int,
    last: int,
    rates: tuple[int, int],
) -> Tensor:
    """Resample no more input than the output samples ``[first, last)`` need.

    Equal, but for rounding, to ``resample(whole)[..., first:last]``: the part read starts where
    the filter bank's phase is zero and reaches a filter length over both ends.

    Args:
        read: ``read(first, last)`` gives (..., last - first) samples of the source.
        num_samples: length of the whole source.
        first, last: the part wanted, in samples at the target rate.
        rates: source and target rate (Hz).

    Returns:
        (..., last - first) float32 at the target rate.
    """
    if rates[0] == rates[1]:
        return read(first, last)
    step_in, step_out = steps(*rates)
    margin = math.ceil(filter_radius(*rates) / step_in) + 1
    first_step = max(0, first // step_out - margin)
    last_step = -(-last // step_out) + margin
    part = resample(read(first_step * step_in, min(num_samples, last_step * step_in)), *rates)
    offset = first_step * step_out
    return part[..., first - offset : last - offset]


def steps(source_rate: int, target_rate: int) -> tuple[int, int]:
    """Return the smallest input and output lengths of equal duration, in samples."""
    divisor = math.gcd(source_rate, target_rate)
    return source_rate // divisor, target_rate // divisor


def filter_radius(source_rate: int, target_rate: int) -> int:
    """Count the input samples that the filter reaches to either side."""
    step_in, step_out = steps(source_rate, target_rate)
    return math.ceil(ZERO_CROSSINGS * step_in / (min(step_in, step_out) * ROLLOFF))
