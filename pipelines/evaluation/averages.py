"""Average over clips: measurements that may be missing, and with bootstrap intervals."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

Measurements = dict[str, float | str]  # numbers by name; a string says why there is no number
RESAMPLES = 1000


def average(clips: Sequence[Measurements]) -> tuple[Measurements, dict[str, int]]:
    """Average every measurement over the clips that have it, or give the commonest reason for none.

    Returns:
        Means by name, and the number of clips behind each.
    """
    means: Measurements = {}
    counts: dict[str, int] = {}
    for name in dict.fromkeys(name for clip in clips for name in clip):
        found = [clip[name] for clip in clips]
        numbers = [value for value in found if not isinstance(value, str)]
        reasons = Counter(value for value in found if isinstance(value, str))
        counts[name] = len(numbers)
        means[name] = float(np.mean(numbers)) if numbers else reasons.most_common(1)[0][0]
    return means, counts


def mean_with_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Compute ``mean``, and ``low`` and ``high`` of its 95 % bootstrap interval; None for none."""
    found = np.asarray(values, float)
    if not len(found):
        return {"mean": None, "low": None, "high": None}
    picks = np.random.default_rng(0).integers(0, len(found), (RESAMPLES, len(found)))
    low, high = np.percentile(found[picks].mean(1), [2.5, 97.5])
    return {"mean": float(found.mean()), "low": float(low), "high": float(high)}
