"""``partita train recognizer``: a network that hears who plays what, for losses in its layers."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scores", nargs="+", help="datasets of `prepare scores`")
    parser.add_argument("--output", type=Path, required=True, help="folder of the recognizer")
    parser.add_argument("--steps", type=int, default=2000, help="of 32 crops of 3.2 s")
    parser.add_argument("--seed", type=int, default=0, help="of weights and crops")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    """Fit the recognizer and print how much it hears in clips that it has not learned from."""
    from pipelines.training.fit_recognizer import fit_recognizer

    if args.steps < 2:
        raise ValueError(f"--steps must be at least 2, got {args.steps}")
    if args.output.exists() and any(args.output.iterdir()):
        raise ValueError(f"{args.output} is not empty")
    fitted = fit_recognizer(args.scores, args.steps, args.seed, args.quiet)
    fitted.recognizer.save_pretrained(args.output)
    print(
        f"{args.output}: learned from {fitted.num_clips} clips; the leading instrument is the "
        f"likeliest in {fitted.leads:.0%} of the token frames of {fitted.num_held_out} others"
    )
    return 0
