"""Build plans from the labels of clips."""

from typing import Any

from prior.plan import ChordChange, MelodyNote, Plan, Section
from prior.theory import METERS, PITCH_CLASSES


def plan_of_labels(labels: dict[str, Any]) -> Plan | None:
    """Build the plan of a clip of ``partita prepare scores``; None where its labels lack one."""
    place = labels.get("plan")
    if place is None:
        return None
    key = labels.get("key")
    return Plan(
        tempo_bpm=labels["tempo_bpm"],
        beats_per_bar=METERS[labels.get("meter") or labels["metre"]].beats,
        tonic=PITCH_CLASSES[key] if key else None,
        mode=labels["mode"] if key else None,
        chords=tuple(ChordChange(*row) for row in place["chords"]),
        first_beat=place["first_beat"],
        instruments=tuple(labels["instruments"]),
        drums=labels["drums"],
        sections=tuple(Section(*row) for row in place.get("sections", ())),
        melody=tuple(MelodyNote(*row) for row in place.get("melody", ())),
        end_beat=place.get("end_beat"),
    )
