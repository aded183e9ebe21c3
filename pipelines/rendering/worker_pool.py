"""Perform the tasks of a queue by workers; here, the threads of this process."""

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

import torch

from codec.process_settings import cpu_threads
from pipelines.inference.music_generator import MusicGenerator
from pipelines.rendering.origin import Origin
from pipelines.rendering.render_queue import ItemResult, RenderQueue, RenderTask, TaskResult
from pipelines.rendering.renderer import Renderer


@dataclass(frozen=True)
class WorkerPool:
    """Perform tasks, in one process or in many."""

    max_tasks: Callable[[], int]  # returns how many tasks may be under way
    submit: Callable[[RenderTask], Any]  # starts a task and returns its future
    # returns the result of a future that is done; whatever goes wrong in a task is its result
    result_of: Callable[[Any], TaskResult]


def run_queue(queue: RenderQueue, pool: WorkerPool) -> Iterator[ItemResult]:
    """Keep every worker busy, and yield each item's result as it comes."""
    tasks: dict[Any, RenderTask] = {}
    done: SimpleQueue[Any] = SimpleQueue()
    while True:
        while len(tasks) < pool.max_tasks() and (task := queue.next_task()):
            future = pool.submit(task)
            tasks[future] = task
            future.add_done_callback(done.put)
        if not tasks:
            return
        future = done.get()
        yield from queue.report(tasks.pop(future), pool.result_of(future))


@contextmanager
def start_threads(pipeline: MusicGenerator, origin: Origin) -> Iterator[WorkerPool]:
    """Start as many threads as PyTorch has on a CPU, one on a GPU; leaving stops their tasks."""
    threads = 1 if pipeline.device.type == "cuda" else torch.get_num_threads()
    renderer = Renderer(pipeline, origin)
    # a thread that sets PyTorch's number of threads sets it for threads that start later, too
    with cpu_threads(None), warnings.catch_warnings(), ThreadPoolExecutor(threads) as executor:
        warnings.simplefilter("ignore")  # what happened to the audio is in the facts
        try:
            yield WorkerPool(
                max_tasks=lambda: threads,
                submit=lambda task: executor.submit(renderer.perform, task),
                result_of=Future.result,
            )
        finally:
            renderer.stopped.set()
