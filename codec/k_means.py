"""Weighted k-means, by which codebooks begin."""

import torch
from torch import Tensor

CHUNK = 4096


def k_means(
    vectors: Tensor, size: int, iterations: int, draws: torch.Generator, weights: Tensor
) -> Tensor:
    """Find centers of least weighted squared distance (Lloyd 1982).

    Args:
        vectors: (N, D), at least ``size`` of them.
        size: centers, V.
        iterations: of assigning vectors and moving centers.
        draws: of the first centers, and of new ones for those that no vector is nearest to.
        weights: (N, D) of the vectors' numbers.

    Returns:
        (V, D).
    """
    centers = vectors[torch.randperm(len(vectors), generator=draws)[:size].to(vectors.device)]
    for _ in range(iterations):
        codes = nearest(vectors, weights, centers)
        total = torch.zeros_like(centers).index_add_(0, codes, weights)
        sums = torch.zeros_like(centers).index_add_(0, codes, weights * vectors)
        again = torch.randint(len(vectors), (size,), generator=draws).to(vectors.device)
        centers = torch.where(total > 0, sums / total.clamp(min=1e-6), vectors[again])
    return centers


def nearest(vectors: Tensor, weights: Tensor, centers: Tensor) -> Tensor:
    """Find the (N,) centers, of (V, D), of least weighted squared distance to (N, D) vectors."""
    squares = centers.square().T
    chunks = zip(vectors.split(CHUNK), weights.split(CHUNK), strict=True)
    return torch.cat([(w @ squares - 2 * (w * v) @ centers.T).argmin(-1) for v, w in chunks])
