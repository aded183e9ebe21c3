"""Report how a job goes: a line for people, JSON for programs, a log to read later."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from pipelines.errors import check_name
from pipelines.rendering.folder import explain_full_disk
from pipelines.rendering.job import clock

KINDS = ("line", "json", "none")
LINE_EVERY_S = 30.0  # seconds between lines where standard error is not a terminal


class RenderProgress:
    """Count items and report them.

    Args:
        kind: "line" on standard error, "json" (an object per event) on standard output, or "none".
        log: to which every event is appended with its time, or None.
    """

    def __init__(self, kind: str = "none", log: TextIO | None = None) -> None:
        self.kind = kind
        self.log = log
        self.total = self.done = self.failed = 0
        self.audio_s = self.left_audio_s = 0.0
        self.started = self.drawn = time.monotonic()

    def start(self, total: int, skipped: int, audio_s: float) -> None:
        """Begin: ``audio_s`` of audio in ``total - skipped`` items are still to be made."""
        self.total, self.done, self.left_audio_s = total, skipped, audio_s
        self.started = self.drawn = time.monotonic()
        self.event("start", items=total, skipped=skipped, audio_s=round(audio_s, 3))

    def item(self, id: str, status: str, duration_s: float, attempts: int, error: str) -> None:
        """Count an item that is done or failed; ``duration_s`` is what was asked for."""
        self.left_audio_s -= duration_s
        if status == "done":
            self.done += 1
            self.audio_s += duration_s
        else:
            self.failed += 1
        facts: dict[str, Any] = {"id": id, "status": status, "duration_s": duration_s}
        facts |= {"attempts": attempts} | ({"error": error} if error else {})
        facts |= {"done": self.done, "failed": self.failed, "total": self.total}
        left_s = round(self.left_audio_s / self.rate, 1) if self.rate else None
        self.event("item", **facts, audio_s_per_s=round(self.rate, 3), left_s=left_s)
        if self.kind == "line":
            self.draw()

    @property
    def rate(self) -> float:
        """Return the seconds of audio per second, so far."""
        return self.audio_s / max(time.monotonic() - self.started, 1e-9)

    def event(self, event: str, **facts: Any) -> None:
        """Write an event to the log, and to programs."""
        if self.kind == "json":
            print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)
        if self.log is not None:
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            words = " ".join(f"{name}={json.dumps(value)}" for name, value in facts.items())
            with explain_full_disk(Path(self.log.name)):
                print(f"{now} {event} {words}", file=self.log, flush=True)

    def draw(self) -> None:
        """Write the line for people."""
        now, is_terminal = time.monotonic(), sys.stderr.isatty()
        if not is_terminal and now - self.drawn < LINE_EVERY_S:
            return
        self.drawn = now
        failed = f", {self.failed} failed" if self.failed else ""
        left = clock(self.left_audio_s / self.rate) if self.rate else "?"
        line = f"{self.done} of {self.total} items{failed}, {self.rate:.1f} audio-s/s, {left} left"
        start, end = ("\r\x1b[K", "") if is_terminal else ("", "\n")
        print(f"{start}{line}", end=end, file=sys.stderr, flush=True)


@contextmanager
def open_progress(kind: str, log_file: str | Path | None) -> Iterator[RenderProgress]:
    """Report progress in one of ``KINDS``, and append every event to a log file."""
    check_name("progress", kind, KINDS)
    with ExitStack() as stack:
        log = None
        if log_file is not None:
            stack.enter_context(explain_full_disk(Path(log_file)))  # closing may write, too
            log = stack.enter_context(Path(log_file).open("a", encoding="utf-8"))
        try:
            yield RenderProgress(kind, log)
        finally:
            if kind == "line" and sys.stderr.isatty():
                print(file=sys.stderr)
