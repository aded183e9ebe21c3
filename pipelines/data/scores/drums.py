"""Generate drum parts from patterns by style and meter, with fills at the ends of phrases."""

import random

from pipelines.data.scores.score import Note
from pipelines.data.scores.tables import read_table
from prior.theory import Meter

KICK, SNARE, RIM, CLAP, CLOSED, OPEN, RIDE, CRASH = 36, 38, 37, 39, 42, 46, 51, 49
LOW_TOM, MID_TOM, HIGH_TOM, TAMBOURINE, COWBELL, SHAKER, CLAVE = 45, 47, 50, 54, 56, 70, 75
_PIECES = {
    "k": KICK, "s": SNARE, "r": RIM, "c": CLAP, "h": CLOSED, "o": OPEN, "d": RIDE, "t": TAMBOURINE,
    "b": COWBELL, "m": SHAKER, "l": LOW_TOM, "w": CLAVE,
}  # fmt: skip
_ACCENTS = {"X": 1.0, "x": 0.8, "o": 0.5}
PATTERNS = read_table("drums")
_FALLBACK = {"3/4": "waltz", "6/8": "folk", "4/4": "rock"}


def play_drums(
    rng: random.Random, pattern: str, meter: Meter, num_beats: float, phrase_beats: float
) -> list[Note]:
    """Generate a drum part of ``num_beats``; its last bar is a single closing stroke.

    A ``pattern`` that the meter lacks is replaced by its plainest one.
    """
    pattern = pattern if pattern in PATTERNS[meter.name] else _FALLBACK[meter.name]
    steps = len(next(iter(PATTERNS[meter.name][pattern].values())))
    step = meter.beats / steps
    notes: list[Note] = []
    bars = round(num_beats / meter.beats)
    for bar in range(bars):
        start = float(bar * meter.beats)
        ends_phrase = (start + meter.beats) % phrase_beats < 1e-6
        if bar == bars - 1:
            notes += [Note(start, 1.0, KICK, 100), Note(start, 2.0, CRASH, 80)]
        elif ends_phrase and pattern != "soft" and rng.random() < 0.7:
            notes += _bar(pattern, meter, start, step, steps // 2)
            notes += _fill(rng, start + meter.beats / 2, meter.beats / 2, step)
        else:
            notes += _bar(pattern, meter, start, step, steps)
        if start and start % phrase_beats < 1e-6 and bar < bars - 1 and pattern != "soft":
            notes.append(Note(start, 2.0, CRASH, 76))
    return notes


def _bar(pattern: str, meter: Meter, start: float, step: float, stop: int) -> list[Note]:
    return [
        Note(start + i * step, step, _PIECES[piece], round(100 * _ACCENTS[mark]))
        for piece, line in PATTERNS[meter.name][pattern].items()
        for i, mark in enumerate(line[:stop])
        if mark in _ACCENTS
    ]


def _fill(rng: random.Random, start: float, length: float, step: float) -> list[Note]:
    """Fill a stretch with a stroke every two steps, on toms from high to low or on the snare."""
    count = round(length / (2 * step))
    drums = rng.choice(
        ((HIGH_TOM, MID_TOM, LOW_TOM), (SNARE, SNARE, SNARE), (SNARE, MID_TOM, LOW_TOM))
    )
    strokes = [
        Note(start + 2 * i * step, step, drums[i * len(drums) // count], 78 + 20 * i // count)
        for i in range(count)
    ]
    return [*strokes, Note(start, step, KICK, 90)]
