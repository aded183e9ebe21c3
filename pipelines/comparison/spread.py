"""Means over seeds, their spread, and when two of them may be called different."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from codec.seeds import derive_seed
from pipelines.comparison.row import number

T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Two-sided 95 % points of Student's t for one to nine degrees of freedom."""


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), spread


def show(values: Sequence[float], digits: int = 3) -> str:
    """``mean ± standard deviation`` over seeds, the deviation only where there are several."""
    mean, spread = mean_and_spread(values)
    if len(values) < 2:
        return number(mean, digits)
    return f"{number(mean, digits)} ± {number(spread, 2)}"


def paired_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of ``first - second``, paired by seed; None below two pairs."""
    differences = np.subtract(first, second)
    count = len(differences)
    if count < 2:
        return None
    reach = T_95[min(count - 1, len(T_95)) - 1] * float(np.std(differences, ddof=1))
    middle = float(np.mean(differences))
    return middle - reach / math.sqrt(count), middle + reach / math.sqrt(count)


def verdict(
    what: str,
    values: Mapping[str, Sequence[float]],
    unit: str,
    lower_is_better: bool = True,
) -> str:
    """Who is ahead in a sentence: claimed only where the paired interval leaves out zero.

    Args:
        what: the subject of the sentence.
        values: name -> a figure per seed; the first two are compared.
        unit: of the figures.
        lower_is_better: otherwise higher is.
    """
    (first, ours), (second, theirs) = [*values.items()][:2]
    figures = f"{first} {show(ours, 4)}, {second} {show(theirs, 4)} {unit}"
    interval = paired_interval(ours, theirs)
    if interval is None:
        return f"{what}: {figures}; one seed, so no difference is claimed."
    low, high = interval
    span = f"difference {number(low)} to {number(high)}, 95 %, {len(ours)} seeds"
    if low <= 0 <= high:
        return f"{what}: {figures}; no difference beyond the spread ({span})."
    winner = first if (high < 0) == lower_is_better else second
    return f"{what}: {figures}; **{winner}** is ahead ({span})."


def fitted_slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The exponent b of y = a x^b by least squares on logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def bootstrap(
    groups: Sequence[Sequence[float]],
    statistic: Callable[[Sequence[float]], float],
    draws: int,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A statistic of the groups' means, and its 95 % interval when the groups are drawn again.

    Args:
        groups: repeated figures (seeds, runs) of each point.
        statistic: of one figure per point.
        draws: with replacement, inside each group.
        seed: of the draws.

    Returns:
        The statistic of the means, and the 2.5 and 97.5 percentiles over the draws.
    """
    random = np.random.default_rng(derive_seed(seed, "bootstrap"))
    arrays = [np.asarray(group, dtype=float) for group in groups]
    found = [
        statistic([float(random.choice(group, len(group)).mean()) for group in arrays])
        for _ in range(draws)
    ]
    low, high = np.percentile(found, [2.5, 97.5])
    return statistic([float(group.mean()) for group in arrays]), float(low), float(high)
