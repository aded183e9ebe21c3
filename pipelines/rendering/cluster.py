"""Many workers, through dask.distributed: a cluster of this machine's own, or one that runs.

Dask queues the tasks, hands them to whoever is free, starts killed workers again and repeats what
they had in hand. Tokens and files come back to the process that was started, which alone writes
into the folder: an item is stored once, and workers need no common file system for it.
"""

import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipelines.benchmarks.machine import peak_memory
from pipelines.errors import MissingPackageError
from pipelines.rendering.agenda import Agenda, Failed, Finished, Outcome, Task, Written
from pipelines.rendering.making import Maker
from pipelines.rendering.origin import Origin, hash_pipeline

if TYPE_CHECKING:
    from distributed import Client, Future

    from pipelines.pipeline import Pipeline

JOIN_TIMEOUT_S = 30
LOADING = threading.Lock()
"""A worker performs as many tasks at once as it has threads, all on one pipeline."""


class SetupError(ValueError):
    """A worker that cannot load the pipeline; no item is to blame."""


class DaskCrew:
    """A crew of a dask cluster's workers.

    Args:
        client: connected to the cluster.
        origin: of the pipeline that every worker loads once.
        resources: that a task needs, such as ``{"GPU": 1}``.
    """

    def __init__(
        self, client: "Client", origin: Origin, resources: dict[str, float] | None
    ) -> None:
        self.client = client
        self.origin = origin
        self.resources = resources

    def load(self) -> None:
        """Let the workers that are there load the pipeline; later ones do at their first task.

        Raises:
            SetupError: one of them cannot.
        """
        futures = [
            self.client.submit(
                load,
                self.origin,
                pure=False,
                workers=[address],
                allow_other_workers=True,  # as it may be killed meanwhile
                resources=self.resources,
            )
            for address in self.workers()
        ]
        for future in futures:
            if isinstance(error := future.exception(), SetupError):
                raise error

    def workers(self) -> dict[str, dict[str, Any]]:
        """What the scheduler knows of every worker, by address; they may change at any time."""
        return self.client.scheduler_info(n_workers=-1)["workers"]

    def work(self, agenda: Agenda) -> Iterator[Outcome]:
        """Keep every worker busy, and take results as they come."""
        from distributed import as_completed

        tasks: dict[Future, Task] = {}
        results = as_completed(loop=self.client.loop)
        while True:
            while len(tasks) < self.room() and (task := agenda.next_task()):
                future = self.submit(task)
                tasks[future] = task
                results.add(future)
            yield from agenda.take_failed()
            if not tasks:
                return
            future = next(results)
            if self.client.status != "running":
                raise ConnectionError("the dask scheduler is gone: run the same command again")
            yield from agenda.report(tasks.pop(future), result_of(future))
            future.release()

    def room(self) -> int:
        """How many tasks may be out: one more than it performs for each worker, which then never
        waits for its next one."""
        return max(2, sum(worker["nthreads"] + 1 for worker in self.workers().values()))

    def submit(self, task: Task) -> "Future":
        """Send a task off; pieces to finish go before batches to write."""
        return self.client.submit(
            perform,
            task,
            self.origin,
            pure=False,
            priority=0 if task.codes is None else 1,
            resources=self.resources,
        )

    def peak_memory(self) -> int:
        """Of this process and of the workers that are there, shared pages counted in each; or of
        the GPU that held most (bytes)."""
        peaks = self.client.run(peak_of_worker, on_error="ignore").values()
        return max(peaks, default=0) if self.resources else peak_memory() + sum(peaks)


def result_of(future: "Future") -> Written | Finished | Failed:
    """What a task gave; a worker that died of it again and again is a failure of its items.

    Raises:
        SetupError: the worker could not load the pipeline.
    """
    try:
        return future.result()
    except SetupError:
        raise
    except Exception as error:
        return Failed(f"{type(error).__name__}: {' '.join(str(error).split())}")


def perform(task: Task, origin: Origin) -> Written | Finished | Failed:
    """On a worker: do a task with its pipeline."""
    return load_maker(origin).perform(task)


def peak_of_worker() -> int:
    """On a worker: what it has held at most, or its GPU where it has one (bytes)."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else peak_memory()


def load(origin: Origin) -> None:
    """On a worker: make the pipeline ready."""
    load_maker(origin)


def load_maker(origin: Origin) -> Maker:
    """The pipeline of a worker, loaded the first time that it is asked for.

    Raises:
        SetupError: it cannot be loaded here, or is not the one that the job was started with.
    """
    with LOADING:
        return load_maker_once(origin)


@lru_cache(maxsize=1)
def load_maker_once(origin: Origin) -> Maker:
    """The same, for one thread at a time."""
    from pipelines.inference.loading import load_pipeline

    try:
        pipeline = load_pipeline(origin.path, quiet=True)
    except Exception as error:
        raise SetupError(f"a worker cannot load {origin.path}: {error}") from error
    found = hash_pipeline(pipeline)
    if found != origin.hash:
        raise SetupError(
            f"a worker finds another pipeline at {origin.path}: {found[:8]}, not {origin.hash[:8]}"
        )
    return Maker(pipeline, origin)


@contextmanager
def start_cluster(
    pipeline: "Pipeline", origin: Origin, workers: int, scheduler: str | None
) -> Iterator[DaskCrew]:
    """A local cluster of ``workers`` processes, or the one that runs at ``scheduler``.

    Raises:
        MissingPackageError: dask.distributed is not installed.
        ValueError: there is no scheduler at that address, there are fewer GPUs than workers, or
            a scheduler's workers could not load a pipeline that was built in memory.
    """
    try:
        import distributed
    except ImportError as error:
        raise MissingPackageError(
            "workers need dask.distributed: pip install 'partita[cluster]'"
        ) from error
    if scheduler is not None:
        if not origin.path:
            raise ValueError(
                "workers of a running cluster load the pipeline by its folder or hub id: save it"
            )
        with join(distributed, scheduler) as client:
            crew = DaskCrew(client, origin, common_resources(client))
            crew.load()
            yield crew
        return
    with tempfile.TemporaryDirectory() as folder:
        if not origin.path:
            pipeline.save_pretrained(folder)
            origin = replace(origin, path=folder)
        with start_workers(distributed, workers) as (client, resources):
            crew = DaskCrew(client, origin, resources)
            crew.load()
            yield crew


@contextmanager
def join(distributed: Any, address: str) -> Iterator["Client"]:
    """A client of a running scheduler."""
    logging.getLogger("distributed").setLevel(logging.ERROR)
    try:
        client = distributed.Client(address, timeout=JOIN_TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"no dask scheduler at {address}: {error}") from error
    with client:
        yield client


def common_resources(client: "Client") -> dict[str, float] | None:
    """One GPU per task on a cluster whose workers name them."""
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    return {"GPU": 1} if any("GPU" in worker["resources"] for worker in workers) else None


@contextmanager
def start_workers(
    distributed: Any, workers: int
) -> Iterator[tuple["Client", dict[str, float] | None]]:
    """A cluster on this machine: nannies in this process, which start dead workers again."""
    import torch
    from distributed.system import MEMORY_LIMIT

    gpus = torch.cuda.device_count()
    if gpus and workers > gpus:
        raise ValueError(f"workers must be at most {gpus}, one for each GPU, got {workers}")
    options = {
        "nthreads": 1 if gpus else max(1, torch.get_num_threads() // workers),
        "memory_limit": MEMORY_LIMIT // workers,
        "silence_logs": logging.ERROR,
    }
    resources = {"GPU": 1.0} if gpus else None
    crew = {}
    for index in range(workers):
        env = {"CUDA_VISIBLE_DEVICES": visible_gpu(index)} if gpus else {}
        own = options | {"env": env, "resources": resources}
        crew[index] = {"cls": distributed.Nanny, "options": own}
    place = {"host": "127.0.0.1", "port": 0, "dashboard": False}
    scheduler = {"cls": distributed.Scheduler, "options": place}
    with (
        distributed.SpecCluster(crew, scheduler, silence_logs=logging.ERROR) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client, resources


def visible_gpu(index: int) -> str:
    """What a worker is shown of the GPUs that this process sees."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown.split(",")[index] if shown else str(index)
