"""Ways to do the same work, timed in turns: other load of the machine disturbs all alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A median and the extremes around it."""

    median: float
    smallest: float
    largest: float


@dataclass(frozen=True)
class Seconds:
    """Time of one call (s): on the wall, and of the processor, summed over threads."""

    wall: float
    cpu: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, smallest and largest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Divide values that were measured in the same rounds, round by round."""
    return spread([one / other for one, other in zip(theirs, ours, strict=True)])


def take_turns(works: Sequence[Callable[[], object]], repeats: int) -> list[list[Seconds]]:
    """Call all works in turns, ``repeats`` rounds after one that is not counted.

    Returns:
        For every work its seconds, round by round.
    """
    for work in works:
        work()
    rounds = [[timed(work) for work in works] for _ in range(repeats)]
    return [list(column) for column in zip(*rounds, strict=True)]


def timed(work: Callable[[], object]) -> Seconds:
    """Time one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)
