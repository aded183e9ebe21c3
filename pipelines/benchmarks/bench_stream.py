"""``partita bench stream``: how soon a stream sounds, and whether it gets late or slow.

Pieces are streamed as fast as they come and the clock is replayed afterwards;
``--duration 600 --repeats 1`` shows what changes with the minutes of a long piece.
The clock is replayed by CPU time too: with ``--threads 1`` that is what an idle core would do, on
a machine that has other work as well.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.inference.loading import (
    add_pipeline_arguments,
    add_speed_arguments,
    load_pipeline,
)

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

PROMPT = "a slow sad piano piece in D minor, 70 bpm"
SPAN_S = 10.0
"""Seconds of audio over which the cost of a place in the piece is taken."""


@dataclass(frozen=True)
class Arrival:
    """One piece of audio.

    Attributes:
        ready_s: when it came, since the call.
        cpu_s: the process's CPU time by then.
        length_s: of the audio.
        memory: of the process then (bytes).
    """

    ready_s: float
    cpu_s: float
    length_s: float
    memory: int


@dataclass(frozen=True)
class Replay:
    """What a listener would have heard.

    Attributes:
        first_sound_s: from the call to the first sample.
        underruns: how often the next piece was not there in time, and playing had to wait.
        slack_s: the least time by which a piece came early; negative where one came late.
    """

    first_sound_s: float
    underruns: int
    slack_s: float


def replay(arrivals: list[Arrival]) -> Replay:
    """Play the first piece as soon as it is there and each next one after the one before it."""
    until = arrivals[0].ready_s  # when all that has come so far is played
    slack, underruns = float("inf"), 0
    for arrival in arrivals:
        slack = min(slack, until - arrival.ready_s) if arrival is not arrivals[0] else slack
        if arrival.ready_s > until:
            underruns += 1
            until = arrival.ready_s
        until += arrival.length_s
    return Replay(arrivals[0].ready_s, underruns, slack)


def by_cpu(arrival: Arrival) -> Arrival:
    """The same arrival as if nothing else had run on the machine, and one thread alone."""
    return replace(arrival, ready_s=arrival.cpu_s)


def render(name: str, replays: list[Replay]) -> str:
    """What several listeners would have heard, as one line."""
    first = sorted(item.first_sound_s for item in replays)
    spread = f"{first[0]:.3f}-{first[-1]:.3f}"
    underruns = ", ".join(str(item.underruns) for item in replays)
    return (
        f"by {name}: first sound after {statistics.median(first):.3f} s ({spread}), "
        f"underruns {underruns}, least slack {min(item.slack_s for item in replays):.3f} s"
    )


def listen(pipeline: "Pipeline", duration_s: float, seed: int) -> Iterator[Arrival]:
    """Stream a piece as fast as it comes."""
    start, cpu = time.perf_counter(), time.process_time()
    stream = pipeline.stream(PROMPT, duration_s, seed)
    for piece in stream:
        yield Arrival(
            time.perf_counter() - start,
            time.process_time() - cpu,
            piece.shape[-1] / stream.sample_rate,
            resident_memory(),
        )


def costs(arrivals: list[Arrival]) -> Iterator[tuple[float, float, float, int]]:
    """Where in the piece (s), wall and CPU seconds per second of audio there, and memory (bytes).

    The places are second 10 and the end of every minute; each is the span of 10 s before it.
    """
    heard = [0.0]
    for arrival in arrivals:
        heard.append(heard[-1] + arrival.length_s)
    marks = [20.0, *(60.0 * minute for minute in range(1, int(heard[-1] / 60) + 1))]
    for mark in marks:
        inside = [
            index for index, begin in enumerate(heard[1:]) if mark - SPAN_S <= begin <= mark + 1e-6
        ]
        if len(inside) < 2:
            continue
        first, last = arrivals[inside[0]], arrivals[inside[-1]]
        length = heard[inside[-1] + 1] - heard[inside[0] + 1]
        wall, cpu = last.ready_s - first.ready_s, last.cpu_s - first.cpu_s
        yield mark, wall / length, cpu / length, last.memory


def resident_memory() -> int:
    """Main memory that the process holds now (bytes)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita bench stream``."""
    parser.add_argument("--duration", type=float, default=20.0, help="of a piece, s (default: 20)")
    parser.add_argument("--repeats", type=int, default=5, help="pieces (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default: 1)")
    add_speed_arguments(parser)
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {args.repeats}")
    from codec.process_settings import cpu_threads

    with cpu_threads(args.threads):
        return measure(args)


def measure(args: argparse.Namespace) -> int:
    """The same, on the threads that are set."""
    import torch

    pipeline = load_pipeline(args.pipeline, args.quiet, args.quantize, args.compile)
    list(listen(pipeline, 1.0, 0))  # the first calls of a process are slower
    runs = [list(listen(pipeline, args.duration, seed)) for seed in range(args.repeats)]
    print(f"{torch.get_num_threads()} threads, {args.duration:g} s of audio, {args.repeats} runs")
    print(render("wall time", [replay(run) for run in runs]))
    print(render("CPU time", [replay([by_cpu(arrival) for arrival in run]) for run in runs]))
    print("to second   wall s/s   CPU s/s    memory")
    for mark, wall, cpu, memory in costs(runs[-1]):
        print(f"{mark:9.0f}{wall:11.3f}{cpu:10.3f}{memory / 1e6:7.0f} MB")
    return 0
