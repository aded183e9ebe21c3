"""Compute the Fréchet distance between two sets of embeddings."""

import warnings
from collections.abc import Sequence

import numpy as np

Vectors = np.ndarray | str  # (N, D) embeddings of a clip, or the reason why there are none

MIN_WINDOWS = 180  # fewer do not order sets sensibly in the 200- and 512-dimensional spaces


def frechet_distance(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Compute |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two sets of vectors, in float64.

    Dowson and Landau (1982); Kilgour et al., "Fréchet Audio Distance" (2019). Means and unbiased
    covariances are taken as they are, with no shrinkage and nothing added to a diagonal, so
    singular covariances (fewer vectors than dimensions) are allowed. The estimate is biased
    upwards by few vectors: compare only distances at equal N, over 1000 windows where possible;
    unequal or small N raise a warning.

    Raises:
        ValueError: not (N1, D) and (N2, D), fewer than two vectors, or NaN.
    """
    for name, vectors in (("reference", reference), ("estimate", estimate)):
        if vectors.ndim != 2 or len(vectors) < 2:
            raise ValueError(f"{name} must be (N, D) with N at least 2, got {vectors.shape}")
        if not np.isfinite(vectors).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    if reference.shape[1] != estimate.shape[1]:
        raise ValueError(
            f"both sets must have one width, got {reference.shape[1]} and {estimate.shape[1]}"
        )
    if len(reference) != len(estimate):
        counts = f"{len(reference)} against {len(estimate)} vectors"
        warnings.warn(f"Fréchet distance at unequal N: {counts}", stacklevel=2)
    if (count := min(len(reference), len(estimate))) < MIN_WINDOWS:
        order = f"sets are ordered sensibly from about {MIN_WINDOWS} on"
        warnings.warn(f"Fréchet distance from {count} vectors; {order}", stacklevel=2)
    # tr (S1 S2)^(1/2) is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), symmetric
    means, covariances = [], []
    for vectors in (reference.astype(np.float64), estimate.astype(np.float64)):
        means.append(vectors.mean(0))
        covariances.append(np.atleast_2d(np.cov(vectors, rowvar=False)))
    values, directions = np.linalg.eigh(covariances[0])
    root = (directions * np.sqrt(values.clip(min=0))) @ directions.T
    product = np.linalg.eigvalsh(root @ covariances[1] @ root).clip(min=0)
    traces = np.trace(sum(covariances)) - 2 * np.sqrt(product).sum()
    return float(np.square(means[0] - means[1]).sum() + max(traces, 0.0))


def few_windows_note(count: int) -> str:
    """Warn a reader of distances between sets of ``count`` windows; "" for enough of them."""
    if count >= MIN_WINDOWS:
        return ""
    return f"N is small: sets are ordered sensibly from about {MIN_WINDOWS} windows on."


def equal_windows(*sets: np.ndarray) -> list[np.ndarray]:
    """Cut sets of vectors to the size of the smallest, taking evenly spaced ones."""
    smallest = min(len(vectors) for vectors in sets)
    return [vectors[np.arange(smallest) * len(vectors) // smallest] for vectors in sets]


def distance_of_clips(
    reference: Sequence[Vectors], estimate: Sequence[Vectors]
) -> tuple[float | str, int]:
    """Compute the distance between two sets of clips at equal N, or the reason for none; and N."""
    sides = []
    for side in (reference, estimate):
        found = [vectors for vectors in side if not isinstance(vectors, str)]
        if not found:
            return next((reason for reason in side if isinstance(reason, str)), "no clips"), 0
        sides.append(np.concatenate(found))
    originals, estimates = equal_windows(*sides)
    if len(originals) < 2:
        return "fewer than two windows", len(originals)
    return frechet_distance(originals, estimates), len(originals)
