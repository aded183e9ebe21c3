"""Tables of music theory that plans, composed pieces and detectors share."""

from dataclasses import dataclass

PITCH_CLASSES = {
    "C": 0, "C#": 1, "Db": 1, "D": 2, "D#": 3, "Eb": 3, "E": 4, "F": 5, "F#": 6, "Gb": 6,
    "G": 7, "G#": 8, "Ab": 8, "A": 9, "A#": 10, "Bb": 10, "B": 11,
}  # fmt: skip
TONICS = {
    "major": ("C", "Db", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B"),
    "minor": ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "G#", "A", "Bb", "B"),
}
PITCH_NAMES = TONICS["major"]  # a name for every pitch class
MODES = ("major", "minor")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
TRIADS = {"major": (0, 4, 7), "minor": (0, 3, 7), "diminished": (0, 3, 6)}
# Krumhansl & Kessler (1982), probe-tone ratings, as used by Krumhansl's key finder.
KEY_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}


@dataclass(frozen=True)
class Meter:
    """A time signature and the beat in it that ``tempo_bpm`` counts."""

    name: str  # "4/4", "3/4" or "6/8"
    beats: int  # beats in a bar; two dotted quarters in 6/8
    division: int  # equal parts that a beat falls into, 2 or 3


METERS = {
    "4/4": Meter("4/4", 4, 2),
    "3/4": Meter("3/4", 3, 2),
    "2/4": Meter("2/4", 2, 2),
    "6/8": Meter("6/8", 2, 3),
}
