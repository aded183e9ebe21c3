"""What a note codec cannot carry: notes through a soundfont against tokens through the codec."""

import json
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from codec.audio_file import AudioClip
from codec.protocols import Codec
from pipelines.comparison.row import Row, Table, number
from pipelines.comparison.spread import show
from pipelines.comparison.study import Study
from pipelines.evaluation.clips import PreparedClip, choose_clips
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.frechet import equal_windows, frechet_distance
from pipelines.evaluation.perceptual import visqol
from pipelines.evaluation.reasons import MissingPackageError, UnmeasurableError
from pipelines.evaluation.systems import TokenCodec

SPACES = ("logmel_statistics", "aisfx")
NOTES_ON_SCORES = "notes, soundfont"
Rebuild = Callable[[PreparedClip, AudioClip], Tensor]


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


def measure(study: Study) -> Row:
    """The row of the study."""
    settings = study.settings.carriage
    row = Row(
        "carriage",
        "Raw notes against latent tokens: what arrives",
        f"Clips of {settings.clip_s:g} s of held-out audio. *Notes*: the clip's own score through "
        "the note codec and a soundfont, which is the best that notes can do: the soundfont is the "
        "one that played the originals, only mix and room are lost. *Tokens*: the audio through "
        "the codec. ViSQOL against the original (5 is best) and Fréchet distances to the "
        "originals.",
    )
    distances = [f"Fréchet, {space}" for space in SPACES]
    table = Table(["clips of", "carried as", "ViSQOL", *distances, "clips"], [])
    for name, folder in (("scores", settings.scores), ("recordings", settings.recordings)):
        if folder is None:
            row.missing.append(f"{name}: no prepared dataset with audio is named (carriage.{name})")
            continue
        try:
            clips = choose_clips([Path(folder)], settings.clips, settings.clip_s).clips
        except (ValueError, OSError) as error:
            row.missing.append(f"{name}: {error}")
            continue
        for way, rebuild in ways(study, name, folder, row).items():
            study.say(f"carriage: {name} as {way}")
            carried = carry(clips, rebuild, way, row)
            table.rows += lines(name, way, carried)
    row.tables = [table]
    row.reading = reading(study) if table.rows else []
    return row


def ways(study: Study, name: str, folder: str, row: Row) -> dict[str, Rebuild]:
    """What carries clips of a dataset."""
    found: dict[str, Rebuild] = {}
    if study.codec is not None:
        codec = study.codec
        few = min(study.settings.model.get("num_codebooks", 2), codec.num_codebooks)
        for books in dict.fromkeys((few, codec.num_codebooks)):
            found[f"{books} books of tokens"] = token_rebuild(codec, books)
    else:
        row.missing.append(f"{name} as tokens: no codec is named")
    if name == "scores":
        try:
            found[NOTES_ON_SCORES] = note_rebuild(study, folder)
        except (MissingPackageError, UnmeasurableError) as error:
            row.missing.append(f"{name} as notes: {error}")
    return found


def token_rebuild(codec: Codec, books: int) -> Rebuild:
    """Audio to tokens and back, at the original's rate and length."""
    system = TokenCodec(codec).system(f"{books} books", "tokens", books)
    return lambda clip, sound: system.reconstruct(sound.audio, sound.sample_rate).audio


def note_rebuild(study: Study, folder: str) -> Rebuild:
    """A clip's score to note codes and back, played by the soundfont.

    Raises:
        MissingPackageError: a program, soundfont or package is missing.
        UnmeasurableError: the dataset has no scores.
    """
    from pipelines.comparison.hearing import notes_hearing

    hearing = notes_hearing(Path("."), study.settings.carriage.soundfont)
    codes = note_codes(folder)

    def rebuild(clip: PreparedClip, sound: AudioClip) -> Tensor:
        audio = hearing.play(codes[clip.name])[:, : sound.audio.shape[1]]
        level = sound.audio.square().mean().sqrt() / audio.square().mean().sqrt().clamp(min=1e-6)
        missing = sound.audio.shape[1] - audio.shape[1]
        return torch.nn.functional.pad(audio * level, (0, missing)).clamp(-1, 1)

    return rebuild


def note_codes(folder: str) -> dict[str, Tensor]:
    """(K, T) note codes of every held-out clip of rendered scores, by the clip's id."""
    from codec.note_codec import NoteCodec
    from pipelines.notes.pieces import find_scores

    codec = NoteCodec()
    try:
        pieces = find_scores(Path(folder))["validation"]
        return {
            piece.id: codec.encode(piece.score)[0]
            for piece in pieces
            if not isinstance(piece, str) and piece.score.note_num()
        }
    except (ValueError, KeyError, FileNotFoundError) as error:
        raise UnmeasurableError(str(error)) from error


def carry(clips: list[Any], rebuild: Rebuild, way: str, row: Row) -> Carried:
    """Rebuild and measure every clip; what fails is said once."""
    carried = Carried()
    for clip in clips:
        try:
            sound = clip.read()
            arrived = rebuild(clip, sound)
        except (ValueError, KeyError, MissingPackageError) as error:
            note(row, f"a clip as {way}: {error}")
            continue
        try:
            carried.scores.append(visqol(sound.audio, arrived, sound.sample_rate))
        except (MissingPackageError, UnmeasurableError) as error:
            note(row, f"ViSQOL: {error}")
        carried.sources.append(source_of(clip))
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


def source_of(clip: PreparedClip) -> str:
    """The package or program that a clip comes from."""
    from pipelines.prepared import open_prepared

    row = open_prepared(clip.folder, clip.split).select_columns(["source", "labels"])[clip.index]
    ensemble = json.loads(row["labels"] or "{}").get("ensemble")
    return f"{row['source']}, {ensemble}" if ensemble else row["source"]


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
    if not pairs:
        return "-"
    original, arrived = (np.concatenate(side) for side in zip(*pairs, strict=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number of clips stands in the table
        return number(frechet_distance(*equal_windows(original, arrived)))


def reading(study: Study) -> list[str]:
    """What no figure can say."""
    sentences = [
        "± is here the standard deviation over clips; nothing is trained in this row.",
    ]
    if study.settings.carriage.recordings is not None:
        sentences.append(
            "Recordings have no score: a voice, a drum loop and an electronic timbre are not "
            "notes, so nothing is carried as notes for them; no transcription is measured here."
        )
    return sentences
