"""List the General MIDI instruments that pieces are composed for, with their ranges."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Instrument:
    """Describe an instrument to the composer.

    Attributes:
        programs: General MIDI programs, 0 to 127, that sound like it.
        low, high: melodic range, MIDI pitches.
        polyphonic: plays tune and accompaniment at once, so it may play alone.
        sustained: holds a note at full strength; else the note dies away.
    """

    name: str
    programs: tuple[int, ...]
    low: int
    high: int
    polyphonic: bool = False
    sustained: bool = False


_TABLE = (
    Instrument("piano", (0, 1), 57, 86, True),
    Instrument("electric piano", (4, 5), 55, 84, True),
    Instrument("harpsichord", (6,), 55, 84, True),
    Instrument("music box", (10,), 67, 91, True),
    Instrument("glockenspiel", (9,), 72, 96),
    Instrument("vibraphone", (11,), 57, 84, True),
    Instrument("marimba", (12,), 52, 84, True),
    Instrument("organ", (19, 16), 55, 84, True, True),
    Instrument("accordion", (21,), 57, 84, True, True),
    Instrument("harmonica", (22,), 60, 84, False, True),
    Instrument("acoustic guitar", (24, 25), 52, 79, True),
    Instrument("electric guitar", (27, 26), 52, 79, True),
    Instrument("distorted guitar", (30, 29), 50, 79, False, True),
    Instrument("banjo", (105,), 55, 81, True),
    Instrument("harp", (46,), 52, 88, True),
    Instrument("pizzicato strings", (45,), 50, 84, True),
    Instrument("violin", (40,), 60, 91, False, True),
    Instrument("cello", (42,), 40, 67, False, True),
    Instrument("strings", (48, 49), 52, 84, True, True),
    Instrument("choir", (52, 53), 55, 79, True, True),
    Instrument("trumpet", (56,), 57, 82, False, True),
    Instrument("brass", (61,), 52, 79, True, True),
    Instrument("french horn", (60,), 46, 74, False, True),
    Instrument("saxophone", (65, 66), 52, 79, False, True),
    Instrument("oboe", (68,), 60, 86, False, True),
    Instrument("clarinet", (71,), 53, 84, False, True),
    Instrument("flute", (73,), 62, 91, False, True),
    Instrument("pan flute", (75,), 62, 88, False, True),
    Instrument("synth lead", (81, 80), 55, 86, False, True),
    Instrument("chiptune lead", (80,), 60, 88, False, True),
    Instrument("synth pad", (88, 89, 90), 52, 79, True, True),
    Instrument("bass", (33, 34), 28, 50),
    Instrument("double bass", (32,), 28, 50),
    Instrument("synth bass", (38, 39), 28, 50, False, True),
)
INSTRUMENTS = {instrument.name: instrument for instrument in _TABLE}
BASSES = ("bass", "double bass", "synth bass")
# Loudness (dB, 200 Hz to 6 kHz) of FluidR3's programs, measured on a scale in the middle of the
# range at velocity 90 and volume 100, rendered without reverberation. Basses are not balanced.
_LEVELS_DB = {
    0: -39, 1: -40, 4: -31, 5: -36, 6: -35, 9: -42, 10: -35, 11: -39, 12: -36, 16: -37,
    19: -34, 21: -37, 22: -35, 24: -37, 25: -38, 26: -33, 27: -38, 29: -33, 30: -30, 40: -34,
    42: -36, 45: -36, 46: -40, 48: -35, 49: -33, 52: -35, 53: -32, 56: -35, 60: -31, 61: -34,
    65: -32, 66: -32, 68: -32, 71: -31, 73: -30, 75: -32, 80: -31, 81: -33, 88: -36, 89: -40,
    90: -35, 105: -41,
}  # fmt: skip
_REFERENCE_DB = -37
# Names of the programs in MIDI files from elsewhere, for each General MIDI group of eight...
_GROUPS = (
    "piano", "vibraphone", "organ", "acoustic guitar", "bass", "strings", "strings", "brass",
    "saxophone", "flute", "synth lead", "synth pad", None, None, None, None,
)  # fmt: skip
# ... and for programs that differ from their group.
_EXACT = {program: item.name for item in reversed(_TABLE) for program in item.programs} | {
    2: "piano", 3: "piano", 7: "harpsichord", 8: "music box", 13: "marimba", 17: "organ",
    18: "organ", 20: "organ", 23: "accordion", 28: "electric guitar", 31: "electric guitar",
    35: "bass", 36: "bass", 37: "bass", 41: "violin", 43: "double bass", 47: None, 54: "choir",
    55: None, 57: "brass", 58: "brass", 59: "trumpet", 67: "saxophone", 69: "oboe", 70: "clarinet",
    72: "flute", 74: "flute", 76: "flute", 77: "flute", 78: None, 79: "flute", 80: "synth lead",
    104: "acoustic guitar", 106: "banjo", 107: "harp", 108: "marimba", 110: "violin",
}  # fmt: skip


def name_of_program(program: int) -> str | None:
    """Name the instrument that a General MIDI program sounds like; None for effects."""
    return _EXACT[program] if program in _EXACT else _GROUPS[program // 8]


def balance(program: int) -> float:
    """Return the factor on MIDI volume that makes a program as loud as the others."""
    # 40, not 20: amplitude grows with the square of MIDI volume
    return 10 ** ((_REFERENCE_DB - _LEVELS_DB.get(program, _REFERENCE_DB)) / 40)
