"""Runs of tokens that a pipeline repeats from its training set."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipelines.data.codecs import hash_codec
from pipelines.data.tokens import (
    open_tokens,
    read_codes,
    read_token_info,
)

RUN_LENGTHS = (4, 8, 16, 32, 64)  # frames of 40 ms


def copied_shares(
    pieces: Sequence[np.ndarray], training: Sequence[np.ndarray], lengths: Sequence[int]
) -> dict[str, float]:
    """Compute the share of the runs of a length that also occur in the training set.

    Args:
        pieces: (T,) integer tokens of a codebook each.
        training: tokens of the training set.
        lengths: of runs, in frames.

    Returns:
        Shares by length; runs that a piece repeats count every time. Lengths that no piece has
        are left out.
    """
    shares = {}
    for length in lengths:
        asked = runs(pieces, length)
        if len(asked):
            shares[str(length)] = float(np.isin(asked, np.unique(runs(training, length))).mean())
    return shares


def runs(pieces: Iterable[np.ndarray], length: int) -> np.ndarray:
    """Hash all runs of some frames to 64 bits (polynomial, modulo 2^64)."""
    found = []
    with np.errstate(over="ignore"):
        for piece in pieces:
            if len(piece) < length:
                continue
            tokens = piece.astype(np.uint64) + np.uint64(1)
            digest = np.zeros(len(piece) - length + 1, np.uint64)
            for offset in range(length):
                part = tokens[offset : offset + len(digest)]
                digest = digest * np.uint64(0x9E3779B97F4A7C15) + part
                digest ^= digest >> np.uint64(29)
            found.append(digest)
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def measure_copying(
    takes: Sequence[np.ndarray], codec: Any, folders: Sequence[str]
) -> dict[str, Any]:
    """Compare takes with the training splits of token caches, and their held-out clips beside them.

    Args:
        takes: (K, T) codes.
        codec: that the takes are of.
        folders: of token caches (``partita prepare tokens``), of one codec.

    Returns:
        For the first codebook, and for all codebooks of a frame at once, the shares of
        ``RUN_LENGTHS`` of the takes and of the held-out clips, which are no copies.
        ``histogram_overlap``: how far takes and training use the first codebook alike, from 0 to
        1; ``histogram_overlap_held_out``: how far equally many held-out tokens do. ``same_codec``:
        by a hash of the weights, which a codec saved in half precision does not share with the one
        that made the tokens.

    Raises:
        ValueError: the codec's sizes differ from a cache's, or a cache is unfinished.
    """
    infos = [read_token_info(folder) for folder in folders]
    for folder, info in zip(folders, infos, strict=True):
        for name in ("codebook_size", "num_codebooks", "frame_rate"):
            if getattr(info, name) != getattr(codec, name):
                raise ValueError(f"the tokens in {folder} are of a codec with another {name}")
    has_held_out = any("validation" in info.clips for info in infos)
    number = min(len(codes) for codes in takes)
    result: dict[str, Any] = {
        "training_clips": sum(info.clips.get("train", 0) for info in infos),
        "same_codec": {info.codec_hash for info in infos} == {hash_codec(codec)},
    }
    trained = [codes[0] for codes in cached_codes(folders, "train")]
    written = np.concatenate([codes[0] for codes in takes])
    result["histogram_overlap"] = histogram_overlap([written], trained, codec.codebook_size)
    if has_held_out:
        unseen = np.concatenate([codes[0] for codes in cached_codes(folders, "validation")])
        equal = evenly_cut(unseen, len(written))
        overlap = histogram_overlap([equal], trained, codec.codebook_size)
        result["histogram_overlap_held_out"] = overlap
    for name, count in (("first codebook", 1), (f"all {number} codebooks", number)):
        size = codec.codebook_size
        training = [joined(codes, count, size) for codes in cached_codes(folders, "train")]
        rows = {"takes": [joined(codes, count, size) for codes in takes]}
        if has_held_out:
            held_out = cached_codes(folders, "validation")
            rows["held-out clips"] = [joined(codes, count, size) for codes in held_out]
        result[name] = {
            row: copied_shares(pieces, training, RUN_LENGTHS) for row, pieces in rows.items()
        }
    return result


def histogram_overlap(
    pieces: Sequence[np.ndarray], others: Sequence[np.ndarray], size: int
) -> float:
    """Compute the common mass of the token histograms of two sets, 0 to 1."""
    shares = []
    for side in (pieces, others):
        counts = np.bincount(np.concatenate(side).astype(np.int64), minlength=size)
        shares.append(counts / counts.sum())
    return float(np.minimum(*shares).sum())


def evenly_cut(tokens: np.ndarray, count: int) -> np.ndarray:
    """Take at most ``count`` tokens, in stretches of 50 that are spread evenly."""
    stretches = max(1, min(count, len(tokens)) // 50)
    last = max(0, len(tokens) - 50)
    starts = [index * last // stretches for index in range(stretches)]
    return np.concatenate([tokens[start : start + 50] for start in starts])


def cached_codes(folders: Sequence[str], split: str) -> Iterable[np.ndarray]:
    """Yield the (K, T) codes of every clip of the token caches that have the split."""
    for folder in folders:
        if split in read_token_info(folder).clips:
            clips = open_tokens(folder, split)
            yield from (read_codes(clips, row).numpy() for row in range(len(clips)))


def joined(codes: np.ndarray, count: int, size: int) -> np.ndarray:
    """Join the first codebooks of each frame to one number: (K, T) -> (T,)."""
    number = np.zeros(codes.shape[1], np.int64)
    for book in codes[:count]:
        number = number * size + book
    return number
