"""``partita merge``: LoRA adapters and their pipeline to a pipeline of its own."""

import argparse
from pathlib import Path

from pipelines.inference.loading import add_lora_argument, add_pipeline_arguments, parse_loras


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_lora_argument(parser)
    add_pipeline_arguments(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the pipeline")


def run(args: argparse.Namespace) -> int:
    """Add the adapters to the weights and save the pipeline."""
    from codec.whole_file import new_folder
    from pipelines.inference.lora import add_loras
    from pipelines.pipeline import Pipeline

    if not args.lora:
        raise ValueError("name at least one adapter with --lora")
    pipeline = Pipeline.from_pretrained(args.pipeline)
    add_loras(pipeline, parse_loras(args.lora))
    pipeline.fuse_lora()
    with new_folder(args.output) as partial:
        pipeline.save_pretrained(partial)
    print(args.output)
    return 0
