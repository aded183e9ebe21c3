"""Synthetic codes that repeat themselves: what a memory can save is known exactly."""

import math

import numpy as np

from codec.seeds import derive_seed

COPY_SHARE = 0.75
SHORTEST_COPY, LONGEST_COPY = 8, 48


def repeating_stream(seed: int, index: int, length: int, alphabet: int) -> np.ndarray:
    """A stream for training: new random codes, and copies of earlier ones from any distance.

    Runs of 8 to 48 codes follow one another; a quarter are drawn uniformly from the alphabet, the
    others repeat what stood some distance earlier, the logarithm of the distance being uniform
    between a run's length and the start of the stream. Nothing but memory predicts a copy.

    Args:
        seed: of all streams.
        index: of this one.
        length: codes.
        alphabet: number of different codes.

    Returns:
        (1, length) int16.
    """
    draws = np.random.default_rng(derive_seed(seed, "stream", index))
    codes = np.empty(length, dtype=np.int16)
    place = 0
    while place < length:
        run = min(int(draws.integers(SHORTEST_COPY, LONGEST_COPY + 1)), length - place)
        if place > run and draws.random() < COPY_SHARE:
            lag = round(math.exp(draws.uniform(math.log(run), math.log(place))))
            codes[place : place + run] = codes[place - lag : place - lag + run]
        else:
            codes[place : place + run] = draws.integers(alphabet, size=run)
        place += run
    return codes[None]


def recall_stream(
    seed: int, index: int, length: int, segment: int, alphabet: int, gap: int | None = None
) -> np.ndarray:
    """A stream in which one segment returns after gaps; only memory can predict it then.

    A frame is a value, drawn uniformly, and a label. The frames of the segment are labeled 0 to
    ``segment - 1``, all others ``segment``; in a repeat labels and values are those of the first
    time. As the labels say where in the segment one is, what has to be learnt is to remember, not
    to notice that something returns.

    Args:
        seed: of all streams.
        index: of this one.
        length: frames, at least twice the segment.
        segment: frames.
        alphabet: number of different values.
        gap: frames between the segment and its only repeat, which then stands at the end. None for
            training: the segment stands early and returns again and again, after gaps whose
            logarithm is uniform up to what is left of the stream.

    Returns:
        (2, length) int16, values and labels.
    """
    draws = np.random.default_rng(derive_seed(seed, "recall", index))
    if gap is None:
        first = int(draws.integers(min(segment, length - 2 * segment) + 1))
        places = [first + segment + draw_gap(draws, length - first - 2 * segment)]
        while (room := length - places[-1] - 2 * segment) >= 0:
            places.append(places[-1] + segment + draw_gap(draws, room))
    else:
        first = length - gap - 2 * segment
        places = [length - segment]
    values = draws.integers(alphabet, size=length)
    labels = np.full(length, segment)
    for place in (first, *places):
        values[place : place + segment] = values[first : first + segment]
        labels[place : place + segment] = np.arange(segment)
    return np.stack([values, labels]).astype(np.int16)


def draw_gap(draws: np.random.Generator, most: int) -> int:
    """0 to ``most`` frames; the logarithm of one more is uniform."""
    return min(most, int(math.exp(draws.uniform(0, math.log(most + 2)))) - 1)
