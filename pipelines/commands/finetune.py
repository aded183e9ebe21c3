"""``partita finetune``: a folder of music to a LoRA adapter."""

import argparse
import json
from pathlib import Path

from pipelines.inference.loading import SHIPPED, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("album", type=Path, help="folder, archive, metadata.jsonl or list of files")
    parser.add_argument("--output", required=True, type=Path, help="folder of the adapter")
    parser.add_argument("--pipeline", type=Path, default=SHIPPED, help="(default: the shipped one)")
    parser.add_argument(
        "--captions-only", action="store_true", help="write metadata.jsonl to edit, and stop"
    )
    parser.add_argument("--style", help="words that captions begin with (default: output's name)")
    parser.add_argument("--steps", type=int, default=600, help="of training")
    parser.add_argument("--batch-size", type=int, default=8, help="clips per step")
    parser.add_argument("--crop", dest="crop_s", type=float, default=10.0, help="clip length in s")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter")
    parser.add_argument("--decoder", action="store_true", help="adapt the decoder too")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--workers", type=int, default=1, help="processes that read the album")
    parser.add_argument("--resume", action="store_true", help="go on where it was stopped")
    parser.add_argument("--no-figures", action="store_true", help="skip before and after")
    parser.add_argument("--quiet", action="store_true", help="print results and errors only")


def run(args: argparse.Namespace) -> int:
    """Train the adapter and print what it changed."""
    from codec.whole_file import write_json, write_whole
    from pipelines.finetuning.adaptation import FinetuneConfig, adapter_card, finetune
    from pipelines.finetuning.before_after import compare, describe_figures
    from pipelines.inference.loading import load_pipeline

    config = read_settings(FinetuneConfig, args)
    tracks = config.write_captions()
    for track in tracks:
        print(f"{track.split:10}  {track.name}: {json.dumps(track.metadata.get('captions', []))}")
    if args.captions_only:
        print(f"edit {config.captions}, then run the same command without --captions-only")
        return 0
    folder = finetune(config, args.resume)
    figures = None
    if not args.no_figures:
        base = load_pipeline(str(args.pipeline), quiet=True)
        base.set_progress_bar_config(disable=True)
        figures = compare(base, folder, config.tokens, tracks)
        write_json(folder / "figures.json", figures)
        print("\n".join(describe_figures(figures)))
    write_whole(folder / "README.md", adapter_card(config, tracks, figures))
    print(f"{folder}: partita generate 'a prompt' --lora {folder}:0.8")
    return 0
