"""Print means over seeds and their spread, and say when two of them are different."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from codec.seeds import derive_seed
from pipelines.comparison.comparison_row import Series


def number(value: float, digits: int = 3) -> str:
    """Print a figure with as many digits as mean something; no exponent below a billion."""
    if value == 0 or not abs(value) < 1e9:
        return f"{value:g}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Compute mean and sample standard deviation (0 for one value)."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), spread


def show(values: Sequence[float], digits: int = 3) -> str:
    """Print ``mean ± standard deviation``, the deviation only where there are several values."""
    mean, spread = mean_and_spread(values)
    if len(values) < 2:
        return number(mean, digits)
    return f"{number(mean, digits)} ± {number(spread, 2)}"


def spread_series(x: Sequence[float], figures: Sequence[Sequence[float]]) -> Series:
    """Build a line of means of each place's figures, with one standard deviation either side."""
    mean, spread = np.transpose([mean_and_spread(values) for values in figures])
    return Series(x, mean, mean - spread, mean + spread)


def paired_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """Compute the 95 % interval of the mean of ``first - second`` (Student's t), if any."""
    differences = np.subtract(first, second)
    if len(differences) < 2:
        return None
    reach = float(stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences))
    return float(differences.mean()) - reach, float(differences.mean()) + reach


def verdict(
    what: str, values: Mapping[str, Sequence[float]], unit: str, lower_is_better: bool = True
) -> str:
    """Say who is ahead: claimed only where the paired interval leaves out zero.

    ``values`` holds a figure per seed by name; the first two names are compared.
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

    Returns:
        The exponent and its 95 % interval by a bootstrap, which draws the repeated figures (seeds,
        runs) of each place again; NaN where a place has only one.
    """

    def slope(*groups: np.ndarray) -> float:
        means = [np.mean(group) for group in groups]
        return float(np.polyfit(np.log(x), np.log(means), 1)[0])

    if min(map(len, figures)) < 2:
        return slope(*map(np.asarray, figures)), np.nan, np.nan
    found = stats.bootstrap(
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
