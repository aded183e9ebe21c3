"""From a rung's codes to sound: a codec or a whole pipeline for tokens, a soundfont for notes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.comparison.ladder import NOTES
from pipelines.comparison.settings import Rung
from pipelines.comparison.study import Study
from pipelines.data.tokens import hash_codec, read_token_info
from pipelines.errors import MissingPackageError
from pipelines.evaluation.reasons import UnmeasurableError


@dataclass(frozen=True)
class Hearing:
    """How a rung sounds.

    Attributes:
        play: (K, T) int64 codes -> (C, S) float32 audio.
        sample_rate: of it (Hz).
        how: in words.
    """

    play: Callable[[Tensor], Tensor]
    sample_rate: int
    how: str


def hearing_of(study: Study, rung: Rung) -> Hearing:
    """How a rung is heard.

    Raises:
        UnmeasurableError: nothing here turns its codes into sound; the message says why.
        MissingPackageError: a program or a package is missing.
    """
    info = read_token_info(rung.tokens[0])
    if info.codec_class == NOTES:
        return notes_hearing(Path(rung.tokens[0]), study.settings.carriage.soundfont)
    if study.codec is None:
        raise UnmeasurableError("no codec is named, so the tokens are not heard")
    if hash_codec(study.codec) != info.codec_hash:
        raise UnmeasurableError(
            f"{study.settings.codec} is not the codec that made {rung.tokens[0]}"
        )
    return tokens_hearing(study)


def tokens_hearing(study: Study) -> Hearing:
    """Tokens through the pipeline's decoder, or the codec's own."""
    codec: Any = study.codec
    if study.settings.pipeline is None:

        def decode(codes: Tensor) -> Tensor:
            with torch.inference_mode():
                return codec.decode(codes[None])[0]

        return Hearing(decode, codec.sample_rate, "the codec's own decode")
    from pipelines.pipeline import Pipeline

    pipeline: Any = Pipeline.from_pretrained(study.settings.pipeline)

    def paint(codes: Tensor) -> Tensor:
        return pipeline.decode(codes[None], 0)[0]

    return Hearing(paint, pipeline.codec.sample_rate, "the diffusion decoder")


def notes_hearing(cache: Path | None, soundfont: str | None) -> Hearing:
    """Notes through a soundfont, read by the codec of their cache, or by a new one."""
    try:
        from pipelines.data.notes.note_sound import play
        from pipelines.data.notes.note_tokenizer import NoteTokenizer
        from pipelines.data.scores.score_sound import SOUNDFONT, RenderError, check_programs

        chosen = Path(soundfont) if soundfont else SOUNDFONT
        check_programs(["fluidsynth"], chosen)
    except (ImportError, FileNotFoundError) as error:
        raise MissingPackageError(str(error)) from error
    codec = NoteTokenizer.from_pretrained(cache / "codec") if cache else NoteTokenizer()

    def sound(codes: Tensor) -> Tensor:
        try:
            audio: np.ndarray = play(codec.decode(codes[None])[0], chosen)
        except (ValueError, RenderError) as error:
            raise UnmeasurableError(str(error)) from error
        return torch.from_numpy(np.ascontiguousarray(audio))

    return Hearing(sound, codec.sample_rate, f"FluidSynth with {chosen.name}")
