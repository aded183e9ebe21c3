"""Make the text encoder that ships: MiniLM in half precision with a smaller vocabulary.

``python -m pipelines.commands.text_encoder SOURCE --captions data/scores --output my-pipeline``
writes ``tokenizer`` and ``text_encoder`` folders. Half of MiniLM's weights are embeddings of 30,522
word pieces, and some are dropped: scripts that it was not trained on, rarer endings and numbers.
Whole words stay, because spelled in smaller pieces they lose their meaning (docs/experiments.md),
and so does every piece that the captions of the named datasets use: their states stay the same.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

RESERVED = 104
"""BERT's first pieces: padding, unused ones and the four special ones, whose numbers stay."""


def keep_pieces(vocabulary: dict[str, int], used: set[int], size: int) -> list[int]:
    """Choose the pieces to keep: single characters first, then words, then the others.

    Args:
        vocabulary: piece -> number; BERT numbers pieces from frequent to rare.
        used: numbers that must be kept.
        size: how many to keep in all, more if single characters and ``used`` alone are more.

    Returns:
        Old numbers in ascending order; the place in the list is the new number.
    """
    kept = set(range(RESERVED)) | used
    kept |= {number for piece, number in vocabulary.items() if is_character(piece)}
    ascii_pieces = [piece for piece in vocabulary if piece.isascii() and piece[0] != "["]
    for piece in sorted(ascii_pieces, key=lambda piece: (not piece.isalpha(), vocabulary[piece])):
        if len(kept) >= size:
            break
        kept.add(vocabulary[piece])
    return sorted(kept)


def is_character(piece: str) -> bool:
    """Tell whether a piece is a Latin letter, a digit or a sign such as the sharp, alone."""
    character = piece.removeprefix("##")
    return len(character) == 1 and (character < "\u0250" or "\u2000" <= character < "\u2e80")


def pieces_used(tokenizer: Any, texts: Iterable[str]) -> set[int]:
    """Return the numbers of the word pieces that some texts are made of."""
    return {number for text in texts for number in tokenizer(text)["input_ids"]}


def trim(source: Path, texts: Iterable[str], size: int, output: Path) -> None:
    """Write the smaller tokenizer and encoder.

    Args:
        source: a folder with MiniLM as transformers saves it.
        texts: whose pieces are all kept.
        size: of the new vocabulary.
        output: folder in which ``tokenizer`` and ``text_encoder`` are made.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    kept = keep_pieces(tokenizer.get_vocab(), pieces_used(tokenizer, texts), size)
    encoder = AutoModel.from_pretrained(source, local_files_only=True, add_pooling_layer=False)
    words = encoder.get_input_embeddings().weight.detach()[kept].clone()
    encoder.resize_token_embeddings(len(kept))
    encoder.get_input_embeddings().weight.data.copy_(words)
    encoder.half().save_pretrained(output / "text_encoder")
    tokenizer.save_pretrained(output / "tokenizer")
    path = output / "tokenizer" / "tokenizer.json"
    settings = json.loads(path.read_text())
    by_number = {number: piece for piece, number in settings["model"]["vocab"].items()}
    settings["model"]["vocab"] = {by_number[old]: new for new, old in enumerate(kept)}
    path.write_text(json.dumps(settings, ensure_ascii=False, indent=1))


def captions(folders: list[str]) -> Iterable[str]:
    """Yield every caption of the training clips of prepared datasets or token caches."""
    from pipelines.data.prepared import open_prepared
    from pipelines.data.tokens import INFO_NAME, open_tokens

    for folder in folders:
        is_cache = (Path(folder) / INFO_NAME).is_file()
        for texts in (open_tokens if is_cache else open_prepared)(folder, "train")["captions"]:
            yield from texts


def main(argv: list[str] | None = None) -> int:
    """Read the command line, then trim."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.commands.text_encoder", description=__doc__
    )
    parser.add_argument("source", help="folder of all-MiniLM-L6-v2 as transformers saves it")
    parser.add_argument("--captions", nargs="*", default=[], help="prepared data, token caches")
    parser.add_argument("--size", type=int, default=23_500, help="pieces to keep (23500)")
    parser.add_argument("--output", required=True, help="folder for tokenizer and text_encoder")
    args = parser.parse_args(argv)
    if not (Path(args.source) / "config.json").is_file():
        parser.error(f"{args.source} holds no saved encoder: config.json is missing")
    trim(Path(args.source), captions(args.captions), args.size, Path(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
