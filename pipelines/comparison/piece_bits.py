"""Bits that a prior pays for held-out codes, under the plan of each piece and without text."""

from collections.abc import Sequence

import numpy as np
import torch

from pipelines.comparison.piece_cache import TrackPiece
from pipelines.data.plans import clip_plan
from prior.loss import code_nats
from prior.model import Prior

LN2 = 0.6931471805599453


@torch.inference_mode()
def code_bits(
    prior: Prior, piece: TrackPiece, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Measure frames ``start`` to ``stop - 1`` of a piece, read from ``start`` on.

    Args:
        prior: in evaluation mode.
        piece: its codes are those of at least the prior's K codebooks.
        start: the first frame that is read.
        stop: the first frame that is not; None for the end of the piece.

    Returns:
        (K, T) float32 bits.
    """
    codes = piece.codes[None, : prior.num_codebooks, start:stop].astype(np.int64)
    plan = None
    if prior.config.reads_plan:
        plan = clip_plan(piece.labels, start + codes.shape[-1])[:, start:].to(prior.device)
    states = torch.zeros(1, 0, prior.config.text_width, device=prior.device)
    mask = torch.zeros(1, 0, dtype=torch.bool, device=prior.device)
    nats = code_nats(prior, torch.from_numpy(codes).to(prior.device), states, mask, plan)
    return nats[0].cpu().numpy() / LN2


def held_out_bits(prior: Prior, pieces: Sequence[TrackPiece], crop_frames: int) -> np.ndarray:
    """Average bits per frame over the starts of pieces, every frame weighing the same.

    Args:
        prior: in evaluation mode.
        pieces: at least one.
        crop_frames: frames read of a piece at most, so that no arm reads further than it learned.

    Returns:
        (K,), per codebook; a frame costs their sum.
    """
    costs = [code_bits(prior, piece, 0, crop_frames) for piece in pieces]
    return np.concatenate(costs, axis=1).mean(axis=1)
