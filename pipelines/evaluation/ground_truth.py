"""Render pieces with exactly the facts of a prompt: what detectors are judged on."""

import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from codec.seeds import derive_seed
from pipelines.data.scores.chords import transposed
from pipelines.data.scores.compose import compose
from pipelines.data.scores.instruments import INSTRUMENTS
from pipelines.data.scores.keys import PITCH_CLASSES, SCALES, Key
from pipelines.data.scores.score import Part, Score
from pipelines.data.scores.score_sound import (
    SAMPLE_RATE,
    SOUNDFONT,
    RenderError,
    check_programs,
    render,
)
from pipelines.data.scores.styles import STYLES, Style, moods
from pipelines.errors import MissingPackageError
from pipelines.evaluation.clip_checks import UnmeasurableError

ATTEMPTS = 120
TEMPO_REACH = 0.15  # a piece is written for a tempo this near the one it is then played at


@dataclass(frozen=True)
class Wanted:
    """Says which facts a piece must have; None leaves one open."""

    tempo_bpm: float | None = None
    speed: tuple[float, float] | None = None  # lowest and highest tempo
    key: Key | None = None
    mode: str | None = None  # "major" or "minor", of the key or where no key is wanted
    mode_word: bool | None = None  # True where the mode is only said alone or by a mood
    instrument: str | None = None  # that plays the tune, a name of ``instruments.INSTRUMENTS``
    drums: bool | None = None  # whether there are any
    style: str | None = None  # a name of ``styles.STYLES``

    def __post_init__(self) -> None:
        if self.instrument is not None and self.instrument not in INSTRUMENTS:
            raise ValueError(f"instrument must be one of ours, got {self.instrument!r}")
        if self.mode not in (None, *SCALES):
            raise ValueError(f"mode must be major or minor, got {self.mode!r}")

    @property
    def tempo_range(self) -> tuple[float, float]:
        """Give the slowest and the fastest tempo that a piece may be drawn with."""
        if self.tempo_bpm is not None:
            return self.tempo_bpm * (1 - TEMPO_REACH), self.tempo_bpm * (1 + TEMPO_REACH)
        return self.speed or (0.0, 1000.0)

    @property
    def needed_mode(self) -> str | None:
        """Give the mode of the wanted key, or the wanted mode."""
        return self.key.mode if self.key else self.mode


def compose_wanted(wanted: Wanted, seed: int, held_out: bool = True) -> Score:
    """Compose a piece with exactly the wanted facts; the others are drawn by the seed.

    Pieces are drawn until drums, mode and speed fit; then the piece is transposed and its tempo,
    at most 15 % away, set. ``held_out`` pieces use the chord progressions kept for validation.

    Raises:
        UnmeasurableError: no such piece in ``ATTEMPTS`` draws.
    """
    rng = random.Random(derive_seed(seed, "ground truth"))
    for attempt in range(ATTEMPTS):
        styles = fitting_styles(wanted, any_instrument=attempt >= ATTEMPTS // 2)
        style = rng.choices(styles, [style.weight for style in styles])[0]
        ensemble = "band" if wanted.drums else rng.choice(("solo", "duo", "band"))
        score = compose(rng, held_out, style.name, ensemble, wanted.instrument)
        if fits(score, wanted):
            score.room = rng.uniform(0.2, 0.8)
            return retune(score, wanted)
    raise UnmeasurableError(f"no piece with {wanted} in {ATTEMPTS} draws")


def fitting_styles(wanted: Wanted, any_instrument: bool = False) -> list[Style]:
    """List the styles that can give the wanted facts, with an instrument that they know or any."""
    fitting = [style for style in STYLES.values() if style_fits(style, wanted)]
    if not fitting:
        raise UnmeasurableError(f"no style has {wanted}")
    knowing = [s for s in fitting if wanted.instrument in (None, *s.leads, *s.solos)]
    return fitting if any_instrument or not knowing else knowing


def style_fits(style: Style, wanted: Wanted) -> bool:
    """Say whether pieces of a style can have the wanted tempo, mode and drums."""
    slowest, fastest = wanted.tempo_range
    if wanted.style not in (None, style.name):
        return False
    if style.tempo[1] < slowest or style.tempo[0] > fastest:
        return False
    if style.minor == {"minor": 0, "major": 1}.get(wanted.needed_mode or ""):
        return False
    if wanted.drums is None:
        return True
    return style.drum_share > 0 if wanted.drums else style.drum_share < 1


def fits(score: Score, wanted: Wanted) -> bool:
    """Say whether a piece has the facts that are not set afterwards."""
    slowest, fastest = wanted.tempo_range
    assert score.key is not None
    return (
        slowest <= score.tempo_bpm <= fastest
        and wanted.needed_mode in (None, score.key.mode)
        and wanted.drums in (None, any(part.is_drums for part in score.parts))
    )


def retune(score: Score, wanted: Wanted) -> Score:
    """Transpose to the wanted key and play at the wanted tempo."""
    assert score.key is not None
    key = wanted.key or score.key
    steps = (PITCH_CLASSES[key.tonic] - PITCH_CLASSES[score.key.tonic] + 6) % 12 - 6
    tempo_bpm = wanted.tempo_bpm or score.tempo_bpm
    mood = moods(score.labels["style"], key.mode, tempo_bpm, score.labels["dynamics"])
    return replace(
        score,
        tempo_bpm=tempo_bpm,
        key=key,
        parts=[transpose(part, steps) for part in score.parts],
        chords=transposed(score.chords, steps),
        labels=score.labels | {"mood": mood},
    )


def transpose(part: Part, steps: int) -> Part:
    """Move a part some semitones up; drums stay."""
    if part.is_drums:
        return part
    return replace(part, notes=[replace(note, pitch=note.pitch + steps) for note in part.notes])


def beginning(score: Score, duration_s: float) -> Score:
    """Keep the notes that start in the first seconds, so that no more is rendered than is used."""
    beats = duration_s * score.tempo_bpm / 60
    parts = [
        replace(part, notes=[note for note in part.notes if note.start < beats])
        for part in score.parts
    ]
    return replace(score, parts=[part for part in parts if part.notes], complete=False)


def render_score(score: Score, duration_s: float, soundfont: Path = SOUNDFONT) -> Tensor:
    """Play the first seconds of a piece with FluidSynth: (2, S) float32 at 44,100 Hz.

    Raises:
        MissingPackageError: FluidSynth or the soundfont is not installed.
        UnmeasurableError: it could not be rendered.
    """
    check_player(soundfont)
    try:
        audio = render(beginning(score, duration_s), soundfont)
    except RenderError as error:
        raise UnmeasurableError(str(error)) from error
    return torch.from_numpy(audio)[:, : round(duration_s * SAMPLE_RATE)]


def check_player(soundfont: Path) -> None:
    """Raise MissingPackageError where FluidSynth or the soundfont is not installed."""
    try:
        check_programs(["fluidsynth"], soundfont)
    except FileNotFoundError as error:
        raise MissingPackageError(f"ground truth: {error}") from error
