"""``--plan``: what a job will take, before it is started; and beside it what it really took.

``plan_job`` measures for a few seconds and returns a :class:`Plan`; ``plan.check()`` refuses what
cannot fit; ``describe_plan`` is for printing. ``write_plan`` keeps it in the job's folder, where
the next run's end finds it (``read_plan``) and sets its own figures beside it (``compare``).
"""

import heapq
import json
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

from codec.whole_file import write_json
from pipelines.rendering.agenda import make_batches
from pipelines.rendering.calibration import Calibration, piece_key, prior_key
from pipelines.rendering.crew import lanes_of
from pipelines.rendering.item import RenderItem
from pipelines.rendering.job import clock, read_job
from pipelines.rendering.making import Maker
from pipelines.rendering.manifest import read_manifest

if TYPE_CHECKING:
    from pipelines.pipeline import Pipeline
    from pipelines.rendering.engine import RenderSummary
    from pipelines.rendering.origin import Origin

NAME = "plan.json"


class DoesNotFitError(ValueError):
    """A job that needs more memory or disk than there is."""


@dataclass(frozen=True)
class Plan:
    """What a job will take on this machine.

    Attributes:
        items: still to be rendered.
        audio_s: their audio (s).
        seconds: estimated, after loading.
        memory: estimated peak (bytes) of all processes, or of the GPU where that renders.
        available_memory: of them for this job, what the process holds already included (bytes).
        disk: of the files (bytes).
        free_disk: bytes.
        batch_size: items whose tokens are written at once.
        workers: processes; 0 for this one.
        lanes: tasks performed at once, in all processes.
        device: that renders.
    """

    items: int
    audio_s: float
    seconds: float
    memory: int
    available_memory: int
    disk: int
    free_disk: int
    batch_size: int
    workers: int
    lanes: int
    device: str

    def check(self) -> None:
        """Raise DoesNotFitError where memory or disk are too small for the job."""
        if self.memory > self.available_memory:
            raise DoesNotFitError(
                f"the job needs {size(self.memory)} of memory, {size(self.available_memory)} are "
                "available: choose a smaller --batch-size, fewer --threads or shorter items"
            )
        if self.disk > self.free_disk:
            raise DoesNotFitError(
                f"the files need {size(self.disk)}, the disk has {size(self.free_disk)}: make room "
                "or choose --format flac, ogg or opus"
            )


@dataclass(frozen=True)
class Actual:
    """What a run really took.

    Attributes:
        items: that it rendered.
        audio_s: their audio (s).
        seconds: after loading.
        memory: peak of all processes, or of the GPU where that renders (bytes).
        disk: of its files (bytes).
    """

    items: int
    audio_s: float
    seconds: float
    memory: int
    disk: int


def plan_job(
    pipeline: "Pipeline",
    origin: "Origin",
    items: Sequence[RenderItem],
    out_dir: str | Path,
    batch_size: int,
    workers: int = 0,
) -> Plan:
    """Measure for a few seconds what rendering these items takes; nothing is written.

    Args:
        pipeline: that would render, on its device.
        origin: of the pipeline.
        items: to be rendered; leave out those that are done (:func:`items_left`).
        out_dir: that would hold the files; it need not exist.
        batch_size: as for the job.
        workers: processes of a local cluster, which share PyTorch's threads out.

    Raises:
        ValueError: a measurement failed.
    """
    fresh = [item for item in items if item.codes_path is None]
    batches = make_batches(fresh, pipeline.num_frames, batch_size)
    pieces = [(item, pipeline.num_frames(item.settings.duration_s)) for item in items]
    folder = existing_parent(Path(out_dir))
    lanes = lanes_of(pipeline.device, workers) * max(1, workers)
    on_gpu = pipeline.device.type == "cuda"
    at_once = 1 if on_gpu else lanes  # of those that share the memory
    costs = Calibration(Maker(pipeline, origin), folder, at_once).measure(batches, pieces)

    def finishing_s(item: RenderItem) -> float:
        frames = pipeline.num_frames(item.settings.duration_s)
        return costs.pieces[piece_key(item)].seconds.at(frames)

    work: list[tuple[float, tuple[float, ...]]] = [
        (0.0, (finishing_s(item),)) for item in items if item.codes_path is not None
    ]
    work += [
        (costs.prior[prior_key(task)].seconds(task), tuple(map(finishing_s, task.items)))
        for task in batches
    ]
    needs = [costs.prior[prior_key(task)].peak_bytes(task) for task in batches]
    needs += [costs.pieces[piece_key(item)].peak_bytes.at(frames) for item, frames in pieces]
    processes = 1 if on_gpu else 1 + workers
    working = processes * costs.base_bytes + sum(heapq.nlargest(at_once, needs))
    return Plan(
        items=len(items),
        audio_s=sum(item.settings.duration_s for item in items),
        seconds=share_out(work, lanes),
        memory=round(max(processes * costs.loading_bytes, working)),
        available_memory=available_memory(pipeline.device),
        disk=round(
            sum(costs.pieces[piece_key(item)].file_bytes.at(frames) for item, frames in pieces)
        ),
        free_disk=shutil.disk_usage(folder).free,
        batch_size=batch_size,
        workers=workers,
        lanes=lanes,
        device=str(pipeline.device),
    )


def items_left(items: Sequence[RenderItem], out_dir: str | Path) -> list[RenderItem]:
    """Items that the manifest does not name as done; files are not verified."""
    entries = read_manifest(out_dir)
    done = {entry.id for entry in entries.values() if entry.status == "done"}
    return [item for item in items if item.id not in done]


def share_out(work: Sequence[tuple[float, tuple[float, ...]]], lanes: int) -> float:
    """When the last lane ends, if whoever is free takes a piece whose tokens are there, or else the
    next batch.

    Args:
        work: of every batch, in order: seconds of writing it, and of finishing each of its pieces.
        lanes: tasks performed at once.
    """
    batches, pieces = deque(work), deque[float]()
    running: list[tuple[float, tuple[float, ...]]] = []  # when it ends, and what can begin then
    now = 0.0
    while batches or pieces or running:
        while len(running) < lanes and (batches or pieces):
            seconds, then = (pieces.popleft(), ()) if pieces else batches.popleft()
            heapq.heappush(running, (now + seconds, then))
        now, ready = heapq.heappop(running)
        pieces.extend(ready)
    return now


def existing_parent(folder: Path) -> Path:
    """The folder itself, or the nearest above it that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.is_dir())


def available_memory(device: torch.device) -> int:
    """Bytes that this process may hold, those that it holds now included."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    own = psutil.Process().memory_info().rss
    return own + min(psutil.virtual_memory().available, cgroup_room())


def cgroup_room(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that a container's limit leaves, counting file pages as free; huge without a limit."""
    try:
        limit = int((root / "memory.max").read_text())  # "max" without a limit
        used = int((root / "memory.current").read_text())
        facts = dict(line.split() for line in (root / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 1 << 62
    return max(0, limit - used + int(facts.get("inactive_file", 0)))


def describe_plan(plan: Plan) -> list[str]:
    """A plan in lines."""
    rate = plan.audio_s / plan.seconds if plan.seconds else 0.0
    crew = f"{plan.workers} workers" if plan.workers else "one process"
    crew += f", {plan.lanes} threads" if plan.lanes > 1 else ""
    hours = plan.audio_s / 3600
    audio = f"{hours:.1f} hours" if hours >= 1 else clock(plan.audio_s)
    return [
        f"{plan.items} items, {audio} of audio",
        f"about {clock(plan.seconds)} on {crew} ({plan.device}, batches of {plan.batch_size}): "
        f"{rate:.1f} times as fast as it plays",
        f"about {size(plan.memory)} of memory at the peak, of {size(plan.available_memory)}",
        f"about {size(plan.disk)} of files, {size(plan.free_disk)} free",
    ]


def compare(plan: Plan, actual: Actual) -> list[str]:
    """A plan and what became of it, as a table."""
    rows = [
        ("items", str(plan.items), str(actual.items)),
        ("time", clock(plan.seconds), clock(actual.seconds)),
        ("audio-s/s", rate(plan.audio_s, plan.seconds), rate(actual.audio_s, actual.seconds)),
        ("peak memory", size(plan.memory), size(actual.memory)),
        ("files", size(plan.disk), size(actual.disk)),
    ]
    head = ("", "planned", "real")
    return [f"{name:12}{planned:>12}{real:>12}".rstrip() for name, planned, real in (head, *rows)]


def measure_run(folder: str | Path, summary: "RenderSummary") -> Actual:
    """A run that has just ended in this process."""
    folder, started = Path(folder), read_job(Path(folder)).started
    entries = read_manifest(folder).values()
    fresh = [entry for entry in entries if entry.timings.get("finished", 0) >= started]
    files = [folder / name for entry in fresh for name in (entry.audio, entry.tokens) if name]
    disk = sum(file.stat().st_size for file in files if file.is_file())
    return Actual(summary.done, summary.audio_s, summary.seconds, summary.peak_memory, disk)


def write_plan(folder: str | Path, plan: Plan) -> Path:
    """Keep a plan in the folder that the job will fill."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NAME, asdict(plan))
    return folder / NAME


def read_plan(folder: str | Path) -> Plan | None:
    """The plan in a folder, None where there is none.

    Raises:
        ValueError: it is damaged.
    """
    path = Path(folder) / NAME
    if not path.is_file():
        return None
    try:
        return Plan(**json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def rate(audio_s: float, seconds: float) -> str:
    """Seconds of audio per second."""
    return f"{audio_s / seconds:.1f}" if seconds > 0 else "-"


def size(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
