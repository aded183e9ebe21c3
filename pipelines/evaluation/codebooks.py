"""Measure the use of a codec's codebooks, and what its tokens cost."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def bitrate_kbps(num_codebooks: int, codebook_size: int, frame_rate: float) -> float:
    """Compute the rate of ``num_codebooks`` tokens a frame, in kbps."""
    return num_codebooks * math.log2(codebook_size) * frame_rate / 1000


def count_codes(codes: Iterable[Tensor], codebook_size: int) -> Tensor:
    """Count the entries of many (K, T) codes in [0, V): (K, V) int64.

    Raises:
        ValueError: no codes at all, or an entry outside [0, V).
    """
    counts: Tensor | None = None
    for clip in codes:
        if clip.numel() and not 0 <= int(clip.min()) <= int(clip.max()) < codebook_size:
            raise ValueError(
                f"codes must lie in [0, {codebook_size}), got {int(clip.min())}..{int(clip.max())}"
            )
        clip_counts = torch.stack([torch.bincount(book, minlength=codebook_size) for book in clip])
        counts = clip_counts if counts is None else counts + clip_counts
    if counts is None or int(counts.sum()) == 0:
        raise ValueError("codebook use needs at least one frame of codes, got none")
    return counts


def codebook_use(counts: Tensor, frame_rate: float) -> dict[str, Any]:
    """Compute use, entropy and bit rate from the (K, V) counts of :func:`count_codes`.

    Returns:
        ``num_frames``; by codebook the share of entries ``used``, ``entropy_bits`` and
        ``perplexity`` (entries used evenly that would carry as much); ``bitrate_kbps`` as they are
        and ``entropy_bitrate_kbps`` with an ideal coder for each codebook alone.
    """
    K, V = counts.shape
    shares = counts.double() / counts.sum(1, keepdim=True)
    entropy = torch.special.entr(shares).sum(1) / math.log(2)  # (K,)
    return {
        "num_frames": int(counts[0].sum()),
        "used": (counts > 0).double().mean(1).tolist(),
        "entropy_bits": entropy.tolist(),
        "perplexity": entropy.exp2().tolist(),
        "bitrate_kbps": bitrate_kbps(K, V, frame_rate),
        "entropy_bitrate_kbps": float(entropy.sum()) * frame_rate / 1000,
        "size": V,
    }
