"""Plans that are fixed in part: what a person gave, before the planner fills in the rest."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from prior.plan import ChordChange, Plan, Section

PLANNED = ("tempo_bpm", "beats_per_bar", "tonic", "mode", "chords", "instruments", "drums")
"""Attributes of ``Plan`` that a planner writes."""

ChordSpan = tuple[int, str, float | None]
"""Root and quality as in ``ChordChange``, and its length in beats; None for one bar."""


@dataclass(frozen=True)
class PlanDraft:
    """The parts of a plan that are fixed."""

    # values by the name of ``Plan``'s attribute
    fixed: Mapping[str, Any] = field(default_factory=dict)
    # chords that return until the piece ends, in place of ``fixed["chords"]``
    progression: tuple[ChordSpan, ...] = ()

    @classmethod
    def of(cls, plan: "Plan | PlanDraft | None") -> "PlanDraft":
        """Fix everything of a plan; nothing without one."""
        if plan is None or isinstance(plan, PlanDraft):
            return plan or cls()
        return cls({item.name: getattr(plan, item.name) for item in fields(plan)})

    def __bool__(self) -> bool:
        return bool(self.fixed or self.progression)

    @property
    def has_chords(self) -> bool:
        """Whether the chords are fixed."""
        return bool(self.progression) or "chords" in self.fixed

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left for a planner."""
        return not {*PLANNED} - {*self.fixed, *(("chords",) if self.progression else ())}

    def completed(self, written: Plan | None, num_beats: float) -> Plan:
        """Fill in what is not fixed from what was ``written``; None leaves it unknown.

        A progression returns until ``num_beats``.

        Raises:
            ValueError: a value out of range, or no tempo.
        """
        if written is None:
            if "tempo_bpm" not in self.fixed:
                raise ValueError("a plan must have bpm where no planner can choose it")
            written = Plan(self.fixed["tempo_bpm"])
        plan = replace(written, **self.fixed)
        if self.progression:
            chords = lay_progression(self.progression, plan.beats_per_bar, num_beats)
            return replace(plan, chords=chords)
        if plan.sections and not self.has_chords:
            return replace(plan, chords=chords_of_form(plan))
        return plan


def lay_progression(
    progression: Iterable[ChordSpan], beats_per_bar: int, num_beats: float
) -> tuple[ChordChange, ...]:
    """Lay chords one after the other, over again until ``num_beats``."""
    chords, beat = [], 0.0
    for root, quality, beats in progression:
        chords.append(ChordChange(beat, root, quality))
        beat += beats_per_bar if beats is None else beats
    return repeated(tuple(chords), beat, num_beats)


def repeated(
    chords: tuple[ChordChange, ...], length: float, num_beats: float
) -> tuple[ChordChange, ...]:
    """Repeat chords, ``length`` beats in all, until ``num_beats``."""
    rounds = math.ceil(num_beats / length) if length else 1
    return tuple(
        replace(chord, beat=chord.beat + number * length)
        for number in range(rounds)
        for chord in chords
    )


def chords_of_form(plan: Plan) -> tuple[ChordChange, ...]:
    """Let a section that returns have the chords that it had first.

    The plan's chords are dealt out in order to the sections that come for the first time.
    """
    dealt: dict[str, tuple[float, float]] = {}  # first beat and length, in the plan's chords
    next_beat = start = 0.0
    chords: list[ChordChange] = []
    for section in plan.sections:
        left = section.bars * plan.beats_per_bar
        if section.name not in dealt:
            dealt[section.name] = next_beat, left
            next_beat += left
        first, length = dealt[section.name]
        while left > 1e-6:
            part = min(left, length)
            found = chords_between(plan.chords, first, first + part)
            chords += [replace(chord, beat=chord.beat - first + start) for chord in found]
            start, left = start + part, left - part
    return tuple(chords)


def chords_between(
    chords: Iterable[ChordChange], first: float, last: float
) -> tuple[ChordChange, ...]:
    """Return the chords between two beats; the first one begins with the stretch."""
    earlier = [chord for chord in chords if chord.beat <= first]
    later = [chord for chord in chords if first < chord.beat < last]
    return (*(replace(chord, beat=first) for chord in earlier[-1:]), *later)


def form_beats(sections: Iterable[Section], beats_per_bar: int) -> float:
    """Return the length of a form in beats."""
    return sum(section.bars for section in sections) * beats_per_bar
