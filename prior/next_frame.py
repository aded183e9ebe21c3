"""One step of generation in PyTorch: read the frame before, draw the next one of every row."""

from typing import NamedTuple

import torch
from torch import Tensor

from prior.attention import Place
from prior.model import Prior
from prior.sampling import Sampling, choose_code, guide, uniform_of_book
from prior.state import PriorState


class Frame(NamedTuple):
    """One frame of every row.

    Attributes:
        codes: (B, K) int64 in [0, V) on the prior's device; 0 where the row has ended.
        ended: (B,) bool, true where the row ended before this frame; it never restarts.
    """

    codes: Tensor
    ended: Tensor


class Draw(NamedTuple):
    """How one frame is drawn."""

    uniform: Tensor  # (B, K * V + 1) float32 in [0, 1), see ``sampling.draw_uniform``
    books: tuple[Sampling, ...]  # the settings of each of the K codebooks
    ended: Tensor  # (B,) bool, rows that ended earlier
    may_end: bool  # whether a row may end before this frame


def draw_frame(prior: Prior, hidden: Tensor, draw: Draw) -> Frame:
    """Draw one frame of every row from hidden states, (B, D), or (2B, D), guiding rows last."""
    size, ended = prior.codebook_size, draw.ended

    def choose(logits: Tensor, book: int) -> Tensor:
        nonlocal ended
        logits, sampling = logits.float(), draw.books[book]
        if sampling.guidance != 1:
            conditional, unconditional = logits.chunk(2)
            logits = guide(conditional, unconditional, sampling.guidance)
        noise = uniform_of_book(draw.uniform, book, size)
        if book == 0 and not draw.may_end:
            logits, noise = logits[:, :size], noise[:, :size]
        codes = choose_code(logits, noise, sampling)
        if book == 0:
            ended = ended | (codes == size)
        codes = codes.masked_fill(ended, 0)
        copies = hidden.shape[0] // codes.shape[0]
        return torch.cat([codes] * copies)  # repeat takes six times as long

    codes = prior.sample_frame(hidden, choose)
    return Frame(codes[: draw.uniform.shape[0]], ended)


def next_frame(
    prior: Prior, last: Tensor, added: Tensor, place: Place, state: PriorState, draw: Draw
) -> Frame:
    """Read the frame before and draw one, of every row; in PyTorch.

    Args:
        prior: the model.
        last: (B, K) codes of the frame before.
        added: (B, D), or (2B, D) with guidance; this and ``place`` from ``Prior.advance``.
        place: where the step reads and writes.
        state: of as many rows as ``added``; changed in place.
        draw: of B rows.
    """
    codes = torch.cat([last] * (added.shape[0] // last.shape[0]))
    return draw_frame(prior, prior.step(codes, added, place, state), draw)
