"""Measure speed and memory of ``partita render``, by batch size and number of processes."""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from pipelines.benchmarks.machine import resident_memory

PROMPTS = ("a slow sad piano piece in D minor, 70 bpm", "fast techno", "a waltz for strings")
SAMPLE_EVERY_S = 0.2


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
