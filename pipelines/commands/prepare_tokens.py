"""``partita prepare tokens``: the codes of every clip of a prepared dataset."""

import argparse
import time

from pipelines.commands.prepare_audio import add_scheduler_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prepared", help="folder of a prepared dataset")
    parser.add_argument(
        "--codec", required=True, help="folder (MODULE:CLASS:FOLDER: a class of yours)"
    )
    parser.add_argument("--output", required=True, help="folder of the token cache")
    parser.add_argument("--batch-clips", type=int, default=16, help="clips at once")
    parser.add_argument("--device", default="cpu", help="where to encode")
    parser.add_argument(
        "--shards",
        choices=["arrow", "parquet"],
        default="arrow",
        help="arrow is read without a copy; parquet is smaller, and the hub shows it",
    )
    add_scheduler_argument(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Encode the dataset and print what came of it."""
    from torch import nn

    from pipelines.data.codecs import load_codec
    from pipelines.data.token_cache import build_token_cache

    codec = load_codec(args.codec)
    if isinstance(codec, nn.Module):
        codec.to(args.device)
    started = time.monotonic()
    info = build_token_cache(
        args.prepared,
        codec,
        args.output,
        batch_clips=args.batch_clips,
        quiet=args.quiet,
        scheduler=args.scheduler,
        codec_folder=args.codec,
        shards=args.shards,
    )
    clips = ", ".join(f"{split} {count} clips" for split, count in info.clips.items())
    print(f"{args.output}: {clips}, {info.num_codebooks} books of {info.codebook_size}")
    seconds = time.monotonic() - started
    print(f"  {codec.frame_rate:g} frames a second, made in {seconds:.0f} s")
    return 0
