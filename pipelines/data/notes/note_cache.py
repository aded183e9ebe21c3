"""Encode notes into a token cache, on which the prior trains as on any other.

``codec`` in the folder is the ``NoteTokenizer`` that made it; the trainer needs it for samples
(``--data.codec``).
"""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from codec.whole_file import write_json
from pipelines.data.notes.note_pieces import NotePiece, find_pieces, say_skipped
from pipelines.data.notes.note_tokenizer import NoteTokenizer
from pipelines.data.shards import ShardWriter
from pipelines.data.token_cache import SHARD_CLIPS, new_cache, to_int16, token_row
from pipelines.data.tokens import INFO_NAME, SCHEMA, TokenInfo, hash_text

CODEC_NAME = "codec"


def build_note_cache(
    source: str | Path,
    tokenizer: NoteTokenizer,
    out_folder: str | Path,
    *,
    validation_fraction: float = 0.05,
    quiet: bool = False,
) -> TokenInfo:
    """Encode every piece of a source (``note_pieces.find_pieces``) to a cache, whole or not at all.

    ``validation_fraction`` is of MIDI files; rendered datasets keep their splits.

    Raises:
        ValueError: the folder exists, the source has no notes, or a setting is out of range.
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation-fraction must lie in [0, 1), got {validation_fraction}")
    splits = find_pieces(Path(source), validation_fraction)
    clips, ids = {}, []
    with new_cache(out_folder) as folder:
        for split, pieces in splits.items():
            bar = tqdm(pieces, desc=split, unit="piece", disable=quiet or None)
            written = list(write_split(bar, tokenizer, folder / split))
            ids += written
            if written:
                clips[split] = len(written)
        if not clips:
            raise ValueError(f"{source} has no piece with notes")
        info = TokenInfo.of(tokenizer, hash_text("\n".join(ids)), clips)
        tokenizer.save_pretrained(folder / CODEC_NAME)
        write_json(folder / INFO_NAME, asdict(info))
    return info


def write_split(
    pieces: Iterator[NotePiece | str], tokenizer: NoteTokenizer, folder: Path
) -> Iterator[str]:
    """Encode and store pieces, and give their ids; those without notes are left out and named."""
    with ShardWriter(folder, SCHEMA, SHARD_CLIPS) as writer:
        for piece in pieces:
            if isinstance(piece, str):
                say_skipped(piece)
                continue
            try:
                codes = to_int16(tokenizer.encode(piece.score), tokenizer)[0]
            except ValueError as error:
                say_skipped(f"{piece.id}: {error}")
                continue
            writer.add_row(token_row(vars(piece), codes))
            yield piece.id
