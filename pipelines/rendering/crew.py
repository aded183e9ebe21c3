"""Who performs the tasks of a job: here, the threads of this process."""

import warnings
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch

from codec.process_settings import cpu_threads
from pipelines.rendering.agenda import Agenda, Failed, Finished, Outcome, Task, Written
from pipelines.rendering.making import Maker
from pipelines.rendering.memory import MemoryMeter
from pipelines.rendering.origin import Origin

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline


class Crew(Protocol):
    """Performs the tasks of an agenda, in one process or in many."""

    def work(self, agenda: Agenda) -> Iterator[Outcome]:
        """Every item's outcome, as it comes."""

    def peak_memory(self) -> int:
        """What all its processes have held at most, or the GPU (bytes)."""


class Solo:
    """A crew of this process alone, which writes one batch's tokens while it finishes other items.

    Args:
        maker: that performs the tasks.
        pool: of as many threads as there are lanes.
        lanes: tasks performed at once.
    """

    def __init__(self, maker: Maker, pool: ThreadPoolExecutor, lanes: int) -> None:
        self.maker = maker
        self.pool = pool
        self.lanes = lanes

    def work(self, agenda: Agenda) -> Iterator[Outcome]:
        """Keep every lane busy, and take results as they come."""
        tasks: dict[Future[Written | Finished | Failed], Task] = {}
        while True:
            while len(tasks) < self.lanes and (task := agenda.next_task()):
                tasks[self.pool.submit(self.maker.perform, task)] = task
            yield from agenda.take_failed()
            if not tasks:
                return
            done, _ = wait(tasks, return_when=FIRST_COMPLETED)
            for future in done:
                yield from agenda.report(tasks.pop(future), future.result())

    def peak_memory(self) -> int:
        """Of this process, or of its GPU (bytes)."""
        return MemoryMeter(self.maker.pipeline.device).peak()


@contextmanager
def start_solo(pipeline: "Pipeline", origin: Origin) -> Iterator[Solo]:
    """A crew of as many lanes as PyTorch has threads; leaving it stops tasks under way."""
    lanes = lanes_of(pipeline.device)
    maker = Maker(pipeline, origin)
    # a lane's own number of threads is also that of threads yet to start
    with cpu_threads(None), warnings.catch_warnings(), ThreadPoolExecutor(lanes) as pool:
        warnings.simplefilter("ignore")  # what happened to the audio is in the facts
        try:
            yield Solo(maker, pool, lanes)
        finally:
            maker.stopped.set()


def lanes_of(device: torch.device, workers: int = 0) -> int:
    """Tasks that a process performs at once: a CPU's threads are shared out, a GPU takes one."""
    return 1 if device.type == "cuda" else max(1, torch.get_num_threads() // max(1, workers))
