"""Computes on one thread: live pieces first, by who runs dry soonest, then jobs in batches."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from codec.process_settings import cpu_threads
from pipelines.inference.endings import with_ending
from pipelines.inference.music_generator import MusicGenerator
from pipelines.serving.live_piece import LivePiece
from pipelines.serving.piece_work import CanceledError, Work, describe_song, finish
from pipelines.serving.refusals import BusyError
from prior.frame_generator import FrameGenerator
from prior.plan import Plan

Call = tuple[Future[Any], Callable[[], Any]]

CAPACITY = 0.9  # share of the thread's time that live pieces may be promised
WARM_UP_S = 4.0
PRIOR_SHARE = 0.8  # share of a job's progress that generating takes; the rest is decoding
REMEMBERED_S = 5.0  # seconds of computing after which a change in how much of a core there is shows
BURST_S = 0.1
"""CPU seconds without a pause that tell how much of a core there is: an operating system lets a
thread that has slept go first, so that less than that tells nothing."""
LEAD_S = 1.0  # seconds that every open live piece must be ahead before another is taken
YOUNG_S = 2.0  # seconds for a live piece to get ahead


@dataclass
class ComputeLoop:
    """Computes on one thread of the CPU; ``start`` it, and ``stop`` it at the end."""

    pipeline: MusicGenerator  # that makes everything
    batch_size: int = 8  # jobs whose tokens are written at once
    max_streams: int = 32  # live pieces that may be open, whatever they cost
    # CPU seconds per second of a live piece, with and without ``preview``
    cost: dict[bool, float] = field(default_factory=lambda: {False: 0.0, True: 0.0})
    # CPU seconds that the thread gets per second, beside what else the machine does
    share: float = 1.0
    live: list[LivePiece] = field(default_factory=list)
    waiting: deque[Work] = field(default_factory=deque)
    calls: deque[Call] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.changed = threading.Condition()
        self.stopping = False
        self.burst_s = 0.0, 0.0
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run, name="compute", daemon=True)

    def start(self) -> None:
        """Start the thread, which first measures what live pieces cost."""
        self.thread.start()

    def stop(self) -> None:
        """End the thread at its next frame; unfinished jobs get an ``InterruptedError``."""
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        self.thread.join()

    def submit(self, work: Work) -> None:
        """Put a job at the end of the queue."""
        with self.changed:
            self.waiting.append(work)
            self.changed.notify_all()

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Let the thread call a short function before it goes on."""
        future: Future[Any] = Future()
        with self.changed:
            self.calls.append((future, function))
            self.changed.notify_all()
        return future

    def open_live(self, piece: LivePiece) -> None:
        """Let a live piece begin.

        Raises:
            BusyError: those that are open would not keep up.
        """
        with self.changed:
            listened = [other for other in self.live if not other.detached]
            load = sum(self.cost[other.preview] for other in [*listened, piece])
            begun = time.monotonic() - YOUNG_S
            behind = any(other.opened < begun and other.slack_s < LEAD_S for other in listened)
            # squared: where others compete for a core, what there is of it may halve in a second
            full = behind or load > CAPACITY * self.share**2
            # a slow machine plays one, with gaps
            if not piece.detached and listened and (full or len(listened) >= self.max_streams):
                raise BusyError(min(max(1.0, p.slack_s) for p in listened))
            piece.on_taken, piece.opened = self.wake, time.monotonic()
            self.live.append(piece)
            self.changed.notify_all()

    def wake(self) -> None:
        """Look again at what is to be done."""
        with self.changed:
            self.changed.notify_all()

    def job_cost(self) -> float:
        """Return seconds per second of a job, as far as it is known."""
        return self.cost[False] / self.share

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        with cpu_threads(1), torch.no_grad():
            self._warm_up()
            self.ready.set()
            while not self.stopping:
                self.serve_live()
                batch = self._next_batch()
                if batch:
                    self._perform(batch)
                elif not any(piece.wants_more for piece in self.live):
                    with self.changed:
                        if not self.waiting and not self.calls and not self.stopping:
                            self.burst_s = (0.0, 0.0)
                            self.changed.wait(0.1)
            for future, _ in self.calls:
                future.set_exception(InterruptedError("the server stops"))
            for piece in list(self.live):
                piece.error = InterruptedError("the server stops")
                piece.end()

    def _warm_up(self) -> None:
        longest_s = float(self.pipeline.config.max_duration_s)
        for preview in (False, True):
            for duration_s in (0.5, min(WARM_UP_S, longest_s)):
                start, cpu_start = time.monotonic(), time.thread_time()
                for _ in self.pipeline.stream("piano", duration_s, 0, preview=preview):
                    pass
                cpu_s = time.thread_time() - cpu_start
                self.cost[preview] = cpu_s / duration_s
                self._note_share(cpu_s, time.monotonic() - start)

    def serve_live(self) -> None:
        """Compute for live pieces until none is urgent, and a step for one that is not."""
        while not self.stopping:
            while self.calls:
                answer(*self.calls.popleft())
            for piece in [piece for piece in self.live if piece.finished]:
                self._close(piece)
            wanting = [piece for piece in self.live if piece.wants_more]
            urgent = [piece for piece in wanting if piece.urgent]
            if not wanting:
                return
            start, cpu_start = time.monotonic(), time.thread_time()
            min(wanting, key=lambda piece: piece.slack_s).step()
            self._note_share(time.thread_time() - cpu_start, time.monotonic() - start)
            if not urgent:
                return

    def _note_share(self, cpu_s: float, wall_s: float) -> None:
        burst_cpu_s, burst_wall_s = self.burst_s[0] + cpu_s, self.burst_s[1] + wall_s
        self.burst_s = burst_cpu_s, burst_wall_s
        if burst_cpu_s < BURST_S:
            return
        seen = min(1.0, burst_cpu_s / max(burst_wall_s, 1e-9))
        self.share += min(1.0, burst_wall_s / REMEMBERED_S) * (seen - self.share)
        self.share = max(self.share, 0.01)
        self.burst_s = 0.0, 0.0

    def _close(self, piece: LivePiece) -> None:
        piece.end()
        with self.changed:
            self.live.remove(piece)
        if piece.made_s > 2:
            seen = piece.busy_s / piece.made_s
            self.cost[piece.preview] += 0.3 * (seen - self.cost[piece.preview])

    def _next_batch(self) -> list[Work]:
        with self.changed:
            batch: list[Work] = []
            for work in list(self.waiting):
                fits = not batch or (not work.alone and work.batch_key() == batch[0].batch_key())
                if work.canceled or fits:
                    self.waiting.remove(work)
                    batch.append(work)
                if len(batch) == self.batch_size or batch[0].alone:
                    break
            return batch

    def _perform(self, batch: list[Work]) -> None:
        try:
            self._generate([work for work in batch if not work.canceled])
        except Exception as error:  # whatever it is, the server goes on
            left = [work for work in batch if work.progress < 1 and work.error is None]
            if len(batch) > 1 and not isinstance(error, InterruptedError):
                for work in left:
                    work.alone = True
                with self.changed:
                    self.waiting.extendleft(reversed(left))
                    batch = [work for work in batch if work not in left]
            else:
                for work in left:
                    work.error = error
        for work in batch:
            if work.progress < 1:
                finish(work)

    def _generate(self, batch: list[Work]) -> None:
        """Write the tokens of all, then decode one after another, each as if it were alone."""
        if not batch:
            return
        for work in batch:
            work.started = time.time()
            work.on_start(work)
        if batch[0].edit is not None:
            return self._edit(batch[0])
        pipeline, fields = self.pipeline, [work.fields for work in batch]
        first = fields[0]
        num_frames = pipeline.num_frames(first.duration_s)
        seeds = [one.seed or 0 for one in fields]
        given = pipeline.conditioner(
            [one.prompt for one in fields],
            [one.negative_prompt for one in fields],
            [one.draft() for one in fields],
            seeds,
            first.duration_s,
            num_frames,
            [one.duration_s if one.ending == "ring" else None for one in fields],
        )
        sampling = pipeline.sampling(first.temperature, first.top_k, first.top_p, first.guidance)
        texts = given.condition, given.negative
        frames: list[Tensor] = []
        for frame in FrameGenerator(pipeline.prior, *texts, num_frames, sampling, seeds):
            frames.append(frame.codes)
            for work in batch:
                work.progress = PRIOR_SHARE * len(frames) / num_frames
            self._between(batch)
            if all(work.canceled for work in batch):
                return
        codes = torch.stack(frames, dim=-1)  # (B, K, T)
        for index, work in enumerate(batch):
            self._decode(work, codes[index : index + 1], given.plans[index])

    def _edit(self, work: Work) -> None:
        assert work.edit is not None
        frames = 0

        def between(*_: object) -> None:
            nonlocal frames
            frames += 1
            work.progress = PRIOR_SHARE * frames / (frames + 50)  # how many come is not known
            self._between([work])
            if work.canceled:
                raise CanceledError

        with contextlib.suppress(CanceledError):
            song = work.edit(between)
            work.take(song.audio[0].cpu())
            work.song = song
            finish(work)

    def _decode(self, work: Work, codes: Tensor, plan: Plan | None) -> None:
        fields, pipeline = work.fields, self.pipeline
        left = total = round(fields.duration_s * pipeline.sample_rate)
        seed = fields.seed if fields.decoder_seed is None else fields.decoder_seed
        steps = pipeline.check_steps(fields.num_inference_steps, fields.preview)
        for piece in pipeline.decode_stream([codes.to(pipeline.codec.device)], [seed or 0], steps):
            if work.canceled:
                return
            part = piece[0, :, :left].cpu()
            rate = pipeline.sample_rate
            work.take(with_ending(part, rate, fields.ending, total - left, total))
            left -= min(left, piece.shape[-1])
            work.progress = min(0.999, 1 - (1 - PRIOR_SHARE) * left / total)
            self._between([work])
        work.song = describe_song(pipeline, fields, codes, plan, total)
        work.song.settings["ending"] = fields.ending
        finish(work)

    def _between(self, batch: list[Work]) -> None:
        """Serve live pieces between two steps of a job, and stop if the server does."""
        self.serve_live()
        if self.stopping:
            raise InterruptedError("the server stops")


def answer(future: Future[Any], function: Callable[[], Any]) -> None:
    """Call a function for a thread that waits for it."""
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)
