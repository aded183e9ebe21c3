"""Reduce the harmony of a score to the chord changes of a plan: beat, root, triad."""

import math
from collections.abc import Iterable

from pipelines.data.scores.harmony import Slot
from pipelines.data.scores.score import Note, Score, pitch_class_weights
from prior.plan import QUALITIES, ChordChange
from prior.theory import TRIADS


def chords_of_slots(harmony: Iterable[Slot]) -> list[ChordChange]:
    """List the chord changes of a composed harmony."""
    return joined(
        ChordChange(slot.start, slot.chord.root, triad(slot.chord.intervals)) for slot in harmony
    )


def triad(intervals: tuple[int, ...]) -> str:
    """Name the triad nearest to a chord; without a third it counts as major."""
    if 3 not in intervals:
        return "major"
    return "minor" if 7 in intervals else "diminished"


def find_chords(score: Score) -> list[ChordChange]:
    """Find the best-fitting triad of every beat; a silent beat keeps the chord before."""
    beat_s = 60 / score.tempo_bpm
    found = []
    for beat in range(math.ceil(score.num_beats)):
        weights = pitch_class_weights(score, beat * beat_s, (beat + 1) * beat_s)
        if sum(weights):
            found.append(ChordChange(float(beat), *best_triad(weights)))
    return joined(found)


def best_triad(weights: list[float]) -> tuple[int, str]:
    """Return root and quality of the triad that covers most of 12 pitch-class weights."""

    def score_of(choice: tuple[int, str]) -> float:
        root, quality = choice
        tones = [weights[(root + step) % 12] for step in TRIADS[quality]]
        # relative triads share tones: a tie goes to the stronger root, then to the plainer quality
        return sum(tones) + 0.1 * tones[0] - 1e-6 * QUALITIES.index(quality)

    return max(((root, quality) for root in range(12) for quality in QUALITIES), key=score_of)


def joined(chords: Iterable[ChordChange]) -> list[ChordChange]:
    """Drop changes that repeat the chord before."""
    kept: list[ChordChange] = []
    for chord in chords:
        if not kept or (chord.root, chord.quality) != (kept[-1].root, kept[-1].quality):
            kept.append(chord)
    return kept


def transposed(chords: Iterable[ChordChange], steps: int) -> list[ChordChange]:
    """Transpose chords up by some semitones."""
    return [ChordChange(c.beat, (c.root + steps) % 12, c.quality) for c in chords]


def plan_labels(score: Score, start_s: float, end_s: float) -> dict:
    """Label a stretch of a piece with its place and chords, from which a plan can be built.

    Returns:
        ``first_beat``: beats from the start of the piece to ``start_s``. ``chords``: rows of beat
        (from the start of the piece), root and quality, starting with the one at ``start_s``.
        ``melody``: rows of beat, beats and pitch. ``sections``: rows of name and bars of the whole
        piece, where it has a form. ``end_beat``: of the piece, None where it goes on.
    """
    first, last = (time_s * score.tempo_bpm / 60 for time_s in (start_s, end_s))
    earlier = [index for index, chord in enumerate(score.chords) if chord.beat <= first]
    end = score.num_beats
    rest = score.chords[earlier[-1] if earlier else 0 :]
    return {
        "first_beat": round(first, 6),
        "chords": [
            [round(chord.beat, 4), chord.root, chord.quality] for chord in rest if chord.beat < last
        ],
        "melody": [
            melody_row(note, end)
            for note in score.melody
            if first - 8 <= note.start < min(last, end - 0.01)
        ],
        "sections": [[section.name, section.bars] for section in score.sections],
        "end_beat": round(end, 4) if score.complete else None,
    }


def melody_row(note: Note, end: float) -> list[float]:
    """Beat, beats and pitch of a note, its end rounded and not its length: none overlap so."""
    start, stop = round(note.start, 4), round(min(note.start + note.duration, end), 4)
    return [start, round(stop - start, 4), note.pitch]
