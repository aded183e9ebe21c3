"""``partita prepare scores``: music composed and rendered here, as a labeled dataset."""

import argparse
from pathlib import Path

from pipelines.commands.prepare_audio import add_scheduler_argument


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from pipelines.data.scores.score_sources import DEFAULT_SOURCES, SOURCES

    parser.add_argument("--output", type=Path, required=True, help="folder of the prepared dataset")
    parser.add_argument("--hours", type=float, required=True, help="hours of music to render")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal datasets")
    parser.add_argument("--workers", type=int, default=1, help="processes that render")
    add_scheduler_argument(parser)
    parser.add_argument(
        "--sources",
        nargs="+",
        choices=list(SOURCES),
        default=list(DEFAULT_SOURCES),
        help="where scores come from",
    )
    parser.add_argument(
        "--leads",
        nargs="+",
        default=[],
        metavar="NAME",
        help="instruments that lead the generated pieces (default: any, often the style's)",
    )
    parser.add_argument(
        "--audio", choices=("none", "keep"), default="none", help="keep FLAC audio in the dataset"
    )
    parser.add_argument("--soundfont", type=Path, default=None, help="SF2 file, default FluidR3_GM")
    parser.add_argument(
        "--clip", dest="clip_s", type=float, default=20.0, metavar="S", help="clip length"
    )
    parser.add_argument("--shard-clips", type=int, default=256, help="clips per shard")


def run(args: argparse.Namespace) -> int:
    """Render the dataset and print what came of it."""
    from pipelines.data.scores.score_dataset import ScoreDataset, prepare_scores, read_skipped

    values = {name: value for name, value in vars(args).items() if value is not None}
    values |= {"sources": tuple(args.sources), "leads": tuple(args.leads)}
    info = prepare_scores(ScoreDataset(values.pop("output"), **values))
    hours = sum(split["hours"] for split in info["splits"].values())
    print(f"{hours:.2f} hours in {args.output}, {len(read_skipped(args.output))} skipped")
    return 0
