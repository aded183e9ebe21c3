"""A running dask cluster, joined by whoever has work for it."""

import logging
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from codec.process_settings import cpu_threads, kept_process_settings
from pipelines.errors import import_package

if TYPE_CHECKING:
    from distributed import Client, Future

J = TypeVar("J")
R = TypeVar("R")
JOIN_TIMEOUT_S = 30
QUEUED_PER_THREAD = 3
RETRIES = 5
"""How often a job is tried again whose worker died; dask itself allows three deaths of workers."""


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


def map_on_cluster(function: Callable[[J], R], jobs: Iterable[J], scheduler: str) -> Generator[R]:
    """Call a function on every job on a cluster's workers; results come in the order of the jobs.

    Workers that join later get work too; what a killed worker had in hand is done by another.

    Args:
        function: of a module that every worker can import.
        jobs: arguments; folders in them must have the same names on all machines.
        scheduler: address, tcp://host:port.

    Raises:
        ValueError: there is no scheduler at that address.
        ConnectionError: the scheduler, or all of its workers, went away.
    """
    with kept_process_settings():  # dask sets variables of the environment
        distributed = import_distributed()
        client = join_cluster(distributed, scheduler)
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with closing(client):
            yield from submit_in_order(client, function, jobs)
    finally:
        logger.setLevel(level)


def submit_in_order(
    client: "Client", function: Callable[[J], R], jobs: Iterable[J]
) -> Generator[R]:
    """Keep a few jobs per thread of the cluster under way."""
    queue: deque[Future] = deque()
    for job in jobs:
        queue.append(client.submit(on_one_thread, function, job, pure=False, retries=RETRIES))
        threads = sum(client.nthreads().values())
        if len(queue) > QUEUED_PER_THREAD * max(1, threads):
            yield result_of(client, queue.popleft())
    while queue:
        yield result_of(client, queue.popleft())


def result_of(client: "Client", future: "Future") -> Any:
    """Wait for a result.

    Raises:
        ConnectionError: the scheduler is gone, or the job's workers died again and again.
    """
    from distributed.scheduler import KilledWorker

    try:
        return future.result()
    except KilledWorker as error:
        raise ConnectionError(f"workers died of a job (out of memory?): {error}") from error
    except Exception as error:
        if client.status != "running" or future.cancelled():
            raise ConnectionError("the dask scheduler is gone: run the command again") from error
        raise


def on_one_thread(function: Callable[[J], R], job: J) -> R:
    """On a worker: compute on one thread, so that rounding does not depend on the machine."""
    with cpu_threads(1):
        return function(job)
