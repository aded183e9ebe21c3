"""How a piece ends: ringing out after a cadence, faded, or cut off."""

from typing import Literal

import torch
from torch import Tensor

Ending = Literal["ring", "fade", "cut"]
FADE_S: dict[str, float] = {"ring": 1.0, "fade": 3.0, "cut": 0.0}
"""How much of the end is faded (s)."""


def with_ending(
    audio: Tensor, sample_rate: int, ending: str, first: int = 0, total: int | None = None
) -> Tensor:
    """Fade the end of a piece as its ending asks; a short piece is faded over half of it.

    ``audio``, (..., S), may be a part of it that begins at sample ``first`` of ``total``.
    """
    total = audio.shape[-1] if total is None else total
    length = min(round(FADE_S[ending] * sample_rate), total // 2)
    if first + audio.shape[-1] <= total - length:
        return audio
    places = torch.arange(first, first + audio.shape[-1], device=audio.device)
    left = (total - 1 - places).clamp(0, max(1, length - 1)) / max(1, length - 1)
    return audio * left.square()
