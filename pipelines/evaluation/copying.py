"""Find runs of tokens that a pipeline repeats from its training set."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipelines.data.codecs import hash_codec
from pipelines.data.tokens import open_tokens, read_codes, read_token_info

RUN_LENGTHS = (4, 8, 16, 32, 64)  # frames of 40 ms


def copied_shares(
    pieces: Sequence[np.ndarray], training: Sequence[np.ndarray], lengths: Sequence[int]
) -> dict[str, float]:
    """Compute the share of runs of (K, T) codes, by length in frames, that training has too.

    Runs that a piece repeats count every time; lengths that no piece has are left out.
    """
    shares = {}
    for length in lengths:
        asked = runs(pieces, length)
        if len(asked):
            shares[str(length)] = float(np.isin(asked, runs(training, length)).mean())
    return shares


def runs(pieces: Iterable[np.ndarray], length: int) -> np.ndarray:
    """Hash every run of ``length`` frames."""
    rows = (np.ascontiguousarray(piece.T, np.int16) for piece in pieces)
    hashes = (
        hash(frames[start : start + length].tobytes())
        for frames in rows
        for start in range(len(frames) - length + 1)
    )
    return np.fromiter(hashes, np.int64)


def measure_copying(
    takes: Sequence[np.ndarray], codec: Any, folders: Sequence[str]
) -> dict[str, Any]:
    """Compare (K, T) takes, and held-out clips, with the training splits of token caches.

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
    training, held_out = ([*cached_codes(folders, split)] for split in ("train", "validation"))
    sets = {"takes": takes} | ({"held-out clips": held_out} if held_out else {})
    size, number = codec.codebook_size, min(len(codes) for codes in takes)
    written, trained = first_codebook(takes), first_codebook(training)
    result: dict[str, Any] = {
        "training_clips": len(training),
        "same_codec": {info.codec_hash for info in infos} == {hash_codec(codec)},
        "histogram_overlap": histogram_overlap(written, trained, size),
    }
    if held_out:
        equal = evenly_cut(first_codebook(held_out), len(written))
        result["histogram_overlap_held_out"] = histogram_overlap(equal, trained, size)
    for name, count in (("first codebook", 1), (f"all {number} codebooks", number)):
        known = [codes[:count] for codes in training]
        result[name] = {
            row: copied_shares([codes[:count] for codes in pieces], known, RUN_LENGTHS)
            for row, pieces in sets.items()
        }
    return result


def first_codebook(pieces: Sequence[np.ndarray]) -> np.ndarray:
    """Join the first codebook's tokens of (K, T) codes."""
    return np.concatenate([codes[0] for codes in pieces])


def histogram_overlap(tokens: np.ndarray, others: np.ndarray, size: int) -> float:
    """Compute the common mass of the histograms of two sets of tokens, 0 to 1."""
    shares = [np.bincount(side, minlength=size) / len(side) for side in (tokens, others)]
    return float(np.minimum(*shares).sum())


def evenly_cut(tokens: np.ndarray, count: int) -> np.ndarray:
    """Take at most ``count`` tokens, in stretches of 50 that are spread evenly."""
    stretches = max(1, min(count, len(tokens)) // 50)
    last = max(0, len(tokens) - 50)
    starts = [index * last // stretches for index in range(stretches)]
    return np.concatenate([tokens[start : start + 50] for start in starts])


def cached_codes(folders: Sequence[str], split: str) -> Iterable[np.ndarray]:
    """Yield the (K, T) int16 codes of every clip of the token caches that have the split."""
    for folder in folders:
        if split in read_token_info(folder).clips:
            clips = open_tokens(folder, split)
            for row in range(len(clips)):
                yield read_codes(clips, row).numpy().astype(np.int16)
