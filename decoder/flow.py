"""Flow matching from noise to the detail that the coarse spectrogram lacks, on a circular path.

The detail, fine minus coarse in units of its standard deviation, and standard normal noise have
the same variance, so a path that turns from one to the other keeps it: the trigonometric
interpolant of Albergo et al. (arXiv 2303.08797), "TrigFlow" in Lu and Song (arXiv 2410.11081).
Its Euler steps keep the variance too, where those of the straight path lose it: for normal data,
N of them leave cos(pi / 2N)^N of the standard deviation, a half for two and .73 for four.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

NOISE_ANGLE = math.pi / 2
"""Where a path begins; it ends at 0."""


def path(noise: Tensor, detail: Tensor, angle: Tensor) -> Tensor:
    """Return the path's point at an angle.

    Args:
        noise: (B, C, M, F) standard normal.
        detail: (B, C, M, F) of unit variance.
        angle: (B,) in [0, pi / 2].
    """
    angle = angle.view(-1, 1, 1, 1)
    return angle.cos() * detail + angle.sin() * noise


def velocity(noise: Tensor, detail: Tensor, angle: Tensor) -> Tensor:
    """Return the path's derivative by its angle; arguments as in :func:`path`."""
    angle = angle.view(-1, 1, 1, 1)
    return angle.cos() * noise - angle.sin() * detail


def flow_loss(
    predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, detail: Tensor, angle: Tensor
) -> Tensor:
    """Compute the mean squared error of the predicted velocity.

    Args:
        predict: (point (B, C, M, F), angle (B,)) -> predicted velocity.
        noise: (B, C, M, F) as in :func:`path`.
        detail: (B, C, M, F) as in :func:`path`.
        angle: (B,) in [0, pi / 2].
    """
    predicted = predict(path(noise, detail, angle), angle).float()
    return (predicted - velocity(noise, detail, angle)).square().mean()


def uniform_angle(normal: Tensor) -> Tensor:
    """Turn standard normal draws into uniform angles in [0, pi / 2]."""
    return NOISE_ANGLE * torch.special.ndtr(normal)
