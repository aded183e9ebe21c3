"""Compose songs: sections that return with the same harmony, melody and players, and an ending."""

import random
from collections.abc import Iterable
from dataclasses import replace

from pipelines.data.scores.chords import joined
from pipelines.data.scores.compose import compose
from pipelines.data.scores.score import Note, Part, Score, is_key_clear
from prior.plan import Section
from prior.plan_draft import chords_between

FORMS = (
    "intro verse chorus verse chorus outro",
    "intro verse chorus verse chorus bridge chorus outro",
    "verse chorus verse chorus bridge chorus chorus outro",
    "intro verse verse chorus verse chorus outro",
    "chorus verse chorus verse bridge chorus outro",
)
PHRASES = {"intro": 1, "verse": 2, "chorus": 2, "bridge": 2, "outro": 1}
"""Phrases of four chords in each section."""
SHORTEST_S, LONGEST_S = 60.0, 240.0
_ATTEMPTS = 12
_EARLY = 0.1  # beats by which a note may be struck before the section that it belongs to


def compose_song(rng: random.Random, held_out: bool = False) -> Score:
    """Compose a song of one to four minutes, in a style that is drawn.

    Every section is composed once, as a stretch of one long piece, and then played wherever the
    form names it; the outro is the piece's own end, which rings out.
    """
    for _ in range(_ATTEMPTS):  # the last attempt stays, though it may be too short or too long
        form = rng.choice(FORMS).split()
        names = [name for name in PHRASES if name in form]
        count = sum(PHRASES[name] for name in names)
        piece = compose(rng, held_out, ensemble="band", num_phrases=count)
        song = unfold(rng, piece, names, form)
        if SHORTEST_S <= song.duration_s <= LONGEST_S and is_key_clear(song):
            break
    return song


def unfold(rng: random.Random, piece: Score, names: list[str], form: list[str]) -> Score:
    """Play the sections of a piece, which come in the order of ``names``, in that of ``form``."""
    starts, beat = {}, 0.0
    for name in names:
        starts[name] = beat
        beat += PHRASES[name] * piece.phrase_beats
    silent = {name: draw_silent(rng, name, piece.parts) for name in names}
    parts = [replace(part, notes=[]) for part in piece.parts]
    song = replace(piece, parts=parts, chords=[], melody=[], sections=[])
    song.labels = {**piece.labels, "source": "songs"}
    place = 0.0
    for index, name in enumerate(form):
        first, length = starts[name], PHRASES[name] * piece.phrase_beats
        last = first + length
        for number, part in enumerate(piece.parts):
            if number not in silent[name]:
                stop = None if index == len(form) - 1 else last
                parts[number].notes += moved(part.notes, first, last, stop, place)
        if 0 not in silent[name]:
            song.melody += moved(piece.melody, first, last, last, place)
        found = chords_between(piece.chords, first, last)
        song.chords += [replace(chord, beat=chord.beat - first + place) for chord in found]
        song.sections.append(Section(name, length / piece.meter.beats))
        place += length
    song.parts = [part for part in parts if part.notes]
    song.chords = joined(song.chords)
    return song


def moved(
    notes: Iterable[Note], first: float, last: float, stop: float | None, place: float
) -> list[Note]:
    """Copy the notes from one beat to another to ``place``, cut off at ``stop``."""
    copied = []
    for note in notes:
        if first - _EARLY <= note.start < last - _EARLY:
            length = note.duration if stop is None else min(note.duration, stop - note.start)
            start = max(0.0, note.start - first + place)
            copied.append(replace(note, start=start, duration=length))
    return copied


def draw_silent(rng: random.Random, name: str, parts: list[Part]) -> set[int]:
    """Draw which parts do not play in a section: never all, and in a chorus none."""
    drums = {number for number, part in enumerate(parts) if part.is_drums}
    if name == "intro" and len(parts) > 2:
        return {0} if rng.random() < 0.6 else drums
    if name == "bridge" and rng.random() < 0.5:
        return drums
    if name == "verse" and len(parts) > 3 and rng.random() < 0.5:
        return {rng.randrange(2, len(parts))} - drums
    return set()
