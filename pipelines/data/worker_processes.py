"""Map a function over jobs: in this process, in several or on a dask cluster; results are equal."""

import logging
import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from codec.process_settings import cpu_threads, keep_freed_memory, kept_process_settings
from pipelines.errors import import_package

if TYPE_CHECKING:
    from distributed import Client

J = TypeVar("J")
R = TypeVar("R")
QUEUED_PER_WORKER = 3
JOIN_TIMEOUT_S = 30
RETRIES = 5
"""How often a job is tried again whose worker died; dask itself allows three deaths of workers."""


def map_in_order(
    function: Callable[[J], R], jobs: Iterable[J], workers: int, scheduler: str | None = None
) -> Generator[R]:
    """Call a function on every job and yield the results in the order of the jobs.

    Every call computes on one thread, so that rounding does not depend on ``workers``; 1 stays in
    this process. Workers import the function, which must be one of a module. Jobs are read a few
    ahead, so there may be infinitely many. Close the generator when leaving it early, to restore
    the threads of this process. A running dask cluster, by its ``scheduler``, must see the same
    folders.

    Raises:
        ChildProcessError: a worker died.
        ValueError: there is no scheduler at that address.
        ConnectionError: the scheduler, or all of its workers, went away.
    """
    if scheduler is not None:
        yield from map_on_cluster(function, jobs, scheduler)
    elif workers == 1:
        with cpu_threads(1):
            yield from map(function, jobs)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker) as pool:
            try:
                submitted = (pool.submit(function, job) for job in jobs)
                yield from results_in_order(submitted, lambda: workers)
            except BrokenProcessPool as error:
                raise ChildProcessError(
                    "a worker process died (out of memory?): run the same command again to go on"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)


def results_in_order(submitted: Iterable[Any], workers: Callable[[], int]) -> Generator[Any]:
    """Keep a few futures per worker under way, and yield their results in order."""
    queue: deque[Any] = deque()
    for future in submitted:
        queue.append(future)
        if len(queue) >= QUEUED_PER_WORKER * max(1, workers()):
            yield queue.popleft().result()
    while queue:
        yield queue.popleft().result()


def begin_worker() -> None:
    """Use one thread, and end when the parent is killed: a worker would wait for jobs forever."""
    torch.set_num_threads(1)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()


def end_with_parent(parent: int) -> None:
    """Exit as soon as this process has another parent, as after its own parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def map_on_cluster(function: Callable[[J], R], jobs: Iterable[J], scheduler: str) -> Generator[R]:
    """Call a function on every job on a cluster's workers; see :func:`map_in_order`.

    Workers that join later get work too; what a killed worker had in hand is done by another.
    """
    with kept_process_settings():  # dask sets variables of the environment
        distributed = import_distributed()
        client = join_cluster(distributed, scheduler)
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with closing(client):
            submitted = (
                client.submit(on_one_thread, function, job, pure=False, retries=RETRIES)
                for job in jobs
            )
            try:
                yield from results_in_order(submitted, lambda: sum(client.nthreads().values()))
            except distributed.scheduler.KilledWorker as error:
                raise ConnectionError(f"workers died of a job (out of memory?): {error}") from error
            except Exception as error:
                if client.status == "running" and not isinstance(error, CancelledError):
                    raise
                raise ConnectionError("the dask scheduler is gone: run it again") from error
    finally:
        logger.setLevel(level)


def on_one_thread(function: Callable[[J], R], job: J) -> R:
    """Call a function on a worker on one thread: rounding must not depend on the machine.

    dask lets its workers give freed memory back at once, which costs as much time as the work.
    """
    keep_freed_memory()
    with cpu_threads(1):
        return function(job)


def import_distributed() -> ModuleType:
    """Import dask.distributed.

    Raises:
        MissingPackageError: it is not installed.
    """
    install = "pip install 'partita[cluster]'"
    return import_package("distributed", "a cluster of workers", install)


def join_cluster(distributed: ModuleType, address: str) -> "Client":
    """Connect to a running scheduler.

    Raises:
        ValueError: there is none at that address.
    """
    try:
        return distributed.Client(address, timeout=JOIN_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"no dask scheduler at {address}: {error}") from error
