"""Who performs the tasks of a job: here, the threads of this process."""

import warnings
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import torch

from codec.process_settings import cpu_threads
from pipelines.rendering.origin import Origin
from pipelines.rendering.queue import (
    BatchTokens,
    ItemResult,
    RenderedFiles,
    RenderFailure,
    RenderQueue,
    RenderTask,
)
from pipelines.rendering.renderer import Renderer

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline


class WorkerPool(Protocol):
    """Performs the tasks of an queue, in one process or in many."""

    def work(self, queue: RenderQueue) -> Iterator[ItemResult]:
        """Every item's outcome, as it comes."""


class ThreadWorkers:
    """Workers of this process alone, which writes one batch's tokens while it finishes other items.

    Args:
        renderer: that performs the tasks.
        pool: of as many threads as there are threads.
        threads: tasks performed at once.
    """

    def __init__(self, renderer: Renderer, pool: ThreadPoolExecutor, threads: int) -> None:
        self.renderer = renderer
        self.pool = pool
        self.threads = threads

    def work(self, queue: RenderQueue) -> Iterator[ItemResult]:
        """Keep every thread busy, and take results as they come."""
        tasks: dict[Future[BatchTokens | RenderedFiles | RenderFailure], RenderTask] = {}
        while True:
            while len(tasks) < self.threads and (task := queue.next_task()):
                tasks[self.pool.submit(self.renderer.perform, task)] = task
            yield from queue.take_failed()
            if not tasks:
                return
            done, _ = wait(tasks, return_when=FIRST_COMPLETED)
            for future in done:
                yield from queue.report(tasks.pop(future), future.result())


@contextmanager
def start_threads(pipeline: "Pipeline", origin: Origin) -> Iterator[ThreadWorkers]:
    """A workers of as many threads as PyTorch has threads; leaving it stops tasks under way."""
    threads = count_threads(pipeline.device)
    renderer = Renderer(pipeline, origin)
    # a thread's own number of threads is also that of threads yet to start
    with cpu_threads(None), warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")  # what happened to the audio is in the facts
        try:
            yield ThreadWorkers(renderer, pool, threads)
        finally:
            renderer.stopped.set()


def count_threads(device: torch.device) -> int:
    """Tasks performed at once: one per thread of a CPU, one on a GPU."""
    return 1 if device.type == "cuda" else max(1, torch.get_num_threads())
