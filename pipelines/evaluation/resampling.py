"""One resampler for every metric: torchaudio's windowed sinc, long enough to be out of the way."""

from torch import Tensor

import codec  # noqa: F401  (torchaudio cannot be imported before it beside a CPU torch)

ZERO_CROSSINGS = 64


def resample(audio: Tensor, sample_rate: int, new_rate: int) -> Tensor:
    """(..., S) float at ``sample_rate`` Hz -> (..., ceil(S new / old)) float32 at ``new_rate``."""
    from torchaudio import functional

    return functional.resample(audio.float(), sample_rate, new_rate, ZERO_CROSSINGS)
