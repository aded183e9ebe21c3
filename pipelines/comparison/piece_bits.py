"""Bits that a prior pays for the codes of pieces, under their plans and without text."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from pipelines.comparison.piece_cache import TrackPiece
from pipelines.evaluation.held_out import labeled_plan, nats_per_code
from prior.condition import Condition
from prior.model import Prior


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
    condition = Condition.empty(1, prior.config.text_width)
    plan = labeled_plan(prior, piece.labels, start + codes.shape[-1])
    if plan is not None:
        condition = replace(condition, plan=plan[None, start:])
    return nats_per_code(prior, torch.from_numpy(codes), condition)[0].numpy() / math.log(2)


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
