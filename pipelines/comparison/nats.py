"""How many nats a prior pays for every frame of given codes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from prior.condition import Condition
from prior.loss import cross_entropy
from prior.model import Prior

LN2 = 0.6931471805599453


@torch.inference_mode()
def nats_per_frame(prior: Prior, codes: Tensor) -> Tensor:
    """The cross-entropy of every frame given all frames before it, without text.

    Args:
        prior: in evaluation mode.
        codes: (B, K, T) int64 on the CPU.

    Returns:
        (B, K, T) float32 on the CPU; a frame costs the sum over its books.
    """
    B = codes.shape[0]
    codes = codes.to(prior.device)
    output = prior(codes, Condition.empty(B, prior.config["text_width"], prior.device))
    nats = [cross_entropy(output.first_logits, codes[:, 0])]
    for book, logits in enumerate(output.depth_logits.unbind(1), start=1):
        nats.append(cross_entropy(logits, codes[:, book]))
    return torch.stack(nats, dim=1).cpu()


def bits_per_book(prior: Prior, codes: np.ndarray) -> np.ndarray:
    """The same in bits for one piece, codes of at least the prior's K books -> (K, T)."""
    books = torch.from_numpy(codes[: prior.num_codebooks].astype(np.int64))
    return nats_per_frame(prior, books[None])[0].numpy() / LN2


def bits_per_frame(prior: Prior, codes: np.ndarray) -> np.ndarray:
    """The sum of :func:`bits_per_book` over the books, (T,)."""
    return bits_per_book(prior, codes).sum(axis=0)


def held_out_bits(prior: Prior, pieces: Sequence[np.ndarray], crop_frames: int) -> np.ndarray:
    """Mean bits per frame over the starts of some pieces, every frame of them weighing the same.

    Args:
        prior: in evaluation mode.
        pieces: (K, T) codes each.
        crop_frames: the most that is read of a piece, so that no arm reads further than it learnt.

    Returns:
        (K,), book by book; a frame costs their sum.
    """
    costs = [bits_per_book(prior, piece[:, :crop_frames]) for piece in pieces]
    return np.concatenate(costs, axis=1).mean(axis=1)
