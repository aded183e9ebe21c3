"""Holds work that nobody listens to while it is made."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pipelines.music_output import MusicOutput
from pipelines.serving.music_request import WholePiece


@dataclass(eq=False)
class Work:
    """Holds a piece that nobody listens to while it is made."""

    fields: WholePiece  # what it is made from, with a seed
    take: Callable[[Tensor], None]  # takes each (C, s) piece of audio, in the computing thread
    # called at the end, or at an error, which is then in ``error``
    on_end: Callable[["Work"], None]
    on_start: Callable[["Work"], None] = lambda work: None  # called before the first frame
    progress: float = 0.0
    started: float | None = None
    canceled: bool = False
    alone: bool = False
    # makes the whole at once instead, from a function to be called between its steps
    edit: Callable[[Callable[..., None]], MusicOutput] | None = None
    song: MusicOutput | None = None  # what was made
    error: Exception | None = None

    def batch_key(self) -> tuple[object, ...]:
        """Return what the members of a batch have in common."""
        fields = self.fields
        sampling = (fields.guidance, fields.temperature, fields.top_k, fields.top_p)
        return (fields.duration_s, *sampling)


class CanceledError(Exception):
    """Ends an edit that nobody wants any more."""


def finish(work: Work) -> None:
    """Hand a job over, done, canceled or failed."""
    if work.song is not None and work.error is None and not work.canceled:
        work.progress = 1.0
    try:
        work.on_end(work)
    except Exception as error:  # a full disk, a deleted folder
        work.error = error
        work.on_end(work)
