"""Vary a training crop: louder, duller, narrower, wider, or with another one on top.

All work on what the codec analyzes, (1, M + 2 N, F): log-mel levels of the total power, and below
them the level differences and coherence angles of N bands (codec/stereo.py).
"""

import math
from dataclasses import astuple, dataclass

import torch
from torch import Tensor

from codec.stereo import stereo_image
from pipelines.data.clip_levels import NUM_MELS
from pipelines.errors import check_fields

NATS_PER_DB = math.log(10) / 20


@dataclass(frozen=True)
class Augmentation:
    """Set how far and how often training crops are changed.

    Args:
        gain_db: largest change of level, either way.
        tilt_db: largest change of the highest band against the lowest, either way.
        mix_share: of the crops, those to which another one is added.
        width_share: of the crops, those whose side signal is scaled by 0.4 to 2.
        mono_share: of the crops, those that lose their side signal.
    """

    gain_db: float = 0.0
    tilt_db: float = 0.0
    mix_share: float = 0.0
    width_share: float = 0.0
    mono_share: float = 0.0

    @property
    def is_off(self) -> bool:
        """Tell whether crops stay as they are."""
        return not any(astuple(self))

    def __post_init__(self) -> None:
        shares = "mix_share width_share mono_share"
        check_fields(self, shares, lambda share: 0 <= share <= 1, "lie in [0, 1]")
        check_fields(self, "gain_db tilt_db", lambda level: level >= 0, "not be negative")


def augment(
    crop: Tensor, other: Tensor | None, settings: Augmentation, draws: torch.Generator
) -> Tensor:
    """Draw one random version of a (1, M + 2 N, F) crop, with another added where one is given."""
    gain, tilt, other_gain, share, width, flip = torch.rand(6, generator=draws).tolist()
    crop = with_tilt(crop, (2 * tilt - 1) * settings.tilt_db)
    if other is not None:
        crop = mixed(crop, with_gain(other, -12.0 * other_gain))
    if share < settings.mono_share:
        crop = with_width(crop, 0.0)
    elif share < settings.mono_share + settings.width_share:
        crop = with_width(crop, 0.4 * 5**width)
    if flip < 0.5:
        crop = swapped(crop)
    return with_gain(crop, (2 * gain - 1) * settings.gain_db)


def with_gain(crop: Tensor, gain_db: float) -> Tensor:
    """Raise all levels by ``gain_db``."""
    levels, image = parts(crop)
    return torch.cat([levels + gain_db * NATS_PER_DB, image], dim=1)


def with_tilt(crop: Tensor, tilt_db: float) -> Tensor:
    """Let levels rise by ``tilt_db`` from the lowest mel band to the highest."""
    levels, image = parts(crop)
    slope = torch.linspace(-0.5, 0.5, levels.shape[1])[:, None] * tilt_db * NATS_PER_DB
    return torch.cat([levels + slope, image], dim=1)


def swapped(crop: Tensor) -> Tensor:
    """Exchange left and right."""
    levels, image = parts(crop)
    difference, angle = image.chunk(2, dim=1)
    return torch.cat([levels, -difference, angle], dim=1)


def mixed(crop: Tensor, other: Tensor) -> Tensor:
    """Add two unrelated crops: powers add, and so do the products of left and right."""
    levels = torch.logaddexp(2 * parts(crop)[0], 2 * parts(other)[0]) / 2
    left, right, cross = (a + b for a, b in zip(powers(crop), powers(other), strict=True))
    return torch.cat([levels, stereo_image(left, right, cross).transpose(0, 1).flatten(1, 2)], 1)


def with_width(crop: Tensor, width: float) -> Tensor:
    """Scale the side signal by ``width``; 0 gives exact mono."""
    levels = parts(crop)[0]
    left, right, cross = powers(crop)
    middle = (left + right + 2 * cross).clamp(min=0) / 4
    side = (left + right - 2 * cross).clamp(min=0) / 4 * width**2
    tilt = (left - right) / 2 * width  # 2 Re(M S*)
    total = (middle + side).clamp(min=1e-12)
    change = (total / ((left + right) / 2).clamp(min=1e-12)).log() / 2
    narrowed = stereo_image(
        (total + tilt).clamp(min=0), (total - tilt).clamp(min=0), middle - side
    ).transpose(0, 1)
    if width == 0:
        narrowed = torch.zeros_like(narrowed)
    levels = levels + change.repeat_interleave(levels.shape[1] // change.shape[1], dim=1)
    return torch.cat([levels, narrowed.flatten(1, 2)], dim=1)


def parts(crop: Tensor) -> tuple[Tensor, Tensor]:
    """Split (1, M + 2 N, F) into (1, M, F) levels and the (1, 2 N, F) image."""
    return crop[:, :NUM_MELS], crop[:, NUM_MELS:]


def powers(crop: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the power of left, of right, and their real cross product per band, (1, N, F)."""
    levels, image = parts(crop)
    difference, angle = image.chunk(2, dim=1)
    num_bands = difference.shape[1]
    power = (2 * levels).exp().unflatten(1, (num_bands, -1)).mean(2)
    ratio = 10 ** (difference / 10)
    left, right = 2 * power * ratio / (1 + ratio), 2 * power / (1 + ratio)
    return left, right, angle.cos() * (left * right).sqrt()
