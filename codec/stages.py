"""Stages of a stream: pieces are pushed in and pulled out; the state can be saved.

A stage does nothing until it is asked, so a chain of them computes each piece of its output as
late as it may and as early as it can, and holds all that it remembers between two calls.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Stage(Protocol):
    """Consecutive pieces of one stream in, consecutive pieces of another out."""

    @property
    def ended(self) -> bool:
        """Whether the last piece has been pushed."""

    def push(self, piece: Tensor) -> None:
        """Hand over the next piece, cut anywhere."""

    def end(self) -> None:
        """Say that the last piece has been pushed."""

    def pull(self) -> Tensor | None:
        """Return the next piece; None where more must be pushed first, or nothing is left."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that is remembered; an equal stage that loads it continues exactly."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""


class PieceBuffer:
    """What most stages keep of their input: a buffer along the last dimension, and its end."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None
        self.ended = False

    def __len__(self) -> int:
        return 0 if self.buffer is None else self.buffer.shape[-1]

    def append(self, piece: Tensor) -> None:
        """Keep a piece."""
        self.buffer = piece if self.buffer is None else torch.cat([self.buffer, piece], dim=-1)

    def first(self, count: int) -> Tensor:
        """The first ``count`` elements, or all if there are fewer."""
        assert self.buffer is not None
        return self.buffer[..., :count]

    def drop(self, count: int) -> None:
        """Forget the first ``count`` elements."""
        assert self.buffer is not None
        self.buffer = self.buffer[..., count:]

    def state_dict(self) -> dict[str, Tensor]:
        """As a stage's."""
        kept = {} if self.buffer is None else {"buffer": self.buffer.clone()}
        return {**kept, "ended": torch.tensor(self.ended)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """As a stage's."""
        self.buffer = state.get("buffer")
        self.ended = bool(state["ended"])


def pull(stages: Sequence[Stage]) -> Tensor | None:
    """The next piece at a chain's end; None where its first stage wants more, or has ended."""
    *before, last = stages
    while (piece := last.pull()) is None:
        if not before or last.ended:
            return None
        pushed = pull(before)
        if pushed is not None:
            last.push(pushed)
        elif before[-1].ended:
            last.end()
        else:
            return None
    return piece


def run(stages: Sequence[Stage], pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Lead a stream through a chain; each piece of the output comes as soon as it can."""
    for piece in pieces:
        stages[0].push(piece)
        yield from _pull_all(stages)
    stages[0].end()
    yield from _pull_all(stages)


def _pull_all(stages: Sequence[Stage]) -> Iterator[Tensor]:
    while (piece := pull(stages)) is not None:
        yield piece


def grown(first: int, last: int, index: int, growth: float = 1.3) -> int:
    """Length of block ``index`` of a stream whose blocks grow from ``first`` to ``last``.

    Short blocks let a stream begin at once, long ones cost less. The default is slow enough for a
    block to be computed while the ones before it are played, even on a machine of half the speed
    (tests/test_stream_clock.py).

    Args:
        first: length of block 0.
        last: the most that a block may have.
        index: from 0.
        growth: of each block over the one before it, 1.3 or more.
    """
    if index > 64 or first >= last:  # 1.3 ** 64 is longer than any block
        return last
    return min(last, round(first * growth**index))
