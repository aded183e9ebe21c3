"""The fields of a plan's JSON, each from what a person wrote to what ``prior.plan.Plan`` holds.

Every reader raises a ValueError that names the field, bar and beat if it has them, and the value.
"""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from pipelines.inference.chord_symbols import read_chord
from prior.plan import (
    FASTEST_BPM,
    INSTRUMENTS,
    LONGEST_SECTION,
    SECTIONS,
    SLOWEST_BPM,
    ChordChange,
    MelodyNote,
    Section,
)
from prior.plan_draft import ChordSpan
from prior.theory import PITCH_CLASSES

DECIMALS = 6
"""Decimal places of a beat to which places and lengths are rounded when written and read."""


def read_number(name: str, value: Any, low: float, high: float) -> float:
    """Return a number within a range, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in [{low:g}, {high:g}], got {value!r:.40}")
    return float(value)


def read_meter(value: Any) -> int:
    """Read the beats in a bar of "3/4" or "6/8", whose beats are the two dotted quarters."""
    found = re.fullmatch(r"\s*(\d{1,2})/([248])\s*", value) if isinstance(value, str) else None
    beats = int(found[1]) if found else 0
    if found and found[2] == "8" and beats % 3 == 0:
        beats //= 3
    if not 1 <= beats <= 16:
        raise ValueError(f"meter must be like 4/4, 3/4 or 6/8, got {value!r:.40}")
    return beats


def read_key(value: Any) -> dict[str, Any]:
    """Read tonic and mode of "D minor", "Bb major", "F#m" or "C"; None for an unknown key."""
    if value is None:
        return {"tonic": None, "mode": None}
    text = value.replace("♭", "b").replace("♯", "#") if isinstance(value, str) else ""
    found = re.fullmatch(r"\s*([A-Ga-g][#b]?)\s*(major|minor|maj|min|m|)\s*", text)
    tonic = found[1].capitalize() if found else ""
    if found is None or tonic not in PITCH_CLASSES:
        raise ValueError(f"key must be like D minor, Bb major or F#m, got {value!r:.40}")
    mode = "minor" if found[2] in ("minor", "min", "m") else "major"
    return {"tonic": PITCH_CLASSES[tonic], "mode": mode}


def read_instruments(value: Any) -> tuple[str, ...]:
    """Read the names of a list or of a text with commas; synonyms of captions count."""
    from pipelines.data.scores.captions import INSTRUMENT_WORDS

    synonyms = {word: name for name, words in INSTRUMENT_WORDS.items() for word in words}
    names = value.split(",") if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"instruments must be names, got {value!r:.40}")
    found = [name.strip() for name in names if name.strip()]
    found = [synonyms.get(name, name.lower()) for name in found]
    for name in found:
        if name not in INSTRUMENTS:
            near = get_close_matches(name, [*INSTRUMENTS, *synonyms], 1)
            hint = f"did you mean {near[0]!r}?" if near else "partita vocabulary lists them"
            raise ValueError(f"instruments: {name!r:.40} is not known: {hint}")
    return tuple(dict.fromkeys(found))


def read_drums(value: Any) -> bool | None:
    """Read True, False or None (not known); "yes" and "no" stand in tables."""
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    if not isinstance(value, bool | None):
        raise ValueError(f"drums must be true, false or null, got {value!r:.40}")
    return value


def read_progression(value: str) -> tuple[ChordSpan, ...]:
    """Read "Dm Bb F C", a bar each, or "Dm:2 A7:2", with beats; bar lines are left out.

    Raises:
        ValueError: a symbol that nobody can read, or a length that is none.
    """
    spans: list[ChordSpan] = []
    for number, word in enumerate(value.replace("|", " ").split(), start=1):
        symbol, colon, beats = word.partition(":")
        try:
            chord = read_chord(symbol)
            length = read_number("beats", _to_number(beats), 1 / 16, 256) if colon else None
        except ValueError as error:
            raise ValueError(f"chords, symbol {number}: {error}") from error
        if chord.note:
            warnings.warn(chord.note, stacklevel=2)
        spans.append((chord.root, chord.quality, length))
    if not spans:
        raise ValueError(f"chords must hold a symbol, got {value!r:.40}")
    return tuple(spans)


def _to_number(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


class _Row(NamedTuple):
    """An entry of chords or melody: where it stands, for messages, and its values."""

    where: str
    beat: float
    values: Mapping[str, Any]


def read_rows_by_bar(name: str, value: Any, meter: int | None, keys: set[str]) -> list[_Row]:
    """Read entries that have bar and beat, in order."""
    if not isinstance(value, list):
        raise ValueError(f"{name} must be a list or a text, got {value!r:.40}")
    if value and meter is None:
        raise ValueError(f"meter must be given where {name} have bars")
    rows: list[_Row] = []
    for number, entry in enumerate(value, start=1):
        where = f"{name}, entry {number}"
        if not isinstance(entry, dict) or not keys <= entry.keys() <= {*keys, "bar", "beat"}:
            wanted = ", ".join(("bar", "beat", *sorted(keys)))
            raise ValueError(f"{where} must hold {wanted}, got {entry!r:.60}")
        assert meter is not None
        bar = read_number(f"{where}: bar", entry.get("bar"), 1, 1e6)
        if bar != int(bar):
            raise ValueError(f"{where}: bar must be whole, got {bar}")
        where = f"{name}, bar {bar:.0f}"
        beat = read_number(f"{where}: beat", entry.get("beat", 1), 1, 1e6)
        if beat >= meter + 1:
            raise ValueError(f"{where}: beat must lie in [1, {meter + 1}), got {beat:g}")
        where += f", beat {beat:g}"
        place = round((bar - 1) * meter + beat - 1, DECIMALS)
        if rows and place <= rows[-1].beat:
            raise ValueError(f"{where}: must come after the entry before it")
        rows.append(_Row(where, place, entry))
    return rows


def read_chords(value: Any, meter: int | None) -> tuple[ChordChange, ...]:
    """Read chord changes from a list of bar, beat and symbol."""
    chords = []
    for row in read_rows_by_bar("chords", value, meter, {"chord"}):
        try:
            chord = read_chord(str(row.values["chord"]))
        except ValueError as error:
            raise ValueError(f"{row.where}: {error}") from error
        if chord.note:
            warnings.warn(f"{row.where}: {chord.note}", stacklevel=2)
        chords.append(ChordChange(row.beat, chord.root, chord.quality))
    return tuple(chords)


def read_sections(value: Any) -> tuple[Section, ...]:
    """Read sections of "intro:4 verse:8", in bars, or of a list of name and bars."""
    if isinstance(value, str):
        parts = [word.partition(":") for word in value.split()]
        value = [{"name": name, "bars": _to_number(bars)} for name, _, bars in parts]
    if not isinstance(value, list):
        raise ValueError(f"sections must be a list or a text, got {value!r:.40}")
    sections = []
    for number, entry in enumerate(value, start=1):
        if not isinstance(entry, dict) or entry.keys() != {"name", "bars"}:
            raise ValueError(f"sections, entry {number} must hold name and bars, got {entry!r:.60}")
        where, name = f"sections, entry {number}", entry["name"]
        if name not in SECTIONS:
            raise ValueError(f"{where}: must be among {', '.join(SECTIONS)}, got {name!r:.40}")
        bars = read_number(f"{where} ({name}): bars", entry["bars"], 1 / 4, LONGEST_SECTION)
        sections.append(Section(name, bars))
    return tuple(sections)


def read_melody(value: Any, meter: int | None) -> tuple[MelodyNote, ...]:
    """Read notes of a file, or of a list of bar, beat, length in beats and pitch ("D4", 62)."""
    if isinstance(value, str):
        from pipelines.data.scores.melody_file import read_melody_file

        return read_melody_file(value)
    notes: list[MelodyNote] = []
    for row in read_rows_by_bar("melody", value, meter, {"beats", "pitch"}):
        beats = read_number(f"{row.where}: beats", row.values["beats"], 1 / 64, 1024)
        if notes and row.beat + 1e-6 < notes[-1].beat + notes[-1].beats:
            raise ValueError(f"{row.where}: the note before it still sounds")
        notes.append(MelodyNote(row.beat, beats, read_pitch(row)))
    return tuple(notes)


def read_pitch(row: _Row) -> int:
    """Read the MIDI pitch of a name such as "F#4" (60 is C4) or of a number."""
    value = row.values["pitch"]
    found = re.fullmatch(r"([A-G][#b]?)(-?\d)", value) if isinstance(value, str) else None
    if found and found[1] in PITCH_CLASSES:
        value = PITCH_CLASSES[found[1]] + 12 * (int(found[2]) + 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 128:
        raise ValueError(f"{row.where}: pitch must be like F#4 or 66, got {row.values['pitch']!r}")
    return value


def _beat_or_none(name: str, value: Any) -> float | None:
    return None if value is None else read_number(name, value, 0, 1e7)


Reader = Callable[[Any, int | None], dict[str, Any]]
READERS: dict[str, Reader] = {
    "bpm": lambda v, _: {"tempo_bpm": read_number("bpm", v, SLOWEST_BPM, FASTEST_BPM)},
    "meter": lambda v, _: {"beats_per_bar": read_meter(v)},
    "key": lambda v, _: read_key(v),
    "instruments": lambda v, _: {"instruments": read_instruments(v)},
    "drums": lambda v, _: {"drums": read_drums(v)},
    "sections": lambda v, _: {"sections": read_sections(v)},
    "chords": lambda v, meter: {"chords": read_chords(v, meter)},
    "melody": lambda v, meter: {"melody": read_melody(v, meter)},
    "first_beat": lambda v, _: {"first_beat": _beat_or_none("first_beat", v) or 0.0},
    "end_beat": lambda v, _: {"end_beat": _beat_or_none("end_beat", v)},
}
"""For every field of the schema, what it is in ``prior.plan.Plan``."""
