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
    """A stream in which one segment returns after a gap; only memory can predict it then.

    A frame is a value, drawn uniformly, and a label. The frames of the segment are labelled 0 to
    ``segment - 1``, all others ``segment``; in the repeat labels and values are those of the first
    time. As the labels say where in the segment one is, what has to be learnt is to remember, not
    to notice that something returns.

    Args:
        seed: of all streams.
        index: of this one.
        length: frames, at least twice the segment.
        segment: frames.
        alphabet: number of different values.
        gap: frames between the segment and its repeat; None draws one with uniform logarithm, and
            the place of the segment too. With a gap the repeat stands at the end.

    Returns:
        (2, length) int16, values and labels.
    """
    draws = np.random.default_rng(derive_seed(seed, "recall", index))
    room = length - 2 * segment
    if gap is None:
        gap = round(math.exp(draws.uniform(0, math.log(room + 1)))) - 1
        first = int(draws.integers(room - gap + 1))
    else:
        first = room - gap
    again = first + segment + gap
    values = draws.integers(alphabet, size=length)
    labels = np.full(length, segment)
    values[again : again + segment] = values[first : first + segment]
    labels[first : first + segment] = labels[again : again + segment] = np.arange(segment)
    return np.stack([values, labels]).astype(np.int16)
