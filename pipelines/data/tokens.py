"""Read token caches: the codes of every clip of a prepared dataset, made with one codec.

A cache holds ``{split}/shard-00000.arrow``... (or Parquet), one row per clip in the order of the
dataset, and ``tokens.json``, written last, which identifies the codec.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from pipelines.data.codecs import hash_codec
from pipelines.data.prepared import SPLITS, read_info
from pipelines.data.shards import (
    ShardKind,
    as_arrow,
    evenly_spaced,
    is_remote,
    open_split,
    read_description,
    read_remote,
)
from pipelines.errors import check_name

if TYPE_CHECKING:
    from datasets import Dataset

TOKENS_VERSION = 1
INFO_NAME = "tokens.json"
MAX_CODEBOOK_SIZE = 2**15
KEPT_COLUMNS = ("id", "captions", "labels", "source", "is_end")
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("captions", pa.list_(pa.string())),
        ("labels", pa.string()),
        ("source", pa.string()),
        ("is_end", pa.bool_()),
        ("num_frames", pa.int32()),
        ("codes", pa.large_binary()),
    ]
)


@dataclass(frozen=True)
class TokenInfo:
    """Hold the content of ``tokens.json``."""

    format_version: int  # ``TOKENS_VERSION``
    codec_class: str
    codec_hash: str  # from ``hash_codec``
    num_codebooks: int
    codebook_size: int
    frame_rate: float | None  # token frames per second (Hz); None where frames are notes
    prepared: str  # hash of the prepared dataset's description
    clips: dict[str, int]  # number of clips in each split
    shards: ShardKind = "arrow"  # or "parquet"

    @classmethod
    def of(
        cls, codec: Any, prepared: str, clips: dict[str, int], shards: ShardKind = "arrow"
    ) -> "TokenInfo":
        """Describe a cache that a codec makes."""
        return cls(
            TOKENS_VERSION,
            type(codec).__name__,
            hash_codec(codec),
            codec.num_codebooks,
            codec.codebook_size,
            codec.frame_rate,
            prepared,
            clips,
            shards,
        )


def hash_text(text: str) -> str:
    """Hash a text (BLAKE2b)."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def hash_prepared(folder: str | Path) -> str:
    """Hash the description of a prepared dataset."""
    return hash_text(json.dumps(read_info(folder), sort_keys=True))


def open_tokens(folder: str | Path, split: str = "train") -> "Dataset":
    """Open one split of a finished token cache, memory-mapped, with the columns of ``SCHEMA``.

    Raises:
        ValueError: the cache is unfinished, of another format, or has no clip in this split.
    """
    check_name("split", split, SPLITS)
    read_token_info(folder)
    return open_split(folder, split, "token cache")


def open_all_tokens(folders: list[str], split: str) -> "Dataset":
    """Open one split of several token caches as one; caches without the split are left out.

    Raises:
        ValueError: none of them has it, or they were made with different codecs.
    """
    from datasets import concatenate_datasets

    infos = read_token_infos(folders)
    having = [f for f, info in zip(folders, infos, strict=True) if split in info.clips]
    if not having:
        raise ValueError(f"none of the token caches {folders} has a split {split!r}")
    return concatenate_datasets([open_tokens(folder, split) for folder in having])


class TokenRows:
    """Find the rows of local caches as those of one."""

    def __init__(self, dataset: "Dataset") -> None:
        self.dataset = as_arrow(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def find(self, place: int) -> "tuple[Dataset, int]":
        """Return a dataset of Arrow tables, and the number of the row in it."""
        return self.dataset, place

    def spread(self, most: int) -> list[int]:
        """List up to ``most`` rows, evenly spaced."""
        return evenly_spaced(self.dataset, most)


def read_codes(dataset: "Dataset", index: int) -> Tensor:
    """Read the (K, T) int64 codes of one clip; ``codes[:k]`` are those of the first codebooks."""
    row = as_arrow(dataset)[index]
    codes = np.frombuffer(row["codes"][0].as_buffer(), dtype="<i2")
    return torch.from_numpy(codes.reshape(-1, row["num_frames"][0].as_py()).astype(np.int64))


def read_token_infos(folders: Sequence[str]) -> list[TokenInfo]:
    """Read ``tokens.json`` of caches that are to be used as one.

    Raises:
        ValueError: there is none, or they were made with different codecs.
    """
    if not folders:
        raise ValueError("tokens must name at least one folder")
    infos = [read_token_info(folder) for folder in folders]
    for folder, info in zip(folders, infos, strict=True):
        if info.codec_hash != infos[0].codec_hash:
            raise ValueError(
                f"the token caches {folders[0]} and {folder} were made with different codecs "
                f"({infos[0].codec_hash[:8]} and {info.codec_hash[:8]})"
            )
    return infos


def read_token_info(folder: str | Path) -> TokenInfo:
    """Read and check ``tokens.json`` in a folder or at a URL.

    Raises:
        ValueError: it is missing, unreadable or of another format version.
    """
    try:
        if is_remote(str(folder)):
            return TokenInfo(**json.loads(read_remote(f"{str(folder).rstrip('/')}/{INFO_NAME}")))
        command = "partita prepare tokens"
        return TokenInfo(
            **read_description(folder, INFO_NAME, "token cache", command, TOKENS_VERSION)
        )
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder}, {INFO_NAME}: {error}") from error
