"""Means over seeds, their spread, and when two of them may be called different."""

from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np

from codec.seeds import derive_seed
from pipelines.comparison.comparison_row import Series
from pipelines.errors import import_package


def statistics() -> ModuleType:
    """Import ``scipy.stats``.

    Raises:
        MissingPackageError: scipy is not installed; names the extra that brings it.
    """
    return import_package("scipy.stats", "the comparison")


def number(value: float, digits: int = 3) -> str:
    """Print a figure with as many digits as mean something; no exponent below a billion."""
    if value == 0 or not abs(value) < 1e9:
        return f"{value:g}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for one value)."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), spread


def show(values: Sequence[float], digits: int = 3) -> str:
    """Print ``mean ± standard deviation``, the deviation only where there are several values."""
    mean, spread = mean_and_spread(values)
    if len(values) < 2:
        return number(mean, digits)
    return f"{number(mean, digits)} ± {number(spread, 2)}"


def spread_series(x: Sequence[float], figures: Sequence[Sequence[float]]) -> Series:
    """Build a line of means with one standard deviation either side.

    Args:
        x: a place per point.
        figures: per point, a figure per seed.
    """
    stats = [mean_and_spread(values) for values in figures]
    low, high = [m - s for m, s in stats], [m + s for m, s in stats]
    return Series([float(value) for value in x], [m for m, _ in stats], low, high)


def paired_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean of ``first - second`` (Student's t), None below two pairs."""
    differences = np.subtract(first, second)
    count = len(differences)
    if count < 2:
        return None
    middle, deviation = mean_and_spread(differences.tolist())
    reach = float(statistics().t.ppf(0.975, count - 1)) * deviation / count**0.5
    return middle - reach, middle + reach


def verdict(
    what: str,
    values: Mapping[str, Sequence[float]],
    unit: str,
    lower_is_better: bool = True,
) -> str:
    """Say who is ahead: claimed only where the paired interval leaves out zero.

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


def fit_exponent(
    x: Sequence[float], figures: Sequence[Sequence[float]], draws: int
) -> tuple[float, float, float]:
    """Fit the exponent b of y = a x^b to means, by least squares on logarithms.

    Args:
        x: at least two places.
        figures: per place, repeated figures (seeds, runs).
        draws: of the bootstrap, which draws the figures of each place again.

    Returns:
        The exponent and its 95 % interval, which is NaN where a place has only one figure.
    """

    def slope(*groups: np.ndarray) -> float:
        means = [np.mean(group) for group in groups]
        return float(np.polyfit(np.log(x), np.log(means), 1)[0])

    if min(map(len, figures)) < 2:
        return slope(*map(np.asarray, figures)), np.nan, np.nan
    found = statistics().bootstrap(
        figures,
        slope,
        n_resamples=draws,
        method="percentile",
        vectorized=False,
        random_state=np.random.default_rng(derive_seed(0, "bootstrap")),
    )
    low, high = found.confidence_interval
    return slope(*map(np.asarray, figures)), float(low), float(high)


def show_exponent(
    x: Sequence[float], figures: Sequence[Sequence[float]], draws: int, digits: int
) -> str:
    """Print a fitted exponent with its interval; see :func:`fit_exponent`."""
    if len(x) < 2:
        return "one point, no exponent"
    middle, low, high = fit_exponent(x, figures, draws)
    interval = "no interval" if np.isnan(low) else f"{low:+.{digits}f} to {high:+.{digits}f}"
    return f"{middle:+.{digits}f} ({interval})"
