"""Several ways to do the same work, run in turns: ratios that a busy machine disturbs least."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Runner:
    """One way to do the work.

    Attributes:
        name: of the model.
        work: does it once.
        num_parameters: of the model.
    """

    name: str
    work: Callable[[], object]
    num_parameters: int


@dataclass(frozen=True)
class Contest:
    """The same work by us and by others.

    Attributes:
        task: what is done.
        unit: what the work is counted in, "frame" for example.
        amount: units per run.
        ours: the first of a round.
        peers: the others.
    """

    task: str
    unit: str
    amount: float
    ours: Runner
    peers: list[Runner]


@dataclass(frozen=True)
class Spread:
    """A median and what it lies between."""

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Of one value or more."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Result:
    """Ours against one peer.

    Attributes:
        task: of the contest.
        unit: of the contest.
        threads: of PyTorch.
        ours: name.
        peer: name.
        our_parameters: how many the model has.
        peer_parameters: likewise.
        our_seconds: wall time per unit.
        peer_seconds: likewise.
        our_cpu_seconds: of all threads, per unit.
        peer_cpu_seconds: likewise.
        wall_ratio: peer over ours, round by round: above 1 ours is faster.
        cpu_ratio: likewise of CPU-seconds.
    """

    task: str
    unit: str
    threads: int
    ours: str
    peer: str
    our_parameters: int
    peer_parameters: int
    our_seconds: Spread
    peer_seconds: Spread
    our_cpu_seconds: Spread
    peer_cpu_seconds: Spread
    wall_ratio: Spread
    cpu_ratio: Spread


def hold(contest: Contest, repeats: int) -> list[Result]:
    """Let everybody work in turns, ``repeats`` rounds after one that does not count."""
    import torch

    runners = [contest.ours, *contest.peers]
    for runner in runners:
        runner.work()
    rounds = [[timed(runner.work) for runner in runners] for _ in range(repeats)]
    walls, cpus = (
        [[pair[which] / contest.amount for pair in column] for column in zip(*rounds, strict=True)]
        for which in (0, 1)
    )
    return [
        Result(
            task=contest.task,
            unit=contest.unit,
            threads=torch.get_num_threads(),
            ours=contest.ours.name,
            peer=peer.name,
            our_parameters=contest.ours.num_parameters,
            peer_parameters=peer.num_parameters,
            our_seconds=Spread.of(walls[0]),
            peer_seconds=Spread.of(walls[index]),
            our_cpu_seconds=Spread.of(cpus[0]),
            peer_cpu_seconds=Spread.of(cpus[index]),
            wall_ratio=ratio(walls[index], walls[0]),
            cpu_ratio=ratio(cpus[index], cpus[0]),
        )
        for index, peer in enumerate(contest.peers, start=1)
    ]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds, and CPU-seconds of all threads, of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def ratio(theirs: list[float], ours: list[float]) -> Spread:
    """Of values measured in the same rounds."""
    return Spread.of([one / other for one, other in zip(theirs, ours, strict=True)])
