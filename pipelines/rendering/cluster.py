"""Render on many processes through dask.distributed: a local cluster, or one that is running.

Dask queues the tasks, hands them to whoever is free, starts killed workers again and repeats what
they had in hand. Tokens and files come back to the process that was started, which alone writes
into the folder: an item is stored once, and workers need no common file system for it.
"""

import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from multiprocessing import resource_tracker
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from codec.process_settings import keep_freed_memory, kept_process_settings
from pipelines.data.worker_processes import import_distributed, join_cluster
from pipelines.inference.loading import load_pipeline
from pipelines.rendering.origin import Origin, hash_pipeline
from pipelines.rendering.render_queue import RenderTask, TaskResult
from pipelines.rendering.renderer import Renderer, failure
from pipelines.rendering.worker_pool import WorkerPool

if TYPE_CHECKING:
    from distributed import Client, Future

    from pipelines.inference.music_generator import MusicGenerator

LOADING = threading.Lock()
"""A worker performs as many tasks at once as it has threads, all on one pipeline."""


class SetupError(ValueError):
    """Report a worker that cannot load the pipeline; no item is to blame."""


class DaskWorkers:
    """Perform tasks on the workers of a dask cluster, each of which loads the pipeline once.

    Raises:
        SetupError: a worker cannot load it; those that come later try at their first task.
    """

    def __init__(self, client: "Client", origin: Origin) -> None:
        self.client = client
        self.origin = origin
        # a task takes a GPU where the cluster's workers name them
        has_gpus = any("GPU" in worker["resources"] for worker in self.workers().values())
        self.options = {"pure": False, "resources": {"GPU": 1} if has_gpus else None}
        loading = [
            client.submit(
                load_renderer,
                origin,
                workers=[address],
                allow_other_workers=True,  # as it may be killed meanwhile
                **self.options,
            )
            for address in self.workers()
        ]
        for future in loading:
            if isinstance(error := future.exception(), SetupError):
                raise error

    def workers(self) -> dict[str, dict[str, Any]]:
        """Return what the scheduler knows of every worker, by address."""
        return self.client.scheduler_info(n_workers=-1)["workers"]

    def max_tasks(self) -> int:
        """Count one more than each worker performs, so that none waits for its next task."""
        return max(2, sum(worker["nthreads"] + 1 for worker in self.workers().values()))

    def submit(self, task: RenderTask) -> "Future":
        """Send a task off; items to decode go before batches to generate."""
        priority = 0 if task.codes is None else 1
        return self.client.submit(perform, task, self.origin, priority=priority, **self.options)

    def result_of(self, future: "Future") -> TaskResult:
        """Return a task's result; a worker that dies of it again and again fails its items.

        Raises:
            ConnectionError: the scheduler is gone.
            SetupError: the worker could not load the pipeline.
        """
        if self.client.status != "running":
            raise ConnectionError("the dask scheduler is gone: run the same command again")
        try:
            return future.result()
        except SetupError:
            raise
        except Exception as error:
            return failure(error)


def perform(task: RenderTask, origin: Origin) -> TaskResult:
    """Do a task on a worker, with its pipeline."""
    with LOADING:
        renderer = make_renderer(origin)
    return renderer.perform(task)


def load_renderer(origin: Origin) -> None:
    """Make the pipeline ready on a worker."""
    with LOADING:
        make_renderer(origin)


@lru_cache(maxsize=1)
def make_renderer(origin: Origin) -> Renderer:
    """Load the pipeline of a worker, the first time that it is asked for.

    Raises:
        SetupError: it cannot be loaded here, or is not the one that the job was started with.
    """
    keep_freed_memory()  # dask lets its workers give it back at once
    try:
        pipeline = load_pipeline(origin.path, quiet=True, loras=origin.loras)
    except Exception as error:
        raise SetupError(f"a worker cannot load {origin.path}: {error}") from error
    found = hash_pipeline(pipeline)
    if found != origin.hash:
        raise SetupError(
            f"a worker finds another pipeline at {origin.path}: {found[:8]}, not {origin.hash[:8]}"
        )
    return Renderer(pipeline, origin)


@contextmanager
def start_cluster(
    pipeline: "MusicGenerator", origin: Origin, workers: int, scheduler: str | None
) -> Iterator[WorkerPool]:
    """Start a local cluster of ``workers`` processes, or join the one that runs at ``scheduler``.

    Raises:
        MissingPackageError: dask.distributed is not installed.
        ValueError: there is no scheduler at that address, there are fewer GPUs than workers, or
            a scheduler's workers could not load a pipeline that was built in memory.
    """
    from pipelines.pipeline import Pipeline

    with ExitStack() as stack:
        stack.enter_context(kept_process_settings())  # dask sets variables of the environment
        logger = logging.getLogger("distributed")
        stack.callback(logger.setLevel, logger.level)
        distributed = import_distributed()
        logger.setLevel(logging.ERROR)
        if scheduler is not None:
            if not origin.path:
                raise ValueError(
                    "a running cluster's workers load the pipeline by its folder or hub id: save it"
                )
            client = join_cluster(distributed, scheduler)
        else:
            if not origin.path:
                origin = replace(origin, path=stack.enter_context(tempfile.TemporaryDirectory()))
                assert isinstance(pipeline, Pipeline)  # any other was loaded from somewhere
                pipeline.save_pretrained(origin.path)
            with sigint_blocked():
                cluster = stack.enter_context(local_cluster(distributed, workers))
            client = distributed.Client(cluster, set_as_default=False)
        pool = DaskWorkers(stack.enter_context(client), origin)
        yield WorkerPool(pool.max_tasks, pool.submit, pool.result_of)


@contextmanager
def sigint_blocked() -> Iterator[None]:
    """Start threads and processes that Ctrl-C does not reach: this thread stops them in order."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # it cleans up after workers that were stopped, which it need not tell the user
    sys.warnoptions.append("ignore:resource_tracker")
    resource_tracker.ensure_running()  # when it starts, it lets Ctrl-C through again
    sys.warnoptions.remove("ignore:resource_tracker")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def local_cluster(distributed: ModuleType, workers: int) -> Any:
    """Start a scheduler and ``workers`` nannies in this process, which revive dead workers."""
    from distributed.system import MEMORY_LIMIT

    gpus = torch.cuda.device_count()
    if gpus and workers > gpus:
        raise ValueError(f"workers must be at most {gpus}, one for each GPU, got {workers}")
    shown = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    nannies = {}
    for index in range(workers):
        options: dict[str, Any] = {
            "nthreads": 1 if gpus else max(1, torch.get_num_threads() // workers),
            "memory_limit": MEMORY_LIMIT // workers,
            "silence_logs": logging.CRITICAL,  # a heartbeat may meet a scheduler that is stopped
        }
        if gpus:
            gpu = shown[index] if shown != [""] else str(index)
            options |= {"env": {"CUDA_VISIBLE_DEVICES": gpu}, "resources": {"GPU": 1.0}}
        nannies[index] = {"cls": distributed.Nanny, "options": options}
    place = {"host": "127.0.0.1", "port": 0, "dashboard": False}
    scheduler = {"cls": distributed.Scheduler, "options": place}
    return distributed.SpecCluster(nannies, scheduler, silence_logs=logging.ERROR)
