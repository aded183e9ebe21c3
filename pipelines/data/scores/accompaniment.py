"""Generate accompaniments: the notes that chord instruments and basses play under a tune."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from pipelines.data.scores.harmony import Slot
from pipelines.data.scores.keys import Chord, Key, scale_over
from pipelines.data.scores.score import Note
from pipelines.data.scores.tables import read_table
from prior.theory import Meter

Hit = tuple[float, float, tuple[int, ...], float]
"""A stroke: offset in its slot and duration (beats), pitches, accent from 0 to 1."""


@dataclass(frozen=True)
class Texture:
    """Hold the settings that all patterns of one piece share."""

    meter: Meter
    unit: float  # note length of running figures (beats)
    strum: float  # delay from string to string (beats)
    pulse: float  # distance of block chords (beats)
    figure: tuple[int, ...]  # indices into the voicing, repeated by an ostinato


def draw_texture(rng: random.Random, meter: Meter, tempo_bpm: float) -> Texture:
    """Draw note lengths that stay playable at a tempo: two to eight notes a second."""
    beat_s = 60 / tempo_bpm
    units = (1.0, 1 / 3) if meter.division == 3 else (1.0, 0.5, 0.25)
    playable = [unit for unit in units if 0.12 <= unit * beat_s <= 0.45] or [units[1]]
    pulses = [pulse for pulse in (1.0, 2.0) if pulse * beat_s >= 0.3 and meter.beats % pulse == 0]
    return Texture(
        meter=meter,
        unit=rng.choice(playable),
        strum=0.014 / beat_s,
        pulse=rng.choice(pulses),
        figure=tuple(rng.choice(((0, 1, 2, 1), (0, 2, 1, 2), (0, 1, 2, 3), (0, 3, 2, 1)))),
    )


def voice(chord: Chord, center: int) -> list[int]:
    """Voice a chord closely: every chord tone in the octave around a pitch, lowest first."""
    # a chord of five tones leaves its root to the bass
    tones = chord.pitch_classes if len(chord.intervals) <= 4 else chord.pitch_classes[1:]
    return sorted(center - 6 + (tone - center + 6) % 12 for tone in tones)


def bass_note(chord: Chord, low: int) -> int:
    """Return a chord's root in the octave above ``low``."""
    return low + (chord.root - low) % 12


def _run(slot: Slot, unit: float, pitches: list[int]) -> list[Hit]:
    """Repeat pitches in notes of one length, accented on the beats."""
    starts = [i * unit for i in range(round(slot.length / unit))]
    accents = [1.0 if abs(start - round(start)) < 1e-6 else 0.75 for start in starts]
    return [
        (start, unit, (pitches[i % len(pitches)],), accent)
        for i, (start, accent) in enumerate(zip(starts, accents, strict=True))
    ]


def pad(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Hold the chord."""
    return [(0.0, slot.length, tuple(tones), 0.85)]


def block(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Strike the chord on the beats."""
    count = max(1, round(slot.length / texture.pulse))
    pulse = slot.length / count
    return [(i * pulse, pulse * 0.95, tuple(tones), 0.9 if i else 1.0) for i in range(count)]


def pulse(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Repeat the chord in short notes."""
    return [
        (start, length * 0.8, tuple(tones), accent)
        for start, length, _, accent in _run(slot, max(texture.unit, 0.33), [0])
    ]


def offbeat(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play short chords between the beats."""
    late = 2 / 3 if texture.meter.division == 3 else 0.5
    return [(beat + late, 0.4, tuple(tones), 0.8) for beat in range(round(slot.length))]


def afterbeat(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play the "pah" of a waltz: after the first of three beats, else on two and four."""
    if texture.meter.division == 3:
        thirds = [b + t / 3 for b in range(round(slot.length)) for t in (1, 2)]
        return [(start, 0.3, tuple(tones), 0.7) for start in thirds]
    beats = [b for b in range(round(slot.length)) if (b if texture.meter.beats == 3 else b % 2)]
    return [(float(beat), 0.7, tuple(tones), 0.75) for beat in beats]


def arpeggio(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play the chord tones and the octave upward, over and over."""
    return _ring(_run(slot, texture.unit, [*tones, tones[0] + 12]), slot)


def updown(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play the chord tones and the octave upward and downward."""
    ladder = [*tones, tones[0] + 12]
    return _ring(_run(slot, texture.unit, ladder + ladder[-2:0:-1]), slot)


def alberti(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play an Alberti bass: low, high, middle, high; low, middle, high in compound time."""
    order = [0, 1, 2] if texture.meter.division == 3 else [0, 2, 1, 2]
    return _run(slot, texture.unit, [tones[i] for i in order])


def ostinato(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Repeat the figure of the piece on the tones of the chord."""
    ladder = [*tones, *(tone + 12 for tone in tones)]
    return _run(slot, texture.unit, [ladder[i] for i in texture.figure])


def strum(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Strum down and up, string after string; up strokes are weak and take the top strings."""
    wide = [tones[0], *tones[1:], tones[0] + 12]
    if texture.meter.division == 3:
        strokes = [(0, 1.0), (2 / 3, 0.6), (1, 0.9), (5 / 3, 0.6)]
    elif texture.meter.beats == 3:
        strokes = [(0, 1.0), (1, 0.8), (1.5, 0.55), (2, 0.8), (2.5, 0.55)]
    else:
        strokes = [(0, 1.0), (1, 0.8), (1.5, 0.55), (2.5, 0.6), (3, 0.8), (3.5, 0.55)]
    strokes = [stroke for stroke in strokes if stroke[0] < slot.length]
    hits: list[Hit] = []
    for i, (start, accent) in enumerate(strokes):
        stop = strokes[i + 1][0] if i + 1 < len(strokes) else slot.length
        strings = wide if accent > 0.7 else wide[::-1][:3]
        hits += [
            (start + k * texture.strum, stop - start, (tone,), accent)
            for k, tone in enumerate(strings)
        ]
    return hits


def bossa(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play the syncopated chords of a bossa nova guitar."""
    starts = [s for s in (0.0, 1.0, 1.5, 2.5, 3.5) if s < slot.length]
    return [(start, 0.45, tuple(tones), 0.75 if start else 0.9) for start in starts]


def charleston(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play the Charleston rhythm of jazz: a chord on one, and one before three."""
    strokes = [(0.0, 1.2), (1.5, 0.6)] if slot.length > 1.5 else [(0.0, 0.8)]
    return [(start, length, tuple(tones), 0.85) for start, length in strokes]


def stabs(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play the short, syncopated chords of funk."""
    starts = [s for s in (0.0, 0.75, 1.5, 2.75, 3.5) if s < slot.length]
    return [(start, 0.22, tuple(tones), 0.8 if start else 0.95) for start in starts]


def tenths(slot: Slot, tones: list[int], texture: Texture) -> list[Hit]:
    """Play root, fifth, octave and tenth: a wide figure of the left hand."""
    figure = [tones[0], tones[-1], tones[0] + 12, tones[1] + 12]
    return _ring(_run(slot, max(texture.unit, 1 / 3), figure), slot)


def _ring(hits: list[Hit], slot: Slot) -> list[Hit]:
    """Lengthen notes to a beat, as a pedal does, but not into the next chord."""
    return [(s, max(d, min(1.0, slot.length - s)), p, a) for s, d, p, a in hits]


Pattern = Callable[[Slot, list[int], Texture], list[Hit]]
CHORD_PATTERNS: dict[str, Pattern] = {
    f.__name__: f
    for f in (
        pad, block, pulse, offbeat, afterbeat, arpeggio, updown, alberti, ostinato, strum, bossa,
        charleston, stabs, tenths,
    )
}  # fmt: skip
_BASS_RHYTHMS = read_table("rhythms")["bass"]
_COMPOUND = ((0.0, 0.6), (2 / 3, 0.3))  # first and last third of a beat


def play_chords(harmony: list[Slot], pattern: str, center: int, texture: Texture) -> list[Note]:
    """Generate a chord instrument's part; the last chord is struck once and held."""
    notes = []
    for slot in harmony:
        tones = voice(slot.chord, center)
        shape = pad if slot.is_last else CHORD_PATTERNS[pattern]
        for start, duration, pitches, accent in shape(slot, tones, texture):
            held = min(duration, slot.length - start)
            notes += [
                Note(slot.start + start, held, pitch, round(100 * accent)) for pitch in pitches
            ]
    return notes


def play_bass(
    rng: random.Random, harmony: list[Slot], pattern: str, low: int, key: Key, texture: Texture
) -> list[Note]:
    """Generate a bass part; every pattern plays the root where the chord changes."""
    notes = []
    for index, slot in enumerate(harmony):
        root = bass_note(slot.chord, low)
        following = harmony[min(index + 1, len(harmony) - 1)]
        if slot.is_last:
            line = [(0.0, slot.length, root)]
        elif pattern == "walking":
            line = _walk(rng, slot, root, bass_note(following.chord, low), key)
        elif pattern == "compound":
            line = [(b + s, d, root) for b in range(round(slot.length)) for s, d in _COMPOUND]
        else:
            tones = {i % 12 for i in slot.chord.intervals} | {0}
            line = [  # the root stands in for an interval that the chord does not hold
                (s, min(d, slot.length - s), root + (i if i % 12 in tones else 0))
                for s, d, i in _BASS_RHYTHMS[pattern]
                if s < slot.length
            ]
        notes += [
            Note(slot.start + start, duration, pitch, 100 if start == int(start) else 86)
            for start, duration, pitch in line
        ]
    return notes


def _walk(
    rng: random.Random, slot: Slot, root: int, goal: int, key: Key
) -> list[tuple[float, float, int]]:
    """Walk in quarter notes from the root through chord tones to a neighbor of the next root."""
    beats = round(slot.length)
    scale = scale_over(slot.chord, key)
    tones = [root + interval for interval in slot.chord.intervals if 0 < interval < 12]
    middle = [rng.choice(tones) for _ in range(max(0, beats - 2))]
    # a half step leads to the next root where the scale has one, else a whole step
    below = goal - (1 if (goal - 1) % 12 in scale else 2)
    above = goal + (1 if (goal + 1) % 12 in scale else 2)
    line = [root, *sorted(middle, reverse=goal < root), rng.choice((below, above))][:beats]
    return [(float(beat), 0.9, pitch) for beat, pitch in enumerate(line)]
