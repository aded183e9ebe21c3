"""Find equal and nearly equal recordings by an acoustic fingerprint.

The fingerprint is that of Haitsma and Kalker, "A Highly Robust Audio Fingerprinting System"
(ISMIR 2002), computed on the log-mel spectrogram: 25 words of 31 bits a second, each bit the sign
of a difference along bands and time. It is robust to lossy coding, level and cuts; it does not
match other performances, tempi or pitches.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

WORDS_PER_S = 25
FRAMES_PER_WORD = 4
SMOOTHING_WORDS = 10
"""Words over which band levels are averaged, 0.4 s: long against the error of alignment, 0.02 s."""
STEP_WORDS = 5  # distance in time of the levels that are compared, 0.2 s
NUM_BANDS = 32
LEVELS_ABOVE_FLOOR = 16
"""Words of frames quieter than this (about 1 nat above the floor) are ignored."""
MAX_BIT_ERRORS = 0.3
"""Fraction of bits that may differ in matching sound; unrelated sound differs in about half."""
WINDOW_WORDS = 125  # words around each over which bit errors are averaged: five seconds
MIN_HITS = 3  # equal words at one lag that make a pair of tracks a candidate
HITS_PER_TRACK = 4
MAX_TRACKS_PER_WORD = 64
MAX_LAGS = 8


def band_levels(levels: np.ndarray) -> np.ndarray:
    """Average (C, M, F) uint8 levels over channels and 32 bands to (F, 32) float32."""
    C, M, F = levels.shape
    bands = levels.reshape(C, NUM_BANDS, M // NUM_BANDS, F)
    return bands.mean(axis=(0, 2), dtype=np.float32).T


def fingerprint(bands: np.ndarray) -> np.ndarray:
    """Compute the sign bits of differences along bands and time of (F, 32) levels, 100 a second.

    Returns:
        (N,) uint32 words, 25 a second; 0 where the sound is too quiet to tell.
    """
    length = len(bands) // FRAMES_PER_WORD
    if length <= SMOOTHING_WORDS + STEP_WORDS:
        return np.zeros(0, dtype=np.uint32)
    words = bands[: length * FRAMES_PER_WORD].reshape(length, FRAMES_PER_WORD, NUM_BANDS).mean(1)
    sums = np.cumsum(words, axis=0, dtype=np.float64)
    smooth = (sums[SMOOTHING_WORDS:] - sums[:-SMOOTHING_WORDS]) / SMOOTHING_WORDS
    slope = np.diff(smooth, axis=1)  # (N + STEP_WORDS, 31)
    bits = slope[STEP_WORDS:] > slope[:-STEP_WORDS]  # (N, 31)
    packed = bits @ (1 << np.arange(NUM_BANDS - 1, dtype=np.uint64))
    packed[smooth[STEP_WORDS:].mean(axis=1) < LEVELS_ABOVE_FLOOR] = 0
    return packed.astype(np.uint32)


@dataclass(frozen=True)
class Match:
    """Hold two tracks, by index, that share sound.

    ``shared_s`` is that at the best lag, accurate to about two seconds; ``shared_fraction`` is its
    part of the shorter track.
    """

    first: int
    second: int
    shared_s: float
    shared_fraction: float


def find_matches(fingerprints: list[np.ndarray], min_shared_s: float = 5.0) -> list[Match]:
    """Find the pairs of tracks that share at least ``min_shared_s`` seconds of sound, in order."""
    matches = []
    for (first, second), lags in sorted(candidate_lags(fingerprints).items()):
        a, b = fingerprints[first], fingerprints[second]
        # a lag may be off by one word: hits at neighboring lags are counted as one
        shared = max([shared_words(a, b, lag + nudge) for lag in lags for nudge in (-1, 0, 1)])
        if shared >= min_shared_s * WORDS_PER_S:
            shorter = int(min(np.count_nonzero(a), np.count_nonzero(b)))
            fraction = min(1.0, shared / max(1, shorter))
            matches.append(Match(first, second, shared / WORDS_PER_S, fraction))
    return matches


def candidate_lags(fingerprints: list[np.ndarray]) -> dict[tuple[int, int], list[int]]:
    """Find the likeliest lags (words) of pairs with equal words, by an inverted index."""
    places: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for track, words in enumerate(fingerprints):
        for word, positions in first_places(words):
            places[word] += [(track, position) for position in positions]
    hits: dict[tuple[int, int], dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for found in places.values():
        if not 1 < len({track for track, _ in found}) <= MAX_TRACKS_PER_WORD:
            continue  # a word of many tracks identifies none and would cost much time
        for i, (first, at) in enumerate(found):
            for second, to in found[i + 1 :]:
                if first != second:
                    hits[first, second][to - at] += 1
    return {pair: best for pair, lags in hits.items() if (best := best_lags(lags))}


def first_places(words: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Yield each word of a track with its first few positions."""
    if not len(words):  # of a track under 0.64 s
        return
    order = np.argsort(words, kind="stable")
    values, starts = np.unique(words[order], return_index=True)
    for value, start, stop in zip(values, starts, [*starts[1:], len(words)], strict=True):
        if value:
            yield int(value), order[start : min(stop, start + HITS_PER_TRACK)].tolist()


def best_lags(lags: dict[int, int]) -> list[int]:
    """List lags with enough hits, counting neighbors as one, best first."""
    counts = {lag: count + lags.get(lag + 1, 0) for lag, count in lags.items()}
    good = [lag for lag, count in counts.items() if count >= MIN_HITS]
    return sorted(good, key=lambda lag: (-counts[lag], lag))[:MAX_LAGS]


def shared_words(a: np.ndarray, b: np.ndarray, lag: int) -> int:
    """Count the words of ``a`` in whose window ``b``, shifted by ``lag``, has few bit errors."""
    start, stop = max(0, -lag), min(len(a), len(b) - lag)
    if stop - start < WINDOW_WORDS:
        return 0
    left, right = a[start:stop], b[start + lag : stop + lag]
    informative = (left != 0) & (right != 0)
    errors = np.where(informative, np.bitwise_count(left ^ right), 0)
    error_sum, count = windowed(errors), windowed(informative)
    alike = (count >= WINDOW_WORDS // 2) & (error_sum <= MAX_BIT_ERRORS * (NUM_BANDS - 1) * count)
    return int((alike & informative).sum())


def windowed(values: np.ndarray) -> np.ndarray:
    """Sum the ``WINDOW_WORDS`` around each value, fewer at the ends."""
    sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    center = np.arange(len(values))
    first = np.maximum(center - WINDOW_WORDS // 2, 0)
    last = np.minimum(center + WINDOW_WORDS // 2 + 1, len(values))
    return sums[last] - sums[first]


def choose_duplicates(
    matches: list[Match], durations_s: list[float], min_fraction: float = 0.5
) -> dict[int, int]:
    """Choose the tracks to drop: dropped index -> kept index.

    Those count that share ``min_fraction`` of the shorter track. The longest track of a group
    stays, so that a loop does not replace its piece; among equally long ones the first stays.
    """
    partners: dict[int, set[int]] = defaultdict(set)
    for match in matches:
        if match.shared_fraction >= min_fraction:
            partners[match.first].add(match.second)
            partners[match.second].add(match.first)
    dropped: dict[int, int] = {}
    kept: set[int] = set()
    for track in sorted(partners, key=lambda index: (-round(durations_s[index], 1), index)):
        others = sorted(partners[track] & kept)
        if others:
            dropped[track] = others[0]
        else:
            kept.add(track)
    return dropped
