"""Checks of what callers hand to a codec, and of its config."""

from typing import Any

import torch
from torch import Tensor


def check_codec_config(config: Any) -> None:
    """Raise ValueError unless a spectral codec can be built of a config's values."""
    for name in (
        "channels",
        "patch_frames",
        "width",
        "latent_dim",
        "num_codebooks",
        "codebook_size",
        "spectrogram_std",
    ):
        if not config[name] > 0:
            raise ValueError(f"{name} must be positive, got {config[name]}")
    for name in ("encoder_layers", "decoder_layers"):
        if config[name] < 0:
            raise ValueError(f"{name} must not be negative, got {config[name]}")
    if config.stereo_bands and config.channels != 2:
        raise ValueError(
            f"stereo_bands must be 0 unless channels is 2, got stereo_bands="
            f"{config.stereo_bands} and channels={config.channels}"
        )
    if config.stereo_bands and config.num_codebooks < 2:
        raise ValueError(
            f"num_codebooks must be at least 2 with stereo_bands, got {config.num_codebooks}"
        )
    if config.image_books not in (1, 2):
        raise ValueError(f"image_books must be 1 or 2, got {config.image_books}")
    if config.image_books == 2 and config.num_codebooks < 5:
        raise ValueError(
            f"num_codebooks must be at least 5 with two image_books, got {config.num_codebooks}"
        )
    if not 0 <= config.error_feedback < 1:
        raise ValueError(
            f"error_feedback must be at least 0 and below 1, got {config.error_feedback}"
        )
    if config.kernel_size < 1 or config.kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {config.kernel_size}")


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
