"""``partita prepare notes``: notes to a token cache, on which the prior trains as on any other.

``open_tokens`` opens the folder as any other cache; ``codec`` in it is the ``NoteTokenizer``
that made it, which the trainer needs for samples (``--data.codec``).
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.data.notes.note_pieces import NotePiece
    from pipelines.data.notes.note_tokenizer import NoteTokenizer
    from pipelines.data.tokens import TokenInfo

CODEC_NAME = "codec"


def build_note_cache(
    source: str | Path,
    codec: "NoteTokenizer",
    out_folder: str | Path,
    *,
    validation_fraction: float = 0.05,
    quiet: bool = False,
) -> "TokenInfo":
    """Encode every piece of a source; the folder appears when it is whole.

    Args:
        source: see ``pieces.find_pieces``.
        codec: decides the grid, and whether one voice or all are kept.
        out_folder: of the cache.
        validation_fraction: of MIDI files; rendered datasets keep their splits.
        quiet: no progress bar.

    Returns:
        What ``tokens.json`` says.

    Raises:
        ValueError: the folder exists, the source has no notes, or a setting is out of range.
    """
    from codec.whole_file import write_json
    from pipelines.data.notes.note_pieces import find_pieces
    from pipelines.data.tokens import INFO_NAME, TokenInfo, hash_text
    from pipelines.training.checkpoints import new_folder

    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation-fraction must lie in [0, 1), got {validation_fraction}")
    if Path(out_folder).exists():
        raise ValueError(f"{out_folder} exists already: choose another folder or delete it")
    splits = find_pieces(Path(source), validation_fraction)
    clips, ids = {}, []
    with new_folder(Path(out_folder)) as folder:
        for split, pieces in splits.items():
            written = list(write_split(pieces, codec, folder / split, split, quiet))
            ids += written
            if written:
                clips[split] = len(written)
        if not clips:
            raise ValueError(f"{source} has no piece with notes")
        info = TokenInfo.of(codec, hash_text("\n".join(ids)), clips)
        codec.save_pretrained(folder / CODEC_NAME)
        write_json(folder / INFO_NAME, asdict(info))
    return info


def write_split(
    pieces: "Iterator[NotePiece | str]",
    codec: "NoteTokenizer",
    folder: Path,
    split: str,
    quiet: bool,
) -> Iterator[str]:
    """Encode and write pieces, and give their ids; those without notes are left out and said."""
    from tqdm import tqdm

    from pipelines.data.notes.note_pieces import say_skipped
    from pipelines.data.shards import ShardWriter
    from pipelines.data.token_cache import SHARD_CLIPS
    from pipelines.data.tokens import SCHEMA

    with ShardWriter(folder, SCHEMA, SHARD_CLIPS) as writer:
        for piece in tqdm(pieces, desc=split, unit="piece", disable=quiet or None):
            if isinstance(piece, str):
                say_skipped(piece)
                continue
            try:
                row = note_row(piece, codec)
            except ValueError as error:
                say_skipped(f"{piece.id}: {error}")
                continue
            writer.add_row(row)
            yield piece.id


def note_row(piece: "NotePiece", codec: "NoteTokenizer") -> dict[str, Any]:
    """A row of ``tokens.SCHEMA``."""
    from pipelines.data.token_cache import to_int16, token_row

    facts = {
        "id": piece.id,
        "captions": piece.captions,
        "labels": piece.labels,
        "source": piece.source,
        "is_end": piece.is_end,
    }
    return token_row(facts, to_int16(codec.encode(piece.score), codec)[0])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita prepare notes``."""
    parser.add_argument("source", help="dataset of `prepare scores`, or a folder of MIDI files")
    parser.add_argument("--output", "--out", required=True, help="folder of the token cache")
    parser.add_argument("--monophonic", action="store_true", help="keep one voice, the highest")
    parser.add_argument(
        "--steps-per-beat", type=int, default=24, help="of the time grid (default: 24)"
    )
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.05,
        help="of the MIDI files (default: 0.05); a dataset keeps its splits",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Run ``partita prepare notes`` and print what came of it."""
    from pipelines.data.notes.note_tokenizer import NoteTokenizer
    from pipelines.data.shards import list_shards, read_columns

    started = time.monotonic()
    codec = NoteTokenizer(args.steps_per_beat, args.monophonic)
    info = build_note_cache(
        args.source,
        codec,
        args.output,
        validation_fraction=args.validation_fraction,
        quiet=args.quiet,
    )
    for split, count in info.clips.items():
        shards = list_shards(Path(args.output) / split)
        frames = sum(row["num_frames"] for p in shards for row in read_columns(p, ["num_frames"]))
        print(f"{args.output}: {split} {count} pieces, {frames:,} frames")
    print(f"  {info.num_codebooks} codes a frame, made in {time.monotonic() - started:.0f} s")
    return 0
