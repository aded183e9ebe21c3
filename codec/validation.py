"""Checks of what callers hand to a codec."""

import torch
from torch import Tensor


def check_audio(audio: Tensor, channels: int) -> None:
    """Raise ValueError unless ``audio`` is finite float (B, C, S) with C = ``channels``, S > 0."""
    if audio.dim() != 3:
        raise ValueError(f"audio must be (B, C, S), got shape {tuple(audio.shape)}")
    if audio.shape[1] != channels:
        raise ValueError(f"audio must have {channels} channels, got {audio.shape[1]}")
    if audio.shape[2] == 0:
        raise ValueError("audio is empty: it has 0 samples")
    if not audio.is_floating_point():
        raise ValueError(f"audio must be floating point in [-1, 1], got {audio.dtype}")
    if not torch.isfinite(audio).all():
        raise ValueError("audio holds NaN or infinite samples")


def check_codes(codes: Tensor, num_codebooks: int, codebook_size: int) -> None:
    """Raise ValueError unless ``codes`` is int64 (B, k, T) in [0, V) with 1 <= k <= K, T > 0."""
    if codes.dim() != 3:
        raise ValueError(f"codes must be (B, K, T), got shape {tuple(codes.shape)}")
    if codes.dtype != torch.int64:
        raise ValueError(f"codes must be int64, got {codes.dtype}")
    if not 1 <= codes.shape[1] <= num_codebooks:
        raise ValueError(f"codes must hold 1 to {num_codebooks} codebooks, got {codes.shape[1]}")
    if codes.shape[2] == 0:
        raise ValueError("codes are empty: they have 0 frames")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= codebook_size:
        raise ValueError(f"codes must lie in [0, {codebook_size}), got {low} to {high}")
