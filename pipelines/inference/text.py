"""Prompts to the text encoder's token states."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from codec.process_settings import hidden_progress_bars
from codec.whole_file import read_json_object
from pipelines.data.caption_length import MAX_TOKENS as MAX_TOKENS
from pipelines.data.caption_length import PRETRAINED as PRETRAINED
from prior.condition import Condition


@torch.no_grad()
def encode_text(
    tokenizer: Any, text_encoder: nn.Module, prompts: list[str], max_tokens: int = MAX_TOKENS
) -> Condition:
    """Encode B prompts; an empty one becomes a row without tokens, which is unconditional.

    The encoder is one of transformers, with ``last_hidden_state``.

    Raises:
        ValueError: a prompt is longer than ``max_tokens``.
    """
    tokens = tokenizer(prompts, padding=True, return_tensors="pt")
    longest = tokens["input_ids"].shape[1]
    if longest > max_tokens:
        raise ValueError(f"a prompt may have at most {max_tokens} tokens, got {longest}")
    device = next(text_encoder.parameters()).device
    states = text_encoder(
        input_ids=tokens["input_ids"].to(device), attention_mask=tokens["attention_mask"].to(device)
    ).last_hidden_state
    present = torch.tensor([bool(prompt.strip()) for prompt in prompts])
    mask = tokens["attention_mask"].bool() & present[:, None]
    return Condition(states.float(), mask.to(device))


def load_text_encoder(folder: str | Path, variant: str | None = None) -> tuple[Any, nn.Module]:
    """Load tokenizer and frozen text encoder of a saved pipeline, its weights of a variant.

    Raises:
        FileNotFoundError: the folder lacks one of them.
        ValueError: a file is damaged, or the weights do not fit the encoder's config.
    """
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer, T5EncoderModel

    folder = Path(folder)
    for name in ("tokenizer", "text_encoder"):
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"{folder} holds no {name}/: not a saved pipeline")
        for path in (folder / name).glob("*.json"):
            read_json_object(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except Exception as error:  # tokenizers raises no class of its own
        raise ValueError(f"{folder}/tokenizer cannot be loaded: {error}") from error
    config = read_json_object(folder / "text_encoder" / "config.json")
    loaded, options = AutoModel, {"add_pooling_layer": False}
    if config.get("model_type") == "t5":  # whose other half writes
        loaded, options = T5EncoderModel, {}
    try:
        with hidden_progress_bars():
            encoder, report = loaded.from_pretrained(
                folder / "text_encoder",
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                variant=variant,
                output_loading_info=True,
                **options,
            )
    except SafetensorError as error:
        raise ValueError(f"{folder}/text_encoder: not a whole safetensors file: {error}") from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[kind]:
            first = sorted(map(str, report[kind]))[0]
            raise ValueError(f"{folder}/text_encoder: {kind.replace('_', ' ')}: {first!r}")
    return tokenizer, encoder.eval().requires_grad_(False)
