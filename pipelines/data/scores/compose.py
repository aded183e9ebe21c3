"""Compose a solo, a duo or a band piece: everything about it is drawn from one generator."""

import math
import random
from collections.abc import Iterable
from dataclasses import replace

from pipelines.data.scores.accompaniment import (
    Texture,
    draw_texture,
    play_bass,
    play_chords,
)
from pipelines.data.scores.chords import chords_of_slots
from pipelines.data.scores.drums import choose_pattern, play_drums
from pipelines.data.scores.harmony import Slot, progression, slots
from pipelines.data.scores.instruments import BASSES, INSTRUMENTS, Instrument, balance
from pipelines.data.scores.keys import Key, key_of
from pipelines.data.scores.melody import compose_melody
from pipelines.data.scores.score import Note, Part, Score, is_key_clear
from pipelines.data.scores.styles import DYNAMICS, STYLES, Style, moods
from prior.theory import METERS, Meter

ENSEMBLES = {"solo": 0.27, "duo": 0.23, "band": 0.5}
REGISTERS = ("low", "middle", "high")
_UNACCOMPANIED = 0.2
_OFF_BEAT = ("offbeat", "stabs", "charleston", "bossa")
"""Patterns that need a bass or drums under them for the beat to be heard."""
_TWO_BEAT_BASSES = ("root", "fifth", "bossa", "funk")
_TAIL_S = 2.0
_ATTEMPTS = 12


def compose(
    rng: random.Random,
    held_out: bool = False,
    style_name: str | None = None,
    ensemble: str | None = None,
    lead: str | None = None,
    drums: bool | None = None,
) -> Score:
    """Compose one piece of 12 to 65 seconds whose notes leave no doubt about its key.

    Args:
        rng: source of all draws.
        held_out: use the chord progressions kept for validation.
        style_name, ensemble, lead: fix what is drawn otherwise.
        drums: whether a band has them, where its style knows any; drawn by the style if None.

    Raises:
        ValueError: an unknown style, ensemble or lead.
    """
    if ensemble not in (None, *ENSEMBLES):
        raise ValueError(f"ensemble must be one of {list(ENSEMBLES)}, got {ensemble!r}")
    if lead is not None and lead not in INSTRUMENTS:
        raise ValueError(f"lead must be one of {list(INSTRUMENTS)}, got {lead!r}")
    for _ in range(_ATTEMPTS):
        style = _choose_style(rng, style_name)
        score = _compose_once(rng, held_out, style, ensemble, lead, drums)
        if is_key_clear(score):
            break
    return score


def _compose_once(
    rng: random.Random,
    held_out: bool,
    style: Style,
    ensemble: str | None,
    lead: str | None,
    drums: bool | None,
) -> Score:
    ensemble = ensemble or rng.choices(list(ENSEMBLES), list(ENSEMBLES.values()))[0]
    if ensemble == "solo" and not style.solos and lead is None:
        ensemble = "duo"
    if ensemble == "duo" and style.drum_share == 1.0:
        ensemble = "band"
    meter = METERS[rng.choice(style.meters)]
    tempo_bpm = _draw_tempo(rng, style, meter)
    key = key_of(rng.randrange(12), "minor" if rng.random() < style.minor else "major")
    harmony = _plan(rng, style, meter, tempo_bpm, key, held_out)
    return _Piece(rng, style, meter, tempo_bpm, key, harmony).compose(ensemble, lead, drums)


def _choose_style(rng: random.Random, name: str | None) -> Style:
    if name is None:
        return rng.choices(list(STYLES.values()), [style.weight for style in STYLES.values()])[0]
    if name not in STYLES:
        raise ValueError(f"style must be one of {list(STYLES)}, got {name!r}")
    return STYLES[name]


def _draw_tempo(rng: random.Random, style: Style, meter: Meter) -> int:
    """Uniform; a dotted quarter in 6/8 holds three notes, so it stays slower."""
    low, high = style.tempo
    if meter.division == 3:
        low, high = low, max(60, min(high, 112))
        low = min(low, high - 8)
    return rng.randint(low, high)


def _plan(
    rng: random.Random, style: Style, meter: Meter, tempo_bpm: int, key: Key, held_out: bool
) -> list[Slot]:
    """Chords for a piece that fits 20, 40 or 60 seconds with its last chord ringing out."""
    bar_s = meter.beats * 60 / tempo_bpm
    halve = meter.name == "4/4" and bar_s > 2.4 and rng.random() < 0.5
    double = bar_s < 1.5 and style.bank == "modal"
    slot_beats = meter.beats * (0.5 if halve else 2.0 if double else 1.0)
    goal_s = rng.choices((20.0, 40.0, 60.0), (0.4, 0.4, 0.2))[0] - _TAIL_S
    phrase_s = 4 * slot_beats * 60 / tempo_bpm
    phrases = max(1, math.ceil(goal_s / phrase_s - 0.7))
    if double:  # no rhythm tables for such long chords: every chord is played twice
        chords = [n for n in progression(rng, style.bank, key, phrases, held_out) for _ in (0, 1)]
        return slots(chords, key, float(meter.beats))
    return slots(progression(rng, style.bank, key, phrases, held_out), key, slot_beats)


class _Piece:
    """The choices made so far for one piece, and the parts written on them."""

    def __init__(
        self,
        rng: random.Random,
        style: Style,
        meter: Meter,
        tempo_bpm: int,
        key: Key,
        harmony: list[Slot],
    ) -> None:
        self.rng = rng
        self.style = style
        self.meter = meter
        self.tempo_bpm = tempo_bpm
        self.key = key
        self.harmony = harmony
        self.texture: Texture = draw_texture(rng, meter, tempo_bpm)
        self.dynamics = rng.choice(style.dynamics)
        self.register = rng.choices(REGISTERS, (0.25, 0.5, 0.25))[0]
        self.wanted_density = self._density()

    def _density(self) -> str:
        """Drawn from the style, but no faster than fingers and no slower than attention."""
        choices = list(self.style.densities)
        if self.tempo_bpm > 140:
            choices = [d for d in choices if d != "busy"] or choices
        if self.tempo_bpm < 76 and self.harmony[0].length > 2:
            choices = [d for d in choices if d != "sparse"] or choices
        return self.rng.choice(choices)

    def compose(self, ensemble: str, lead: str | None, drums: bool | None) -> Score:
        alone = ensemble == "solo"
        parts = self._solo(lead) if alone else self._ensemble(ensemble, lead, drums)
        parts = [finish(self.rng, part, self.tempo_bpm, self.dynamics) for part in parts]
        if self.style.swing:
            parts = [swing(part) for part in parts]
        labels = {
            "style": self.style.name,
            "mood": moods(self.style.name, self.key.mode, self.tempo_bpm, self.dynamics),
            "density": density_word(parts[0].notes, self.tempo_bpm),
            "register": self.register,
            "dynamics": self.dynamics,
            "ensemble": ensemble,
            "source": "generated",
        }
        chords = chords_of_slots(self.harmony)
        return Score(float(self.tempo_bpm), self.meter, self.key, parts, labels, chords=chords)

    def _melody(self, instrument: Instrument) -> list[Note]:
        span = register_span(instrument, self.register)
        return compose_melody(
            self.rng, self.harmony, self.key, self.meter, span, self.wanted_density
        )

    def _solo(self, lead: str | None) -> list[Part]:
        alone = lead is not None and not INSTRUMENTS[lead].polyphonic
        if lead is None and self.rng.random() < _UNACCOMPANIED:
            melodic = [n for n in self.style.leads if not INSTRUMENTS[n].polyphonic]
            lead, alone = (self.rng.choice(melodic), True) if melodic else (None, False)
        instrument = INSTRUMENTS[lead or self.rng.choice(self.style.solos)]
        notes = self._melody(instrument)
        if not alone:
            notes += self._left_hand(instrument)
        part = Part(instrument.name, self.rng.choice(instrument.programs), notes, 64, 110)
        part.reverb = self.rng.randrange(30, 80)
        return [part]

    def _left_hand(self, instrument: Instrument) -> list[Note]:
        """Accompaniment under the tune on the same instrument, an octave or more below it."""
        low, _ = register_span(instrument, self.register)
        center = max(instrument.low - 9, min(low - 7, 55)) if instrument.low < 66 else low - 6
        pattern = self.rng.choice(self.style.patterns)
        if self.rng.random() < 0.3 and not instrument.sustained:
            pattern = self.rng.choice(("arpeggio", "alberti", "tenths", "block"))
        notes = play_chords(self.harmony, pattern, center, self.texture)
        if pattern in ("afterbeat", "offbeat", "stabs", "charleston", "bossa") or (
            pattern in ("block", "pad", "pulse") and self.rng.random() < 0.6
        ):
            notes += play_bass(
                self.rng, self.harmony, self._solo_bass(), center - 17, self.key, self.texture
            )
        return [scaled(note, 0.74) for note in notes]

    def _solo_bass(self) -> str:
        if self.style.bass_patterns and self.meter.division == 2:
            pattern = self.rng.choice(self.style.bass_patterns)
            return "one" if self.meter.beats == 3 and pattern in _TWO_BEAT_BASSES else pattern
        return "hold" if self.meter.division == 2 else "compound"

    def _ensemble(self, ensemble: str, lead: str | None, drums: bool | None) -> list[Part]:
        name = lead or self.rng.choice(self.style.leads)
        instrument = INSTRUMENTS[name]
        parts = [
            Part(name, self.rng.choice(instrument.programs), self._melody(instrument), 64, 118)
        ]
        others = [n for n in self.style.chords if n != name] or list(self.style.chords)
        pattern = self.rng.choice(self.style.patterns)
        if ensemble == "duo" and pattern in _OFF_BEAT:
            pattern = "block"
        parts.append(self._chords(self.rng.choice(others), pattern))
        if ensemble == "band":
            if self.style.basses:
                parts.append(self._bass(self.rng.choice(self.style.basses)))
            if self.style.pad and self.rng.random() < 0.5:
                parts.append(self._chords(self.rng.choice(self.style.pad), "pad", 58))
            if self.style.drums and self._has_drums(drums):
                parts.append(self._drums())
        return self._place([part for part in parts if part.notes])

    def _has_drums(self, drums: bool | None) -> bool:
        return self.rng.random() < self.style.drum_share if drums is None else drums

    def _chords(self, name: str, pattern: str, volume: int = 76) -> Part:
        instrument = INSTRUMENTS[name]
        center = max(instrument.low + 3, min(58, instrument.high - 8))
        notes = play_chords(self.harmony, pattern, center, self.texture)
        return Part(name, self.rng.choice(instrument.programs), notes, volume=volume)

    def _bass(self, name: str) -> Part:
        pattern = self.rng.choice(self.style.bass_patterns)
        if self.meter.division == 3 and pattern not in ("hold", "walking"):
            pattern = "compound"
        if self.meter.beats == 3 and pattern in _TWO_BEAT_BASSES:
            pattern = "one"
        notes = play_bass(self.rng, self.harmony, pattern, 31, self.key, self.texture)
        return Part(name, self.rng.choice(INSTRUMENTS[name].programs), notes, volume=88)

    def _drums(self) -> Part:
        assert self.style.drums is not None
        pattern = choose_pattern(self.style.drums, self.meter)
        length = self.harmony[-1].start + self.harmony[-1].length
        phrase = 4 * self.harmony[0].length
        notes = play_drums(self.rng, pattern, self.meter, length, phrase)
        return Part("drums", self.style.kit, notes, volume=106)

    def _place(self, parts: list[Part]) -> list[Part]:
        """Tune, bass and drums near the middle, the others to the sides; one room for all."""
        room = self.rng.randrange(25, 75)
        side = self.rng.choice((-1, 1))
        for index, part in enumerate(parts):
            part.reverb = max(10, room - 25 * (part.is_drums or part.instrument in BASSES))
            part.chorus = self.rng.choice((0, 0, 20)) if not part.is_drums else 0
            if part.is_drums or part.instrument in BASSES:
                part.pan = 64
            elif index == 0:
                part.pan = 64 + self.rng.randrange(-14, 15)
            else:
                part.pan = 64 + side * self.rng.randrange(22, 46)
                side = -side
        return parts


def register_span(instrument: Instrument, register: str) -> tuple[int, int]:
    """A melodic range of about an octave and a third, low, in the middle or high."""
    width = min(16, instrument.high - instrument.low)
    room = instrument.high - instrument.low - width
    low = instrument.low + round(room * {"low": 0.0, "middle": 0.5, "high": 1.0}[register])
    return low, low + width


def density_word(notes: Iterable[Note], tempo_bpm: float) -> str:
    """How many different onsets a second a part has, as a word."""
    notes = list(notes)
    onsets = {round(note.start, 2) for note in notes}
    seconds = max(note.start + note.duration for note in notes) * 60 / tempo_bpm
    rate = len(onsets) / seconds
    return "sparse" if rate < 1.6 else "medium" if rate < 3.6 else "busy"


def scaled(note: Note, factor: float) -> Note:
    """The same note, softer or louder."""
    return Note(
        note.start, note.duration, note.pitch, max(1, min(127, round(note.velocity * factor)))
    )


def finish(rng: random.Random, part: Part, tempo_bpm: float, dynamics: str) -> Part:
    """Play a part like a person: loudness of the piece, small errors in time and touch, breath.

    Timing errors have a standard deviation of 6 ms (3 ms for drums), so the tempo stays exact.
    """
    beat_s = 60 / tempo_bpm
    spread = (0.003 if part.is_drums else 0.006) / beat_s
    level = DYNAMICS[dynamics] / 100
    if not part.is_drums:
        part.volume = min(127, round(part.volume * balance(part.program)))
    notes = []
    for note in part.notes:
        start = max(0.0, note.start + max(-2.5, min(2.5, rng.gauss(0, 1))) * spread)
        velocity = round(note.velocity * level + rng.gauss(0, 3))
        length = max(0.05, note.duration * 0.96 if note.duration < 1 else note.duration - 0.06)
        notes.append(Note(start, length, note.pitch, max(12, min(127, velocity))))
    part.notes = without_overlap(notes)
    return part


def without_overlap(notes: list[Note]) -> list[Note]:
    """Cut a note short where the same pitch is struck again, as one string can sound only once."""
    following: dict[int, float] = {}
    kept = []
    for note in sorted(notes, key=lambda n: (-n.start, n.pitch, n.duration)):
        limit = following.get(note.pitch, math.inf)
        if limit - note.start > 0.02:
            length = min(note.duration, limit - note.start)
            kept.append(replace(note, duration=length))
            following[note.pitch] = note.start
    return kept[::-1]


def swing(part: Part) -> Part:
    """Move the middle of every beat to its last third."""
    part.notes = [
        Note(_late(n.start), _late(n.start + n.duration) - _late(n.start), n.pitch, n.velocity)
        for n in part.notes
    ]
    return part


def _late(time: float) -> float:
    beat, fraction = divmod(time, 1.0)
    return beat + (fraction * 4 / 3 if fraction < 0.5 else 2 / 3 + (fraction - 0.5) * 2 / 3)
