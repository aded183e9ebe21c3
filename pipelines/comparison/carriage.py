"""What a note codec cannot carry: notes through a soundfont against tokens through the codec."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from codec.audio_file import AudioClip
from codec.protocols import Codec
from pipelines.comparison.hearing import Hearing, notes_hearing
from pipelines.comparison.row import Row, Table, number
from pipelines.comparison.score_clips import ScoreClip, choose_score_clips
from pipelines.comparison.spread import show
from pipelines.comparison.study import Study
from pipelines.errors import MissingPackageError
from pipelines.evaluation.clips import PreparedClip, choose_clips
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.frechet import equal_windows, frechet_distance
from pipelines.evaluation.perceptual import visqol
from pipelines.evaluation.reasons import UnmeasurableError
from pipelines.evaluation.systems import TokenCodec

SPACES = ("logmel_statistics", "aisfx")


class Clip(Protocol):
    """A stretch of music, and where it comes from."""

    @property
    def source(self) -> str:
        """The package or program."""

    def read(self) -> AudioClip:
        """Its sound."""


@dataclass(frozen=True)
class Recording:
    """A clip of recorded music."""

    clip: PreparedClip

    @property
    def source(self) -> str:
        """The package that it comes from."""
        from pipelines.data.prepared import open_prepared

        rows = open_prepared(self.clip.folder, self.clip.split).select_columns(["source"])
        return rows[self.clip.index]["source"]

    def read(self) -> AudioClip:
        """Its sound."""
        return self.clip.read()


@dataclass
class Carried:
    """How near a way of carrying comes to the originals.

    Attributes:
        scores: ViSQOL, a clip each.
        vectors: embeddings of originals and of what arrived, per space.
        sources: where each clip comes from.
    """

    scores: list[float] = field(default_factory=list)
    vectors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    sources: list[str] = field(default_factory=list)


Rebuild = Callable[[Clip, AudioClip], Tensor]


def measure(study: Study) -> Row:
    """The row of the study."""
    settings = study.settings.carriage
    row = Row(
        "carriage",
        "Raw notes against latent tokens: what arrives",
        f"Held-out clips of {settings.clip_s:g} s. *Notes*: the clip's own score through the note "
        "codec and the soundfont that played the original, so that only mix, room and what the "
        "codec drops are lost: the best that notes can do. *Tokens*: the sound through the codec. "
        "ViSQOL against the original (5 is best) and Fréchet distances to the originals; ± is the "
        "standard deviation over clips, nothing is trained in this row.",
    )
    distances = [f"Fréchet, {space}" for space in SPACES]
    table = Table(["clips of", "carried as", "ViSQOL", *distances, "clips"], [])
    for name, choose in (("scores", choose_scores), ("recordings", choose_recordings)):
        try:
            clips = choose(study)
        except (ValueError, OSError, MissingPackageError) as error:
            row.missing.append(f"{name}: {error}")
            continue
        for way, rebuild in ways(study, name, row).items():
            study.say(f"carriage: {name} as {way}")
            table.rows.extend(lines(name, way, carry(clips, rebuild, way, row)))
    row.tables = [table]
    if any(line[0] == "all recordings" for line in table.rows):
        row.reading.append(
            "Recordings have no score: a voice, a drum loop and an electronic timbre are not "
            "notes, so nothing is carried as notes for them; no transcription is measured here."
        )
    return row


def choose_scores(study: Study) -> Sequence[Clip]:
    """Clips whose notes are known."""
    from pipelines.data.scores.score_sound import SOUNDFONT

    settings = study.settings.carriage
    if settings.scores is None:
        raise ValueError("no prepared dataset is named (carriage.scores)")
    soundfont = Path(settings.soundfont or SOUNDFONT)
    return choose_score_clips(Path(settings.scores), settings.clips, settings.clip_s, soundfont)


def choose_recordings(study: Study) -> Sequence[Clip]:
    """Clips of recorded music."""
    settings = study.settings.carriage
    if settings.recordings is None:
        raise ValueError("no prepared dataset with audio is named (carriage.recordings)")
    found = choose_clips([Path(settings.recordings)], settings.clips, settings.clip_s).clips
    return [Recording(clip) for clip in found if isinstance(clip, PreparedClip)]


def ways(study: Study, name: str, row: Row) -> dict[str, Rebuild]:
    """What carries clips of a dataset."""
    found: dict[str, Rebuild] = {}
    if study.codec is None:
        row.missing.append(f"{name} as tokens: no codec is named")
    else:
        few = min(study.settings.model.get("num_codebooks", 2), study.codec.num_codebooks)
        for books in dict.fromkeys((few, study.codec.num_codebooks)):
            found[f"{books} books of tokens"] = token_rebuild(study.codec, books)
    if name == "scores":
        try:
            hearing = notes_hearing(None, study.settings.carriage.soundfont)
            found["notes"] = note_rebuild(hearing)
            found["notes, one voice"] = note_rebuild(hearing, monophonic=True)
        except MissingPackageError as error:
            row.missing.append(f"scores as notes: {error}")
    return found


def token_rebuild(codec: Codec, books: int) -> Rebuild:
    """Sound to tokens and back, at the original's rate and length."""
    system = TokenCodec(codec).system(f"{books} books", "tokens", books)
    return lambda clip, sound: system.reconstruct(sound.audio, sound.sample_rate).audio


def note_rebuild(hearing: Hearing, monophonic: bool = False) -> Rebuild:
    """A score to note codes and back, played as loud and as long as the original."""

    def rebuild(clip: Clip, sound: AudioClip) -> Tensor:
        assert isinstance(clip, ScoreClip)
        audio = hearing.play(clip.notes(monophonic))[:, : sound.audio.shape[1]]
        level = sound.audio.square().mean().sqrt() / audio.square().mean().sqrt().clamp(min=1e-6)
        missing = sound.audio.shape[1] - audio.shape[1]
        return torch.nn.functional.pad(audio * level, (0, missing)).clamp(-1, 1)

    return rebuild


def carry(clips: Sequence[Clip], rebuild: Rebuild, way: str, row: Row) -> Carried:
    """Rebuild and measure every clip; what fails is said once."""
    carried = Carried()
    for clip in clips:
        try:
            sound = clip.read()
            arrived = rebuild(clip, sound)
        except (ValueError, MissingPackageError) as error:
            note(row, f"a clip as {way}: {error}")
            continue
        carried.sources.append(clip.source)
        try:
            carried.scores.append(visqol(sound.audio, arrived, sound.sample_rate))
        except (MissingPackageError, UnmeasurableError) as error:
            note(row, f"ViSQOL: {error}")
        for space in SPACES:
            try:
                pair = [EMBEDDINGS[space](x, sound.sample_rate) for x in (sound.audio, arrived)]
                carried.vectors[space].append((pair[0], pair[1]))
            except (MissingPackageError, UnmeasurableError) as error:
                note(row, f"{space}: {error}")
    return carried


def note(row: Row, reason: str) -> None:
    """Say once why something is missing."""
    if reason not in row.missing:
        row.missing.append(reason)


def lines(name: str, way: str, carried: Carried) -> list[list[str]]:
    """All clips, and every source on its own by ViSQOL (too few windows for a distance)."""
    if not carried.sources:
        return []
    distances = [distance(carried.vectors[space]) for space in SPACES]
    score = show(carried.scores) if carried.scores else "-"
    found = [[f"all {name}", way, score, *distances, number(len(carried.sources))]]
    if len(carried.scores) == len(carried.sources):
        for source in sorted(set(carried.sources)):
            pairs = zip(carried.scores, carried.sources, strict=True)
            scores = [value for value, other in pairs if other == source]
            found.append([source, way, show(scores), *("-" for _ in SPACES), number(len(scores))])
    return found


def distance(pairs: list[tuple[np.ndarray, np.ndarray]]) -> str:
    """Fréchet distance of what arrived to the originals."""
    if sum(len(original) for original, _ in pairs) < 2:
        return "-"
    original, arrived = (np.concatenate(side) for side in zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number of clips stands in the table
        return number(frechet_distance(*equal_windows(original, arrived)))
