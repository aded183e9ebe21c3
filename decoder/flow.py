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
from torch.nn.functional import avg_pool2d

Predict = Callable[[Tensor, Tensor], Tensor]
"""Map points of the path, (B, C, M, F), and their angles, (B,), to the predicted velocity."""
NOISE_ANGLE = math.pi / 2
"""Where a path begins; it ends at 0."""
AVERAGED = ((1, 1), (1, 8), (8, 1), (8, 8))
"""Bands and frames over which the detail is averaged before it is scored."""
CHANGE_WEIGHT = 3.0
"""Weigh changes from frame to frame, which are smaller than the detail itself."""
TILE = 4
"""Bands and frames, or averages of them, of a tile."""


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


def take_step(point: Tensor, velocity: Tensor, turn: Tensor, turns: bool) -> Tensor:
    """Go from a (B, C, M, F) point of the path to the one at an angle that differs by ``turn``.

    Along the tangent, which is Euler's method; or with ``turns`` along the circle.
    """
    if turns:
        return turn.cos() * point + turn.sin() * velocity
    return point + turn * velocity


def flow_loss(predict: Predict, noise: Tensor, detail: Tensor, angle: Tensor) -> Tensor:
    """Compute the mean squared error of the predicted velocity.

    Args:
        predict: computes the velocity.
        noise: (B, C, M, F) as in :func:`path`.
        detail: (B, C, M, F) as in :func:`path`.
        angle: (B,) in [0, pi / 2].
    """
    predicted = predict(path(noise, detail, angle), angle).float()
    return (predicted - velocity(noise, detail, angle)).square().mean()


def one_step_samples(
    predict: Predict, noise: Tensor, other_noise: Tensor, turns: bool
) -> tuple[Tensor, Tensor]:
    """Draw two samples of the detail, each by one step of the solver.

    Flow matching alone leaves the single step at the detail's mean; it learns more by the energy
    score of these samples.

    Args:
        predict: as in :func:`flow_loss`.
        noise: as in :func:`path`.
        other_noise: as ``noise``, for a second sample. It must be independent: where one noise
            follows from the other, a network learns two samples far out on opposite sides of the
            mean, whose score is nearly zero.
        turns: as in :func:`take_step`.

    Returns:
        Two of (B, C, M, F).
    """
    angle = torch.full((len(noise),), NOISE_ANGLE, device=noise.device)
    first, second = (
        take_step(point, predict(point, angle).float(), -angle[0], turns)
        for point in (noise, other_noise)
    )
    return first, second


def energy_score(first: Tensor, second: Tensor, target: Tensor) -> Tensor:
    """Compute the energy score of two independent samples of the detail.

    Its expectation is least where samples are distributed as the target is (Gneiting and Raftery
    2007; of diffusion models in De Bortoli et al., arXiv 2502.02483), where a squared error is
    least for their mean, which has too little detail. Norms of many numbers hardly depend on how
    those go together, so it is summed over tiles of the detail, of its averages over frames, over
    bands and over both, and of its changes from frame to frame.

    Args:
        first: (B, C, M, F) one sample.
        second: (B, C, M, F) a sample of the same conditions from other noise.
        target: (B, C, M, F).

    Returns:
        The mean of (|first - target| + |second - target| - |first - second|) / 2, Euclidean norms
        divided by the root of a tile's size.
    """
    misses = torch.cat([first - target, second - target, first - second])
    views = [avg_pool2d(misses, size) * math.prod(size) ** 0.5 for size in AVERAGED]
    views.append(CHANGE_WEIGHT * misses.diff(dim=-1))
    scores = []
    for view in views:
        height, width = (min(TILE, length) for length in view.shape[-2:])
        norms = avg_pool2d(view.square(), (height, width)).add(1e-8).sqrt()
        to_first, to_second, apart = norms.chunk(3)
        scores.append((to_first + to_second - apart).mean() / 2)
    return torch.stack(scores).mean()


def uniform_angle(normal: Tensor) -> Tensor:
    """Turn standard normal draws into uniform angles in [0, pi / 2]."""
    return NOISE_ANGLE * torch.special.ndtr(normal)
