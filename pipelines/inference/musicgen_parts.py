"""MusicGen's parts as those of a pipeline."""

from typing import Any

from codec.process_settings import hidden_progress_bars, kept_process_settings
from codec.torchaudio_guard import guard_torchaudio
from codec.transformers_codec import TransformersCodec
from prior.musicgen import MusicgenPrior


@kept_process_settings()
def take_musicgen(name_or_model: Any, tokenizer: Any = None) -> dict[str, Any]:
    """Take a MusicGen of transformers apart: ``Pipeline(**take_musicgen(...))``.

    Args:
        name_or_model: a hub id, for example "facebook/musicgen-small" (weights CC BY-NC 4.0), a
            folder, or a ``MusicgenForConditionalGeneration``.
        tokenizer: of its text encoder; None loads that of the same name.

    Raises:
        FileNotFoundError: there is no such model, or it could not be reached.
        ValueError: a stereo model.
    """
    guard_torchaudio()
    from transformers import AutoTokenizer, MusicgenForConditionalGeneration

    model = name_or_model
    if isinstance(model, str):
        try:
            with hidden_progress_bars():
                model = MusicgenForConditionalGeneration.from_pretrained(name_or_model)
            tokenizer = tokenizer or AutoTokenizer.from_pretrained(name_or_model)
        except OSError as error:
            reason = " ".join(str(error).split())
            raise FileNotFoundError(
                f"MusicGen {name_or_model} cannot be loaded: {reason}"
            ) from error
    prior = MusicgenPrior.from_transformers(model)
    codec = TransformersCodec.from_transformers(model.audio_encoder, prior.num_codebooks)
    return {
        "tokenizer": tokenizer,
        "text_encoder": model.text_encoder.eval().requires_grad_(False),
        "codec": codec,
        "prior": prior,
    }
