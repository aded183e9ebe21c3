"""Chord symbols as musicians write them, read by pychord and reduced to what a plan can hold."""

import re
from dataclasses import dataclass

from pipelines.data.scores.chords import triad
from prior.plan import SUFFIXES, ChordChange
from prior.theory import PITCH_NAMES, TRIADS

_SPELLINGS = (  # of lead sheets, in the spelling of pychord
    *(("♭", "b"), ("♯", "#"), ("−", "-"), (r"[()]", ""), (r"6/9", "69")),
    *((r"[Δ△]7?", "maj7"), (r"ø7?|h7", "m7b5"), (r"[°º]", "dim"), (r"\+(?=$|/)", "aug")),
    *((r"^([A-G][b#]{0,2})o(?=7|$|/)", r"\1dim"), (r"^([A-G][b#]{0,2})(?:min|mi|-)", r"\1m")),
    *((r"^([A-G][b#]{0,2})(?:maj|ma|M)(?=$|/)", r"\1"), (r"mmaj7", "mM7")),
)
_WHOLE = tuple(TRIADS.values())


@dataclass(frozen=True)
class ChordSymbol:
    """A chord symbol as the model plays it."""

    root: int  # pitch class, 0 (C) to 11
    quality: str  # one of ``prior.plan.QUALITIES``
    # what it is played as, in one sentence, where a plan cannot hold it whole; or ""
    note: str = ""


def read_chord(symbol: str) -> ChordSymbol:
    """Read a chord symbol such as ``F#m7b5``, ``Bbmaj7``, ``Gsus4`` or ``C/E``.

    Raises:
        ValueError: nobody can read it.
    """
    from pychord import Chord
    from pychord.utils import note_to_val

    spelled = symbol.strip()
    for pattern, written in _SPELLINGS:
        spelled = re.sub(pattern, written, spelled)
    try:
        chord = Chord(spelled)
        if re.search(r"/\d", spelled):  # which pychord takes for an inversion
            raise ValueError(spelled)
    except ValueError as error:
        raise ValueError(
            f"chord must be a symbol such as Dm, Bb7, F#m7b5 or C/E, got {symbol!r:.40}"
        ) from error
    root = note_to_val(chord.root) % 12
    quality = triad(chord.quality.components)
    if chord.quality.components in _WHOLE and not chord.on:
        return ChordSymbol(root, quality)
    played = PITCH_NAMES[root] + SUFFIXES[quality]
    return ChordSymbol(root, quality, f"{symbol} is played as {played}")


def symbol_of(chord: ChordChange) -> str:
    """Write a plan's chord, as ``F#m``."""
    return PITCH_NAMES[chord.root] + SUFFIXES[chord.quality]
