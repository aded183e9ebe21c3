"""What is left to do, whoever does it: batches to write, pieces to finish, one retry for each."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from pipelines.inference.token_file import load_tokens
from pipelines.rendering.item import RenderItem
from pipelines.rendering.rows import hash_file

Sampling = tuple[float, float, int | None, float | None]
MAX_ATTEMPTS = 2

FRAMES_PER_ROW = 1024
"""A batch holds ``batch_size`` items of up to so many frames (41 s at 25 a second) and fewer longer
ones, so that the prior's memory has a bound."""


@dataclass(frozen=True)
class RenderTask:
    """Work for one worker: tokens of a batch, or the audio of one item whose tokens are there.

    Attributes:
        items: of the batch; a single one to be finished.
        num_rows: that the prior computes, whatever the number of items.
        frames: token frames of every item.
        codes: (K, T) int16 or int32, of the item to finish; None where they are to be written.
        prior_s: what writing them took (s).
        attempt: 1, then 2.
    """

    items: tuple[RenderItem, ...]
    num_rows: int
    frames: tuple[int, ...]
    codes: np.ndarray | None = None
    prior_s: float = 0.0
    attempt: int = 1


@dataclass(frozen=True)
class BatchTokens:
    """The tokens of a batch.

    Attributes:
        codes: (K, T) per item.
        seconds: of work.
    """

    codes: tuple[np.ndarray, ...]
    seconds: float


@dataclass(frozen=True)
class RenderedFiles:
    """The files of one item and what is known of them.

    Attributes:
        audio: content of the audio file.
        tokens: content of the token file.
        facts: fields of ``ManifestEntry`` that only the making tells.
    """

    audio: bytes
    tokens: bytes
    facts: dict[str, object]


@dataclass(frozen=True)
class RenderFailure:
    """Why a task came to nothing."""

    error: str


@dataclass(frozen=True)
class ItemResult:
    """The end of an item's way.

    Attributes:
        item: that was asked for.
        result: its files, or why there are none.
        attempts: that it took.
    """

    item: RenderItem
    result: RenderedFiles | RenderFailure
    attempts: int


@dataclass
class RenderQueue:
    """Hands out tasks and takes their results, in any order; pieces to finish go first.

    An item that fails is tried once more, alone.
    """

    tasks: deque[RenderTask] = field(default_factory=deque)
    failed: list[ItemResult] = field(default_factory=list)

    @classmethod
    def of(
        cls, items: Sequence[RenderItem], num_frames: Callable[[float], int], batch_size: int
    ) -> "RenderQueue":
        """Tasks for all items, the longest batches first; see :func:`make_batches`."""
        fresh = [item for item in items if item.codes_path is None]
        again = [item for item in items if item.codes_path is not None]
        tasks = [RenderTask((item,), 1, (0,), np.empty(0)) for item in again]
        return cls(deque(tasks + make_batches(fresh, num_frames, batch_size)))

    def next_task(self) -> RenderTask | None:
        """A task, or None where there is none at the moment; ``failed`` may have grown."""
        while self.tasks:
            task = self.tasks.popleft()
            if task.codes is None or task.codes.size:
                return task
            try:
                return replace(task, codes=read_codes(task.items[0]))
            except (OSError, ValueError) as error:
                self.failed += self.report(task, RenderFailure(str(error)))
        return None

    def report(
        self, task: RenderTask, result: BatchTokens | RenderedFiles | RenderFailure
    ) -> list[ItemResult]:
        """Take a task's result: items that are through, done or given up."""
        if isinstance(result, BatchTokens):
            self._add_pieces(task, result)
            return []
        if isinstance(result, RenderedFiles):
            return [ItemResult(task.items[0], result, task.attempt)]
        if task.attempt == MAX_ATTEMPTS:
            return [ItemResult(item, result, task.attempt) for item in task.items]
        for item, frames in zip(task.items, task.frames, strict=True):
            alone = replace(task, items=(item,), frames=(frames,), attempt=task.attempt + 1)
            self.tasks.append(alone)
        return []

    def take_failed(self) -> list[ItemResult]:
        """Items that failed before they became a task, each of them once."""
        failed, self.failed = self.failed, []
        return failed

    def _add_pieces(self, task: RenderTask, written: BatchTokens) -> None:
        share = written.seconds / len(task.items)
        for item, frames, codes in zip(task.items, task.frames, written.codes, strict=True):
            piece = RenderTask((item,), 1, (frames,), codes, share, task.attempt)
            self.tasks.appendleft(piece)


def make_batches(
    items: Sequence[RenderItem], num_frames: Callable[[float], int], batch_size: int
) -> list[RenderTask]:
    """Items of like settings and lengths together; the longest first.

    How many rows the prior computes follows from an item's length alone, and a batch that is not
    full is filled up: a matrix of another shape is multiplied in another order, whose rounding
    could choose another token once in a great while.

    Args:
        items: whose tokens are to be written.
        num_frames: token frames of a duration (s).
        batch_size: the most items written at once.
    """
    groups: dict[tuple[int, Sampling], list[tuple[int, RenderItem]]] = defaultdict(list)
    for item in items:
        settings = item.settings
        frames = num_frames(settings.duration_s)
        sampling = (settings.guidance, settings.temperature, settings.top_k, settings.top_p)
        groups[rows_for(frames, batch_size), sampling].append((frames, item))
    batches = []
    for (num_rows, _), group in groups.items():
        group.sort(key=lambda pair: -pair[0])
        for first in range(0, len(group), num_rows):
            part = group[first : first + num_rows]
            members = tuple(item for _, item in part)
            batches.append(RenderTask(members, num_rows, tuple(frames for frames, _ in part)))
    return sorted(batches, key=lambda batch: -batch.frames[0])


def rows_for(num_frames: int, batch_size: int) -> int:
    """How many items of this length are written at once: ``batch_size``, halved while too many."""
    rows = batch_size
    while rows > 1 and rows * num_frames > batch_size * FRAMES_PER_ROW:
        rows //= 2
    return rows


def read_codes(item: RenderItem) -> np.ndarray:
    """The tokens of an item that is rendered again.

    Raises:
        FileNotFoundError: the file is gone.
        ValueError: it is no longer the one that was checked.
    """
    assert item.codes_path is not None
    path = Path(item.codes_path)
    tokens = load_tokens(path)
    if hash_file(path) != item.settings.codes:
        raise ValueError(f"{path} has changed since the rows were checked")
    return pack(tokens.codes)


def pack(codes: Tensor) -> np.ndarray:
    """Codes as small as they travel."""
    return codes.cpu().numpy().astype("<i4")
