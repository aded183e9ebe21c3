"""A tempo that a prompt states in numbers: read, not guessed."""

import re
import warnings

from prior.plan import FASTEST_BPM, SLOWEST_BPM

_STATED = re.compile(r"\b(\d+(?:\.\d+)?)[\s-]*(?:bpm\b|beats?\s+(?:per|a)\s+minute\b)", re.I)


def stated_tempo(prompt: str) -> float | None:
    """Beats a minute where a prompt names them ("92 bpm", "120 beats per minute"), else None.

    A number that no plan can have is left to the planner, and said so.
    """
    found = _STATED.search(prompt)
    if found is None:
        return None
    tempo_bpm = float(found[1])
    if SLOWEST_BPM <= tempo_bpm <= FASTEST_BPM:
        return tempo_bpm
    warnings.warn(
        f"a tempo must lie in [{SLOWEST_BPM}, {FASTEST_BPM}] bpm, got {found[1]}: ignored",
        stacklevel=2,
    )
    return None
