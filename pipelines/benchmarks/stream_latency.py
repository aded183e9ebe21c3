"""Measure how soon a stream sounds, and whether it falls behind or slows down.

Pieces are streamed as fast as they come and playing is simulated afterwards, by wall time and by
CPU time: on one thread the latter is what an idle core would do, on a machine that has other work.
"""

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipelines.benchmarks.machine import resident_memory
from pipelines.inference.music_generator import MusicGenerator

PROMPT = "a slow sad piano piece in D minor, 70 bpm"
SPAN_S = 10.0  # seconds of audio over which the cost at a place of the piece is taken


@dataclass(frozen=True)
class Arrival:
    """Notes when a chunk of audio came, and what it had cost."""

    ready_s: float  # since the call
    cpu_s: float  # the process's CPU time by then
    length_s: float  # of the audio
    memory: int  # of the process then (bytes)


@dataclass(frozen=True)
class Replay:
    """Holds what a stream replayed against a clock shows: when it sounded and where it stalled."""

    first_sound_s: float  # from the call to the first sample
    underruns: int  # how often the next chunk was not there in time, and playing had to wait
    slack_s: float  # the least time by which a chunk came early; negative where one came late


def time_stream(pipeline: MusicGenerator, duration_s: float, seed: int) -> Iterator[Arrival]:
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


def replay(arrivals: list[Arrival]) -> Replay:
    """Simulate a player that starts at the first chunk and plays each next one after the last."""
    until = arrivals[0].ready_s  # when all that has come so far is played
    slack, underruns = float("inf"), 0
    for arrival in arrivals:
        if arrival is not arrivals[0]:
            slack = min(slack, until - arrival.ready_s)
        if arrival.ready_s > until:
            underruns += 1
            until = arrival.ready_s
        until += arrival.length_s
    return Replay(arrivals[0].ready_s, underruns, slack)


def by_cpu(arrival: Arrival) -> Arrival:
    """Date an arrival by CPU time: as if nothing else ran on the machine, on one thread."""
    return replace(arrival, ready_s=arrival.cpu_s)


def summarize_replays(name: str, replays: list[Replay]) -> str:
    """Describe several replays in one line."""
    first = sorted(item.first_sound_s for item in replays)
    extremes = f"{first[0]:.3f}-{first[-1]:.3f}"
    underruns = ", ".join(str(item.underruns) for item in replays)
    return (
        f"by {name}: first sound after {statistics.median(first):.3f} s ({extremes}), "
        f"underruns {underruns}, least slack {min(item.slack_s for item in replays):.3f} s"
    )


def costs(arrivals: list[Arrival]) -> Iterator[tuple[float, float, float, int]]:
    """Yield place in the piece (s), wall and CPU seconds per second of audio, and memory (bytes).

    The places are second 20 and the end of every minute, each with the 10 s before it.
    """
    ends = [0.0]
    for arrival in arrivals:
        ends.append(ends[-1] + arrival.length_s)
    places = [20.0, *(60.0 * minute for minute in range(1, int(ends[-1] / 60) + 1))]
    for place in places:
        inside = [
            index for index, end in enumerate(ends[1:]) if place - SPAN_S <= end <= place + 1e-6
        ]
        if len(inside) < 2:
            continue
        first, last = arrivals[inside[0]], arrivals[inside[-1]]
        length = ends[inside[-1] + 1] - ends[inside[0] + 1]
        wall, cpu = last.ready_s - first.ready_s, last.cpu_s - first.cpu_s
        yield place, wall / length, cpu / length, last.memory
