"""Holds a piece that is heard while it is made."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from torch import Tensor

from pipelines.inference.streaming import Stream

AHEAD_S = 6.0  # seconds made ahead before other work comes first
STORED_S = 20.0  # seconds that wait for a slow reader at most


class LivePiece:
    """Yields, in an event loop, the (C, s) pieces of a stream that a thread computes.

    Args:
        make: opens the stream, in the computing thread.
        preview: whether the diffusion decoder is left out, which costs less.
        ahead_s: seconds made ahead of what ``played`` reports, where it is called at all.

    Attributes:
        stream: None until the computing thread has opened it.
        keep_pieces: takes every piece too, in the computing thread.
        error: what ended the piece, if not its end.
        late_s: seconds by which pieces came too late, in all.
        busy_s: CPU seconds that it took.
        opened: when it was taken (monotonic seconds).
    """

    def __init__(
        self, make: Callable[[], Stream], preview: bool = False, ahead_s: float = AHEAD_S
    ) -> None:
        self.make = make
        self.preview = preview
        self.ahead_s = ahead_s
        self.stream: Stream | None = None
        self.keep_pieces: Callable[[Tensor], None] | None = None
        self.on_end: Callable[[LivePiece], None] | None = None
        self.on_taken: Callable[[], Any] = lambda: None
        self.error: Exception | None = None
        self.ended = self.detached = self.canceled = self.stopped = False
        self.made_s = self.taken_s = self.late_s = self.busy_s = self.opened = 0.0
        self.steers: list[tuple[int, dict[str, Any]]] = []
        self._played_s: float | None = None
        self._started: float | None = None  # when the listener's clock showed 0
        self._waiting = False
        self._pieces: deque[Tensor] = deque()
        self._lock = threading.Lock()
        self._filled = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- the listener's side, in the event loop ------------------------------------------------

    def __aiter__(self) -> "LivePiece":
        self._loop = asyncio.get_running_loop()
        return self

    async def __anext__(self) -> Tensor:
        while True:
            with self._lock:
                self._waiting = not self._pieces
                if self._pieces:
                    piece = self._pieces.popleft()
                    break
                if self.ended:
                    raise StopAsyncIteration
                self._filled.clear()
            await self._filled.wait()
        now, duration_s = time.monotonic(), self._seconds(piece)
        if self._started is None or now - self._started > self.taken_s:
            self._started = now - self.taken_s  # a listener that ran dry waits for the piece
        self.taken_s += duration_s
        self.on_taken()
        return piece

    def played(self, seconds: float) -> None:
        """Take the listener's word on how much has been heard."""
        self._played_s = min(max(seconds, self._played_s or 0.0), self.taken_s)
        self.on_taken()

    def detach(self) -> None:
        """Let the listener go; the rest is made without hurry."""
        with self._lock:
            self.detached = True
            self._pieces.clear()
        self.on_taken()

    def stop(self) -> None:
        """End the piece where it is; what was made stays."""
        self.stopped = True
        self.on_taken()

    def cancel(self) -> None:
        """End the piece; nothing more is delivered."""
        self.canceled = True
        if self.stream is not None:
            self.stream.cancel()
        self.on_taken()

    # -- the computing thread's side -----------------------------------------------------------

    @property
    def slack_s(self) -> float:
        """Return the seconds until the listener runs dry; infinite where nobody listens."""
        if self.detached:
            return float("inf")
        if self._played_s is not None:
            return self.made_s - self._played_s
        heard_s = 0.0 if self._started is None else time.monotonic() - self._started
        return self.made_s - min(heard_s, self.taken_s)

    @property
    def finished(self) -> bool:
        """Tell whether nothing more is to be made."""
        return self.ended or self.canceled or self.stopped

    @property
    def wants_more(self) -> bool:
        """Tell whether there is room for another piece."""
        if self.detached:
            return True
        stored = self.made_s - self.taken_s < STORED_S
        return stored and (self._played_s is None or self.slack_s < self.ahead_s)

    @property
    def urgent(self) -> bool:
        """Tell whether it goes before all work that nobody is listening to."""
        return self.wants_more and self.slack_s < self.ahead_s

    def step(self) -> None:
        """Compute a little, and hand on what is ready; an error ends the piece."""
        start = time.thread_time()
        try:
            if self.stream is None:
                self.stream = self.make()
            while self.steers and self.steers[0][0] <= self.stream.codes.shape[-1]:
                self.stream.steer(**self.steers.pop(0)[1])
            piece = self.stream.step()
            if piece is not None and not self.canceled:
                self._push(piece)
        except Exception as error:  # whatever it is, the server goes on
            self.error = error
        if self.error or self.finished or (self.stream is not None and self.stream.ended):
            self.end()
        self.busy_s += time.thread_time() - start

    def end(self) -> None:
        """Say that nothing more comes."""
        if self.ended:
            return
        if self.on_end is not None:
            try:
                self.on_end(self)
            except Exception as error:  # a full disk, a deleted folder
                self.error = error
                self.on_end(self)
        self.ended = True
        self._notify()

    def _push(self, piece: Tensor) -> None:
        if self.keep_pieces is not None:
            self.keep_pieces(piece)
        if self._waiting and self._started is not None and not self.detached:
            self.late_s += max(0.0, time.monotonic() - self._started - self.made_s)
        with self._lock:
            if not self.detached:
                self._pieces.append(piece)
            self.made_s += self._seconds(piece)
        self._notify()

    def _seconds(self, piece: Tensor) -> float:
        assert self.stream is not None
        return piece.shape[-1] / self.stream.sample_rate

    def _notify(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._filled.set)
