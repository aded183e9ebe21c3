"""How a piece ends: cut off, faded, or ringing out after a cadence."""

from typing import Literal, get_args

import torch
from torch import Tensor

Ending = Literal["cut", "fade", "ring"]
FADE_S = 3.0
RINGING_FADE_S = 1.0


def check_ending(ending: str) -> None:
    """Raise ValueError for an ending that there is not."""
    if ending not in get_args(Ending):
        raise ValueError(f"ending must be one of {', '.join(get_args(Ending))}, got {ending!r}")


def with_ending(audio: Tensor, sample_rate: int, ending: Ending) -> Tensor:
    """Fade the end of (..., S) audio as its ending asks; a short piece is faded over half of it."""
    if ending == "cut":
        return audio
    seconds = FADE_S if ending == "fade" else RINGING_FADE_S
    length = min(round(seconds * sample_rate), audio.shape[-1] // 2)
    gain = torch.ones(audio.shape[-1], device=audio.device)
    gain[audio.shape[-1] - length :] = torch.linspace(1, 0, length, device=audio.device).square()
    return audio * gain
