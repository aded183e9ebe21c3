"""Flow matching from the coarse spectrogram plus noise (t = 0) to the fine one (t = 1).

The path starts around the coarse decode, as in FlowDec (Welker et al. 2025), and the network
predicts the clean spectrogram, as in "Back to Basics" (Li and He, arXiv 2511.13720): spectrogram
patches are high-dimensional, and the clean ones lie on a manifold that a velocity does not.
"""

from collections.abc import Callable

import torch
from torch import Tensor

SMALLEST_REMAINDER = 0.1
"""Below this 1 - t the loss's weight stops growing; 0.05 in the paper, with 50 steps."""


def path(start: Tensor, clean: Tensor, t: Tensor) -> Tensor:
    """The straight path's point at time t.

    Args:
        start: (B, C, M, F) coarse spectrogram plus scaled noise.
        clean: (B, C, M, F) fine spectrogram.
        t: (B,) in [0, 1].
    """
    t = t.view(-1, 1, 1, 1)
    return (1 - t) * start + t * clean


def velocity(clean: Tensor, point: Tensor, t: Tensor) -> Tensor:
    """The velocity that leads from ``point`` at time t < 1 to ``clean`` at 1; t as in `path`."""
    return (clean - point) / (1 - t).view(-1, 1, 1, 1)


def flow_loss(
    predict: Callable[[Tensor, Tensor], Tensor], start: Tensor, clean: Tensor, t: Tensor
) -> Tensor:
    """Mean squared error of the velocity that a clean prediction implies.

    The two velocities differ by the predictions' difference over 1 - t, which the loss holds at
    ``SMALLEST_REMAINDER`` or more.

    Args:
        predict: (point (B, C, M, F), t (B,)) -> predicted clean spectrogram.
        start: (B, C, M, F) as in :func:`path`.
        clean: (B, C, M, F).
        t: (B,) in [0, 1].
    """
    point = path(start, clean, t)
    remainder = (1 - t).clamp(min=SMALLEST_REMAINDER).view(-1, 1, 1, 1)
    return ((predict(point, t).float() - clean) / remainder).square().mean()


def logit_normal(normal: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Standard normal draws -> times in (0, 1) that favour the middle (Esser et al. 2024)."""
    return torch.sigmoid(mean + std * normal)
