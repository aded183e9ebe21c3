"""Find passages of a piece that return to what it has played before, in its codes."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Passage:
    """Pairs a stretch of a piece with the earlier stretch that is most like it."""

    start: int  # its first frame
    lag: int  # how many frames earlier the other one starts
    match: float  # share of its frames whose first code is the same there


def best_matches(codes: np.ndarray, window: int, lags: range) -> tuple[np.ndarray, np.ndarray]:
    """Find the best earlier match of every window of (T,) codes, at distances of ``lags``.

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
    """Find up to ``most`` passages that match best what stands a distance of ``lags`` before them.

    They do not overlap, the best comes first, and only matches beyond ``chance_limit`` count.
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
