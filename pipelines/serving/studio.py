"""Does what the routes ask for: pieces now, jobs, live pieces, and the shelf."""

import logging
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.inference.music_generator import MusicGenerator
from pipelines.inference.streaming import Stream
from pipelines.music_output import MusicOutput
from pipelines.rendering.origin import describe_origin
from pipelines.serving.compute_loop import ComputeLoop
from pipelines.serving.edited_take import edit_fields, edit_take
from pipelines.serving.job_store import DuplicateJobError, Job, JobStore
from pipelines.serving.live_piece import AHEAD_S, LivePiece
from pipelines.serving.music_request import (
    EditRequest,
    JobRequest,
    LiveStart,
    PieceFields,
    SteerFields,
    WholePiece,
)
from pipelines.serving.piece_work import Work, describe_song
from pipelines.serving.refusals import QueueFullError, StorageError
from pipelines.serving.request_check import RequestCheck
from pipelines.serving.shelf import Shelf, TakeRecorder, new_id

LOG = logging.getLogger("partita.serve")
LIVE_AHEAD_S = 3.0
"""Seconds made ahead of what a page has played: little, so that steering is heard soon."""


class Studio:
    """Holds one pipeline, its computing thread, its jobs and its takes.

    Args:
        pipeline: that makes the music.
        folder: of the takes; the jobs' SQLite file lies there too.
        longest_s: the longest piece (s).
        max_queue: jobs and whole requests that may wait.
        batch_size, max_streams: see ``ComputeLoop``.
        log_prompts: whether the log says what jobs are made from.

    Raises:
        OSError: the folder cannot be used, or another server uses it.
    """

    def __init__(
        self,
        pipeline: MusicGenerator,
        folder: Path,
        longest_s: float = 600.0,
        max_queue: int = 1000,
        batch_size: int = 8,
        max_streams: int = 32,
        log_prompts: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self.origin = describe_origin(pipeline)
        self.check = RequestCheck(pipeline, self.origin.name, longest_s)
        folder.mkdir(parents=True, exist_ok=True)
        self.store = JobStore(folder / "jobs.sqlite")
        self.shelf = Shelf(folder)
        self.max_queue = max_queue
        self.log_prompts = log_prompts
        self.loop = ComputeLoop(pipeline, batch_size, max_streams)
        self.works: dict[str, Work | LivePiece] = {}
        self.on_job_end: Callable[[str], None] = lambda state: None

    def start(self) -> None:
        """Start computing; jobs of an earlier run that were not done go first."""
        for job in self.store.unfinished():
            self._take_up(job)
        self.loop.start()

    def stop(self) -> None:
        """Stop computing; jobs that are not done are kept for the next start."""
        self.loop.stop()
        self.store.close()

    # -- whole pieces, kept nowhere ------------------------------------------------------------

    def submit(self, fields: WholePiece, on_end: Callable[[Work], None]) -> tuple[Work, list]:
        """Queue a piece whose audio is gathered in the list that is returned.

        Raises:
            QueueFullError: too many wait.
        """
        self._check_room()
        pieces: list[Tensor] = []
        work = Work(fields.with_seed(), pieces.append, on_end)
        self.loop.submit(work)
        return work, pieces

    def open_stream(self, fields: PieceFields) -> LivePiece:
        """Open a stream that is kept nowhere.

        Raises:
            BusyError: it could not keep up.
        """
        piece = LivePiece(self._stream_maker(fields.with_seed()), fields.preview, AHEAD_S)
        self.loop.open_live(piece)
        return piece

    # -- jobs ----------------------------------------------------------------------------------

    def add_job(self, request: JobRequest) -> Job:
        """Write a job down and queue it.

        Raises:
            QueueFullError: too many wait.
            DuplicateJobError: there is a job of this id.
            StorageError: it cannot be written down.
        """
        self._check_room()
        if request.id and (self.shelf.path / f"{request.id}.safetensors").exists():
            raise DuplicateJobError(f"id must be new, got {request.id!r}, which a take has")
        id = request.id or new_id(request.prompt)
        return self._queue(id, request.with_seed().model_dump(mode="json", exclude={"id"}))

    def add_edit(self, request: EditRequest) -> Job:
        """Write an edit of a take down and queue it.

        Raises:
            FileNotFoundError: there is no such take.
            ValueError: the pipeline cannot do this, or would not.
        """
        if not hasattr(self.pipeline, request.edit):
            raise ValueError(f"edit {request.edit} was asked for, but this pipeline cannot do it")
        self.check.plan(request)
        take = self.shelf.facts(request.take)
        self._check_room()
        fields = edit_fields(request, take)
        if fields["duration_s"] > self.check.longest_s:
            raise ValueError(f"add_s must keep the piece within {self.check.longest_s:g} s")
        return self._queue(request.id or new_id(f"{request.edit} {fields['prompt']}"), fields)

    def cancel_job(self, id: str) -> Job | None:
        """End a job that is queued or running."""
        work = self.works.get(id)
        if work is not None:
            self.store.end(id, "canceled")
            if isinstance(work, LivePiece):
                work.cancel()
            else:
                work.canceled = True
        return self.store.get(id)

    def progress(self, id: str) -> float:
        """Return how much of a job is done, from 0 to 1."""
        work = self.works.get(id)
        if isinstance(work, LivePiece):
            stream = work.stream
            return 0.0 if stream is None else work.made_s / max(stream.piece.duration_s, 1e-9)
        return 0.0 if work is None else work.progress

    def _queue(self, id: str, fields: dict[str, Any]) -> Job:
        self._write_down(id, fields, "queued")
        job = self.store.get(id)
        assert job is not None
        self._take_up(job)
        return job

    def _take_up(self, job: Job) -> None:
        fields, edit = dict(job.fields), None
        steers = fields.pop("steers", [])
        if request := fields.pop("request", None):
            edit = partial(edit_take, self.pipeline, self.shelf, EditRequest(**request))
        piece = WholePiece(**{"ending": "cut"} | fields)  # one from a live piece has none
        if steers:
            live = self._live_job(job.id, piece)
            live.steers = [(at, SteerFields(**said).arguments()) for at, said in steers]
            live.detached = True
            self.loop.open_live(live)
            return
        recorder = TakeRecorder(self.shelf, job.id, self.pipeline.sample_rate)

        def end(work: Work) -> None:
            self._end_job(job.id, recorder, None if work.canceled else work.song, work.error)

        def begin(work: Work) -> None:
            recorder.abandon()  # what a failed attempt wrote
            self.store.begin(job.id)
            said = {"prompt": piece.prompt} if self.log_prompts else {}
            LOG.info("job", extra={"job": job.id, "state": "running", **said})

        work = Work(piece, recorder.write, end, begin, edit=edit, alone=edit is not None)
        self.works[job.id] = work
        self.loop.submit(work)

    def _end_job(
        self, id: str, recorder: TakeRecorder, song: MusicOutput | None, error: Exception | None
    ) -> None:
        """Put a take on the shelf and write the end of its job down, or say why there is none."""
        self.works.pop(id, None)
        if error is None and song is not None:
            recorder.finish(song, self.pipeline.codec)
            state = "done"
        else:
            recorder.abandon()
            state = "canceled" if error is None else "failed"
        if isinstance(error, InterruptedError):
            return  # the server stops; the job is still written down as running, and is kept
        message = "" if error is None else f"{type(error).__name__}: {error}"
        LOG.info("job", extra={"job": id, "state": state, "error": message})
        self.on_job_end(state)
        try:
            self.store.end(id, state, message)
        except sqlite3.Error as broken:
            LOG.error("job", extra={"job": id, "state": state, "error": str(broken)})

    # -- live pieces ---------------------------------------------------------------------------

    def open_live(self, start: LiveStart) -> tuple[str, LivePiece]:
        """Open a live piece; one that is kept is a job, which goes on when its listener leaves.

        Raises:
            BusyError: it could not keep up.
            StorageError: it cannot be written down.
        """
        fields = PieceFields(**start.model_dump(exclude={"type", "encoding", "keep"})).with_seed()
        if not start.keep:
            piece = LivePiece(self._stream_maker(fields), fields.preview, LIVE_AHEAD_S)
            self.loop.open_live(piece)
            return "", piece
        id = new_id(fields.prompt)
        piece = self._live_job(id, fields)
        self._write_down(id, fields.model_dump(mode="json"), "running")
        try:
            self.loop.open_live(piece)
        except Exception:
            self.works.pop(id, None)
            self.store.end(id, "failed", "refused: too many streams")
            raise
        return id, piece

    def steer(self, id: str, piece: LivePiece, fields: SteerFields) -> int:
        """Steer a live piece, and write down from which frame on; 0 where it has not begun.

        Raises:
            ValueError: it has ended, or the fields do not fit.
        """
        self.check.steer(fields)
        frame = 0
        if piece.stream is None:
            piece.steers.append((0, fields.arguments()))
        else:
            piece.stream.steer(**fields.arguments())
            frame = piece.stream.prompts[-1][0]
        job = self.store.get(id) if id else None
        if job is not None:
            steers = [*job.fields.get("steers", []), (frame, fields.model_dump(exclude={"type"}))]
            self.store.set_fields(id, job.fields | {"steers": steers})
        return frame

    def _live_job(self, id: str, fields: PieceFields) -> LivePiece:
        piece = LivePiece(self._stream_maker(fields), fields.preview, LIVE_AHEAD_S)
        recorder = TakeRecorder(self.shelf, id, self.pipeline.sample_rate)
        piece.keep_pieces = recorder.write

        def end(piece: LivePiece) -> None:
            song, stream = None, piece.stream
            if stream is not None and piece.made_s > 0 and not piece.canceled:
                num_samples = round(piece.made_s * stream.sample_rate)
                song = describe_song(self.pipeline, fields, stream.codes, stream.plan, num_samples)
                if len(stream.prompts) > 1:
                    song.settings["prompts"] = stream.prompts
            self._end_job(id, recorder, song, piece.error)

        piece.on_end = end
        self.works[id] = piece
        return piece

    # -- shared --------------------------------------------------------------------------------

    def _stream_maker(self, fields: PieceFields) -> Callable[[], Stream]:
        return lambda: self.pipeline.stream(**fields.arguments())

    def _check_room(self) -> None:
        if len(self.loop.waiting) >= self.max_queue:
            raise QueueFullError(f"{self.max_queue} pieces wait already: try again later")

    def _write_down(self, id: str, fields: dict[str, Any], state: str) -> None:
        self.shelf.check_disk()
        try:
            self.store.add(id, fields, state)
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"the folder of takes cannot be used: {error}") from error
