"""Write and read prepared datasets: quantized spectrograms and stereo images in Arrow shards.

A folder holds ``dataset.json`` (written last: a folder without it is unfinished) and, for each
split, ``shard-00000.arrow``, ``shard-00001.arrow``... (see ``shards``).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional as F

from codec.whole_file import write_json
from pipelines.data.clip_levels import (
    ANGLE_STEP,
    DIFFERENCE_STEP,
    FRAMES_PER_TOKEN,
    NUM_MELS,
    QUANTIZED_FLOOR,
    QUANTIZED_STEP,
    SAMPLE_RATE,
    SPECTROGRAM_PARAMETERS,
    STEREO_BANDS,
    dequantize_image,
    dequantize_spectrogram,
    left_right,
)
from pipelines.data.shards import (
    ShardWriter,
    as_arrow,
    open_split,
    read_description,
    read_split,
)
from pipelines.errors import check_name

if TYPE_CHECKING:
    from datasets import Dataset

FORMAT_VERSION = 3
"""1 held a spectrogram of each channel; 2 holds the total power's and a stereo image."""
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
        ("stereo", pa.large_binary()),
        ("audio", pa.large_binary()),
    ]
)


@dataclass(frozen=True)
class Clip:
    """Hold one row of a prepared dataset."""

    id: str  # unique in the dataset
    track: str  # the piece that the clip is cut from; all clips of a track share a split
    start_s: float  # where in the track the clip starts (s)
    duration_s: float  # length of the sound (s), before padding to whole token frames
    spectrogram: np.ndarray  # (1, M, F) uint8 levels of the total power, F a multiple of four
    stereo: np.ndarray  # (2, N, F / 4) uint8 stereo image
    captions: list[str] = field(default_factory=list)  # ways to describe the clip, possibly none
    labels: str = "{}"  # a JSON object; ``"{}"`` when nothing is known
    source: str = ""  # the package, folder or program that the clip comes from
    license: str = ""  # SPDX-like name, or "" when unknown
    attribution: str = ""  # whom to credit
    is_end: bool = False  # the clip ends where its track ends
    audio: bytes = b""  # FLAC bytes of the clip, empty when it was prepared without audio

    def __post_init__(self) -> None:
        frames = self.num_frames
        if frames == 0 or frames % FRAMES_PER_TOKEN:
            raise ValueError(
                f"num_frames must be a positive multiple of {FRAMES_PER_TOKEN}, "
                f"got {frames} in clip {self.id!r}"
            )
        shapes = {"spectrogram": (1, NUM_MELS, frames), "stereo": image_shape(frames)}
        for name, shape in shapes.items():
            levels = getattr(self, name)
            if levels.dtype != np.uint8 or levels.shape != shape:
                raise ValueError(
                    f"{name} must be {shape} uint8, got {levels.shape} {levels.dtype} "
                    f"in clip {self.id!r}"
                )

    @property
    def num_frames(self) -> int:
        """Return the number of spectrogram frames, F."""
        return int(self.spectrogram.shape[-1])

    def to_row(self) -> dict[str, Any]:
        """Build a row of ``SCHEMA``."""
        row: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        row["num_frames"] = self.num_frames
        for name in ("spectrogram", "stereo"):
            row[name] = np.ascontiguousarray(row[name]).tobytes()
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> "Clip":
        """Invert ``to_row``."""
        values = {f.name: row[f.name] for f in fields(cls)}
        frames = row["num_frames"]
        values["spectrogram"] = view_levels(row["spectrogram"], (-1, NUM_MELS, frames))
        values["stereo"] = view_levels(row["stereo"], image_shape(frames))
        return cls(**values)


def image_shape(num_frames: int) -> tuple[int, int, int]:
    """Return the shape (2, N, T) of the stereo image beside F frames."""
    return 2, STEREO_BANDS, num_frames // FRAMES_PER_TOKEN


def view_levels(levels: Any, shape: tuple[int, ...]) -> np.ndarray:
    """View bytes or a buffer as uint8 of a shape, without a copy."""
    return np.frombuffer(levels, dtype=np.uint8).reshape(shape)


class PreparedWriter(ShardWriter):
    """Write clips into the shards of one split of a dataset."""

    def __init__(self, folder: str | Path, split: str, shard_clips: int = 256) -> None:
        check_name("split", split, SPLITS)
        super().__init__(Path(folder) / split, SCHEMA, shard_clips)

    def add(self, clip: Clip) -> None:
        """Append one clip."""
        self.add_row(clip.to_row())


def open_prepared(folder: str | Path, split: str = "train") -> "Dataset":
    """Open one split of a finished prepared dataset, memory-mapped, with the columns of ``SCHEMA``.

    Raises:
        ValueError: the folder is unfinished, of another format, or has no clip in this split.
    """
    check_name("split", split, SPLITS)
    read_info(folder)
    return open_split(folder, split, "prepared dataset")


def read_levels(dataset: "Dataset", index: int) -> np.ndarray:
    """View the (C, M, F) uint8 levels of one clip in the memory-mapped file.

    Only the pages that are read are loaded, so a short crop of a long clip is cheap.
    """
    row = as_arrow(dataset)[index]
    shape = (-1, NUM_MELS, row["num_frames"][0].as_py())
    return view_levels(row["spectrogram"][0].as_buffer(), shape)


def read_image(dataset: "Dataset", index: int) -> np.ndarray:
    """View the (2, N, T) uint8 stereo image of one clip in the memory-mapped file."""
    row = as_arrow(dataset)[index]
    return view_levels(row["stereo"][0].as_buffer(), image_shape(row["num_frames"][0].as_py()))


def read_crop(rows: "Dataset", row: int, start: int, frames: int, stereo_bands: int = 0) -> Tensor:
    """Read part of a clip as a codec analyzes audio, padded with silence past the clip's end.

    Args:
        rows: an opened prepared split.
        row: of the clip.
        start: first frame, a multiple of four.
        frames: F, a multiple of four.
        stereo_bands: of the codec: as many as are stored give (1, M + 2 N, F), total power and
            stereo image; 0 gives (2, M, F), left and right as these imply them.

    Raises:
        ValueError: another number of stereo bands.
    """
    if stereo_bands not in (0, STEREO_BANDS):
        raise ValueError(
            f"stereo_bands must be 0 or {STEREO_BANDS}, as prepared data hold, got {stereo_bands}"
        )
    first, tokens = start // FRAMES_PER_TOKEN, frames // FRAMES_PER_TOKEN
    levels = dequantize_spectrogram(read_levels(rows, row)[..., start : start + frames])
    image = dequantize_image(read_image(rows, row)[..., first : first + tokens])
    missing = frames - levels.shape[-1]
    levels = F.pad(levels, (0, missing), value=QUANTIZED_FLOOR)
    image = F.pad(image, (0, missing // FRAMES_PER_TOKEN))
    image = image.repeat_interleave(FRAMES_PER_TOKEN, dim=-1)
    return torch.cat([levels, image[None]], dim=1) if stereo_bands else left_right(levels, image)


def iterate_clips(shards: list[Path]) -> Iterator[Clip]:
    """Yield the clips of shards in order, one record batch in memory at a time."""
    for path in shards:
        with pa.memory_map(str(path)) as source:
            for batch in pa.ipc.open_stream(source):
                yield from map(Clip.from_row, batch.to_pylist())


def read_info(folder: str | Path) -> dict[str, Any]:
    """Read ``dataset.json``.

    Raises:
        ValueError: it is missing, unreadable or of another format version.
    """
    return read_description(
        folder, INFO_NAME, "prepared dataset", "partita prepare", FORMAT_VERSION
    )


def finish_dataset(folder: str | Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Count what the shards hold, and write and return ``dataset.json``, which ends the dataset.

    Args:
        folder: the dataset, with all its shards.
        settings: how the dataset was made, stored unchanged.
    """
    splits, seconds = {}, Counter[tuple[str, ...]]()
    origin = ("source", "license", "attribution")
    for split in SPLITS:
        tracks, clips, total = set(), 0, 0.0
        for row in read_split(Path(folder) / split, [*origin, "track", "duration_s"]):
            clips += 1
            tracks.add(row["track"])
            total += row["duration_s"]
            seconds[*(row[name] for name in origin), split] += row["duration_s"]
        if clips:
            splits[split] = {"clips": clips, "hours": as_hours(total), "tracks": len(tracks)}
    info: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "spectrogram": SPECTROGRAM_PARAMETERS,
        "sample_rate": SAMPLE_RATE,
        "quantization": {"floor": QUANTIZED_FLOOR, "step": QUANTIZED_STEP},
        "stereo": {
            "num_bands": STEREO_BANDS,
            "difference_step_db": DIFFERENCE_STEP,
            "angle_step": ANGLE_STEP,
        },
        "splits": splits,
        "sources": [
            dict(zip((*origin, "split", "hours"), (*key, as_hours(value)), strict=True))
            for key, value in sorted(seconds.items())
        ],
        "settings": settings,
    }
    write_json(Path(folder) / INFO_NAME, info)
    return info


def as_hours(seconds: float) -> float:
    """Convert seconds to hours as ``dataset.json`` rounds them."""
    return round(seconds / 3600, 4)
