"""Write and read prepared datasets: clips as quantized log-mel spectrograms in Arrow shards.

A folder holds ``dataset.json`` (written last: a folder without it is unfinished) and, for each
split, ``shard-00000.arrow``, ``shard-00001.arrow``... (see ``shards``).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from codec.whole_file import write_json
from pipelines.data.shards import (
    ShardWriter,
    as_arrow,
    list_shards,
    open_shards,
    read_description,
    read_split,
)

if TYPE_CHECKING:
    from datasets import Dataset

FORMAT_VERSION = 1
SAMPLE_RATE = 44_100
NUM_MELS = 128
FRAME_RATE = 100
FRAMES_PER_TOKEN = 4
SPECTROGRAM_PARAMETERS: dict[str, Any] = {
    "sample_rate": SAMPLE_RATE,
    "n_fft": 2048,
    "hop_length": 441,
    "num_mels": NUM_MELS,
    "floor": 1e-5,
}
QUANTIZED_FLOOR = -11.5129
"""Natural logarithm of the spectrogram's floor: the value of code 0."""
QUANTIZED_STEP = 0.0632
"""Nats between neighboring codes: 255 of them reach 4.603."""
SPLITS = ("train", "validation")
INFO_NAME = "dataset.json"

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("track", pa.string()),
        ("start_s", pa.float32()),
        ("duration_s", pa.float32()),
        ("captions", pa.list_(pa.string())),
        ("labels", pa.string()),
        ("source", pa.string()),
        ("license", pa.string()),
        ("attribution", pa.string()),
        ("is_end", pa.bool_()),
        ("num_frames", pa.int32()),
        ("spectrogram", pa.large_binary()),
        ("audio", pa.large_binary()),
    ]
)


def quantize_spectrogram(spectrogram: Tensor) -> np.ndarray:
    """Round a log-mel spectrogram to 256 levels.

    Args:
        spectrogram: (..., F) float32 natural-log mel magnitudes.

    Returns:
        (..., F) uint8: ``round((x + 11.5129) / 0.0632)`` cut to [0, 255]; inside the range of
        the levels the error is at most half a step, 0.0316 nats.
    """
    levels = ((spectrogram - QUANTIZED_FLOOR) / QUANTIZED_STEP).round().clamp(0, 255)
    return levels.to(torch.uint8).contiguous().cpu().numpy()


def dequantize_spectrogram(
    levels: np.ndarray | bytes, num_frames: int | None = None, channels: int | None = None
) -> Tensor:
    """Turn stored levels back into a log-mel spectrogram.

    Args:
        levels: uint8 array of any shape (kept), or the bytes of one clip.
        num_frames: F, needed for bytes only.
        channels: C, for bytes only; by default what is left after M = 128 bands and F frames.

    Returns:
        float32 natural-log mel magnitudes: the array's shape, or (C, M, F) for bytes.
    """
    if not isinstance(levels, np.ndarray):
        if num_frames is None:
            raise ValueError("num_frames must be given to dequantize bytes")
        levels = shape_levels(levels, num_frames, channels)
    if not levels.flags.writeable:
        levels = levels.copy()
    return torch.from_numpy(levels).to(torch.float32).mul_(QUANTIZED_STEP).add_(QUANTIZED_FLOOR)


def shape_levels(levels: Any, num_frames: int, channels: int | None = None) -> np.ndarray:
    """View a clip's bytes (or buffer) as (C, M, F) uint8, without a copy."""
    flat = np.frombuffer(levels, dtype=np.uint8)
    channels = channels or flat.size // (NUM_MELS * num_frames)
    if flat.size != channels * NUM_MELS * num_frames:
        raise ValueError(
            f"a spectrogram of {num_frames} frames must hold a multiple of "
            f"{NUM_MELS * num_frames} bytes, got {flat.size}"
        )
    return flat.reshape(channels, NUM_MELS, num_frames)


def pad_frames(levels: np.ndarray) -> np.ndarray:
    """Pad (C, M, F) levels with the floor until F is a multiple of four."""
    missing = -levels.shape[-1] % FRAMES_PER_TOKEN
    return np.pad(levels, ((0, 0), (0, 0), (0, missing))) if missing else levels


@dataclass(frozen=True)
class Clip:
    """Hold one row of a prepared dataset.

    Args:
        id: unique in the dataset.
        track: the piece that the clip is cut from; all clips of a track share a split.
        start_s: where in the track the clip starts (s).
        duration_s: length of the sound (s), before padding to whole token frames.
        spectrogram: (C, M, F) uint8 levels of ``quantize_spectrogram``, F a multiple of four.
        captions: ways to describe the clip, possibly none.
        labels: a JSON object; ``"{}"`` when nothing is known.
        source: the package, folder or program that the clip comes from.
        license: SPDX-like name, or "" when unknown.
        attribution: whom to credit.
        is_end: the clip ends where its track ends.
        audio: FLAC bytes of the clip, empty when it was prepared without audio.
    """

    id: str
    track: str
    start_s: float
    duration_s: float
    spectrogram: np.ndarray
    captions: list[str] = field(default_factory=list)
    labels: str = "{}"
    source: str = ""
    license: str = ""
    attribution: str = ""
    is_end: bool = False
    audio: bytes = b""

    def __post_init__(self) -> None:
        levels = self.spectrogram
        if levels.dtype != np.uint8 or levels.ndim != 3 or levels.shape[1] != NUM_MELS:
            raise ValueError(
                f"spectrogram must be (C, {NUM_MELS}, F) uint8, "
                f"got {levels.shape} {levels.dtype} in clip {self.id!r}"
            )
        if self.num_frames == 0 or self.num_frames % FRAMES_PER_TOKEN:
            raise ValueError(
                f"num_frames must be a positive multiple of {FRAMES_PER_TOKEN}, "
                f"got {self.num_frames} in clip {self.id!r}"
            )

    @property
    def num_frames(self) -> int:
        """Return the number of spectrogram frames, F."""
        return int(self.spectrogram.shape[-1])

    def to_row(self) -> dict[str, Any]:
        """Build a row of ``SCHEMA``."""
        row: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        row["num_frames"] = self.num_frames
        row["spectrogram"] = np.ascontiguousarray(self.spectrogram).tobytes()
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Clip":
        """Invert ``to_row``."""
        values = {f.name: row[f.name] for f in fields(cls)}
        values["spectrogram"] = shape_levels(row["spectrogram"], row["num_frames"])
        return cls(**values)


class PreparedWriter(ShardWriter):
    """Write clips into the shards of one split.

    Args:
        folder: the dataset's folder.
        split: "train" or "validation".
        shard_clips: clips per shard.

    Attributes:
        complete_rows: clips in whole shards so far: after a kill, leave out that many clips from
            the front of the (deterministic) stream and add the rest.
    """

    def __init__(self, folder: str | Path, split: str, shard_clips: int = 256) -> None:
        check_split(split)
        super().__init__(Path(folder) / split, SCHEMA, shard_clips)

    def add(self, clip: Clip) -> None:
        """Append one clip."""
        self.add_row(clip.to_row())

    def __enter__(self) -> "PreparedWriter":
        return self


def open_prepared(folder: str | Path, split: str = "train") -> "Dataset":
    """Open one split of a finished prepared dataset, memory-mapped.

    Args:
        folder: written by ``partita prepare``.
        split: "train" or "validation".

    Returns:
        Rows with the columns of ``SCHEMA``; ``read_levels`` reads a spectrogram without a copy.

    Raises:
        ValueError: the folder is unfinished, of another format, or has no clip in this split.
    """
    check_split(split)
    read_info(folder)
    shards = list_shards(Path(folder) / split)
    if not shards:
        raise ValueError(f"the prepared dataset {folder} has no clip in its split {split!r}")
    return open_shards(shards)


def read_levels(dataset: "Dataset", index: int) -> np.ndarray:
    """View the (C, M, F) uint8 levels of one clip in the memory-mapped file.

    Only the pages that are read are loaded, so a short crop of a long clip is cheap.
    """
    row = as_arrow(dataset)[index]
    return shape_levels(row["spectrogram"][0].as_buffer(), row["num_frames"][0].as_py())


def iterate_clips(shards: list[Path]) -> Iterator[Clip]:
    """Yield the clips of shards in order, one record batch in memory at a time."""
    for path in shards:
        with pa.memory_map(str(path)) as source:
            for batch in pa.ipc.open_stream(source):
                for row in batch.to_pylist():
                    yield Clip.from_row(row)


def read_info(folder: str | Path) -> dict[str, Any]:
    """Read and check ``dataset.json``.

    Raises:
        ValueError: it is missing, unreadable or of another format version.
    """
    return read_description(
        folder, INFO_NAME, "prepared dataset", "partita prepare", FORMAT_VERSION
    )


def finish_dataset(folder: str | Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Count what the shards hold and write ``dataset.json``, which makes the dataset usable.

    Args:
        folder: the dataset, with all its shards.
        settings: how the dataset was made, stored unchanged.

    Returns:
        The content of ``dataset.json``.
    """
    info: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "spectrogram": SPECTROGRAM_PARAMETERS,
        "sample_rate": SAMPLE_RATE,
        "quantization": {"floor": QUANTIZED_FLOOR, "step": QUANTIZED_STEP},
        "splits": {},
        "sources": [],
        "settings": settings,
    }
    sources: Counter[tuple[str, str, str, str]] = Counter()
    for split in SPLITS:
        if list_shards(Path(folder) / split):
            info["splits"][split] = asdict(summarize_split(Path(folder) / split, sources))
    info["sources"] = [
        {
            "source": source,
            "license": license_name,
            "attribution": attribution,
            "split": split,
            "hours": round(seconds / 3600, 4),
        }
        for (source, license_name, attribution, split), seconds in sorted(sources.items())
    ]
    write_json(Path(folder) / INFO_NAME, info)
    return info


@dataclass
class SplitSummary:
    """Hold the size of one split."""

    clips: int = 0
    hours: float = 0.0
    tracks: int = 0


def summarize_split(folder: Path, sources: Counter[Any]) -> SplitSummary:
    """Count a split's clips, hours and tracks, and add its seconds to ``sources``."""
    tracks = set()
    clips, seconds = 0, 0.0
    columns = ["source", "license", "attribution", "track", "duration_s"]
    for row in read_split(folder, columns):
        clips += 1
        seconds += row["duration_s"]
        tracks.add(row["track"])
        key = (row["source"], row["license"], row["attribution"], folder.name)
        sources[key] += row["duration_s"]
    return SplitSummary(clips, round(seconds / 3600, 4), len(tracks))


def check_split(split: str) -> None:
    """Raise unless ``split`` is one of ``SPLITS``."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
