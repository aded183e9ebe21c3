"""A job as it goes: a line for people, JSON for programs, a log for the morning after."""

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from pipelines.rendering.folder import explain_full_disk
from pipelines.rendering.job import clock

KINDS = ("line", "json", "none")
LINE_EVERY_S = 30.0
"""Where standard error is not a terminal, a line is written so often."""


class RenderProgress:
    """Counts items and tells of them.

    Args:
        kind: "line" on standard error, "json" (an object per event) on standard output, or "none".
        log_file: to which every event is appended with its time, or None.
    """

    def __init__(self, kind: str = "none", log_file: str | Path | None = None) -> None:
        if kind not in KINDS:
            raise ValueError(f"progress must be one of {', '.join(KINDS)}, got {kind!r}")
        self.kind = kind
        self.log: TextIO | None = None
        if log_file is not None:
            self.log = Path(log_file).open("a", encoding="utf-8")  # noqa: SIM115  (see __exit__)
        self.total = self.done = self.failed = 0
        self.audio_s = self.left_audio_s = 0.0
        self.started = self.told = time.monotonic()

    def __enter__(self) -> "RenderProgress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.kind == "line" and sys.stderr.isatty():
            print(file=sys.stderr)
        if self.log is not None:
            with explain_full_disk(Path(self.log.name)):
                self.log.close()

    def start(self, total: int, skipped: int, audio_s: float) -> None:
        """Begin: ``audio_s`` of audio in ``total - skipped`` items are still to be made."""
        self.total, self.done, self.left_audio_s = total, skipped, audio_s
        self.started = self.told = time.monotonic()
        self.tell("start", items=total, skipped=skipped, audio_s=round(audio_s, 3))

    def item(self, id: str, status: str, duration_s: float, attempts: int, error: str) -> None:
        """An item has come to its end; ``duration_s`` is what was asked for."""
        self.left_audio_s -= duration_s
        if status == "done":
            self.done += 1
            self.audio_s += duration_s
        else:
            self.failed += 1
        more = {"error": error} if error else {}
        self.tell("item", id=id, status=status, duration_s=duration_s, attempts=attempts, **more)
        self.draw()

    @property
    def rate(self) -> float:
        """Seconds of audio per second, so far."""
        return self.audio_s / max(time.monotonic() - self.started, 1e-9)

    def tell(self, event: str, **facts: Any) -> None:
        """Write an event to the log, and to programs."""
        if event == "item":
            facts |= {
                "done": self.done,
                "failed": self.failed,
                "total": self.total,
                "audio_s_per_s": round(self.rate, 3),
                "left_s": round(self.left_audio_s / self.rate, 1) if self.rate else None,
            }
        if self.kind == "json":
            print(json.dumps({"event": event, **facts}, ensure_ascii=False), flush=True)
        if self.log is not None:
            now = datetime.now().astimezone().isoformat(timespec="seconds")
            words = " ".join(f"{name}={json.dumps(value)}" for name, value in facts.items())
            with explain_full_disk(Path(self.log.name)):
                print(f"{now} {event} {words}", file=self.log, flush=True)

    def draw(self) -> None:
        """The line for people."""
        if self.kind != "line":
            return
        now, is_terminal = time.monotonic(), sys.stderr.isatty()
        if not is_terminal and now - self.told < LINE_EVERY_S:
            return
        self.told = now
        failed = f", {self.failed} failed" if self.failed else ""
        left = clock(self.left_audio_s / self.rate) if self.rate else "?"
        line = f"{self.done} of {self.total} items{failed}, {self.rate:.1f} audio-s/s, {left} left"
        if is_terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        else:
            print(line, file=sys.stderr, flush=True)
