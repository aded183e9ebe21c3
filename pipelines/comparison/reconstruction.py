"""Measure what notes and audio tokens keep of a sound: both become sound again, to be compared."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from symusic.core import ScoreTick
from torch import Tensor

from codec.audio_file import AudioClip
from pipelines.comparison.comparison_row import ComparisonRow
from pipelines.comparison.spread import number, show
from pipelines.comparison.study import Study
from pipelines.data.codecs import load_codec
from pipelines.data.markdown import table
from pipelines.errors import MissingPackageError
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.clips import EvaluationClip, choose_clips
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.frechet import distance_of_clips
from pipelines.evaluation.perceptual import visqol
from pipelines.evaluation.systems import TokenCodec

SPACE = "aisfx"
Reconstruct = Callable[[EvaluationClip, AudioClip], Tensor]
"""A clip and its sound -> (C, S), as long as the sound."""


def measure(study: Study) -> ComparisonRow:
    """Reconstruct held-out clips from notes and from tokens; compare them with the originals."""
    settings = study.settings.reconstruction
    row = ComparisonRow(
        "Raw notes against latent tokens: what is kept",
        f"Held-out clips of {settings.clip_s:g} s. *Notes*: the clip's own score through the note "
        "codec and the soundfont that played the original, so that only mix, reverb and what the "
        "codec drops are lost: the best that notes can do. *Tokens*: the sound through the codec. "
        "ViSQOL against the original (5 is best) and Fréchet distance to the originals (how far "
        "apart two sets of sounds lie in the space of a listening network; 0 is best); ± is the "
        "standard deviation over clips, nothing is trained in this row.",
    )
    rows = []
    for name in ("scores", "recordings"):
        folder = getattr(settings, name)
        if folder is None:
            row.missing.append(f"{name}: no prepared dataset is named (reconstruction.{name})")
            continue
        try:
            clips = choose_clips([Path(folder)], settings.clips, settings.clip_s).clips
            for way, reconstruct in ways(study, name, clips):
                study.say(f"reconstruction: {name} from {way}")
                rows.append([name, way, *compare_clips(clips, reconstruct, row)])
        except (ValueError, OSError, MissingPackageError) as error:
            row.missing.append(f"{name}: {error}")
    if rows:
        columns = ["clips of", "reconstructed from", "ViSQOL", f"Fréchet, {SPACE}", "clips"]
        row.tables = [table(columns, rows)]
    row.reading = ["Recordings have no score, so nothing is reconstructed from notes for them."]
    return row


def ways(
    study: Study, name: str, clips: Sequence[EvaluationClip]
) -> Iterator[tuple[str, Reconstruct]]:
    """Yield what clips of a dataset can be reconstructed from, and how."""
    settings = study.settings
    if settings.codec is not None:
        tokens = TokenCodec(load_codec(settings.codec))
        total = tokens.codec.num_codebooks
        few = min(settings.model.get("num_codebooks", 2), total)
        for count in dict.fromkeys((few, total)):
            yield f"{count} codebooks of tokens", from_tokens(tokens, count)
    if name == "scores":
        scores = read_scores(Path(settings.reconstruction.scores or ""), clips)
        yield "notes", from_notes(scores)
        yield "notes, one voice", from_notes(scores, monophonic=True)


def from_tokens(tokens: TokenCodec, num_codebooks: int) -> Reconstruct:
    """Reconstruct sound from its first codebooks, at the original's rate and length."""
    system = tokens.system(f"{num_codebooks} codebooks", "tokens", num_codebooks)
    return lambda clip, sound: system.reconstruct(sound.audio, sound.sample_rate)[0]


def read_scores(folder: Path, clips: Sequence[EvaluationClip]) -> dict[str, ScoreTick]:
    """Compose the scores of a dataset's held-out clips again: clip name -> its notes."""
    from pipelines.data.notes.note_pieces import NotePiece, find_scores

    wanted = {clip.name for clip in clips}
    pieces = find_scores(folder)["validation"]
    return {p.id: p.score for p in pieces if isinstance(p, NotePiece) and p.id in wanted}


def from_notes(scores: dict[str, ScoreTick], monophonic: bool = False) -> Reconstruct:
    """Reconstruct a clip from its notes, played as loud and as long as the original."""
    from pipelines.data.notes.note_sound import play
    from pipelines.data.notes.note_tokenizer import NoteTokenizer
    from pipelines.data.scores.score_sound import SOUNDFONT, RenderError

    codec = NoteTokenizer(monophonic=monophonic)

    def reconstruct(clip: EvaluationClip, sound: AudioClip) -> Tensor:
        (score,) = codec.decode(codec.encode(scores[clip.name]))
        try:
            played = play(score, SOUNDFONT)
        except RenderError as error:
            raise UnmeasurableError(str(error)) from error
        return match_level(torch.from_numpy(played), sound.audio)

    return reconstruct


def match_level(audio: Tensor, original: Tensor) -> Tensor:
    """Bring (C, S) audio to the level and length of the original."""
    audio = audio[:, : original.shape[1]]
    level = original.square().mean().sqrt() / audio.square().mean().sqrt().clamp(min=1e-6)
    missing = original.shape[1] - audio.shape[1]
    return torch.nn.functional.pad(audio * level, (0, missing)).clamp(-1, 1)


def compare_clips(
    clips: Sequence[EvaluationClip], reconstruct: Reconstruct, row: ComparisonRow
) -> list[str]:
    """Print ViSQOL, Fréchet distance and the number of clips; failures go to ``row.missing``."""
    scores: list[float] = []
    originals, estimates = [], []
    for clip in clips:
        sound = clip.read()
        try:
            found = reconstruct(clip, sound)
            scores.append(visqol(sound.audio, found, sound.sample_rate))
            pair = [EMBEDDINGS[SPACE](x, sound.sample_rate) for x in (sound.audio, found)]
            originals.append(pair[0])
            estimates.append(pair[1])
        except (ValueError, MissingPackageError) as error:
            if str(error) not in row.missing:
                row.missing.append(str(error))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the number of clips stands in the table
        distance, _ = distance_of_clips(originals, estimates)
    cells = [
        show(scores) if scores else "-",
        "-" if isinstance(distance, str) else number(distance),
    ]
    return [*cells, number(len(scores))]
