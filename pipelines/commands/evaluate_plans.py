"""``partita evaluate plans``: what is heard of plans and edits."""

import argparse
from pathlib import Path

from pipelines.inference.loading import add_pipeline_arguments, load_pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_pipeline_arguments(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the report")
    parser.add_argument("--pieces", type=int, default=12, help="of each kind")
    parser.add_argument("--songs", type=int, default=0, help="of minutes, for what returns")
    parser.add_argument(
        "--recordings", nargs="+", type=Path, metavar="PATH", help="real music, edited too"
    )
    parser.add_argument("--clips", type=int, default=40, help="of the recordings")
    parser.add_argument("--seed", type=int, default=0, help="of the first piece")


def run(args: argparse.Namespace) -> int:
    """Measure, write the report and print its figures."""
    from pipelines.data.scores.score_sound import SOUNDFONT, check_programs
    from pipelines.evaluation.clips import choose_clips
    from pipelines.evaluation.plan_report import PIECE_S, PlanReport, report_plans

    if args.pieces < 2:
        raise ValueError(f"pieces must be at least 2, got {args.pieces}")
    check_programs(["fluidsynth"], SOUNDFONT)
    recordings = []
    if args.recordings:
        recordings = choose_clips(args.recordings, args.clips, PIECE_S, PIECE_S).clips
    pipeline = load_pipeline(args.pipeline, args.quiet)
    pipeline.set_progress_bar_config(disable=True)
    numbers = (args.pieces, args.songs, args.seed)
    figures = report_plans(pipeline, PlanReport(args.output, *numbers, tuple(recordings)))
    for name, value in figures.items():
        print(f"{name}: {value:.3g}")
    return 0
