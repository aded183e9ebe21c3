"""Keep ``job.json``, how a job stands for whoever watches it, and what ``--status`` makes of it."""

import json
import os
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from codec.whole_file import write_json
from pipelines.rendering.folder import JOB_NAME, explain_full_disk, is_locked
from pipelines.rendering.manifest import read_manifest


@dataclass(frozen=True)
class RenderJob:
    """Hold what was asked for, and since when (seconds since 1970).

    ``items`` and ``audio_s`` include what an earlier run made (``skipped``, ``skipped_audio_s``);
    ``state`` is "running", "finished" or "stopped".
    """

    items: int
    audio_s: float
    skipped: int
    skipped_audio_s: float
    pipeline: str
    pipeline_hash: str
    started: float = field(default_factory=time.time)
    process: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    state: str = "running"
    message: str = ""
    ended: float | None = None


@dataclass(frozen=True)
class RenderStatus:
    """Hold how a job stands.

    ``state`` is that of the job, or "killed"; the rate is that of the current or the last run, None
    before its first item; ``left_s`` is estimated, None where nothing runs or before the first
    item.
    """

    state: str
    message: str
    items: int
    done: int
    failed: int
    audio_s: float
    total_audio_s: float
    audio_s_per_s: float | None
    left_s: float | None
    elapsed_s: float

    def __str__(self) -> str:
        parts = [f"{self.state}: {self.done} of {self.items} items done"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{clock(self.audio_s)} of {clock(self.total_audio_s)} of audio")
        if self.audio_s_per_s is not None:
            parts.append(f"{self.audio_s_per_s:.1f} audio-s/s")
        if self.left_s is not None:
            parts.append(f"{clock(self.left_s)} left")
        return ", ".join([*parts, self.message] if self.message else parts)


def write_job(folder: Path, job: RenderJob) -> None:
    """Replace ``job.json``.

    Raises:
        FullDiskError: the disk is full.
    """
    with explain_full_disk(folder):
        write_json(folder / JOB_NAME, asdict(job))


def read_job(folder: Path) -> RenderJob:
    """Read ``job.json``.

    Raises:
        FileNotFoundError: nothing was rendered there.
        ValueError: it is damaged.
    """
    path = folder / JOB_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: nothing was rendered into {folder}")
    try:
        return RenderJob(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def read_status(folder: str | Path) -> RenderStatus:
    """Read how the job in a folder stands, running or not, without opening its files.

    Raises:
        FileNotFoundError: nothing was rendered there.
        ValueError: ``job.json`` or the manifest is damaged.
    """
    folder = Path(folder)
    job = read_job(folder)
    entries = [  # of this run: a folder may hold other jobs' items
        entry
        for entry in read_manifest(folder).values()
        if entry.timings.get("finished", 0) >= job.started
    ]
    done = [entry for entry in entries if entry.status == "done"]
    made_s = sum(entry.duration_s for entry in done)
    audio_s = job.skipped_audio_s + made_s
    state = "killed" if job.state == "running" and not is_locked(folder) else job.state
    last = max((entry.timings["finished"] for entry in entries), default=job.started)
    end = time.time() if state == "running" else job.ended or last
    elapsed_s = max(end - job.started, 1e-9)
    rate = made_s / elapsed_s if done else None
    return RenderStatus(
        state=state,
        message=job.message,
        items=job.items,
        done=job.skipped + len(done),
        failed=len(entries) - len(done),
        audio_s=round(audio_s, 3),
        total_audio_s=job.audio_s,
        audio_s_per_s=rate,
        left_s=max(0.0, (job.audio_s - audio_s) / rate) if rate and state == "running" else None,
        elapsed_s=elapsed_s,
    )


def clock(seconds: float) -> str:
    """Format seconds as 0:07, 12:34 or 1:02:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"
