"""Build a token cache: the codes of every clip of a prepared dataset."""

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from codec.audio_file import read_audio
from codec.protocols import Codec
from codec.whole_file import new_folder, write_json
from pipelines.data.clip_levels import SAMPLE_RATE, check_analysis
from pipelines.data.codecs import load_codec, place_for_workers, refuse_other_codec
from pipelines.data.prepared import SPLITS, open_prepared, read_crop, read_info
from pipelines.data.shards import ShardKind, ShardWriter, begin_or_resume, refuse_other
from pipelines.data.tokens import (
    INFO_NAME,
    KEPT_COLUMNS,
    MAX_CODEBOOK_SIZE,
    SCHEMA,
    TokenInfo,
    hash_prepared,
    read_token_info,
)
from pipelines.data.worker_processes import map_on_cluster

if TYPE_CHECKING:
    from datasets import Dataset

UNFINISHED_NAME = "unfinished.json"
SHARD_CLIPS = 1024
EncodeAll = Callable[[Iterable[list[int]]], Iterable[np.ndarray]]
"""From batches of row numbers to their codes, (B, K, T) int16 each, in the same order."""


def build_token_cache(
    prepared_folder: str | Path,
    codec: Codec,
    out_folder: str | Path,
    *,
    batch_clips: int = 16,
    shard_clips: int = SHARD_CLIPS,
    quiet: bool = False,
    scheduler: str | None = None,
    codec_folder: str | Path | None = None,
    shards: ShardKind = "arrow",
) -> TokenInfo:
    """Encode every clip of a prepared dataset, and return the content of ``tokens.json``.

    A codec with ``encode_spectrogram((B, C, M, F)) -> (B, K, F / 4)`` gets the stored spectrograms,
    any other the stored FLAC at its own rate and channels. A killed run resumes after its last
    whole shard and gives equal bytes.

    Args:
        prepared_folder: a finished prepared dataset.
        codec: any ``Codec``, on the device it is to run on.
        out_folder: folder of the cache.
        batch_clips: equally long clips encoded at once.
        shard_clips: clips per shard.
        quiet: no progress bar.
        scheduler: of a running dask cluster, tcp://host:port, whose workers encode.
        codec_folder: from which they load the codec; it and the dataset must be there by the same
            name.
        shards: their format; see :class:`ShardWriter`.

    Raises:
        ValueError: the folder holds tokens of another codec or dataset, the codec needs audio and
            the dataset has none, or a setting is out of range.
    """
    if batch_clips < 1:
        raise ValueError(f"batch_clips must be at least 1, got {batch_clips}")
    if codec.codebook_size > MAX_CODEBOOK_SIZE:
        raise ValueError(f"codebook_size must be at most 32768, got {codec.codebook_size}")
    if scheduler is not None and codec_folder is None:
        raise ValueError("scheduler needs codec_folder, from which workers load the codec")
    folder = Path(out_folder)
    info = describe(prepared_folder, codec, shards)
    if (folder / INFO_NAME).is_file():
        refuse_other(folder, asdict(read_token_info(folder)), asdict(info), "tokens")
        return info
    settings = asdict(info) | {"batch_clips": batch_clips, "shard_clips": shard_clips}
    begin_or_resume(folder, folder / UNFINISHED_NAME, settings, "tokens")
    for split in info.clips:
        clips = open_prepared(prepared_folder, split)
        encode_all: partial[Any]
        if scheduler is None or codec_folder is None:
            encoder = choose_encoder(clips, codec, prepared_folder), codec
            encode_all = partial(map, partial(encode_rows, encoder))
        else:
            path = str(Path(prepared_folder).resolve())
            hashes = info.codec_hash, info.prepared
            remote = RemoteEncoder(path, split, *place_for_workers(codec_folder), *hashes)
            encode_all = partial(map_on_cluster, partial(encode_there, remote), scheduler=scheduler)
        with ShardWriter(folder / split, SCHEMA, shard_clips, shards) as writer:
            encode_split(clips, encode_all, writer, batch_clips, quiet)
    write_json(folder / INFO_NAME, asdict(info))
    (folder / UNFINISHED_NAME).unlink()
    return info


def describe(prepared_folder: str | Path, codec: Codec, shards: ShardKind = "arrow") -> TokenInfo:
    """Describe the cache of a codec and a dataset as ``tokens.json`` will."""
    prepared = read_info(prepared_folder)
    splits = prepared["splits"]
    clips = {split: splits[split]["clips"] for split in SPLITS if split in splits}
    return TokenInfo.of(codec, hash_prepared(prepared_folder), clips, shards)


def encode_split(
    clips: "Dataset", encode_all: EncodeAll, writer: ShardWriter, batch_clips: int, quiet: bool
) -> None:
    """Encode the clips of a split that are not in a whole shard yet, shard by shard."""
    from tqdm import tqdm

    facts = clips.select_columns([*KEPT_COLUMNS, "num_frames", "duration_s"])
    size = writer.shard_rows
    shards = [
        [*range(first, min(first + size, len(clips)))]
        for first in range(writer.complete_rows, len(clips), size)
    ]
    batches = [[*equal_batches(facts, rows, batch_clips)] for rows in shards]
    results = iter(encode_all(chain.from_iterable(batches)))
    with tqdm(total=len(clips), unit="clip", disable=quiet or None) as bar:
        bar.update(writer.complete_rows)
        for rows, groups in zip(shards, batches, strict=True):
            codes: dict[int, np.ndarray] = {}
            for batch in groups:
                codes |= dict(zip(batch, next(results), strict=True))
                bar.update(len(batch))
            for row in rows:
                writer.add_row(token_row(facts[row], codes[row]))


def encode_rows(encoder: tuple[Any, Codec], rows: list[int]) -> np.ndarray:
    """Encode equally long clips to (B, K, T) int16, by a function of ``choose_encoder``."""
    encode, codec = encoder
    return to_int16(encode(rows), codec)


@dataclass(frozen=True)
class RemoteEncoder:
    """Say what a worker encodes with what; hashes tell what it has loaded before from it."""

    prepared_folder: str
    split: str
    codec: str  # this and the next from ``place_for_workers``
    module_folder: str
    codec_hash: str  # as both are now
    prepared_hash: str


def encode_there(remote: RemoteEncoder, rows: list[int]) -> np.ndarray:
    """Call ``encode_rows`` on a worker."""
    return encode_rows(open_encoder(remote), rows)


@lru_cache(maxsize=4)
def open_encoder(remote: RemoteEncoder) -> tuple[Any, Codec]:
    """Make the function of ``choose_encoder`` and its codec on a worker, once.

    Raises:
        ValueError: the worker finds another codec or dataset by this name.
    """
    if remote.module_folder and remote.module_folder not in sys.path:
        sys.path.append(remote.module_folder)
    codec, folder = load_codec(remote.codec), remote.prepared_folder
    refuse_other_codec(remote.codec_hash, codec, "what is to be encoded")
    if hash_prepared(folder) != remote.prepared_hash:
        raise ValueError(f"{folder} is another dataset on a worker")
    return choose_encoder(open_prepared(folder, remote.split), codec, folder), codec


def choose_encoder(clips: "Dataset", codec: Codec, prepared_folder: str | Path) -> Any:
    """Return a function from row numbers of equally long clips to (B, K, T) codes."""
    if not hasattr(codec, "encode_spectrogram"):
        if not clips[0]["audio"]:
            raise ValueError(
                f"{type(codec).__name__} encodes audio, and {prepared_folder} was prepared "
                "without (--audio none)"
            )
        return lambda rows: codec.encode(read_clips(clips, rows, codec).to(device_of(codec)))
    spectral: Any = codec
    check_analysis(spectral.config)
    bands = spectral.config.stereo_bands
    num_frames = clips["num_frames"]

    def encode(rows: list[int]) -> Tensor:
        whole = [read_crop(clips, row, 0, num_frames[row], bands) for row in rows]
        return spectral.encode_spectrogram(torch.stack(whole).to(device_of(codec)))

    return encode


def read_clips(clips: "Dataset", rows: list[int], codec: Codec) -> Tensor:
    """Read equally long clips as (B, C, S) audio at the codec's rate and channels."""
    audio = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resampling, which is wanted
        for row in clips.select_columns(["audio"]).select(rows):
            clip = read_audio(row["audio"], sample_rate=codec.sample_rate, channels=codec.channels)
            audio.append(clip.audio)
    return torch.stack(audio)


def device_of(codec: Codec) -> torch.device:
    """Return the device of a codec's weights, the CPU for a codec without."""
    weights = codec.parameters() if isinstance(codec, nn.Module) else iter(())
    return next((weight.device for weight in weights), torch.device("cpu"))


def equal_batches(facts: "Dataset", rows: list[int], batch_clips: int) -> Iterator[list[int]]:
    """Batch rows whose clips are equally long, so that none is padded."""
    columns = facts.select(rows)
    groups: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, num_frames, duration_s in zip(
        rows, columns["num_frames"], columns["duration_s"], strict=True
    ):
        groups[num_frames, round(duration_s * SAMPLE_RATE)].append(row)
    for group in groups.values():
        for first in range(0, len(group), batch_clips):
            yield group[first : first + batch_clips]


@contextmanager
def new_cache(out_folder: str | Path) -> Iterator[Path]:
    """Yield the folder of a cache to fill, which takes its final name when it is whole.

    Raises:
        ValueError: the folder exists.
    """
    if Path(out_folder).exists():
        raise ValueError(f"{out_folder} exists already: choose another folder or delete it")
    with new_folder(Path(out_folder)) as folder:
        yield folder


def to_int16(codes: Tensor, codec: Any) -> np.ndarray:
    """Convert (B, K, T) codes to int16, and check them against the codec's sizes."""
    assert codes.dim() == 3
    assert codes.shape[1] == codec.num_codebooks
    assert int(codes.min()) >= 0
    assert int(codes.max()) < codec.codebook_size
    return codes.cpu().numpy().astype("<i2")


def token_row(facts: dict[str, Any], codes: np.ndarray) -> dict[str, Any]:
    """Build a row of ``SCHEMA`` from a clip's facts and its (K, T) codes."""
    row = {key: facts[key] for key in KEPT_COLUMNS}
    return row | {"num_frames": codes.shape[1], "codes": np.ascontiguousarray(codes).tobytes()}
