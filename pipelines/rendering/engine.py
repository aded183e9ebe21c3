"""Rows in, finished files and a manifest out; a run that was killed goes on where it was."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.data.row_files import RowFault
from pipelines.rendering.folder import RenderFolder, first_difference, keep_order
from pipelines.rendering.item import RenderItem
from pipelines.rendering.job import RenderJob, new_job, write_job
from pipelines.rendering.manifest import ManifestEntry
from pipelines.rendering.origin import Origin, describe_origin
from pipelines.rendering.progress import RenderProgress
from pipelines.rendering.queue import ItemResult, RenderedFiles, RenderFailure, RenderQueue
from pipelines.rendering.rows import BadRowsError, Defaults, RenderRequest, read_request
from pipelines.rendering.worker_pool import WorkerPool, start_threads

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline

MAX_BATCH = 1024


@dataclass(frozen=True)
class RenderOptions:
    """How a job runs; none of it changes what an item sounds like.

    Attributes:
        batch_size: items whose tokens are written at once.
        workers: processes of a local cluster; 0 renders in this process.
        scheduler: address of a running dask scheduler, or None.
        force: make items anew whose settings have changed.
        skip_bad: render the good rows although others are faulty.
        progress: "line", "json" or "none".
        log_file: to append to, or None.

    Raises:
        ValueError: a value is out of its range, or both kinds of cluster are asked for.
    """

    batch_size: int = 16
    workers: int = 0
    scheduler: str | None = None
    force: bool = False
    skip_bad: bool = False
    progress: str = "none"
    log_file: str | Path | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.batch_size <= MAX_BATCH:
            raise ValueError(f"batch_size must lie in [1, {MAX_BATCH}], got {self.batch_size}")
        if self.workers < 0:
            raise ValueError(f"workers must not be negative, got {self.workers}")
        if self.workers and self.scheduler:
            raise ValueError("workers start a cluster and scheduler joins one: choose either")


@dataclass
class RenderSummary:
    """What a run came to.

    Attributes:
        items: of the job.
        done: made by this run.
        skipped: made by an earlier run, verified.
        failed: recorded with their errors.
        damaged: ids that an earlier run made and whose files had to be made again.
        faults: rows that were left out.
        audio_s: made by this run (s).
        seconds: that it took, without loading.
    """

    items: int
    done: int = 0
    skipped: int = 0
    failed: list[ManifestEntry] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)
    audio_s: float = 0.0
    seconds: float = 0.0

    @property
    def exit_code(self) -> int:
        """0, or 1 where an item failed."""
        return 1 if self.failed else 0


def render(
    pipeline: "Pipeline",
    rows: str | Path | Iterable[dict[str, Any]],
    out_dir: str | Path,
    defaults: Defaults | None = None,
    options: RenderOptions | None = None,
) -> RenderSummary:
    """Render every row into ``out_dir``, except what is there already.

    Args:
        pipeline: that renders; its ``name_or_path`` is what the workers of a cluster load.
        rows: a JSONL or CSV file, "-" for standard input, or dicts; see docs/rendering.md.
        out_dir: made if missing.
        defaults: for what rows do not say.
        options: how the job runs.

    Returns:
        What came of it; an item that failed is in there, not raised.

    Raises:
        BadRowsError: rows that cannot be rendered, or items that are already there with other
            settings; nothing has been rendered.
        NoRoomError: the disk is full; the same call goes on later.
        ValueError: a default or an option is out of range, or another run is at work there.
    """
    options = options or RenderOptions()
    request = read_good_rows(pipeline, rows, defaults or Defaults(), options.skip_bad)
    return render_items(pipeline, request, Path(out_dir), options)


def read_good_rows(
    pipeline: "Pipeline",
    rows: str | Path | Iterable[dict[str, Any]],
    defaults: Defaults,
    skip_bad: bool = False,
) -> RenderRequest:
    """Read and check rows.

    Raises:
        BadRowsError: some are faulty and ``skip_bad`` is not given, or all of them are.
    """
    request = read_request(rows, pipeline, defaults)
    if request.faults and (not skip_bad or not request.items):
        raise BadRowsError(request.name, request.faults)
    return request


def render_items(
    pipeline: "Pipeline", request: RenderRequest, out_dir: Path, options: RenderOptions
) -> RenderSummary:
    """Render what was read and checked; see :func:`render`."""
    origin = describe_origin(pipeline)
    with (
        RenderProgress(options.progress, options.log_file) as progress,
        RenderFolder(out_dir) as folder,
    ):
        summary = RenderSummary(len(request.items), faults=request.faults)
        todo = find_todo(folder, request, origin, options.force, summary)
        audio_s, left_s = total_s(request.items), total_s(todo)
        there = summary.skipped, audio_s - left_s
        job = new_job(len(request.items), audio_s, *there, origin.name, origin.hash)
        write_job(out_dir, job)
        for fault in request.faults:
            progress.tell("left_out", line=fault.line, id=fault.id, error=fault.message)
        progress.start(len(request.items), summary.skipped, left_s)
        ended = replace(job, state="stopped")
        try:
            if todo:
                queue = RenderQueue.of(todo, pipeline.num_frames, options.batch_size)
                with start_workers(pipeline, origin, options) as workers:
                    begun = time.monotonic()
                    run(workers, queue, folder, origin, options.batch_size, progress, summary)
                    summary.seconds = time.monotonic() - begun
            folder.rewrite(keep_order(folder.entries, [item.id for item in request.items]))
            ended = replace(job, state="finished")
        except BaseException as error:
            ended = replace(ended, message=" ".join(str(error).split()) or type(error).__name__)
            progress.tell("stopped", error=ended.message)
            raise
        finally:
            write_end(out_dir, ended)
        progress.tell(
            "summary",
            items=summary.items,
            made=summary.done,
            skipped=summary.skipped,
            failed=len(summary.failed),
            audio_s=round(summary.audio_s, 3),
            seconds=round(summary.seconds, 3),
        )
    return summary


def find_todo(
    folder: RenderFolder,
    request: RenderRequest,
    origin: Origin,
    force: bool,
    summary: RenderSummary,
) -> list[RenderItem]:
    """Items that are not there yet; everything else about them leaves the manifest.

    Raises:
        BadRowsError: items are there with other settings, and ``force`` is not given.
    """
    folder.check_unknown_files(request.items)
    todo, changed = [], []
    for place, item in enumerate(request.items, start=1):
        entry = folder.entries.get(item.id)
        change = entry and first_difference(entry, item.identity(), origin.hash)
        if entry is None:
            todo.append(item)
        elif change and entry.status == "done":
            changed.append((item, entry, RowFault(place, change, item.id)))
        elif folder.is_whole(entry):
            summary.skipped += 1
        else:
            if entry.status == "done":
                summary.damaged.append(item.id)
            todo.append(item)
    if changed and not force:
        faults = [fault for _, _, fault in changed]
        raise ChangedItemsError(folder.path, faults)
    for item, entry, _ in changed:
        folder.remove_files(entry)
        todo.append(item)
    redo = {item.id for item in todo}
    folder.rewrite([entry for id, entry in folder.entries.items() if id not in redo])
    return todo


class ChangedItemsError(ValueError):
    """Items that are already rendered, with other settings than are now asked for."""

    def __init__(self, path: Path, faults: list[RowFault]) -> None:
        self.faults = faults
        lines = [f"  {fault.id}: {fault.message}" for fault in faults]
        message = f"{path} holds {len(faults)} items made otherwise (--force makes them anew):"
        super().__init__("\n".join([message, *lines]))


def start_workers(
    pipeline: "Pipeline", origin: Origin, options: RenderOptions
) -> AbstractContextManager[WorkerPool]:
    """This process, or a cluster."""
    if options.workers or options.scheduler:
        from pipelines.rendering.cluster import start_cluster

        return start_cluster(pipeline, origin, options.workers, options.scheduler)
    return start_threads(pipeline, origin)


def run(
    workers: WorkerPool,
    queue: RenderQueue,
    folder: RenderFolder,
    origin: Origin,
    batch_size: int,
    progress: RenderProgress,
    summary: RenderSummary,
) -> None:
    """Let the workers work, and keep what it brings."""
    for outcome in workers.work(queue):
        entry = make_entry(outcome, origin, batch_size)
        if isinstance(outcome.result, RenderedFiles):
            folder.add(entry, outcome.result.audio, outcome.result.tokens)
            summary.done += 1
            summary.audio_s += entry.duration_s
        else:
            folder.add(entry)
            summary.failed.append(entry)
        duration_s = outcome.item.settings.duration_s
        progress.item(entry.id, entry.status, duration_s, entry.attempts, entry.error)


def make_entry(outcome: ItemResult, origin: Origin, batch_size: int) -> ManifestEntry:
    """The manifest's line of an item that is through."""
    item, result = outcome.item, outcome.result
    entry = ManifestEntry(
        id=item.id,
        status="done",
        **item.identity(),
        pipeline=origin.name,
        pipeline_hash=origin.hash,
        license=origin.license,
        versions=dict(origin.versions),
        attempts=outcome.attempts,
    )
    if isinstance(result, RenderFailure):
        now = {"finished": round(time.time(), 3)}
        return replace(entry, status="failed", error=result.error, timings=now)
    facts: dict[str, Any] = dict(result.facts)
    facts["machine"] = {**facts["machine"], "batch_size": batch_size}
    facts["timings"] = {**facts["timings"], "finished": round(time.time(), 3)}
    return replace(entry, audio=item.audio_name, tokens=item.tokens_name, **facts)


def total_s(items: Iterable[RenderItem]) -> float:
    """Seconds of audio in items."""
    return sum(item.settings.duration_s for item in items)


def write_end(folder: Path, job: RenderJob) -> None:
    """Say in ``job.json`` that the run is over, if there is room for it."""
    try:
        write_job(folder, replace(job, ended=time.time()))
    except OSError:
        (folder / ".job.json.part").unlink(missing_ok=True)
