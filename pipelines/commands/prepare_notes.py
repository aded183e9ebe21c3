"""``partita prepare notes``: the notes of scores or of MIDI files to a token cache."""

import argparse
import time
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="dataset of `prepare scores`, or a folder of MIDI files")
    parser.add_argument("--output", required=True, help="folder of the token cache")
    parser.add_argument("--monophonic", action="store_true", help="keep one voice, the highest")
    parser.add_argument("--steps-per-beat", type=int, default=24, help="of the time grid")
    parser.add_argument(
        "--validation-fraction",
        type=float,
        default=0.05,
        help="of the MIDI files (default: 0.05); a dataset keeps its splits",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Encode the notes and print what came of it."""
    from pipelines.data.notes.note_cache import build_note_cache
    from pipelines.data.notes.note_tokenizer import NoteTokenizer
    from pipelines.data.shards import read_split

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
        rows = read_split(Path(args.output) / split, ["num_frames"])
        frames = sum(row["num_frames"] for row in rows)
        print(f"{args.output}: {split} {count} pieces, {frames:,} frames")
    print(f"  {info.num_codebooks} codes a frame, made in {time.monotonic() - started:.0f} s")
    return 0
