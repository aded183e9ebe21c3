"""Workers that perform the tasks of a queue; here, the threads of this process."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

import torch

from codec.process_settings import cpu_threads
from pipelines.rendering.origin import Origin
from pipelines.rendering.render_queue import ItemResult, RenderQueue, RenderTask, TaskResult
from pipelines.rendering.renderer import Renderer

if TYPE_CHECKING:
    from pipelines.inference.music_generator import MusicGenerator


class WorkerPool(Protocol):
    """Performs tasks, in one process or in many."""

    def max_tasks(self) -> int:
        """Return how many tasks may be under way."""

    def submit(self, task: RenderTask) -> Any:
        """Start a task, and return its future."""

    def result_of(self, future: Any) -> TaskResult:
        """The result of a future that is done; whatever goes wrong in a task is its result."""


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


class ThreadPool:
    """Threads of this process: one generates a batch's tokens while others decode items.

    Args:
        renderer: that performs the tasks.
        executor: of as many threads.
        threads: tasks performed at once.
    """

    def __init__(self, renderer: Renderer, executor: ThreadPoolExecutor, threads: int) -> None:
        self.renderer = renderer
        self.executor = executor
        self.threads = threads

    def max_tasks(self) -> int:
        """One task for each thread."""
        return self.threads

    def submit(self, task: RenderTask) -> Any:
        """Let a thread perform a task."""
        return self.executor.submit(self.renderer.perform, task)

    def result_of(self, future: Any) -> TaskResult:
        """Return the renderer's result."""
        return future.result()


@contextmanager
def start_threads(pipeline: "MusicGenerator", origin: Origin) -> Iterator[ThreadPool]:
    """Start as many threads as PyTorch has on a CPU, one on a GPU; leaving stops their tasks."""
    threads = 1 if pipeline.device.type == "cuda" else torch.get_num_threads()
    renderer = Renderer(pipeline, origin)
    # a thread that sets PyTorch's number of threads sets it for threads that start later, too
    with cpu_threads(None), warnings.catch_warnings(), ThreadPoolExecutor(threads) as executor:
        warnings.simplefilter("ignore")  # what happened to the audio is in the facts
        try:
            yield ThreadPool(renderer, executor, threads)
        finally:
            renderer.stopped.set()
