"""Passages of a piece that return to what it has played before, found in its codes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Passage:
    """A stretch of a piece and the earlier stretch that is most like it.

    Attributes:
        start: its first frame.
        lag: how many frames earlier the other one starts.
        match: share of its frames whose first code is the same there.
    """

    start: int
    lag: int
    match: float


def best_matches(codes: np.ndarray, window: int, lags: range) -> tuple[np.ndarray, np.ndarray]:
    """Find the best earlier match of every window.

    Args:
        codes: (T,) of the first codebook.
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
    """Give the share of equal codes that chance hardly reaches, even at the best of many distances.

    Five standard deviations above the share that two random frames of the piece agree.
    """
    chance = float(np.square(np.bincount(codes) / len(codes)).sum())
    return chance + 5 * float(np.sqrt(chance * (1 - chance) / window))


def find_returning(codes: np.ndarray, window: int, lags: range, most: int) -> list[Passage]:
    """Find the passages that match best what stands a certain distance before them.

    Args:
        codes: (T,) of the first codebook.
        window: frames of a passage.
        lags: distances that count.
        most: passages; they do not overlap.

    Returns:
        The best first; only matches beyond ``chance_limit`` count.
    """
    match, lag = best_matches(codes, window, lags)
    starts = choose_apart(match, match > chance_limit(codes, window), window, most)
    return [Passage(start, int(lag[start]), float(match[start])) for start in starts]


def find_new(codes: np.ndarray, window: int, earliest: int) -> list[Passage]:
    """Find the passage that matches least anything before it: none, or one from ``earliest`` on.

    The past should be of least use for it.
    """
    match, lag = best_matches(codes, window, range(window, len(codes)))
    starts = choose_apart(-match, np.arange(len(match)) >= earliest, window, 1)
    return [Passage(start, int(lag[start]), float(match[start])) for start in starts]


def choose_apart(scores: np.ndarray, free: np.ndarray, window: int, most: int) -> list[int]:
    """Choose up to ``most`` places of the highest scores, at least a window apart."""
    found: list[int] = []
    free = free.copy()
    while len(found) < most and free.any():
        found.append(int(np.argmax(np.where(free, scores, -np.inf))))
        free[max(0, found[-1] - window + 1) : found[-1] + window] = False
    return found
