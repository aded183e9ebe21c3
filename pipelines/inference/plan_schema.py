"""Plans as JSON: one versioned schema for plan files, flags, rows, token files and streams.

A plan may leave fields out, which the planner then writes; null says that something is not known.
Bars and beats count from 1, as on paper; inside, ``prior.plan`` counts beats from 0.
"""

import json
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from codec.whole_file import read_json_object, write_whole
from pipelines.inference.chord_symbols import symbol_of
from pipelines.inference.plan_fields import DECIMALS, READERS, read_meter, read_progression
from prior.plan import SLOWEST_BPM, ChordChange, Plan
from prior.plan_draft import ChordSpan, PlanDraft
from prior.theory import PITCH_NAMES

VERSION = 1
FLAG_FIELDS = ("bpm", "key", "meter", "chords", "instruments", "drums", "sections", "melody")
"""Fields that are also arguments, options and columns of their own."""


class PlanFields(TypedDict, total=False):
    """Fields of a plan as keyword arguments; see docs/plans.md."""

    bpm: float | None
    key: str | None
    meter: str | None
    chords: str | list[dict[str, Any]] | None
    instruments: str | list[str] | None
    drums: bool | None
    sections: str | list[dict[str, Any]] | None
    melody: str | list[dict[str, Any]] | None


PlanSource = Plan | PlanDraft | Mapping[str, Any] | str | Path | None
"""A plan, the JSON of one or of a part of one, or the name of its file."""


def save_plan(path: str | Path, plan: Plan) -> None:
    """Write a plan file, a line for every chord, that appears only when it is whole."""
    lines = []
    for name, value in plan_json(plan).items():
        text = json.dumps(value, ensure_ascii=False)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n    ".join(json.dumps(row, ensure_ascii=False) for row in value)
            text = f"[\n    {rows}\n  ]"
        lines.append(f"  {json.dumps(name)}: {text}")
    write_whole(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def load_plan(path: str | Path) -> dict[str, Any]:
    """Read a plan file's JSON; :func:`read_plan` checks what it says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a JSON object.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return read_json_object(path)
    except RecursionError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def plan_json(plan: Plan) -> dict[str, Any]:
    """Write a plan as :func:`read_plan` reads it."""
    beats = plan.beats_per_bar
    key = None if plan.tonic is None else f"{PITCH_NAMES[plan.tonic]} {plan.mode}"
    return {
        "version": VERSION,
        "bpm": plan.tempo_bpm,
        "meter": f"{beats}/4",
        "key": key,
        "instruments": [*plan.instruments],
        "drums": plan.drums,
        "sections": [{"name": item.name, "bars": item.bars} for item in plan.sections],
        "chords": [
            {**_place(chord.beat, beats), "chord": symbol_of(chord)} for chord in plan.chords
        ],
        "melody": [
            {
                **_place(note.beat, beats),
                "beats": _number(note.beats),
                "pitch": f"{PITCH_NAMES[note.pitch % 12]}{note.pitch // 12 - 1}",
            }
            for note in plan.melody
        ],
        "first_beat": plan.first_beat,
        "end_beat": plan.end_beat,
    }


ATTRIBUTES = {"bpm": "tempo_bpm", "meter": "beats_per_bar", "key": "tonic"}
"""Fields that are called otherwise in ``prior.plan.Plan``."""


def draft_json(draft: PlanDraft) -> dict[str, Any]:
    """Write the fields that a draft fixes as :func:`read_plan` reads them."""
    whole = plan_json(replace(Plan(SLOWEST_BPM), **draft.fixed))
    names = [name for name in whole if ATTRIBUTES.get(name, name) in {*draft.fixed, "version"}]
    values = {name: whole[name] for name in names}
    if draft.progression:
        spans = (
            symbol_of(ChordChange(0.0, root, quality)) + (f":{beats!r}" if beats else "")
            for root, quality, beats in draft.progression
        )
        values["chords"] = " ".join(spans)
    return values


def _place(beat: float, beats_per_bar: int) -> dict[str, float]:
    bar, rest = divmod(round(beat, DECIMALS), beats_per_bar)
    return {"bar": int(bar) + 1, "beat": _number(rest + 1)}


def _number(value: float) -> float:
    value = round(value, DECIMALS)
    return int(value) if value == int(value) else value


def draft_plan(source: PlanSource, fields: Mapping[str, Any] | None = None) -> PlanDraft:
    """Read a plan and fields that go before its own; say which of them it had set otherwise.

    Args:
        source: see ``PlanSource``.
        fields: values of the schema's fields; None is not given.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a field is unknown or wrong; the message names it, bar and beat.
    """
    given = {name: value for name, value in (fields or {}).items() if value is not None}
    if wrong := given.keys() - {*FLAG_FIELDS}:
        raise TypeError(f"unexpected argument {min(wrong)!r}")
    if isinstance(source, PlanDraft) or not (source or given):
        return PlanDraft.of(source)  # type: ignore[arg-type]
    if isinstance(source, Plan):
        if not given:
            return PlanDraft.of(source)
        values: Mapping[str, Any] = plan_json(source)
    elif isinstance(source, str | Path):
        values = load_plan(source)
    else:
        values = source or {}
    for name in given.keys() & values.keys():
        if values[name] != given[name] and values[name] not in (None, []):
            warnings.warn(f"{name} of the plan gives way to {given[name]!r:.60}", stacklevel=3)
    name = f"{source}: " if isinstance(source, str | Path) else ""
    try:
        return read_plan({**values, **given})
    except ValueError as error:
        raise ValueError(f"{name}{error}") from error


def read_plan(values: Mapping[str, Any]) -> PlanDraft:
    """Read the JSON of a plan or of a part of one.

    Raises:
        ValueError: a field is unknown or wrong; the message names it, bar and beat.
    """
    unknown = [name for name in values if name not in (*READERS, "version")]
    if unknown:
        raise ValueError(f"a plan has no {unknown[0]!r}: choose from {', '.join(READERS)}")
    if values.get("version", VERSION) != VERSION:
        raise ValueError(f"version must be {VERSION}, got {values['version']!r:.20}")
    meter = read_meter(values["meter"]) if values.get("meter") is not None else None
    fixed: dict[str, Any] = {}
    progression: tuple[ChordSpan, ...] = ()
    for name, value in values.items():
        if name == "chords" and isinstance(value, str):
            progression = read_progression(value)
        elif name == "melody" and isinstance(value, str):
            from pipelines.data.scores.melody_file import read_melody_file

            bpm = values.get("bpm")
            tempo = None if bpm is None else READERS["bpm"](bpm, None)["tempo_bpm"]
            fixed["melody"] = read_melody_file(value, tempo)
        elif name != "version":
            fixed |= READERS[name](value, meter)
    draft = PlanDraft(fixed, progression)
    if draft:
        draft.completed(Plan(fixed.get("tempo_bpm", 100.0)), 0.0)  # what must fit together does
    return draft
