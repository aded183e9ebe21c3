"""What a piece is to be, frame by frame: its beat, its key, its chords, who plays, and its form.

A prior reads the plan beside the text. Text says "137 bpm" once; the plan says in every frame how
far the beat has come, which is what decides the next onset (as in MusiConGen, arXiv 2407.15060, and
Mustango, arXiv 2311.08355).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prior.theory import MODES, PITCH_NAMES, TRIADS

SLOWEST_BPM, FASTEST_BPM = 20, 400
QUALITIES = ("major", "minor", "diminished")
SUFFIXES = {"major": "", "minor": "m", "diminished": "dim"}
SHOWN_CHORDS = 8
LONGEST_SECTION = 512
SECTIONS = ("intro", "verse", "chorus", "bridge", "outro")
INSTRUMENTS = (
    *("piano", "electric piano", "harpsichord", "music box", "glockenspiel", "vibraphone"),
    *("marimba", "organ", "accordion", "harmonica", "acoustic guitar", "electric guitar"),
    *("distorted guitar", "banjo", "harp", "pizzicato strings", "violin", "cello", "strings"),
    *("choir", "trumpet", "brass", "french horn", "saxophone", "oboe", "clarinet", "flute"),
    *("pan flute", "synth lead", "chiptune lead", "synth pad", "bass", "double bass"),
    "synth bass",
)
BEAT_HARMONICS = (1, 2, 3, 4)
HARMONY_WIDTH = 1 + 2 * len(BEAT_HARMONICS) + 2 + 1 + 12 + len(MODES) + 12 + 12
ENSEMBLE_WIDTH = 2 * len(INSTRUMENTS) + 2
PLAN_WIDTH = HARMONY_WIDTH + ENSEMBLE_WIDTH
"""P, numbers a frame: known, beat, bar, tempo, tonic, mode, root, triad; lead, all that play,
without drums, with drums."""


@dataclass(frozen=True)
class ChordChange:
    """From this beat on, counted from the start of the piece, a triad sounds.

    Attributes:
        beat: may be earlier than ``first_beat``: a chord that already sounds there.
        root: pitch class, 0 (C) to 11.
        quality: one of ``QUALITIES``; sevenths and suspensions are left out.
    """

    beat: float
    root: int
    quality: str


@dataclass(frozen=True)
class Section:
    """A stretch of the piece's form.

    Attributes:
        name: one of ``SECTIONS``.
        bars: its length; the first section begins with the piece, each other where one ends.
    """

    name: str
    bars: float


@dataclass(frozen=True)
class MelodyNote:
    """A note of the tune.

    Attributes:
        beat: of its start, from the start of the piece.
        beats: its length.
        pitch: MIDI pitch, 0 to 127.
    """

    beat: float
    beats: float
    pitch: int


@dataclass(frozen=True)
class Plan:
    """Tempo, meter, key, chords, instruments and form of a piece.

    Attributes:
        tempo_bpm: beats a minute, constant.
        beats_per_bar: of the meter; bars begin at multiples of it.
        tonic: pitch class of the key, None where it is not known.
        mode: "major" or "minor"; None where it is not known.
        chords: in order of their beats; none where they are not known.
        first_beat: beats that have passed when frame 0 begins.
        instruments: names of ``INSTRUMENTS``, who plays the tune first; none where not known.
        drums: whether there are any; None where it is not known.
        sections: the form, from the start of the piece; none where it is not known.
        melody: the tune in order, one note at a time; none where it is not known.
        end_beat: where the piece ends; None where it is not known.

    Raises:
        ValueError: a value out of range, named with its rule.
    """

    tempo_bpm: float
    beats_per_bar: int = 4
    tonic: int | None = None
    mode: str | None = None
    chords: tuple[ChordChange, ...] = ()
    first_beat: float = 0.0
    instruments: tuple[str, ...] = ()
    drums: bool | None = None
    sections: tuple[Section, ...] = ()
    melody: tuple[MelodyNote, ...] = ()
    end_beat: float | None = None

    def __post_init__(self) -> None:
        if not SLOWEST_BPM <= self.tempo_bpm <= FASTEST_BPM:  # also refuses NaN
            raise ValueError(
                f"tempo_bpm must lie in [{SLOWEST_BPM}, {FASTEST_BPM}], got {self.tempo_bpm}"
            )
        if not 1 <= self.beats_per_bar <= 16:
            raise ValueError(f"beats_per_bar must lie in [1, 16], got {self.beats_per_bar}")
        if self.tonic is not None and not 0 <= self.tonic < 12:
            raise ValueError(f"tonic must be a pitch class in [0, 12), got {self.tonic}")
        if self.mode not in (None, *MODES):
            raise ValueError(f"mode must be one of {MODES}, got {self.mode!r}")
        if (self.tonic is None) != (self.mode is None):
            raise ValueError(
                f"tonic and mode go together, got tonic={self.tonic} and mode={self.mode!r}"
            )
        for chord in self.chords:
            if chord.quality not in QUALITIES or not 0 <= chord.root < 12:
                raise ValueError(
                    f"a chord must have a root in [0, 12) and a quality of {QUALITIES}, got {chord}"
                )
        for name in self.instruments:
            if name not in INSTRUMENTS:
                raise ValueError(
                    f"instruments must be among {', '.join(INSTRUMENTS)}, got {name!r}"
                )
        check_form(self)

    def until(self, duration_s: float) -> "Plan":
        """Leave out the chords that begin after ``duration_s``."""
        last = self.first_beat + duration_s * self.tempo_bpm / 60
        return replace(self, chords=tuple(chord for chord in self.chords if chord.beat < last))

    def __str__(self) -> str:
        """Describe the plan: ``70 bpm, 4 beats a bar, D minor, flute, no drums: Dm Gm A Dm``."""
        facts = [f"{self.tempo_bpm:.0f} bpm", f"{self.beats_per_bar} beats a bar"]
        if self.tonic is not None:
            facts.append(f"{PITCH_NAMES[self.tonic]} {self.mode}")
        facts += self.instruments
        if self.drums is not None:
            facts.append("drums" if self.drums else "no drums")
        facts += [f"{section.name} {section.bars:g}" for section in self.sections]
        if self.melody:
            facts.append(f"a tune of {len(self.melody)} notes")
        names = [PITCH_NAMES[chord.root] + SUFFIXES[chord.quality] for chord in self.chords]
        shown = " ".join(names[:SHOWN_CHORDS]) + " ..." * (len(names) > SHOWN_CHORDS)
        return ", ".join(facts) + (f": {shown}" if names else "")


def check_form(plan: Plan) -> None:
    """Raise a ``ValueError`` where sections, melody or end of a plan cannot be."""
    for section in plan.sections:
        if section.name not in SECTIONS:
            raise ValueError(f"sections must be among {', '.join(SECTIONS)}, got {section.name!r}")
        if not 0 < section.bars <= LONGEST_SECTION:
            raise ValueError(
                f"a section must have more than 0 and at most {LONGEST_SECTION} bars, got {section}"
            )
    end = 0.0 if plan.melody else None
    for note in plan.melody:
        if not 0 <= note.pitch < 128 or not 0 < note.beats < math.inf:
            raise ValueError(f"a note must have a pitch in [0, 128) and a length, got {note}")
        if not end <= note.beat + 1e-6:  # type: ignore[operator]
            raise ValueError(f"a note must begin where the one before it ends ({end:g}): {note}")
        end = note.beat + note.beats
    if plan.end_beat is not None and not max(end or 0.0, 1e-6) <= plan.end_beat + 1e-6 < math.inf:
        raise ValueError(f"end_beat must lie behind the whole tune, got {plan.end_beat}")


def plan_features(plan: Plan | None, num_frames: int, frame_rate: float) -> Tensor:
    """Write a plan as (T, P) numbers, frame by frame; zeros say that nothing is known.

    They lie in [-1, 1] but for the column of the tempo, log2(bpm / 100): -2.3 at 20 and 2 at 400
    beats a minute.
    """
    features = torch.zeros(num_frames, PLAN_WIDTH)
    if plan is None:
        return features
    times = torch.arange(num_frames, dtype=torch.float64) / frame_rate
    beats = plan.first_beat + times * plan.tempo_bpm / 60  # (T,)
    turns = [harmonic * beats for harmonic in BEAT_HARMONICS] + [beats / plan.beats_per_bar]
    angles = 2 * math.pi * torch.stack(turns, dim=1)  # (T, 5)
    waves = torch.cat((angles.cos(), angles.sin()), dim=1).float()
    tonic, root = 2 + waves.shape[1], HARMONY_WIDTH - 24
    features[:, 0] = 1.0
    features[:, 1 : 1 + waves.shape[1]] = waves
    features[:, tonic - 1] = math.log2(plan.tempo_bpm / 100)
    if plan.tonic is not None and plan.mode is not None:
        features[:, tonic + plan.tonic] = 1.0
        features[:, tonic + 12 + MODES.index(plan.mode)] = 1.0
    if plan.chords:
        starts = torch.tensor([chord.beat for chord in plan.chords], dtype=torch.float64)
        ahead = beats_a_frame(plan, frame_rate)  # a chord counts from the frame it begins in
        begun = torch.searchsorted(starts, beats + ahead - 1e-9)  # (T,), 0 before the first
        features[:, root:HARMONY_WIDTH] = chord_features(plan.chords)[begun]
    features[:, HARMONY_WIDTH:] = ensemble_features(plan)
    return features


def beats_a_frame(plan: Plan, frame_rate: float) -> float:
    """Return how many beats pass within a frame."""
    return plan.tempo_bpm / 60 / frame_rate


def ensemble_features(plan: Plan) -> Tensor:
    """Return who plays, equal in every frame: (``ENSEMBLE_WIDTH``,) float32 of zeros and ones."""
    playing = [INSTRUMENTS.index(name) for name in plan.instruments]
    features = torch.zeros(ENSEMBLE_WIDTH)
    features[playing[:1]] = 1.0
    features[[len(INSTRUMENTS) + index for index in playing]] = 1.0
    if plan.drums is not None:
        features[2 * len(INSTRUMENTS) + plan.drums] = 1.0
    return features


def contrary_features(features: Tensor) -> Tensor:
    """Return what guidance moves away from: nothing is known but drums, the other way round.

    Most music of a style has drums or has none; moved away from nothing at all, a plan without
    drums still gave way to its style. Takes (..., P); gives all zeros where drums are not known.
    """
    first = HARMONY_WIDTH + 2 * len(INSTRUMENTS)
    contrary = torch.zeros_like(features)
    contrary[..., first : first + 2] = features[..., first : first + 2].flip(-1)
    return contrary


def chord_features(chords: tuple[ChordChange, ...]) -> Tensor:
    """Encode root and triad as (N + 1, 24) float32 of zeros and ones, the first row of no chord."""
    features = torch.zeros(len(chords) + 1, 24)
    for row, chord in zip(features[1:], chords, strict=True):
        row[chord.root] = 1.0
        for step in TRIADS[chord.quality]:
            row[12 + (chord.root + step) % 12] = 1.0
    return features
