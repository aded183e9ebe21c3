"""``partita evaluate fit-detectors``: fit the detectors of tempo, key and instruments."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", type=Path, help="prepared scores, to learn tempo and instruments from too"
    )
    parser.add_argument("--renders", type=int, default=620, help="pieces to learn from")
    parser.add_argument("--held-out", type=int, default=200, help="pieces to be judged on")
    parser.add_argument(
        "--judge-soundfont",
        type=Path,
        help="SF2 file that plays the pieces to be judged on (default: the one learned from)",
    )
    parser.add_argument(
        "--judge-only", action="store_true", help="fit nothing, judge the weights in --output"
    )
    parser.add_argument("--seed", type=int, default=0, help="of pieces and fit")
    parser.add_argument(
        "--output", type=Path, help="file of the weights (default: those that evaluations use)"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bars")


def run(args: argparse.Namespace) -> int:
    """Fit, save, and print the shares of right answers on held-out pieces."""
    from pipelines.evaluation.detectors import WEIGHTS_PATH, load_detectors
    from pipelines.evaluation.fit_detectors import fit_detectors, gather_examples, judge_detectors
    from pipelines.evaluation.ground_truth import SOUNDFONT, check_player

    for name in ("renders", "held_out"):
        if getattr(args, name) < 1:
            raise ValueError(f"{name.replace('_', '-')} must be at least 1")
    output, soundfont = args.output or WEIGHTS_PATH, args.judge_soundfont or SOUNDFONT
    if not output.parent.is_dir():
        raise FileNotFoundError(f"{output.parent} does not exist")
    check_player(soundfont)
    if not args.judge_only:
        examples = gather_examples(args.data, args.renders, args.seed, args.quiet)
        counts = {"clips": str(len(examples.levels)), "pieces": str(len(examples.vectors))}
        fit_detectors(examples, args.seed, args.quiet).save(output, counts)
        print(f"{output}: learned from {counts['clips']} clips, {counts['pieces']} with a key")
    load_detectors.cache_clear()
    shares = judge_detectors(load_detectors(output), args.held_out, args.seed, soundfont)
    print(f"{args.held_out} held-out pieces of the composer learned from, played by {soundfont}")
    for fact, share in shares.items():
        print(f"{fact}: {share:.3f}")
    if soundfont == SOUNDFONT:
        print("the soundfont is the one learned from too: other music is judged less surely")
    return 0
