"""``partita bench render``: speed and memory of rendering, by batch size and processes."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.benchmarks.machine import print_rows, processor_name, resident_memory
from pipelines.inference.loading import add_pipeline_arguments

PROMPTS = ("a slow sad piano piece in D minor, 70 bpm", "fast techno", "a waltz for strings")
SAMPLE_EVERY_S = 0.2


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


@dataclass(frozen=True)
class RenderSpeed:
    """Prints one line of the table."""

    batch_size: int  # items whose tokens are generated at once
    workers: int  # processes of a local cluster; 0 for one process
    seconds: float  # of rendering, without loading
    audio_s_per_s: float
    peak_memory: int  # of all processes, shared pages counted in each (bytes)

    def __str__(self) -> str:
        memory = f"{self.peak_memory / 1e6:.0f} MB"
        return (
            f"{self.batch_size:>5}{self.workers:>9}{self.seconds:>10.1f}"
            f"{self.audio_s_per_s:>11.1f}{memory:>13}"
        )


def measure_rendering(
    rows: list[dict[str, object]], pipeline: str, batch_size: int, workers: int, threads: int | None
) -> RenderSpeed:
    """Render rows into a folder that is deleted, in processes of their own.

    Raises:
        ValueError: the run failed; its own message is on standard error.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        command = [sys.executable, "-m", "pipelines", "render", str(folder / "rows.jsonl")]
        command += ["--output", str(folder / "out"), "--pipeline", pipeline, "--progress", "json"]
        command += ["--batch-size", str(batch_size), "--workers", str(workers)]
        command += ["--threads", str(threads)] if threads else []
        peak = run_watched(command, folder / "events")
        *_, last = (folder / "events").read_text().splitlines()
    summary = json.loads(last)
    seconds = summary["seconds"]
    return RenderSpeed(batch_size, workers, seconds, summary["audio_s"] / seconds, peak)


def make_rows(count: int, duration_s: float, format: str) -> list[dict[str, object]]:
    """Make items that differ in prompt and seed."""
    prompts = (PROMPTS[index % len(PROMPTS)] for index in range(count))
    shared = {"duration_s": duration_s, "format": format}
    return [{"id": index, "prompt": prompt, **shared} for index, prompt in enumerate(prompts)]


def run_watched(command: list[str], output: Path) -> int:
    """Run a command to its end, its standard output in a file; return its peak memory (bytes).

    Raises:
        ValueError: it failed.
    """
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file)
    peak = 0
    try:
        while process.poll() is None:
            peak = max(peak, resident_memory(process.pid))
            time.sleep(SAMPLE_EVERY_S)
    finally:
        process.kill()
    if process.returncode != 0:
        raise ValueError(f"the run ended with exit code {process.returncode}")
    return peak
