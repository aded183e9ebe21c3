"""Held-out clips of rendered scores: their sound, played anew, and their notes."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.audio_file import AudioClip
from pipelines.data.prepared import open_prepared, read_info
from pipelines.data.shards import evenly_spaced
from pipelines.errors import MissingPackageError
from pipelines.evaluation.reasons import UnmeasurableError


@dataclass(frozen=True)
class ScoreClip:
    """A stretch of a piece that ``partita prepare scores`` composed.

    Attributes:
        name: the clip's id in the dataset.
        source: who composed it, and for how many.
        seed: of the dataset.
        sources: of the dataset.
        start_s: in the piece (s).
        duration_s: of the stretch (s).
        soundfont: that plays it.
    """

    name: str
    source: str
    seed: int
    sources: tuple[str, ...]
    start_s: float
    duration_s: float
    soundfont: Path

    @cached_property
    def score(self) -> Any:
        """The whole piece, composed anew."""
        from pipelines.data.scores.prepare_scores import Job, piece_index, write_score

        return write_score(Job(self.seed, piece_index(self.name), self.sources, "", False))

    def read(self) -> AudioClip:
        """The stretch as the dataset's renderer plays it, with mix and room.

        Raises:
            UnmeasurableError: it could not be played.
        """
        from pipelines.data.scores.render import SAMPLE_RATE, RenderError, render

        try:
            audio = render(self.score, self.soundfont)
        except RenderError as error:
            raise UnmeasurableError(str(error)) from error
        first = round(self.start_s * SAMPLE_RATE)
        stretch = audio[:, first : first + round(self.duration_s * SAMPLE_RATE)]
        return AudioClip(torch.from_numpy(stretch.copy()), SAMPLE_RATE)

    def notes(self, monophonic: bool = False) -> Tensor:
        """(K, T) note codes of the stretch.

        Raises:
            UnmeasurableError: it holds no notes.
        """
        from pipelines.data.notes.midi_file import read_midi
        from pipelines.data.notes.note_codec import NoteCodec
        from pipelines.data.notes.pieces import cut
        from pipelines.data.scores.midi import write_midi

        try:
            whole = read_midi(write_midi(self.score))
            part = cut(whole, self.start_s, self.start_s + self.duration_s)
            return NoteCodec(monophonic=monophonic).encode(part)[0]
        except ValueError as error:
            raise UnmeasurableError(str(error)) from error


def choose_score_clips(folder: Path, count: int, clip_s: float, soundfont: Path) -> list[ScoreClip]:
    """Evenly spaced held-out clips of a dataset of scores, the first seconds of each.

    Raises:
        ValueError: the dataset was not made by ``partita prepare scores``.
        MissingPackageError: FluidSynth or the soundfont is missing.
    """
    from pipelines.data.scores.render import check_programs

    settings = read_info(folder)["settings"]
    if settings.get("command") != "prepare scores":
        raise ValueError(f"{folder} was not made by `partita prepare scores`")
    try:
        check_programs(["fluidsynth"], soundfont)
    except FileNotFoundError as error:
        raise MissingPackageError(str(error)) from error
    columns = ["id", "source", "labels", "start_s", "duration_s"]
    rows = open_prepared(folder, "validation").select_columns(columns)
    clips = []
    for index in evenly_spaced(rows, count):
        row = rows[index]
        ensemble = json.loads(row["labels"] or "{}").get("ensemble")
        clips.append(
            ScoreClip(
                name=row["id"],
                source=", ".join(filter(None, (row["source"], ensemble))),
                seed=settings["seed"],
                sources=tuple(sorted(settings["sources"])),
                start_s=row["start_s"],
                duration_s=min(clip_s, row["duration_s"]),
                soundfont=soundfont,
            )
        )
    return clips
