"""List the General MIDI instruments that pieces are composed for, with their ranges."""

from dataclasses import dataclass

from pipelines.data.scores.tables import read_table


@dataclass(frozen=True)
class Instrument:
    """Describe an instrument to the composer."""

    name: str
    programs: tuple[int, ...]  # General MIDI programs, 0 to 127, that sound like it
    # low, high: melodic range, MIDI pitches
    low: int
    high: int
    polyphonic: bool = False  # plays tune and accompaniment at once, so it may play alone
    sustained: bool = False  # holds a note at full strength; else the note dies away


_TABLE = read_table("instruments")
INSTRUMENTS = {name: Instrument(name, **fields) for name, fields in _TABLE["instruments"].items()}
FAMILIES = _TABLE["families"]
BASSES = FAMILIES["basses"]
_REFERENCE_DB = -37
_NAMES = {
    program: item.name for item in reversed(INSTRUMENTS.values()) for program in item.programs
} | _TABLE["exact"]


def name_of_program(program: int) -> str | None:
    """Name the instrument that a General MIDI program sounds like; None for effects."""
    return _NAMES[program] if program in _NAMES else _TABLE["groups"][program // 8]


def balance(program: int) -> float:
    """Return the factor on MIDI volume that makes a program as loud as the others."""
    # 40, not 20: amplitude grows with the square of MIDI volume
    return 10 ** ((_REFERENCE_DB - _TABLE["levels_db"].get(program, _REFERENCE_DB)) / 40)
