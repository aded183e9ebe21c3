"""Compose a solo, a duo or a band piece; all its features come from one random generator."""

import math
import random
from collections.abc import Iterable
from dataclasses import replace

from pipelines.data.scores.accompaniment import draw_texture, play_bass, play_chords
from pipelines.data.scores.chords import chords_of_slots
from pipelines.data.scores.drums import play_drums
from pipelines.data.scores.harmony import Slot, progression, slots
from pipelines.data.scores.instruments import BASSES, INSTRUMENTS, Instrument, balance
from pipelines.data.scores.keys import key_of
from pipelines.data.scores.melody import compose_melody
from pipelines.data.scores.score import Note, Part, Score, is_key_clear
from pipelines.data.scores.styles import DYNAMICS, STYLES, Style, moods
from prior.theory import METERS

DRUMS_ALONE = "drums"
ENSEMBLES = {"solo": 0.27, "duo": 0.23, "band": 0.5}
REGISTERS = ("low", "middle", "high")
_UNACCOMPANIED = 0.2
_OFF_BEAT = ("offbeat", "stabs", "charleston", "bossa")
"""Patterns that need a bass or drums under them: alone they would hide the beat."""
_TWO_BEAT_BASSES = ("root", "fifth", "bossa", "funk")
"""Bass patterns with a stroke on the third beat, where a bar of three has only one left."""
_TAIL_S = 2.0
_ATTEMPTS = 12


def compose(
    rng: random.Random,
    held_out: bool = False,
    style_name: str | None = None,
    ensemble: str | None = None,
    lead: str | None = None,
    drums: bool | None = None,
    num_phrases: int | None = None,
) -> Score:
    """Compose one piece of 12 to 65 seconds whose notes leave no doubt about its key.

    Args:
        rng: source of all draws.
        held_out: use the chord progressions kept for validation.
        style_name, ensemble, lead: fix these features instead of drawing them.
        drums: give a band drums or none, where its style has a pattern; None draws by the style.
        num_phrases: of four chords each; None draws as many as last 20, 40 or 60 s.

    Raises:
        ValueError: the style, ensemble or lead is unknown.
    """
    if ensemble not in (None, DRUMS_ALONE, *ENSEMBLES):
        wanted = [*ENSEMBLES, DRUMS_ALONE]
        raise ValueError(f"ensemble must be one of {wanted}, got {ensemble!r}")
    if lead is not None and lead not in INSTRUMENTS:
        raise ValueError(f"lead must be one of {list(INSTRUMENTS)}, got {lead!r}")
    if style_name is not None and style_name not in STYLES:
        raise ValueError(f"style must be one of {list(STYLES)}, got {style_name!r}")
    weights = [style.weight for style in STYLES.values()]
    for _ in range(_ATTEMPTS):  # the last attempt stays, though its key may be doubtful
        style = STYLES[style_name or rng.choices(list(STYLES), weights)[0]]
        players = ensemble or rng.choices(list(ENSEMBLES), list(ENSEMBLES.values()))[0]
        if players == "solo" and not style.solos and lead is None:
            players = "duo"
        if players == "duo" and style.drum_share == 1.0:
            players = "band"
        score = _Piece(rng, style, held_out, num_phrases).compose(players, lead, drums)
        if score.key is None or is_key_clear(score):
            break
    return score


class _Piece:
    """Draw the features of a piece, then the parts that have them."""

    def __init__(
        self, rng: random.Random, style: Style, held_out: bool, num_phrases: int | None
    ) -> None:
        self.rng, self.style = rng, style
        self.meter = METERS[rng.choice(style.meters)]
        low, high = style.tempo
        if self.meter.division == 3:  # a beat of 6/8 holds three notes, so it has to be slower
            high = max(60, min(high, 112))
            low = min(low, high - 8)
        self.tempo_bpm = rng.randint(low, high)
        self.key = key_of(rng.randrange(12), "minor" if rng.random() < style.minor else "major")
        self.harmony = self._chords_of(held_out, num_phrases)
        end = self.harmony[-1].start + self.harmony[-1].length
        self.phrase_beats = end / num_phrases if num_phrases else 0.0
        self.texture = draw_texture(rng, self.meter, self.tempo_bpm)
        self.dynamics = rng.choice(style.dynamics)
        self.register = rng.choices(REGISTERS, (0.25, 0.5, 0.25))[0]
        self.wanted_density = self._density()

    def _chords_of(self, held_out: bool, num_phrases: int | None) -> list[Slot]:
        """Draw chords that fit 20, 40 or 60 seconds with the last one ringing out."""
        meter, bar_s = self.meter, self.meter.beats * 60 / self.tempo_bpm
        # chords should last about two seconds: half a bar when bars are slow, two when fast
        halve = meter.name == "4/4" and bar_s > 2.4 and self.rng.random() < 0.5
        double = bar_s < 1.5 and self.style.bank == "modal"
        slot_beats = meter.beats * (0.5 if halve else 2.0 if double else 1.0)
        goal_s = self.rng.choices((20.0, 40.0, 60.0), (0.4, 0.4, 0.2))[0] - _TAIL_S
        phrase_s = 4 * slot_beats * 60 / self.tempo_bpm
        phrases = num_phrases or max(1, math.ceil(goal_s / phrase_s - 0.7))
        chords = progression(self.rng, self.style.bank, self.key, phrases, held_out)
        if double:  # melodies have no rhythms for such long chords: every chord is played twice
            chords, slot_beats = [chord for chord in chords for _ in (0, 1)], float(meter.beats)
        return slots(chords, self.key, slot_beats)

    def _density(self) -> str:
        """Draw a density of the style that is playable when fast and holds together when slow."""
        choices = list(self.style.densities)
        if self.tempo_bpm > 140:
            choices = [d for d in choices if d != "busy"] or choices
        if self.tempo_bpm < 76 and self.harmony[0].length > 2:
            choices = [d for d in choices if d != "sparse"] or choices
        return self.rng.choice(choices)

    def compose(self, ensemble: str, lead: str | None, drums: bool | None) -> Score:
        if ensemble == DRUMS_ALONE:
            parts = [self._drums(self.style.drums or "rock")]
        elif ensemble == "solo":
            parts = self._solo(lead)
        else:
            parts = self._ensemble(ensemble, lead, drums)
        parts = [finish(self.rng, part, self.tempo_bpm, self.dynamics) for part in parts]
        for part in parts if self.style.swing else []:
            part.notes = swung(part.notes)
        tempo_bpm, beats = float(self.tempo_bpm), self.phrase_beats
        score = Score(tempo_bpm, self.meter, self.key, parts, phrase_beats=beats)
        add_labels(score, "generated", ensemble, self.style.name, self.dynamics, self.register)
        if ensemble == DRUMS_ALONE:
            score.key = None
            return score
        score.chords = chords_of_slots(self.harmony)
        score.melody = swung(self.tune) if self.style.swing else self.tune
        return score

    def _melody(self, instrument: Instrument) -> list[Note]:
        span = register_span(instrument, self.register)
        self.tune = compose_melody(
            self.rng, self.harmony, self.key, self.meter, span, self.wanted_density
        )
        return list(self.tune)

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
        """Accompany the tune on its own instrument, about an octave below it."""
        low, _ = register_span(instrument, self.register)
        center = max(instrument.low - 9, min(low - 7, 55)) if instrument.low < 66 else low - 6
        pattern = self.rng.choice(self.style.patterns)
        if self.rng.random() < 0.3 and not instrument.sustained:
            pattern = self.rng.choice(("arpeggio", "alberti", "tenths", "block"))
        notes = play_chords(self.harmony, pattern, center, self.texture)
        if pattern in ("afterbeat", *_OFF_BEAT) or (
            pattern in ("block", "pad", "pulse") and self.rng.random() < 0.6
        ):
            bass, low = self._solo_bass(), center - 17
            notes += play_bass(self.rng, self.harmony, bass, low, self.key, self.texture)
        return [scaled(note, 0.74) for note in notes]

    def _solo_bass(self) -> str:
        if self.style.bass_patterns and self.meter.division == 2:
            pattern = self.rng.choice(self.style.bass_patterns)
            return "one" if self.meter.beats == 3 and pattern in _TWO_BEAT_BASSES else pattern
        return "hold" if self.meter.division == 2 else "compound"

    def _ensemble(self, ensemble: str, lead: str | None, drums: bool | None) -> list[Part]:
        name = lead or self.rng.choice(self.style.leads)
        instrument = INSTRUMENTS[name]
        program = self.rng.choice(instrument.programs)
        parts = [Part(name, program, self._melody(instrument), 64, 118)]
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
            share = self.style.drum_share
            if self.style.drums and (self.rng.random() < share if drums is None else drums):
                parts.append(self._drums(self.style.drums))
        return self._place([part for part in parts if part.notes])

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

    def _drums(self, name: str) -> Part:
        length = self.harmony[-1].start + self.harmony[-1].length
        phrase = 4 * self.harmony[0].length
        notes = play_drums(self.rng, name, self.meter, length, phrase)
        return Part("drums", self.style.kit, notes, volume=106)

    def _place(self, parts: list[Part]) -> list[Part]:
        """Pan tune, bass and drums near the middle and the others to the sides; set effects."""
        reverb = self.rng.randrange(25, 75)
        side = self.rng.choice((-1, 1))
        for index, part in enumerate(parts):
            is_low = part.is_drums or part.instrument in BASSES
            part.reverb = max(10, reverb - 25 * is_low)  # reverberation would muddy the beat
            part.chorus = self.rng.choice((0, 0, 20)) if not part.is_drums else 0
            if is_low:
                part.pan = 64
            elif index == 0:
                part.pan = 64 + self.rng.randrange(-14, 15)
            else:
                part.pan = 64 + side * self.rng.randrange(22, 46)
                side = -side
        return parts


def add_labels(
    score: Score, source: str, ensemble: str, style: str | None, dynamics: str, register: str
) -> None:
    """Label a piece that has its key, tempo and parts; mood and density follow from them."""
    mode = score.key.mode if score.key else None
    score.labels = {
        "style": style,
        "mood": moods(style or "", mode, score.tempo_bpm, dynamics) if style or mode else [],
        "density": density_word(score.parts[0].notes, score.tempo_bpm),
        "register": register,
        "dynamics": dynamics,
        "ensemble": ensemble,
        "source": source,
    }


def register_span(instrument: Instrument, register: str) -> tuple[int, int]:
    """Return the lowest and highest pitch of a register: at most an octave and a third wide."""
    width = min(16, instrument.high - instrument.low)
    spare = instrument.high - instrument.low - width
    low = instrument.low + round(spare * {"low": 0.0, "middle": 0.5, "high": 1.0}[register])
    return low, low + width


def density_word(notes: Iterable[Note], tempo_bpm: float) -> str:
    """Name the density of a part by its distinct onsets a second."""
    notes = list(notes)
    onsets = {round(note.start, 2) for note in notes}
    seconds = max(note.start + note.duration for note in notes) * 60 / tempo_bpm
    rate = len(onsets) / seconds  # Hz
    return "sparse" if rate < 1.6 else "medium" if rate < 3.6 else "busy"


def scaled(note: Note, factor: float) -> Note:
    """Multiply a note's velocity, within MIDI's 1 to 127."""
    return replace(note, velocity=max(1, min(127, round(note.velocity * factor))))


def finish(rng: random.Random, part: Part, tempo_bpm: float, dynamics: str) -> Part:
    """Humanize a part: set its loudness, vary timing and velocity, and separate its notes.

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
    """Cut a note short where its pitch is struck again, as a string can sound only once."""
    following: dict[int, float] = {}
    kept = []
    for note in sorted(notes, key=lambda n: (-n.start, n.pitch, n.duration)):
        limit = following.get(note.pitch, math.inf)
        if limit - note.start > 0.02:
            length = min(note.duration, limit - note.start)
            kept.append(replace(note, duration=length))
            following[note.pitch] = note.start
    return kept[::-1]


def swung(notes: list[Note]) -> list[Note]:
    """Move the middle of every beat of notes to its last third."""
    return [
        Note(_late(n.start), _late(n.start + n.duration) - _late(n.start), n.pitch, n.velocity)
        for n in notes
    ]


def _late(time: float) -> float:
    beat, fraction = divmod(time, 1.0)
    return beat + (fraction * 4 / 3 if fraction < 0.5 else 2 / 3 + (fraction - 0.5) * 2 / 3)
