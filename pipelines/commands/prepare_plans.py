"""``partita prepare plans``: the plans of composed pieces, for a planner."""

import argparse
import time


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from pipelines.data.scores.score_sources import DEFAULT_SOURCES, SOURCES

    parser.add_argument("--output", required=True, help="folder of the token cache")
    parser.add_argument("--pieces", type=int, default=20_000, help="to compose")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal caches")
    parser.add_argument("--workers", type=int, default=1, help="processes that compose")
    parser.add_argument(
        "--sources", nargs="+", choices=list(SOURCES), default=list(DEFAULT_SOURCES)
    )


def run(args: argparse.Namespace) -> int:
    """Compose the pieces and print what came of it."""
    from pipelines.data.scores.plan_cache import build_plan_cache

    started = time.monotonic()
    sources = tuple(sorted(args.sources))
    counts = build_plan_cache(args.output, args.pieces, args.seed, sources, args.workers)
    made = ", ".join(f"{split} {count}" for split, count in counts.items())
    print(f"{args.output}: {made} plans, made in {time.monotonic() - started:.0f} s")
    return 0
