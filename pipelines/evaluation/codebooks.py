"""Use of a codec's codebooks, and what its tokens cost."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class CodebookUse:
    """Counts over a set of codes; lists hold one number per codebook.

    Attributes:
        num_frames: token frames counted.
        used: fraction of each codebook's entries that occur at least once.
        entropy_bits: entropy of each codebook's entries in bits, at most log2(V).
        perplexity: 2 to the entropy: entries used evenly that would carry as much.
        bitrate_kbps: what the tokens cost as they are, K log2(V) bits a frame.
        entropy_bitrate_kbps: what they would cost with an ideal coder for each codebook alone.
    """

    num_frames: int
    used: list[float]
    entropy_bits: list[float]
    perplexity: list[float]
    bitrate_kbps: float
    entropy_bitrate_kbps: float


def bitrate_kbps(num_codebooks: int, codebook_size: int, frame_rate: float) -> float:
    """Compute the rate of ``num_codebooks`` tokens a frame, in kbps."""
    return num_codebooks * math.log2(codebook_size) * frame_rate / 1000


def count_codes(codes: Iterable[Tensor], codebook_size: int) -> Tensor:
    """Count entries over many clips.

    Args:
        codes: (K, T) int64 each, in [0, V).
        codebook_size: V.

    Returns:
        (K, V) int64 counts.

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


def codebook_use(counts: Tensor, frame_rate: float) -> CodebookUse:
    """Compute use, entropy and bit rate from (K, V) counts of :func:`count_codes`."""
    K, V = counts.shape
    shares = counts.double() / counts.sum(1, keepdim=True)
    entropy = torch.special.entr(shares).sum(1) / math.log(2)  # (K,)
    return CodebookUse(
        num_frames=int(counts[0].sum()),
        used=(counts > 0).double().mean(1).tolist(),
        entropy_bits=entropy.tolist(),
        perplexity=entropy.exp2().tolist(),
        bitrate_kbps=bitrate_kbps(K, V, frame_rate),
        entropy_bitrate_kbps=float(entropy.sum()) * frame_rate / 1000,
    )
