"""Fréchet distance between two sets of embeddings."""

import warnings

import numpy as np

MIN_WINDOWS = 180  # fewer do not order sets sensibly in the 200- and 512-dimensional spaces


def frechet_distance(reference: np.ndarray, estimate: np.ndarray) -> float:
    """Compute |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of two sets of vectors, in float64.

    Dowson and Landau (1982); Kilgour et al., "Fréchet Audio Distance" (2019). Means and unbiased
    covariances are taken as they are, with no shrinkage and nothing added to a diagonal, so
    singular covariances (fewer vectors than dimensions) are allowed. The estimate is biased
    upwards by few vectors: compare only distances at equal N, over 1000 windows where possible;
    unequal or small N raise a warning.

    Args:
        reference: (N1, D) embeddings, N1 at least 2.
        estimate: (N2, D) embeddings, N2 at least 2.

    Raises:
        ValueError: wrong ranks or widths, fewer than two vectors, or NaN.
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
    _warn_about_size(len(reference), len(estimate))
    return gaussian_distance(*_moments(reference), *_moments(estimate))


def gaussian_distance(
    mean_1: np.ndarray, covariance_1: np.ndarray, mean_2: np.ndarray, covariance_2: np.ndarray
) -> float:
    """Compute the Fréchet distance between Gaussians of (D,) means and (D, D) covariances.

    tr (S1 S2)^(1/2) is the sum of the square roots of the eigenvalues of
    S1^(1/2) S2 S1^(1/2), which is symmetric.
    """
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_2 @ root).clip(min=0)
    traces = np.trace(covariance_1) + np.trace(covariance_2) - 2 * np.sqrt(product).sum()
    return float(np.square(mean_1 - mean_2).sum() + max(traces, 0.0))


def few_windows_note(count: int) -> str:
    """Warn a reader of distances between sets of ``count`` windows; "" for enough of them."""
    if count >= MIN_WINDOWS:
        return ""
    return f"N is small: sets are ordered sensibly from about {MIN_WINDOWS} windows on."


def equal_windows(*sets: np.ndarray) -> list[np.ndarray]:
    """Cut sets of vectors to the size of the smallest, taking evenly spaced ones."""
    smallest = min(len(vectors) for vectors in sets)
    return [vectors[np.arange(smallest) * len(vectors) // smallest] for vectors in sets]


def _moments(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    vectors = vectors.astype(np.float64)
    return vectors.mean(0), np.atleast_2d(np.cov(vectors, rowvar=False))


def _warn_about_size(count_1: int, count_2: int) -> None:
    if count_1 != count_2:
        warnings.warn(
            f"Fréchet distance at unequal N: {count_1} against {count_2} vectors", stacklevel=3
        )
    if min(count_1, count_2) < MIN_WINDOWS:
        warnings.warn(
            f"Fréchet distance from {min(count_1, count_2)} vectors; "
            f"sets are ordered sensibly from about {MIN_WINDOWS} on",
            stacklevel=3,
        )
