"""``partita bench``: how fast every part runs on this machine, and how much memory it takes.

With ``--peers`` every part takes turns with models of other projects instead, with ``--baseline``
with another checkout of Partita.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.benchmarks.machine import print_rows, processor_name
from pipelines.inference.loading import add_pipeline_arguments, load_pipeline

if TYPE_CHECKING:
    from pipelines.inference.music_generator import MusicGenerator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--duration", type=float, default=10.0, help="of the audio, s")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs per row")
    parser.add_argument(
        "--threads", type=int, help="of PyTorch (default: its own choice; with --peers one and two)"
    )
    parser.add_argument(
        "--peers", action="store_true", help="beside models of other projects of the same size"
    )
    parser.add_argument(
        "--baseline", type=Path, metavar="FOLDER", help="in turns with a checkout of Partita"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {args.repeats}")
    if not 0.1 <= args.duration < math.inf:
        raise ValueError(f"--duration must be at least 0.1 s, got {args.duration}")
    if args.baseline is not None:
        return run_baseline(args)
    from codec.process_settings import cpu_threads
    from pipelines.benchmarks.part_speed import describe_machine, measure_parts

    with cpu_threads(args.threads):
        pipeline = load_pipeline(args.pipeline, args.quiet or args.json)
        pipeline.set_progress_bar_config(disable=True)
        machine = describe_machine(pipeline.device)
        if args.peers:
            rows: Iterator[Any] = measure_peers(pipeline, args)
            head = (
                f"{machine['processor']}, torch {machine['torch']}; {args.duration:g} s of audio, "
                f"{args.repeats} rounds; medians (smallest-largest), ratios are theirs over ours\n"
                f"{'task':22}{'peer':30}{'threads':>8}{'ours':>17}{'theirs':>10}"
                f"{'wall time':>24}{'CPU time':>24}{'parameters':>16}"
            )
        else:
            rows = measure_parts(pipeline, args.duration, args.repeats)
            head = (
                f"{machine['processor']}, {machine['threads']} threads, {machine['device']}, "
                f"torch {machine['torch']}; {args.duration:g} s of audio, {args.repeats} runs\n"
                f"{'':22}{'seconds (min-max)':>24}{'real time':>11}{'peak':>10}"
            )
        facts = {**machine, "duration_s": args.duration, "repeats": args.repeats}
        return print_rows(rows, head, facts, args.json)


def run_baseline(args: argparse.Namespace) -> int:
    """Measure this build and another one in turns, with the weights that each ships."""
    from pipelines.benchmarks.baseline import compare_builds

    processor = processor_name()
    head = (
        f"{processor}; {args.duration:g} s of audio, {args.repeats} rounds; ms, and ours over "
        f"theirs\n{'':22}{'wall':>10}{'CPU':>10}{'wall ratio':>20}{'CPU ratio':>20}"
    )
    facts = {"processor": processor, "duration_s": args.duration, "repeats": args.repeats}
    rows = compare_builds(args.baseline, args.duration, args.threads or 1, args.repeats)
    return print_rows(rows, head, facts, args.json)


def measure_peers(pipeline: "MusicGenerator", args: argparse.Namespace) -> Iterator[Any]:
    """Measure every task with every number of threads."""
    from codec.process_settings import cpu_threads
    from pipelines.benchmarks.peers import compare, peer_tasks

    for task in peer_tasks(pipeline, args.duration):
        for threads in [args.threads] if args.threads else [1, 2]:
            with cpu_threads(threads):
                yield from compare(task, args.repeats)
