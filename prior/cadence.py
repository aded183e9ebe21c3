"""Close a plan: a cadence to the tonic that has time to ring."""

import math
from dataclasses import replace

from prior.plan import ChordChange, Plan

RING_S = 2.0  # how long, at least, the last chord sounds


def with_cadence(plan: Plan, duration_s: float) -> Plan:
    """Let a plan's chords end, within a duration, with the dominant and a tonic that rings.

    The tonic begins with a bar, ``RING_S`` or more before the end, the dominant a bar before it. A
    plan without a key, or a piece too short for both, stays as it is.
    """
    if plan.tonic is None:
        return plan
    bar, last = plan.beats_per_bar, plan.first_beat + duration_s * plan.tempo_bpm / 60
    tonic = math.floor((last - RING_S * plan.tempo_bpm / 60) / bar) * bar
    if tonic - bar <= plan.first_beat:
        return plan
    quality = "minor" if plan.mode == "minor" else "major"
    closing = (
        ChordChange(float(tonic - bar), (plan.tonic + 7) % 12, "major"),
        ChordChange(float(tonic), plan.tonic, quality),
    )
    kept = tuple(chord for chord in plan.chords if chord.beat < tonic - bar)
    return replace(plan, chords=(*kept, *closing), end_beat=last)
