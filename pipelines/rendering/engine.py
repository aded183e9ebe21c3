"""Render rows to finished files and a manifest; a run that was killed goes on where it was."""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipelines.data.row_files import RowFault, RowFile
from pipelines.errors import check_fields
from pipelines.inference.music_generator import MusicGenerator
from pipelines.rendering.folder import RenderFolder, open_folder
from pipelines.rendering.item import RenderItem
from pipelines.rendering.job import RenderJob, write_job
from pipelines.rendering.manifest import ManifestEntry
from pipelines.rendering.origin import Origin, describe_origin
from pipelines.rendering.progress import RenderProgress, open_progress
from pipelines.rendering.render_queue import ItemResult, RenderFailure, RenderQueue
from pipelines.rendering.rows import BadRowsError, Defaults, RenderRequest, read_request
from pipelines.rendering.worker_pool import WorkerPool, run_queue, start_threads

MAX_BATCH = 1024


@dataclass(frozen=True)
class RenderOptions:
    """Set how a job runs; no setting changes what an item sounds like.

    Attributes:
        batch_size: items whose tokens are generated at once.
        workers: processes of a local cluster; 0 renders in this process.
        scheduler: address of a running dask scheduler, or None.
        force: make items anew whose settings have changed.
        skip_bad: render the good rows although others are faulty.
        progress: "line", "json" or "none".
        log_file: to append to, or None.
    """

    batch_size: int = 16
    workers: int = 0
    scheduler: str | None = None
    force: bool = False
    skip_bad: bool = False
    progress: str = "none"
    log_file: str | Path | None = None

    def __post_init__(self) -> None:
        in_range = f"lie in [1, {MAX_BATCH}]"
        check_fields(self, "batch_size", lambda size: 1 <= size <= MAX_BATCH, in_range)
        check_fields(self, "workers", lambda count: count >= 0, "not be negative")
        if self.workers and self.scheduler:
            raise ValueError("workers start a cluster and scheduler joins one: choose either")


@dataclass
class RenderSummary:
    """Sum up a run."""

    items: int
    done: int = 0  # items made by this run
    skipped: int = 0  # made by an earlier run, verified
    failed: list[ManifestEntry] = field(default_factory=list)
    # ids that an earlier run made and whose files had to be made again
    damaged: list[str] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)  # rows that were left out
    audio_s: float = 0.0  # made by this run (s)
    seconds: float = 0.0  # that it took, without loading

    @property
    def exit_code(self) -> int:
        """Return 0, or 1 where an item failed."""
        return 1 if self.failed else 0


class ChangedItemsError(ValueError):
    """Report items that are already rendered, with other settings than are now asked for."""

    def __init__(self, path: Path, changes: dict[str, str]) -> None:
        self.changes = changes
        lines = [f"  {id}: {change}" for id, change in changes.items()]
        message = f"{path} holds {len(changes)} items of other settings (--force makes them anew):"
        super().__init__("\n".join([message, *lines]))


def render(
    pipeline: MusicGenerator,
    rows: str | Path | Iterable[dict[str, Any]] | RowFile,
    out_dir: str | Path,
    defaults: Defaults | None = None,
    options: RenderOptions | None = None,
) -> RenderSummary:
    """Render every row into ``out_dir``, except what is there already.

    Args:
        pipeline: that renders; its ``name_or_path`` is what the workers of a cluster load.
        rows: a JSONL or CSV file, "-" for standard input, dicts, or what was read of them; see
            docs/rendering.md.
        out_dir: made if missing.
        defaults: for fields that rows leave out.
        options: how the job runs.

    Raises:
        BadRowsError: some rows cannot be rendered, and ``skip_bad`` is not given, or none can.
        ChangedItemsError: items are already there with other settings, and ``force`` is not given.
        FullDiskError: the disk is full; the same call goes on later.
        ValueError: a default or an option is out of range, or another run is at work there.
    """
    options = options or RenderOptions()
    request = read_request(rows, pipeline, defaults or Defaults())
    if request.faults and not (options.skip_bad and request.items):
        raise BadRowsError(request.name, request.faults)
    return render_items(pipeline, request, Path(out_dir), options)


def render_items(
    pipeline: MusicGenerator, request: RenderRequest, out_dir: Path, options: RenderOptions
) -> RenderSummary:
    """Render rows that were checked; see :func:`render`."""
    origin = describe_origin(pipeline)
    with (
        open_progress(options.progress, options.log_file) as progress,
        open_folder(out_dir) as folder,
    ):
        summary = RenderSummary(len(request.items), faults=request.faults)
        todo = find_todo(folder, request, origin, options.force, summary)
        audio_s, left_s = total_s(request.items), total_s(todo)
        job = RenderJob(
            items=len(request.items),
            audio_s=round(audio_s, 3),
            skipped=summary.skipped,
            skipped_audio_s=round(audio_s - left_s, 3),
            pipeline=origin.name,
            pipeline_hash=origin.hash,
        )
        for fault in request.faults:
            progress.event("left_out", line=fault.line, id=fault.id, error=fault.message)
        progress.start(len(request.items), summary.skipped, left_s)
        with keep_job(out_dir, job, progress):
            if todo:
                queue = RenderQueue(todo, pipeline.num_frames, options.batch_size)
                with start_workers(pipeline, origin, options) as pool:
                    progress.started = begun = time.monotonic()  # without loading the workers
                    for result in run_queue(queue, pool):
                        entry = store(folder, result, origin, options.batch_size, summary)
                        wanted_s = result.item.settings.duration_s
                        progress.item(entry.id, entry.status, wanted_s, entry.attempts, entry.error)
                    summary.seconds = time.monotonic() - begun
            folder.rewrite(in_order(folder.entries, request.items))
        progress.event(
            "summary",
            items=summary.items,
            made=summary.done,
            skipped=summary.skipped,
            failed=len(summary.failed),
            audio_s=round(summary.audio_s, 3),
            seconds=round(summary.seconds, 3),
        )
    return summary


@contextmanager
def keep_job(out_dir: Path, job: RenderJob, progress: RenderProgress) -> Iterator[None]:
    """Write in ``job.json`` that the job runs and, afterwards, whether it finished or stopped."""
    write_job(out_dir, job)
    try:
        yield
        job = replace(job, state="finished")
    except BaseException as error:
        message = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, KeyboardInterrupt):
            message = "by Ctrl-C; the same command goes on"
        job = replace(job, state="stopped", message=message)
        progress.event("stopped", error=message)
        raise
    finally:
        with suppress(OSError):  # a full disk has its own error
            write_job(out_dir, replace(job, ended=time.time()))


def find_todo(
    folder: RenderFolder,
    request: RenderRequest,
    origin: Origin,
    force: bool,
    summary: RenderSummary,
) -> list[RenderItem]:
    """Find the items that are not there yet, and drop their lines from the manifest.

    Raises:
        ChangedItemsError: items are there with other settings, and ``force`` is not given.
    """
    folder.check_unknown_files(request.items)
    todo: list[RenderItem] = []
    changes: dict[str, str] = {}
    for item in request.items:
        entry = folder.entries.get(item.id)
        change = entry and first_difference(entry, item.identity(), origin.hash)
        if entry is not None and not change and folder.is_whole(entry):
            summary.skipped += 1
            continue
        todo.append(item)
        if entry is not None and entry.status == "done":
            if change:
                changes[item.id] = change
            else:
                summary.damaged.append(item.id)
    if changes and not force:
        raise ChangedItemsError(folder.path, changes)
    for id in changes:
        folder.remove_files(folder.entries[id])
    redo = {item.id for item in todo}
    folder.rewrite([entry for id, entry in folder.entries.items() if id not in redo])
    return todo


def first_difference(entry: ManifestEntry, identity: dict[str, Any], pipeline_hash: str) -> str:
    """Compare what an entry was made with and what is wanted now, "" where they are the same."""
    wanted = identity | identity["settings"] | {"pipeline": pipeline_hash}
    found = vars(entry) | entry.settings | {"pipeline": entry.pipeline_hash}
    for name, value in wanted.items():
        if name != "settings" and found.get(name) != value:
            return f"{name} was {found.get(name)!r}, is now {value!r}"
    return ""


def start_workers(
    pipeline: MusicGenerator, origin: Origin, options: RenderOptions
) -> AbstractContextManager[WorkerPool]:
    """Start the threads of this process, or a cluster."""
    if options.workers or options.scheduler:
        from pipelines.rendering.cluster import start_cluster

        return start_cluster(pipeline, origin, options.workers, options.scheduler)
    return start_threads(pipeline, origin)


def store(
    folder: RenderFolder, done: ItemResult, origin: Origin, batch_size: int, summary: RenderSummary
) -> ManifestEntry:
    """Put an item's files and its entry into the folder, and count it."""
    item, result = done.item, done.result
    entry = ManifestEntry(
        id=item.id,
        status="done",
        **item.identity(),
        pipeline=origin.name,
        pipeline_hash=origin.hash,
        license=origin.license,
        versions=dict(origin.versions),
        attempts=done.attempts,
        timings={"finished": round(time.time(), 3)},
    )
    if isinstance(result, RenderFailure):
        entry = replace(entry, status="failed", error=result.error)
        folder.add(entry)
        summary.failed.append(entry)
        return entry
    facts: dict[str, Any] = dict(result.facts)
    facts["machine"] = {**facts["machine"], "batch_size": batch_size}
    facts["timings"] = {**facts["timings"], **entry.timings}
    entry = replace(entry, audio=item.audio_name, tokens=item.tokens_name, **facts)
    folder.add(entry, result.audio, result.tokens)
    summary.done += 1
    summary.audio_s += entry.duration_s
    return entry


def in_order(entries: dict[str, ManifestEntry], items: Iterable[RenderItem]) -> list[ManifestEntry]:
    """List the entries of other jobs first, then those of ``items`` in their order."""
    ids = [item.id for item in items]
    wanted = set(ids)
    others = [entry for id, entry in entries.items() if id not in wanted]
    return others + [entries[id] for id in ids if id in entries]


def total_s(items: Iterable[RenderItem]) -> float:
    """Sum the seconds of audio in items."""
    return sum(item.settings.duration_s for item in items)
