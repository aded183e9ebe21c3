"""``partita evaluate pipeline``: what prompts ask for against what is detected."""

import argparse
from pathlib import Path

from pipelines.commands.evaluate_codec import add_space_argument
from pipelines.inference.loading import add_pipeline_arguments, load_pipeline, read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pipeline_arguments(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the report")
    parser.add_argument("--prompts", type=Path, help="list of prompts (default: ours)")
    parser.add_argument(
        "--groups", nargs="+", help="of prompts: trained, held-out, free (default: all)"
    )
    parser.add_argument("--limit", type=int, help="prompts, evenly spaced (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="takes of a prompt")
    parser.add_argument(
        "--duration", dest="duration_s", type=float, default=10.0, help="of a take, s"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="takes at once")
    parser.add_argument("--guidance", type=float, help="default: the pipeline's")
    parser.add_argument("--steps", type=int, help="of the decoder (default: the pipeline's)")
    add_space_argument(parser)
    parser.add_argument("--long", action="store_true", help="drift over pieces of 60 and 240 s")
    parser.add_argument(
        "--train-data", nargs="+", default=[], help="token caches to look for copies in"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, write the report and print its page."""
    from pipelines.evaluation.drift import LONG_S
    from pipelines.evaluation.embeddings import EMBEDDINGS
    from pipelines.evaluation.pipeline_report import PipelineReportSettings, report_pipeline
    from pipelines.evaluation.prompts import GROUPS, PROMPTS_PATH, choose_prompts, read_prompts
    from pipelines.evaluation.takes import TakeSettings

    prompts = read_prompts(args.prompts or PROMPTS_PATH)
    prompts = choose_prompts(prompts, args.groups or GROUPS, args.limit)
    settings = PipelineReportSettings(
        output=args.output,
        takes=read_settings(TakeSettings, args),
        spaces=tuple(EMBEDDINGS if args.spaces is None else args.spaces),
        long_s=LONG_S if args.long else (),
        train_data=args.train_data,
        quiet=args.quiet,
    )
    pipeline = load_pipeline(args.pipeline, args.quiet)
    report_pipeline(pipeline, prompts, settings, Path(args.pipeline).resolve().name)
    print((args.output / "pipeline.md").read_text())
    return 0
