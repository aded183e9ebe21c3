"""Cut captions to the length that the text encoder takes, while data are prepared."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

MAX_TOKENS = 64
"""Longest prompt or caption, in tokens of the text encoder, its marks of begin and end included."""
PRETRAINED = Path(__file__).parents[1] / "pretrained" / "partita-tiny"
"""The pipeline that ships, whose text encoder trainers use unless another is named."""

Offsets = Callable[[str], list[tuple[int, int]]]


def shorten(text: str, offsets: Offsets, max_tokens: int = MAX_TOKENS) -> str:
    """Return the words from the beginning of a text that fit into ``max_tokens``.

    ``offsets`` gives first and last character of every token, those of begin and end too.
    """
    if len(text) + 2 <= max_tokens:  # no token is shorter than a character
        return text
    places = offsets(text)
    if len(places) <= max_tokens:
        return text
    end = places[max_tokens - 1][0]
    words = text[:end].rsplit(maxsplit=0 if text[end].isspace() else 1)
    cut = words[0] if words else text[:end]
    return cut if len(offsets(cut)) <= max_tokens else shorten(cut, offsets, max_tokens - 1)


def shorten_caption(caption: str) -> str:
    """Shorten a caption for the text encoder that ships."""
    return shorten(caption, shipped_offsets)


def shipped_offsets(text: str) -> list[tuple[int, int]]:
    """Find the characters of every token of the tokenizer that ships."""
    return load_offsets(PRETRAINED / "tokenizer" / "tokenizer.json")(text)


def count_tokens(text: str, vocabulary: Path) -> int:
    """Count the tokens of a text by a ``tokenizer.json``."""
    return len(load_offsets(vocabulary)(text))


@functools.cache
def load_offsets(vocabulary: Path) -> Offsets:
    """Load a tokenizer, without transformers; ValueError where the file is damaged."""
    tokenizer = read_tokenizer(vocabulary)
    return lambda text: tokenizer.encode(text).offsets


def read_tokenizer(vocabulary: Path) -> Any:
    """Read a ``tokenizer.json``, and neither pad nor cut what it encodes.

    Raises:
        ValueError: the file is damaged.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(vocabulary))
    except Exception as error:  # tokenizers raises no class of its own
        raise ValueError(f"{vocabulary} cannot be loaded: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
