"""Queue what is left to do: batches to generate, items to decode, and one retry for each."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipelines.rendering.item import RenderItem

MAX_ATTEMPTS = 2

FRAMES_PER_ROW = 1024
"""A batch holds ``batch_size`` items of up to so many frames (41 s at 25 a second) and fewer longer
ones, so that the prior's memory has a bound."""


@dataclass(frozen=True)
class RenderTask:
    """Describe work: generate a batch's tokens, or decode an item whose tokens exist."""

    items: tuple[RenderItem, ...]  # of the batch; a single one to be decoded
    num_rows: int  # that the prior computes, whatever the number of items
    frames: tuple[int, ...]  # token frames of every item
    # (K, T) integers, of the item to decode; None where they are to be generated
    codes: np.ndarray | None = None
    plan: dict[str, Any] | None = None  # that they follow, as JSON
    prior_s: float = 0.0  # what generating them took (s)
    attempt: int = 1  # 1, then 2


@dataclass(frozen=True)
class BatchTokens:
    """Hold the tokens of a batch: (K, T) codes and plan per item, and the seconds of work."""

    codes: tuple[np.ndarray, ...]
    plans: tuple[dict[str, Any] | None, ...]
    seconds: float


@dataclass(frozen=True)
class RenderedFiles:
    """Hold an item's two files, and the fields of ``ManifestEntry`` that go with them."""

    audio: bytes
    tokens: bytes
    facts: dict[str, object]


@dataclass(frozen=True)
class RenderFailure:
    """Say why a task failed."""

    error: str


TaskResult = BatchTokens | RenderedFiles | RenderFailure


@dataclass(frozen=True)
class ItemResult:
    """Hold what became of an item: its files, or why there are none, after so many attempts."""

    item: RenderItem
    result: RenderedFiles | RenderFailure
    attempts: int


class RenderQueue:
    """Hand out tasks and take their results, in any order; items to decode go first.

    An item that fails is tried once more, alone. ``num_frames`` gives the token frames of a
    duration (s), and ``batch_size`` the most items whose tokens are generated at once.
    """

    def __init__(
        self, items: Sequence[RenderItem], num_frames: Callable[[float], int], batch_size: int
    ) -> None:
        given = [item for item in items if item.codes is not None]
        self.tasks = deque(
            RenderTask((item,), 1, (0,), item.codes, item.settings.plan) for item in given
        )
        edited = [item for item in items if item.source]
        self.tasks += [RenderTask((item,), 1, (0,)) for item in edited]
        new = [item for item in items if item.codes is None and not item.source]
        self.tasks += make_batches(new, num_frames, batch_size)

    def next_task(self) -> RenderTask | None:
        """Take the next task, or None where there is none at the moment."""
        return self.tasks.popleft() if self.tasks else None

    def report(self, task: RenderTask, result: TaskResult) -> list[ItemResult]:
        """Take a task's result, and return the items that are done or given up."""
        if isinstance(result, BatchTokens):
            share = result.seconds / len(task.items)
            made = zip(task.items, task.frames, result.codes, result.plans, strict=True)
            for item, frames, codes, plan in made:
                decoding = RenderTask((item,), 1, (frames,), codes, plan, share, task.attempt)
                self.tasks.appendleft(decoding)
            return []
        if isinstance(result, RenderedFiles) or task.attempt == MAX_ATTEMPTS:
            return [ItemResult(item, result, task.attempt) for item in task.items]
        for item, frames in zip(task.items, task.frames, strict=True):
            again = replace(task, items=(item,), frames=(frames,), attempt=task.attempt + 1)
            self.tasks.append(again)
        return []


def make_batches(
    items: Sequence[RenderItem], num_frames: Callable[[float], int], batch_size: int
) -> list[RenderTask]:
    """Put items of like settings and lengths together; the longest first.

    How many rows the prior computes follows from an item's length alone, and a batch that is not
    full is filled up: a matrix of another shape is multiplied in another order, whose rounding
    could choose another token once in a great while.
    """
    groups: dict[tuple, list[tuple[int, RenderItem]]] = defaultdict(list)
    for item in items:
        made = item.settings
        frames = num_frames(made.duration_s)
        sampling = (made.guidance, made.temperature, made.top_k, made.top_p)
        groups[rows_for(frames, batch_size), sampling].append((frames, item))
    batches = []
    for (num_rows, _), group in groups.items():
        group.sort(key=lambda pair: -pair[0])
        for first in range(0, len(group), num_rows):
            frames_of, members = zip(*group[first : first + num_rows], strict=True)
            batches.append(RenderTask(members, num_rows, frames_of))
    return sorted(batches, key=lambda batch: -batch.frames[0])


def rows_for(num_frames: int, batch_size: int) -> int:
    """Return how many items are generated at once: ``batch_size``, halved while too many."""
    rows = batch_size
    while rows > 1 and rows * num_frames > batch_size * FRAMES_PER_ROW:
        rows //= 2
    return rows
