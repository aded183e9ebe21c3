"""Hold a composed piece: parts of notes in beats, and the facts about them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.data.scores.keys import Key, estimate_key
from prior.plan import ChordChange, Section
from prior.theory import Meter


@dataclass(frozen=True)
class Note:
    """Hold one note: start and duration in beats, MIDI pitch, velocity 1 to 127."""

    start: float
    duration: float
    pitch: int
    velocity: int


@dataclass
class Part:
    """Hold one instrument's notes and its place in the mix."""

    instrument: str  # the name that labels and captions use; "drums" is General MIDI's drum channel
    program: int  # General MIDI program, 0 to 127
    notes: list[Note]
    # pan, volume, reverb, chorus: MIDI controllers 10, 7, 91 and 93, 0 to 127
    pan: int = 64
    volume: int = 100
    reverb: int = 40
    chorus: int = 0

    @property
    def is_drums(self) -> bool:
        """Return whether the part belongs on the drum channel."""
        return self.instrument == "drums"


@dataclass
class Score:
    """Hold a piece, lead part first, with its labels."""

    tempo_bpm: float  # beats a minute, constant
    meter: Meter
    key: Key | None  # None where it is not certain
    parts: list[Part]
    # style, mood, density, register, dynamics, ensemble and source; ``all_labels`` adds those that
    # follow from the parts
    labels: dict[str, Any] = field(default_factory=dict)
    license: str = "CC0-1.0"
    attribution: str = ""
    room: float = 0.4  # size of the simulated space for reverberation, 0 to 1
    complete: bool = True  # the music ends where the score ends
    # chord changes in order; none where they are not known
    chords: list[ChordChange] = field(default_factory=list)
    # the tune, one note at a time; none where it is not known
    melody: list[Note] = field(default_factory=list)
    # the form of a song; none for a piece without
    sections: list[Section] = field(default_factory=list)
    phrase_beats: float = 0.0  # of a piece with a wanted number of phrases, the length of one

    @property
    def num_beats(self) -> float:
        """Return the beats from the start to the end of the last note."""
        return max(note.start + note.duration for part in self.parts for note in part.notes)

    @property
    def duration_s(self) -> float:
        """Return the seconds from the start to the end of the last note."""
        return self.num_beats * 60 / self.tempo_bpm


def top_voice(notes: Iterable[Note]) -> list[Note]:
    """Take the highest of the notes that begin together, each cut where the next one begins.

    A lower note that begins while a higher one still sounds is left out: it accompanies.
    """
    kept: list[Note] = []
    for note in sorted(notes, key=lambda n: (n.start, -n.pitch)):
        end = kept[-1].start + kept[-1].duration if kept else 0.0
        if kept and note.start < end:
            together = note.start - kept[-1].start < 0.02
            if together or (note.pitch < kept[-1].pitch and note.start < end - 1e-3):
                continue
            kept[-1] = replace(kept[-1], duration=note.start - kept[-1].start)
        kept.append(note)
    return kept


def pitch_class_weights(score: Score, start_s: float = 0.0, end_s: float = 1e9) -> list[float]:
    """Sum the seconds for which each pitch class sounds in a stretch, drums left out."""
    seconds = 60 / score.tempo_bpm
    weights = [0.0] * 12
    for part in score.parts:
        for note in [] if part.is_drums else part.notes:
            begin = max(note.start * seconds, start_s)
            end = min((note.start + note.duration) * seconds, end_s)
            weights[note.pitch % 12] += max(0.0, end - begin)
    return weights


def is_key_clear(score: Score, window_s: float = 20.0) -> bool:
    """Return whether the key estimated in every stretch of 20 s is the piece's key."""
    start_s = 0.0
    while start_s == 0.0 or score.duration_s - start_s > 4.0:
        found, _ = estimate_key(pitch_class_weights(score, start_s, start_s + window_s))
        if found != score.key:
            return False
        start_s += window_s
    return True


def all_labels(score: Score) -> dict[str, Any]:
    """Build the labels of a piece that are stored with every clip cut from it."""
    pitched = [part.instrument for part in score.parts if not part.is_drums]
    return {
        "tempo_bpm": round(score.tempo_bpm, 3),
        "key": score.key.tonic if score.key else None,
        "mode": score.key.mode if score.key else None,
        "meter": score.meter.name,
        "instruments": list(dict.fromkeys(pitched)),
        "lead": pitched[0] if pitched else None,
        "drums": any(part.is_drums for part in score.parts),
        **score.labels,
    }
