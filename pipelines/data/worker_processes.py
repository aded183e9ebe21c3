"""Map a function over jobs, in this process or in several, with equal results."""

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch

from codec.process_settings import cpu_threads
from pipelines.data.dask_cluster import map_on_cluster

J = TypeVar("J")
R = TypeVar("R")
QUEUED_PER_WORKER = 3


def map_in_order(
    function: Callable[[J], R], jobs: Iterable[J], workers: int, scheduler: str | None = None
) -> Generator[R]:
    """Call a function on every job and yield the results in the order of the jobs.

    Every call computes on one thread, so that rounding does not depend on ``workers``. Jobs are
    read a few ahead, so there may be infinitely many. Close the generator when leaving it early,
    to restore the threads of this process.

    Args:
        function: a function of a module, because workers import it.
        jobs: arguments of the calls.
        workers: number of processes; 1 stays in this one.
        scheduler: of a running dask cluster, whose workers are used instead; folders in jobs must
            have the same names there.

    Raises:
        ChildProcessError: a worker died.
        ValueError: there is no scheduler at that address.
    """
    if scheduler is not None:
        yield from map_on_cluster(function, jobs, scheduler)
        return
    if workers == 1:
        with cpu_threads(1):
            yield from map(function, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker) as pool:
        queue: deque[Future[R]] = deque()
        try:
            for job in jobs:
                queue.append(pool.submit(function, job))
                if len(queue) >= QUEUED_PER_WORKER * workers:
                    yield queue.popleft().result()
            while queue:
                yield queue.popleft().result()
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process died (out of memory?): run the same command again to go on"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def begin_worker() -> None:
    """Use one thread, and end when the parent is killed: a worker would wait for jobs forever."""
    torch.set_num_threads(1)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()


def end_with_parent(parent: int) -> None:
    """Exit as soon as this process has another parent, as after its own parent was killed."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
