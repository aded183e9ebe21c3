"""Arrange generated chords with MMA (Musical MIDI Accompaniment), and add a tune on top."""

import random
import tempfile
from dataclasses import replace
from pathlib import Path

from symusic.core import ScoreTick

from pipelines.data.midi_file import read_midi
from pipelines.data.scores.accompaniment import bass_note, voice
from pipelines.data.scores.chords import chords_of_slots
from pipelines.data.scores.compose import add_labels, finish, register_span, scaled, swung
from pipelines.data.scores.drums import CRASH, KICK
from pipelines.data.scores.harmony import Slot, progression, slots
from pipelines.data.scores.instruments import BASSES, INSTRUMENTS, balance, name_of_program
from pipelines.data.scores.keys import Chord, key_of
from pipelines.data.scores.melody import compose_melody
from pipelines.data.scores.score import Note, Part, Score, is_key_clear, top_voice
from pipelines.data.scores.score_midi import read_tracks
from pipelines.data.scores.score_sound import run_player
from pipelines.data.scores.styles import DYNAMICS, STYLES
from pipelines.data.scores.tables import read_table
from prior.theory import METERS, PITCH_NAMES

GROOVES = read_table("grooves")
"""MMA groove, style label, slowest and fastest tempo (beats a minute)."""
# Style whose tune, harmony and loudness stand in where only MMA plays a style.
_BORROWED = {
    "tango": "latin", "ragtime": "jazz", "polka": "waltz", "country": "folk", "ska": "rock",
    "soul": "ballad", "world": "folk",
}  # fmt: skip
_SUFFIXES = {
    (0, 4, 7): "", (0, 3, 7): "m", (0, 4, 7, 10): "7", (0, 3, 7, 10): "m7", (0, 4, 7, 11): "M7",
    (0, 3, 6): "dim", (0, 3, 6, 9): "dim7", (0, 3, 6, 10): "m7b5", (0, 4, 8): "aug",
    (0, 5, 7): "sus4", (0, 5, 7, 10): "7sus4", (0, 7): "5", (0, 4, 7, 9): "6", (0, 3, 7, 9): "m6",
    (0, 4, 7, 10, 14): "9", (0, 3, 7, 10, 14): "m9", (0, 4, 7, 14): "add9",
    (0, 3, 7, 14): "m(add9)", (0, 4, 7, 11, 14): "M9",
}  # fmt: skip
_ATTEMPTS = 4


def arrange(rng: random.Random, held_out: bool = False, groove: str | None = None) -> Score:
    """Let MMA play a chord progression in a groove, drawn or given, and put a tune on top.

    Raises:
        RenderError: MMA failed.
        ValueError: the groove is unknown.
    """
    rows = [row for row in GROOVES if groove in (None, row[0])]
    if not rows:
        raise ValueError(f"groove must be one of {[row[0] for row in GROOVES]}, got {groove!r}")
    for _ in range(_ATTEMPTS):
        score = _arrange_once(rng, held_out, rng.choice(rows))
        if is_key_clear(score):
            break
    return score


def _arrange_once(rng: random.Random, held_out: bool, row: tuple[str, str, int, int]) -> Score:
    name, style_name, slowest, fastest = row
    style = STYLES[_BORROWED.get(style_name, style_name)]
    meter = METERS["3/4" if "Waltz" in name else "4/4"]
    tempo_bpm = rng.randint(slowest, fastest)
    key = key_of(rng.randrange(12), "minor" if rng.random() < style.minor else "major")
    phrase_s = 4 * meter.beats * 60 / tempo_bpm
    phrases = max(1, round((rng.choice((20.0, 40.0, 60.0)) - 2) / phrase_s))
    harmony = slots(progression(rng, style.bank, key, phrases, held_out), key, float(meter.beats))
    # MMA does not play the last chord, which _backing holds for a bar instead
    midi = _run_mma(mma_source(name, tempo_bpm, harmony[:-1], rng.randrange(1 << 30)))
    dynamics = rng.choice(style.dynamics)
    backing = _backing(midi, harmony, DYNAMICS[dynamics] / 92)
    playing = {part.instrument for part in backing}
    leads = [name for name in style.leads if name not in playing] or list(style.leads)
    lead = INSTRUMENTS[rng.choice(leads)]
    register = rng.choice(("low", "middle", "middle", "high"))
    density = rng.choice(style.densities)
    tune = compose_melody(rng, harmony, key, meter, register_span(lead, register), density)
    pan = 64 + rng.randrange(-12, 13)
    part = Part(lead.name, rng.choice(lead.programs), tune, pan, 118, 50)
    parts = [finish(rng, part, tempo_bpm, dynamics), *backing]
    if style.swing:
        parts[0].notes = swung(parts[0].notes)
    score = Score(float(tempo_bpm), meter, key, parts, chords=chords_of_slots(harmony))
    ensemble = "duo" if len({part.instrument for part in parts}) == 2 else "band"
    add_labels(score, "mma", ensemble, style_name, dynamics, register)
    score.melody = top_voice(parts[0].notes)
    return score


def mma_source(groove: str, tempo_bpm: int, harmony: list[Slot], seed: int) -> str:
    """Build the chord sheet in MMA's language, one bar a line."""
    lines = [f"RndSeed {seed}", f"Tempo {tempo_bpm}", f"Groove {groove}"]
    lines += [f"{i + 1} {chord_name(slot.chord)}" for i, slot in enumerate(harmony)]
    return "\n".join(lines) + "\n"


def chord_name(chord: Chord) -> str:
    """Name a chord in MMA's notation."""
    return PITCH_NAMES[chord.root] + _SUFFIXES[chord.intervals]


def _run_mma(source: str) -> ScoreTick:
    with tempfile.TemporaryDirectory(prefix="partita-mma-") as folder:
        sheet, target = Path(folder, "piece.mma"), Path(folder, "piece.mid")
        sheet.write_text(source)
        return read_midi(run_player("mma", ["-w", str(sheet), "-f"], target))


def _backing(midi: ScoreTick, harmony: list[Slot], touch: float) -> list[Part]:
    """Turn MMA's tracks into parts quieter than a tune, and add the last chord."""
    final = harmony[-1]
    end = final.start
    parts = []
    for program, drums, notes in read_tracks(midi):
        name = "drums" if drums else name_of_program(program)
        kept = [
            scaled(
                replace(n, start=max(0.0, n.start), duration=min(n.duration, end - n.start)), touch
            )
            for n in notes
            if n.start < end - 0.02
        ]
        if kept and name is not None:
            parts.append(Part(name, program, kept, volume=106 if drums else 88, reverb=40))
    pitched = [part for part in parts if not part.is_drums and part.instrument not in BASSES]
    if not pitched:  # the groove has only bass and drums: a piano holds the last chord
        parts.append(Part("piano", 0, [], volume=72))
        pitched = parts[-1:]
    sides = [40, 88, 52, 76, 30, 98]
    for index, part in enumerate(pitched):
        part.pan = sides[index % len(sides)]
        part.volume = round((70 - 4 * min(4, len(pitched))) * balance(part.program))
    for part in parts:
        part.notes += _last_chord(part, part is pitched[0], final)
    return parts


def _last_chord(part: Part, is_first: bool, final: Slot) -> list[Note]:
    if part.is_drums:
        return [Note(final.start, 1.0, KICK, 96), Note(final.start, 2.0, CRASH, 72)]
    if part.instrument in BASSES:
        return [Note(final.start, final.length, bass_note(final.chord, 31), 90)]
    tones = voice(final.chord, 58) if is_first else []
    return [Note(final.start, final.length, tone, 76) for tone in tones]
