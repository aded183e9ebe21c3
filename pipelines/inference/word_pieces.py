"""Tokenizer and text encoder of a saved pipeline, by ``tokenizers`` and PyTorch alone."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from codec.whole_file import read_json_object
from pipelines.data.caption_length import read_tokenizer
from pipelines.inference.bert import BertModel

SAVED_CLASSES = ("BertTokenizer", "TokenizersBackend")
"""Tokenizers of transformers that do what their ``tokenizer.json`` says."""


class WordPieceTokenizer:
    """A tokenizer saved in a folder, to be called as those of transformers are.

    Raises:
        ValueError: a file is damaged, or of a tokenizer of another kind.
    """

    def __init__(self, folder: Path) -> None:
        config = read_json_object(folder / "tokenizer_config.json")
        self.saved_class: str = config.get("tokenizer_class", "")
        self.tokenizer = read_tokenizer(folder / "tokenizer.json")
        self.padding = self.tokenizer.token_to_id(str(config.get("pad_token")))
        if self.saved_class not in SAVED_CLASSES or self.padding is None:
            raise ValueError(f"{folder} holds a tokenizer of another kind, {self.saved_class}")

    def __call__(
        self, texts: str | list[str], padding: bool = False, return_tensors: str | None = None
    ) -> dict[str, Any]:
        """Encode a text to a list of ids, or texts to (B, L) tensors of ids and of their mask."""
        if isinstance(texts, str):
            return {"input_ids": self.tokenizer.encode(texts).ids}
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(texts)]
        longest = max(map(len, rows))
        ids = [row + [self.padding] * (longest - len(row)) for row in rows]
        mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def get_vocab(self) -> dict[str, int]:
        """Every token and its id."""
        return self.tokenizer.get_vocab()


def load_text_parts(folder: Path, variant: str | None = None) -> tuple[Any, nn.Module]:
    """Load tokenizer and text encoder; transformers loads, or refuses, what is no plain BERT.

    So it does with a ``variant`` of the weights.

    Raises:
        FileNotFoundError: the folder lacks one of them.
        ValueError: a file is damaged, or the weights do not fit the encoder's config.
    """
    with suppress(OSError, ValueError, RuntimeError, SafetensorError):
        if variant is None:
            encoder = BertModel.from_pretrained(folder / "text_encoder")
            return WordPieceTokenizer(folder / "tokenizer"), encoder
    from pipelines.inference.text import load_text_encoder

    return load_text_encoder(folder, variant)
