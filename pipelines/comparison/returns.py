"""Where a piece comes back to what it has played before, found in its codes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Passage:
    """A stretch of a piece that sounds like an earlier one.

    Attributes:
        start: its first frame.
        lag: how many frames earlier the other one stands.
        match: share of its frames whose first code is the same there.
    """

    start: int
    lag: int
    match: float


def best_matches(codes: np.ndarray, window: int, lags: range) -> tuple[np.ndarray, np.ndarray]:
    """The best earlier match of every window.

    Args:
        codes: (T,) the first book.
        window: frames.
        lags: distances that count; the smallest is at least ``window``.

    Returns:
        (T - window + 1,) share of equal codes at the best distance, and that distance; 0 and 0
        where the piece has not gone on for long enough.
    """
    count = max(0, len(codes) - window + 1)
    match, lag = np.zeros(count), np.zeros(count, dtype=int)
    for distance in lags:
        if distance + window > len(codes):
            break
        equal = np.concatenate(([0], np.cumsum(codes[distance:] == codes[:-distance])))
        shares = (equal[window:] - equal[:-window]) / window
        better = shares > match[distance:]
        match[distance:][better] = shares[better]
        lag[distance:][better] = distance
    return match, lag


def chance_limit(codes: np.ndarray, window: int) -> float:
    """The share of equal codes that chance hardly reaches, even at the best of many distances.

    Five standard deviations above the share that two random frames of the piece agree.
    """
    chance = float(np.square(np.bincount(codes) / len(codes)).sum())
    return chance + 5 * float(np.sqrt(chance * (1 - chance) / window))


def returning(codes: np.ndarray, window: int, lags: range, most: int) -> list[Passage]:
    """The passages that match best what stands a certain distance before them.

    Args:
        codes: (T,) the first book.
        window: frames of a passage.
        lags: distances that count.
        most: passages; they do not overlap.

    Returns:
        The best first; only matches beyond ``chance_limit`` count.
    """
    match, lag = best_matches(codes, window, lags)
    found: list[Passage] = []
    free = match > chance_limit(codes, window)
    while len(found) < most and free.any():
        start = int(np.argmax(np.where(free, match, -1)))
        found.append(Passage(start, int(lag[start]), float(match[start])))
        free[max(0, start - window + 1) : start + window] = False
    return found


def strangest(codes: np.ndarray, window: int, earliest: int, most: int) -> list[Passage]:
    """Passages that match nothing before them: what the past should be of least use for.

    Args:
        codes: (T,) the first book.
        window: frames of a passage.
        earliest: first frame that counts.
        most: passages; they do not overlap.
    """
    match, lag = best_matches(codes, window, range(window, len(codes)))
    free = np.arange(len(match)) >= earliest
    found: list[Passage] = []
    while len(found) < most and free.any():
        start = int(np.argmin(np.where(free, match, 2)))
        found.append(Passage(start, int(lag[start]), float(match[start])))
        free[max(0, start - window + 1) : start + window] = False
    return found


def last_return(codes: np.ndarray, window: int, shortest_lag: int) -> Passage | None:
    """The best-matching passage of a piece's last quarter: its last chorus, if it has one."""
    match, lag = best_matches(codes, window, range(max(shortest_lag, window), len(codes)))
    first = len(codes) * 3 // 4
    if first >= len(match) or match[first:].max() <= chance_limit(codes, window):
        return None
    start = first + int(np.argmax(match[first:]))
    return Passage(start, int(lag[start]), float(match[start]))
