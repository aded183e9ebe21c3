"""``partita bench render``: speed and memory of rendering, by batch size and processes."""

import argparse

from pipelines.benchmarks.machine import print_rows, processor_name
from pipelines.benchmarks.render_speed import make_rows, measure_rendering
from pipelines.inference.loading import add_pipeline_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--items", type=int, default=1000, help="per line")
    parser.add_argument("--duration", type=float, default=10.0, help="of an item, s")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="processes")
    parser.add_argument("--threads", type=int, help="of PyTorch, all processes")
    parser.add_argument("--format", default="wav", help="of the files")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; every line runs in processes of its own."""
    if args.items < 1:
        raise ValueError(f"--items must be at least 1, got {args.items}")
    items, machine = make_rows(args.items, args.duration, args.format), processor_name()
    head = (
        f"{machine}; {args.items} items of {args.duration:g} s\n"
        f"{'batch':>5}{'workers':>9}{'seconds':>10}{'audio-s/s':>11}{'peak memory':>13}"
    )
    rows = (
        measure_rendering(items, args.pipeline, batch_size, workers, args.threads)
        for workers in args.workers
        for batch_size in args.batch_sizes
    )
    facts = {"processor": machine, "items": args.items, "duration_s": args.duration}
    return print_rows(rows, head, facts, args.json)
