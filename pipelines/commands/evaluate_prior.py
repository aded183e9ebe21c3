"""``partita evaluate prior``: held-out bits, and what captions and plans are worth."""

import argparse
from pathlib import Path

from pipelines.inference.loading import read_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pipeline", required=True, help="folder of a saved pipeline")
    parser.add_argument(
        "--prior", help="folder of another prior, or of a planner, for the same text encoder"
    )
    parser.add_argument("--tokens", required=True, nargs="+", help="folders of token caches")
    parser.add_argument("--output", required=True, type=Path, help="folder of the report")
    parser.add_argument("--clips", type=int, default=64, help="held-out clips")
    parser.add_argument(
        "--duration", dest="duration_s", type=float, default=20.0, help="of a clip, s"
    )
    parser.add_argument("--frames", type=int, default=500, help="of a clip, where frames are notes")
    parser.add_argument("--split", default="validation", help="of the caches")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Measure, write the report and print its page."""
    from pipelines.evaluation.prior_report import PriorReportSettings, report_prior
    from pipelines.inference.shipped import find_shipped
    from pipelines.inference.text import load_text_encoder
    from prior.model import Prior

    args.pipeline = find_shipped(args.pipeline)
    folder = Path(args.prior or Path(args.pipeline) / "prior")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json: not a saved prior")
    settings = read_settings(PriorReportSettings, args)
    tokenizer, text_encoder = load_text_encoder(args.pipeline)
    prior = Prior.from_pretrained(folder).eval().float()
    name = Path(args.prior or args.pipeline).resolve().name
    report_prior(prior, tokenizer, text_encoder, settings, name)
    print((args.output / "prior.md").read_text())
    return 0
