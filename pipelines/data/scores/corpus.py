"""Rearrange Bach's chorales."""

import functools
import hashlib
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

from codec.process_settings import kept_process_settings
from pipelines.data.scores.chords import find_chords
from pipelines.data.scores.compose import add_labels, finish
from pipelines.data.scores.harmony import HELD_OUT_SHARE
from pipelines.data.scores.instruments import INSTRUMENTS
from pipelines.data.scores.keys import Key, estimate_key, key_of
from pipelines.data.scores.score import Note, Part, Score, pitch_class_weights, top_voice
from pipelines.data.scores.styles import DYNAMICS
from prior.theory import METERS, Meter

BACH_CREDIT = "J. S. Bach, chorales (music21 corpus)"
_ATTEMPTS = 40
_ALONE = ("organ", "piano", "harpsichord", "choir", "strings", "accordion", "acoustic guitar",
          "marimba", "brass", "electric piano", "vibraphone", "synth pad")  # fmt: skip
_ACCOMPANIED = ("flute", "violin", "oboe", "trumpet", "clarinet", "saxophone", "pan flute",
                "harmonica", "synth lead", "choir", "electric guitar", "cello",
                "french horn")  # fmt: skip
_QUARTETS = (
    ("flute", "oboe", "clarinet", "cello"), ("violin", "violin", "cello", "cello"),
    ("trumpet", "trumpet", "french horn", "brass"), ("saxophone",) * 4, ("clarinet",) * 4,
    ("oboe", "clarinet", "french horn", "cello"), ("flute", "violin", "cello", "cello"),
)  # fmt: skip


def for_validation(name: str) -> bool:
    """Return whether a corpus piece belongs to the validation split."""
    return hashlib.blake2b(name.encode(), digest_size=4).digest()[0] % HELD_OUT_SHARE == 0


def bach(rng: random.Random, held_out: bool = False) -> Score:
    """Arrange a chorale in a new key, at a new tempo, for other instruments.

    Raises:
        ValueError: no readable chorale was found.
    """
    names = [name for name in chorale_names() if for_validation(name) == held_out]
    for _ in range(_ATTEMPTS):
        name = rng.choice(names)
        chorale = read_chorale(name)
        if chorale is not None:
            return _orchestrate(rng, *chorale)
    raise ValueError(f"none of {_ATTEMPTS} chorales of the music21 corpus could be read")


@functools.lru_cache(maxsize=1)
@kept_process_settings()  # music21 sets warning filters when it is imported
def chorale_names() -> list[str]:
    """List the names of the Bach pieces of the corpus, in order."""
    from music21 import corpus

    return sorted(f"bach/{Path(path).stem}" for path in corpus.getComposer("bach"))


Voices = list[list[Note]]


@functools.lru_cache(maxsize=512)
def read_chorale(name: str) -> tuple[Voices, Meter, Key | None] | None:
    """Read four voices in beats from zero, the meter, and the key where it is certain.

    Returns:
        None where the file is damaged, has not four voices, or is not in 4/4 or 3/4 throughout.
    """
    from music21 import corpus

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stream = corpus.parse(name)
            signatures = {
                s.ratioString for s in stream.recurse().getElementsByClass("TimeSignature")
            }
            voices = [_voice_notes(part) for part in stream.parts]
    except Exception:  # music21 raises its own and builtin exceptions on damaged files
        return None
    if len(voices) != 4 or not all(voices) or len(signatures) != 1:
        return None
    (signature,) = signatures
    if signature not in ("4/4", "3/4"):
        return None
    score = Score(60.0, METERS[signature], None, [Part("organ", 19, v) for v in voices])
    key, margin = estimate_key(pitch_class_weights(score))
    final = voices[-1][-1].pitch % 12  # a chorale ends on its tonic
    return voices, METERS[signature], key if final == key.root and margin > 0.01 else None


def _voice_notes(part: Any) -> list[Note]:
    """List a part's notes with ties joined and repeats not played."""
    return [
        Note(float(item.offset), float(item.quarterLength), int(item.pitch.midi), 92)
        for item in part.stripTies().flatten().notes
        if item.isNote and item.quarterLength > 0
    ]


def _orchestrate(rng: random.Random, voices: Voices, meter: Meter, key: Key | None) -> Score:
    tempo_bpm = rng.randrange(54, 132)
    shift = rng.randrange(-5, 7)
    voices = [[replace(n, pitch=n.pitch + shift) for n in voice] for voice in voices]
    dynamics = rng.choice(list(DYNAMICS))
    draw = rng.random()
    if draw < 0.45:
        parts = [_part(rng, rng.choice(_ALONE), [note for voice in voices for note in voice])]
        ensemble = "solo"
    elif draw < 0.75:
        lead = rng.choice(_ACCOMPANIED)
        under = [replace(note, velocity=64) for voice in voices[1:] for note in voice]
        parts = [_part(rng, lead, voices[0])]
        parts.append(_part(rng, rng.choice([n for n in _ALONE[:7] if n != lead]), under))
        ensemble = "duo"
    else:
        parts = [_part(rng, n, v) for n, v in zip(rng.choice(_QUARTETS), voices, strict=True)]
        ensemble = "band"
    reverb = rng.randrange(35, 80)
    for index, part in enumerate(parts):
        part.pan = 64 if len(parts) == 1 else (54, 80, 40, 70)[index]
        part.reverb = reverb
    parts = [finish(rng, part, tempo_bpm, dynamics) for part in parts]
    moved = key_of(key.root + shift, key.mode) if key else None
    score = Score(float(tempo_bpm), meter, moved, parts, {}, "Public Domain", BACH_CREDIT)
    add_labels(score, "bach", ensemble, "chorale", dynamics, "middle")
    score.chords = find_chords(score)
    score.melody = top_voice(parts[0].notes)
    return score


def _part(rng: random.Random, name: str, notes: list[Note]) -> Part:
    """Give notes to an instrument, shifted by octaves toward the middle of its range."""
    instrument = INSTRUMENTS[name]
    if not instrument.polyphonic:
        mean = sum(note.pitch for note in notes) / len(notes)
        octaves = round(((instrument.low + instrument.high) / 2 - mean) / 12)
        notes = [replace(n, pitch=n.pitch + 12 * octaves) for n in notes]
    return Part(name, rng.choice(instrument.programs), notes, volume=105)
