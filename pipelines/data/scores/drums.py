"""Generate drum parts from patterns by style and meter, with fills at the ends of phrases."""

import random

from pipelines.data.scores.score import Note
from prior.theory import Meter

KICK, SNARE, RIM, CLAP, CLOSED, OPEN, RIDE, CRASH = 36, 38, 37, 39, 42, 46, 51, 49
LOW_TOM, MID_TOM, HIGH_TOM, TAMBOURINE, COWBELL, SHAKER, CLAVE = 45, 47, 50, 54, 56, 70, 75
_PIECES = {
    "k": KICK, "s": SNARE, "r": RIM, "c": CLAP, "h": CLOSED, "o": OPEN, "d": RIDE, "t": TAMBOURINE,
    "b": COWBELL, "m": SHAKER, "l": LOW_TOM, "w": CLAVE,
}  # fmt: skip
_ACCENTS = {"X": 1.0, "x": 0.8, "o": 0.5}
# One string per piece of the kit; each character is a step: 16 a bar in 4/4, 12 in 3/4 and 6/8.
PATTERNS: dict[str, dict[str, dict[str, str]]] = {
    "4/4": {
        "rock": {"k": "X.......X.x.....", "s": "....X.......X...", "h": "X.o.X.o.X.o.X.o."},
        "pop": {"k": "X.....x.X.......", "s": "....X.......X...", "h": "x.o.x.o.x.o.x.o."},
        "ballad": {"k": "X.......x.......", "r": "....X.......X...", "h": "x...o...x...o..."},
        "techno": {"k": "X...X...X...X...", "c": "....x.......x...", "o": "..x...x...x...x.",
                   "h": "o.o.o.o.o.o.o.o."},
        "house": {"k": "X...X...X...X...", "s": "....x.......x...", "o": "..X...X...X...X."},
        "electro": {"k": "X.....x...X.....", "s": "....X.......X...", "h": "xoxoxoxoxoxoxoxo"},
        "swing": {"d": "X...x.o.X...x.o.", "h": "....x.......x...", "k": "o.......o......."},
        "bossa": {"k": "X.....x.X.....x.", "r": "x.....x.....x...", "h": "x.o.x.o.x.o.x.o."},
        "funk": {"k": "X.x.......x..x..", "s": "....X..o.o..X...", "h": "x.x.x.x.x.x.x.o."},
        "shuffle": {"k": "X.......X.......", "s": "....X.......X...", "d": "X...x.o.X...x.o."},
        "march": {"k": "X.......X.......", "s": "x.ooX.oox.ooX.xx"},
        "epic": {"l": "X.....x.x...X...", "k": "X.......X.......", "s": "............x..."},
        "folk": {"k": "X.......X.......", "t": "....x.......x...", "m": "x.o.x.o.x.o.x.o."},
        "chip": {"k": "X.....X.X.......", "s": "....X.......X..o", "h": "x.x.x.x.x.x.x.x."},
        "soft": {"m": "x.o.x.o.x.o.x.o.", "k": "x.......x......."},
    },
    "3/4": {
        "rock": {"k": "X.......x...", "s": "....X...X...", "h": "x.o.x.o.x.o."},
        "waltz": {"k": "X...........", "h": "....x...x...", "s": "....o...o..."},
        "swing": {"d": "X...x.o.x...", "h": "....x.......", "k": "o..........."},
        "folk": {"k": "X...........", "t": "....x...x...", "m": "x.o.x.o.x.o."},
        "epic": {"l": "X...x...x.x.", "k": "X..........."},
        "soft": {"m": "x...o...o...", "k": "x..........."},
    },
    "6/8": {
        "rock": {"k": "X.........x.", "s": "......X.....", "h": "x.o.o.x.o.o."},
        "ballad": {"k": "X...........", "r": "......X.....", "h": "x.o.o.x.o.o."},
        "folk": {"k": "X.....x.....", "t": "....o.....o.", "m": "x.o.o.x.o.o."},
        "epic": {"l": "X...x.X.x.x.", "k": "X.....X....."},
        "march": {"k": "X.....X.....", "s": "x...o.x.o.o."},
        "soft": {"m": "x.o.o.x.o.o.", "k": "x..........."},
    },
}  # fmt: skip
_FALLBACK = {"3/4": "waltz", "6/8": "folk", "4/4": "rock"}


def choose_pattern(style_pattern: str, meter: Meter) -> str:
    """Return a style's pattern, or the plainest one where the meter lacks it."""
    return style_pattern if style_pattern in PATTERNS[meter.name] else _FALLBACK[meter.name]


def play_drums(
    rng: random.Random, pattern: str, meter: Meter, num_beats: float, phrase_beats: float
) -> list[Note]:
    """Generate a drum part of ``num_beats``; its last bar is a single closing stroke."""
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
