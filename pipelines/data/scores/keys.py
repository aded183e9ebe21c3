"""Read keys and chords by name, and estimate the key of a set of notes."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.errors import check_name
from prior.theory import KEY_PROFILES, PITCH_CLASSES, SCALES, TONICS

_NUMERALS = {"I": 0, "II": 1, "III": 2, "IV": 3, "V": 4, "VI": 5, "VII": 6}
# Intervals of the suffixes that set the whole chord, and those added to a triad by the others.
_SUFFIXES = {
    "o": (0, 3, 6), "o7": (0, 3, 6, 9), "h7": (0, 3, 6, 10), "+": (0, 4, 8),
    "sus4": (0, 5, 7), "7sus4": (0, 5, 7, 10), "5": (0, 7), "maj7": (0, 4, 7, 11),
}  # fmt: skip
_ADDED = {"": (), "7": (10,), "6": (9,), "9": (10, 14), "add9": (14,), "maj9": (11, 14)}
_KEYS = [(mode, root) for mode in KEY_PROFILES for root in range(12)]
_PROFILES = np.stack([np.roll(KEY_PROFILES[mode], root) for mode, root in _KEYS])
# Scale steps from the root to the chord tone at an interval in semitones.
LETTER_STEPS = {0: 0, 3: 2, 4: 2, 5: 3, 6: 4, 7: 4, 8: 4, 9: 5, 10: 6, 11: 6, 14: 1}


@dataclass(frozen=True)
class Key:
    """Pair a tonic with a mode: ``Key("D", "minor")``."""

    tonic: str
    mode: str

    def __post_init__(self) -> None:
        check_name("tonic", self.tonic, PITCH_CLASSES)
        if self.mode not in SCALES:
            raise ValueError(f"mode must be major or minor, got {self.mode!r}")

    def __str__(self) -> str:
        return f"{self.tonic} {self.mode}"

    @property
    def root(self) -> int:
        """Return the pitch class of the tonic, 0 to 11."""
        return PITCH_CLASSES[self.tonic]

    @property
    def scale(self) -> tuple[int, ...]:
        """Return the seven pitch classes from the tonic up (natural minor)."""
        return tuple((self.root + step) % 12 for step in SCALES[self.mode])


@dataclass(frozen=True)
class Chord:
    """Hold a chord of a key: numeral, scale degree (0 to 6), root pitch class, intervals."""

    numeral: str
    degree: int
    root: int
    intervals: tuple[int, ...]

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Return the chord tones as pitch classes, root first."""
        return tuple((self.root + interval) % 12 for interval in self.intervals)


def key_of(root: int, mode: str) -> Key:
    """Return the key with this tonic pitch class, in its usual spelling."""
    return Key(TONICS[mode][root % 12], mode)


def chord_of(numeral: str, key: Key) -> Chord:
    """Read a Roman numeral such as ``ii7``, ``bVII``, ``V7/ii`` or ``#viio7`` in a key.

    In a minor key the numerals stand on the natural minor scale (``VI`` is the flat sixth).

    Raises:
        ValueError: the numeral cannot be read.
    """
    name, _, target = numeral.partition("/")
    match = re.fullmatch(r"([b#]?)([IViv]+)(.*)", name)
    if match is None or match[2].upper() not in _NUMERALS:
        raise ValueError(f"chord must be a Roman numeral, got {numeral!r}")
    accidental = {"b": -1, "#": 1, "": 0}[match[1]]
    degree = _NUMERALS[match[2].upper()]
    if target:
        goal = chord_of(target, key)
        offset = goal.root + SCALES["major"][degree]
        degree = (goal.degree + degree) % 7
    else:
        offset = key.root + SCALES[key.mode][degree]
    return Chord(numeral, degree, (offset + accidental) % 12, _intervals(match[2], match[3]))


def _intervals(roman: str, suffix: str) -> tuple[int, ...]:
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    if suffix not in _ADDED:
        raise ValueError(f"chord suffix must be one of {sorted({*_SUFFIXES, *_ADDED})}: {suffix!r}")
    triad = (0, 4, 7) if roman.isupper() else (0, 3, 7)
    return triad + _ADDED[suffix]


def scale_over(chord: Chord, key: Key) -> tuple[int, ...]:
    """Replace the degrees of a key's scale that a chromatic chord alters by the chord's tones.

    Over ``V7`` in A minor the G becomes G sharp; over ``bVII`` in C the B becomes B flat.
    """
    scale = list(key.scale)
    for interval in chord.intervals:
        # nine semitones are a sixth, but the seventh of a diminished seventh chord
        step = 6 if interval == 9 and 6 in chord.intervals else LETTER_STEPS[interval]
        scale[(chord.degree + step) % 7] = (chord.root + interval) % 12
    return tuple(scale)


def estimate_key(weights: Sequence[float]) -> tuple[Key, float]:
    """Estimate the key of 12 summed durations, one per pitch class from C.

    Returns:
        The key whose Krumhansl-Kessler profile correlates best, and the margin in correlation to
        the next.
    """
    with np.errstate(invalid="ignore"):  # equal weights correlate with nothing
        correlations = np.nan_to_num(np.corrcoef(weights, _PROFILES)[0, 1:])
    second, best = np.argsort(correlations, kind="stable")[-2:]
    mode, root = _KEYS[best]
    return key_of(root, mode), float(correlations[best] - correlations[second])
