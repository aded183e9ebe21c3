"""Generate melodies: motifs of rhythm and steps, repeated over the chords of each phrase."""

import random
from dataclasses import dataclass

from pipelines.data.scores.harmony import Slot
from pipelines.data.scores.keys import LETTER_STEPS, Chord, Key, scale_over
from pipelines.data.scores.score import Note
from pipelines.data.scores.tables import read_table
from prior.theory import Meter

_T = 1 / 3
_UNITS = {2: 0.25, 3: _T}


def _read_rhythms() -> dict[tuple[int, int], dict[str, list[tuple[float, ...]]]]:
    """Read note lengths (beats) that fill a chord, by its beats, their division and density."""
    rhythms = {}
    for name, by_density in read_table("rhythms")["melody"].items():
        beats, division = map(int, name.split("/"))
        rhythms[beats, division] = {
            density: [tuple(int(n) * _UNITS[division] for n in text.split()) for text in texts]
            for density, texts in by_density.items()
        }
    return rhythms


_RHYTHMS = _read_rhythms()
_STEPS = (-2, -1, -1, -1, 0, 1, 1, 1, 2)
_LEAPS = (-4, -3, 3, 4)


@dataclass(frozen=True)
class Motif:
    """Pair note lengths (beats) with the scale steps from each note to the next."""

    durations: tuple[float, ...]
    steps: tuple[int, ...]


def compose_melody(
    rng: random.Random,
    harmony: list[Slot],
    key: Key,
    meter: Meter,
    span: tuple[int, int],
    density: str,
) -> list[Note]:
    """Generate a tune over chords, between the lowest and the highest pitch of ``span``.

    Phrases of one section share their motifs, as an answer repeats its question. Strong beats carry
    chord tones, the others move by step; phrases end on a long chord tone, the piece on the tonic.

    Returns:
        Notes in order, without overlap; velocity 100 on the beat, 90 elsewhere.
    """
    line = _MelodicLine(key, span)
    motifs: dict[tuple[int, str], Motif] = {}
    figure = rng.choice(("aabc", "abac", "abab", "abcd", "aaab"))
    for slot in harmony:
        cadence = slot.position == 3 or slot.is_last
        # verse or bridge, four phrases each; an odd phrase may bring a motif of its own
        section = slot.phrase % 8 // 4 * 2 + (slot.phrase % 2 if rng.random() < 0.3 else 0)
        place = section, figure[slot.position]
        if place not in motifs:
            motifs[place] = draw_motif(rng, slot.length, meter, density)
        motif = motifs[place]
        line.add(slot, _cadence(rng, slot, meter, density) if cadence else motif, rng)
    return line.notes


def draw_motif(rng: random.Random, length: float, meter: Meter, density: str) -> Motif:
    """Draw a rhythm that fills ``length`` beats and a contour that mostly steps."""
    durations = rng.choice(_RHYTHMS[int(length), meter.division][density])
    steps: list[int] = []
    for _ in durations[1:]:
        if steps and abs(steps[-1]) > 2:  # a leap is answered by a step back
            steps.append(-1 if steps[-1] > 0 else 1)
        else:
            steps.append(rng.choice(_LEAPS if rng.random() < 0.12 else _STEPS))
    return Motif(tuple(durations), tuple(steps))


def _cadence(rng: random.Random, slot: Slot, meter: Meter, density: str) -> Motif:
    """Draw a long note, and often a pick-up into the next phrase unless the piece ends."""
    if slot.is_last or density == "sparse" or rng.random() < 0.4:
        return Motif((slot.length,), ())
    if meter.division == 3:
        return Motif((slot.length - 2 * _T, _T, _T), (rng.choice((-1, 1)), rng.choice((-1, 1))))
    pickup = 1.0 if slot.length > 2 and density == "medium" else 0.5
    return Motif((slot.length - 2 * pickup, pickup, pickup), (rng.choice((-1, 1)), 1))


class _MelodicLine:
    """Turn motifs into notes, each from the scale degree where the motif before ended."""

    def __init__(self, key: Key, span: tuple[int, int]) -> None:
        self.key = key
        self.span = span
        self.base = key.root + 12 * ((span[0] - key.root) // 12)
        middle = (span[0] + span[1]) // 2
        self.degree = min(range(0, 35), key=lambda d: abs(self.pitch(d, key.scale) - middle))
        self.notes: list[Note] = []

    def pitch(self, degree: int, scale: tuple[int, ...]) -> int:
        """Return the MIDI pitch of a scale degree, counted from the tonic below the range."""
        octave, step = divmod(degree, 7)
        return self.base + 12 * octave + (scale[step] - self.key.root) % 12

    def add(self, slot: Slot, motif: Motif, rng: random.Random) -> None:
        scale = scale_over(slot.chord, self.key)
        tones = {0} if slot.is_last else chord_degrees(slot.chord)
        degree = self._nearest(self.degree + rng.choice((-1, 0, 1)), tones, scale)
        time = slot.start
        for index, duration in enumerate(motif.durations):
            if index:
                strong = abs((time - slot.start) - round(time - slot.start)) < 1e-6
                allowed = tones if strong and duration >= 0.5 else set(range(7))
                degree = self._move(degree, motif.steps[index - 1], allowed, scale)
            on_beat = abs(time - round(time)) < 1e-6
            pitch = self.pitch(degree, scale)
            self.notes.append(Note(time, duration, pitch, 100 if on_beat else 90))
            time += duration
        self.degree = degree

    def _move(self, degree: int, step: int, allowed: set[int], scale: tuple[int, ...]) -> int:
        """Step to an allowed degree in the direction of ``step``; turn back at the range's end."""
        if step == 0:
            return self._nearest(degree, allowed, scale)
        inside = self._inside(allowed, scale)
        ahead = [d for d in inside if (d - degree) * step > 0]
        behind = [d for d in inside if (d - degree) * step < 0]
        goal = degree + step if ahead else degree - step
        return min(ahead or behind or inside, key=lambda d: (abs(d - goal), d))

    def _nearest(self, degree: int, allowed: set[int], scale: tuple[int, ...]) -> int:
        return min(self._inside(allowed, scale), key=lambda d: (abs(d - degree), d))

    def _inside(self, allowed: set[int], scale: tuple[int, ...]) -> list[int]:
        low, high = self.span
        return [d for d in range(35) if d % 7 in allowed and low <= self.pitch(d, scale) <= high]


def chord_degrees(chord: Chord) -> set[int]:
    """Return the scale degrees (0 is the tonic) of a chord's tones up to the seventh."""
    return {(chord.degree + LETTER_STEPS[i]) % 7 for i in chord.intervals if i <= 11}
