"""``partita bench render``: speed and memory of rendering, by batch size and processes."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.inference.loading import add_pipeline_arguments

PROMPTS = ("a slow sad piano piece in D minor, 70 bpm", "fast techno", "a waltz for strings")
SAMPLE_EVERY_S = 0.2


@dataclass(frozen=True)
class RenderRow:
    """One line of the table.

    Attributes:
        batch_size: items whose tokens are written at once.
        workers: processes of a local cluster; 0 for one process.
        seconds: of rendering, without loading.
        audio_s_per_s: seconds of audio per second.
        peak_memory: resident in all processes together, shared pages counted in each (bytes).
    """

    batch_size: int
    workers: int
    seconds: float
    audio_s_per_s: float
    peak_memory: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita bench render``."""
    parser.add_argument("--items", type=int, default=1000, help="per line (default: 1000)")
    parser.add_argument("--duration", type=float, default=10.0, help="of an item, s (default: 10)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--workers", type=int, nargs="+", default=[0], help="(default: 0)")
    parser.add_argument("--threads", type=int, help="of PyTorch, all processes")
    parser.add_argument("--format", default="wav", help="of the files (default: wav)")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print; every line runs in processes of its own."""
    from pipelines.benchmarks.bench import processor_name

    if args.items < 1:
        raise ValueError(f"--items must be at least 1, got {args.items}")
    machine = processor_name()
    if not args.json:
        print(f"{machine}; {args.items} items of {args.duration:g} s")
        print(f"{'batch':>5}{'workers':>9}{'seconds':>10}{'audio-s/s':>11}{'peak memory':>13}")
    rows = []
    for workers in args.workers:
        for batch_size in args.batch_sizes:
            rows.append(measure(args, batch_size, workers))
            if not args.json:
                print(format_row(rows[-1]), flush=True)
    if args.json:
        facts = {"processor": machine, "items": args.items, "duration_s": args.duration}
        print(json.dumps({**facts, "rows": [asdict(row) for row in rows]}, indent=2))
    return 0


def measure(args: argparse.Namespace, batch_size: int, workers: int) -> RenderRow:
    """Render all items into a folder that is thrown away.

    Raises:
        ValueError: the run failed; its own message is on standard error.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_rows(folder / "rows.jsonl", args.items, args.duration, args.format)
        command = [sys.executable, "-m", "pipelines", "render", str(folder / "rows.jsonl")]
        command += ["--out", str(folder / "out"), "--pipeline", args.pipeline, "--progress", "json"]
        command += ["--batch-size", str(batch_size), "--workers", str(workers)]
        command += ["--threads", str(args.threads)] if args.threads else []
        peak = run_watched(command, folder / "events")
        *_, last = (folder / "events").read_text().splitlines()
    summary = json.loads(last)
    seconds = summary["seconds"]
    return RenderRow(batch_size, workers, seconds, summary["audio_s"] / seconds, peak)


def write_rows(path: Path, count: int, duration_s: float, format: str) -> None:
    """Items that differ in prompt and seed."""
    with path.open("w") as file:
        for index in range(count):
            prompt = PROMPTS[index % len(PROMPTS)]
            row = {"id": index, "prompt": prompt, "duration_s": duration_s, "format": format}
            print(json.dumps(row), file=file)


def run_watched(command: list[str], output: Path) -> int:
    """Run a command to its end; the most memory that it and its children held together (bytes).

    Args:
        command: to run.
        output: file that takes what it prints.

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


def resident_memory(pid: int) -> int:
    """Of a process and its descendants (bytes)."""
    import psutil

    total = 0
    try:
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            total += member.memory_info().rss
    except psutil.Error:  # one of them has just ended
        pass
    return total


def format_row(row: RenderRow) -> str:
    """A row as text."""
    memory = f"{row.peak_memory / 1e6:.0f} MB"
    return (
        f"{row.batch_size:>5}{row.workers:>9}{row.seconds:>10.1f}{row.audio_s_per_s:>11.1f}"
        f"{memory:>13}"
    )
