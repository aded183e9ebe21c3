"""The chords of a score, as a plan tells them: a root and a triad from some beat on."""

import math
from collections.abc import Iterable

from pipelines.data.scores.harmony import Slot
from pipelines.data.scores.score import Score, pitch_class_weights
from prior.plan import QUALITIES, ChordChange
from prior.theory import TRIADS


def chords_of_slots(harmony: Iterable[Slot]) -> list[ChordChange]:
    """The chords that a piece was composed on."""
    return joined(
        ChordChange(slot.start, slot.chord.root, triad(slot.chord.intervals)) for slot in harmony
    )


def triad(intervals: tuple[int, ...]) -> str:
    """The triad that is nearest to a chord; a third that is missing counts as major."""
    if 3 not in intervals:
        return "major"
    return "minor" if 7 in intervals else "diminished"


def find_chords(score: Score) -> list[ChordChange]:
    """The triad that fits the notes of every beat best: where chords change with the beat."""
    beat_s = 60 / score.tempo_bpm
    found = []
    for beat in range(math.ceil(score.num_beats)):
        weights = pitch_class_weights(score, beat * beat_s, (beat + 1) * beat_s)
        if sum(weights):
            found.append(ChordChange(float(beat), *best_triad(weights)))
    return joined(found)


def best_triad(weights: list[float]) -> tuple[int, str]:
    """Root and quality of the triad that holds most of 12 pitch-class weights."""

    def held(choice: tuple[int, str]) -> float:
        root, quality = choice
        tones = [weights[(root + step) % 12] for step in TRIADS[quality]]
        return sum(tones) + 0.1 * tones[0] - 1e-6 * QUALITIES.index(quality)

    return max(((root, quality) for root in range(12) for quality in QUALITIES), key=held)


def joined(chords: Iterable[ChordChange]) -> list[ChordChange]:
    """Without those that repeat the chord before."""
    kept: list[ChordChange] = []
    for chord in chords:
        if not kept or (chord.root, chord.quality) != (kept[-1].root, kept[-1].quality):
            kept.append(chord)
    return kept


def transposed(chords: Iterable[ChordChange], steps: int) -> list[ChordChange]:
    """The same chords some semitones higher."""
    return [ChordChange(c.beat, (c.root + steps) % 12, c.quality) for c in chords]


def plan_labels(score: Score, start_s: float, end_s: float) -> dict:
    """What a stretch of a piece needs beside its labels to be planned: place and chords.

    Returns:
        ``first_beat``, beats that have passed at ``start_s``, and ``chords``, rows of beat (from
        the start of the piece), root and quality, from the one that sounds at ``start_s`` on.
    """
    first, last = (time_s * score.tempo_bpm / 60 for time_s in (start_s, end_s))
    earlier = [index for index, chord in enumerate(score.chords) if chord.beat <= first]
    heard = score.chords[earlier[-1] if earlier else 0 :]
    return {
        "first_beat": round(first, 6),
        "chords": [
            [round(chord.beat, 4), chord.root, chord.quality]
            for chord in heard
            if chord.beat < last
        ],
    }
