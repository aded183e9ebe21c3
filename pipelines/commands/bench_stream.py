"""``partita bench stream``: how soon a stream sounds, and whether it falls behind.

``--duration 600 --repeats 1`` shows what changes with the minutes of a long piece.
"""

import argparse

from pipelines.benchmarks.stream_latency import (
    by_cpu,
    costs,
    replay,
    summarize_replays,
    time_stream,
)
from pipelines.inference.loading import add_pipeline_arguments, load_pipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--duration", type=float, default=20.0, help="of a piece, s")
    parser.add_argument("--repeats", type=int, default=5, help="pieces")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {args.repeats}")
    from codec.process_settings import cpu_threads

    with cpu_threads(args.threads):
        pipeline = load_pipeline(args.pipeline, args.quiet)
        list(time_stream(pipeline, 1.0, 0))  # the first calls of a process are slower
        runs = [list(time_stream(pipeline, args.duration, seed)) for seed in range(args.repeats)]
    print(f"{args.threads} threads, {args.duration:g} s of audio, {args.repeats} runs")
    print(summarize_replays("wall time", [replay(run) for run in runs]))
    print(summarize_replays("CPU time", [replay([by_cpu(chunk) for chunk in run]) for run in runs]))
    print("to second   wall s/s   CPU s/s    memory")
    for place, wall, cpu, memory in costs(runs[-1]):
        print(f"{place:9.0f}{wall:11.3f}{cpu:10.3f}{memory / 1e6:7.0f} MB")
    return 0
