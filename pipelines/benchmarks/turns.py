"""Time ways to do the same work in turns: other load of the machine disturbs all alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """Holds a median and the extremes around it."""

    median: float
    smallest: float
    largest: float


def spread(values: Sequence[float]) -> Spread:
    """Return median, smallest and largest of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """Divide values that were measured in the same rounds, round by round."""
    return spread([one / other for one, other in zip(theirs, ours, strict=True)])


def take_turns(
    works: Sequence[Callable[[], object]], repeats: int
) -> list[tuple[list[float], list[float]]]:
    """Call all works in turns, ``repeats`` rounds after one that is not counted.

    Returns:
        For every work, round by round, its seconds on the wall and of the processor, summed over
        threads.
    """
    for work in works:
        work()
    runs: list[tuple[list[float], list[float]]] = [([], []) for _ in works]
    for _ in range(repeats):
        for work, (walls, cpus) in zip(works, runs, strict=True):
            wall, cpu = time.perf_counter(), time.process_time()
            work()
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    return runs
