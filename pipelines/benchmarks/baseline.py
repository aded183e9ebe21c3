"""Time this build in turns with another checkout of Partita, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pipelines.benchmarks.turns import Spread, ratio, spread

WORKER = Path(__file__).with_name("turn_worker.py")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class BaselineSpeed:
    """Prints one line: our seconds, and ours over theirs, round by round; below 1 ours is faster.

    CPU-seconds are summed over threads.
    """

    task: str
    our_seconds: Spread
    our_cpu_seconds: Spread
    wall_ratio: Spread
    cpu_ratio: Spread

    def __str__(self) -> str:
        def share(found: Spread) -> str:
            return f"{found.median:.2f} ({found.smallest:.2f}-{found.largest:.2f})"

        wall, cpu = 1000 * self.our_seconds.median, 1000 * self.our_cpu_seconds.median
        ratios = f"{share(self.wall_ratio):>20}{share(self.cpu_ratio):>20}"
        return f"{self.task:22}{wall:>10.0f}{cpu:>10.0f}{ratios}"


class WorkingBuild:
    """A checkout's process that does pieces of work of ``duration_s`` when asked.

    Raises:
        ValueError: the process ended; what it said is on standard error.
    """

    def __init__(self, folder: Path, duration_s: float, threads: int) -> None:
        self.folder = folder
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-W", "ignore", str(WORKER), str(duration_s), str(threads)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=folder
        )
        self.works: list[str] = self._answer()

    def do(self, work: str) -> tuple[float, float]:
        """Return the wall and the CPU seconds that a piece of work took."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{work}\n")
        self.process.stdin.flush()
        wall, cpu = self._answer()
        return wall, cpu

    def _answer(self) -> list:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise ValueError(f"the build in {self.folder} ended")
        return json.loads(line)


def compare_builds(
    folder: Path, duration_s: float, threads: int, repeats: int
) -> Iterator[BaselineSpeed]:
    """Time all that both builds do, in turns, ``repeats`` rounds after one that is not counted.

    Raises:
        ValueError: the folder holds no checkout with a pipeline, or a process ended.
    """
    if not (folder / "pipelines" / "pretrained" / "partita-tiny").is_dir():
        raise ValueError(f"--baseline must be a checkout of Partita, got {folder}")
    return take_turns(folder, duration_s, threads, repeats)


def take_turns(
    folder: Path, duration_s: float, threads: int, repeats: int
) -> Iterator[BaselineSpeed]:
    """Run a process of each build and yield a row when all rounds of a task are done."""
    with ExitStack() as stack:
        builds = [WorkingBuild(path.resolve(), duration_s, threads) for path in (ROOT, folder)]
        for build in builds:
            stack.enter_context(build.process)
            stack.callback(build.process.kill)
        for work in builds[0].works:
            rounds = [[build.do(work) for build in builds] for _ in range(repeats + 1)][1:]
            ours, theirs = zip(*rounds, strict=True)
            (our_wall, our_cpu), (wall, cpu) = (
                zip(*taken, strict=True) for taken in (ours, theirs)
            )
            yield BaselineSpeed(
                work, spread(our_wall), spread(our_cpu), ratio(our_wall, wall), ratio(our_cpu, cpu)
            )
