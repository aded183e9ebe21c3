"""Stages of a stream: pieces are pushed in and pulled out; the state can be saved.

A stage computes nothing before a piece is pulled, so a chain yields each piece as soon as its input
is there. Everything that it remembers between two calls is in its state.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor


class Stage(Protocol):
    """Consecutive pieces of one stream in, consecutive pieces of another out."""

    input: "PieceBuffer"
    """Take pieces, cut anywhere."""

    def pull(self) -> Tensor | None:
        """Return the next piece of the output; None where more must be pushed or all is out."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that is remembered; an equal stage that loads it continues exactly."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from what :meth:`state_dict` returned."""


class PieceBuffer:
    """A stage's input: the elements that it still needs, along the last dimension, and the end."""

    def __init__(self) -> None:
        self.buffer: Tensor | None = None
        self.ended = False

    def __len__(self) -> int:
        return 0 if self.buffer is None else self.buffer.shape[-1]

    def push(self, piece: Tensor) -> None:
        """Append the next piece."""
        self.buffer = piece if self.buffer is None else torch.cat([self.buffer, piece], dim=-1)

    def end(self) -> None:
        """Say that the last piece has been pushed."""
        self.ended = True

    def first(self, count: int) -> Tensor:
        """Return the first ``count`` elements, or all if there are fewer."""
        assert self.buffer is not None
        return self.buffer[..., :count]

    def drop(self, count: int) -> None:
        """Forget the first ``count`` elements."""
        assert self.buffer is not None
        self.buffer = self.buffer[..., count:]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state, as a stage does."""
        kept = {} if self.buffer is None else {"buffer": self.buffer.clone()}
        return {**kept, "ended": torch.tensor(self.ended)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take a state, as a stage does."""
        self.buffer = state.get("buffer")
        self.ended = bool(state["ended"])


def pull(stages: Sequence[Stage]) -> Tensor | None:
    """Return the next piece at a chain's end; None where its first stage wants more or is over."""
    *before, last = stages
    while (piece := last.pull()) is None:
        if not before or last.input.ended:
            return None
        pushed = pull(before)
        if pushed is not None:
            last.input.push(pushed)
        elif before[-1].input.ended:
            last.input.end()
        else:
            return None
    return piece


def run(stages: Sequence[Stage], pieces: Iterable[Tensor]) -> Iterator[Tensor]:
    """Lead a stream through a chain; each piece of the output comes as soon as it can."""
    for piece in pieces:
        stages[0].input.push(piece)
        yield from _pull_all(stages)
    stages[0].input.end()
    yield from _pull_all(stages)


def _pull_all(stages: Sequence[Stage]) -> Iterator[Tensor]:
    while (piece := pull(stages)) is not None:
        yield piece


def grown(first: int, last: int, index: int) -> int:
    """Return the length of block ``index`` where blocks grow from ``first`` to ``last``.

    Short blocks let a stream begin at once, long ones cost less. Growth by half is slow enough for
    a block to be computed while the ones before it are played, even on a machine of half the speed
    (tests/test_stream_clock.py).

    Args:
        first: length of block 0.
        last: the most that a block may have.
        index: from 0.
    """
    if index > 40 or first >= last:  # 1.5 ** 40 is longer than any block
        return last
    return min(last, round(first * 1.5**index))
