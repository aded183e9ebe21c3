"""Write and read prepared datasets: quantized spectrograms and stereo images in Arrow shards.

A folder holds ``dataset.json`` (written last: a folder without it is unfinished) and, for each
split, ``shard-00000.arrow``, ``shard-00001.arrow``... (see ``shards``).
"""

import functools
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from codec.spectrogram import LogMel
from codec.stereo import ParametricStereo
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

FORMAT_VERSION = 2
"""1 held a spectrogram of each channel; 2 holds the total power's and a stereo image."""
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
STEREO_BANDS = 32
QUANTIZED_FLOOR = -11.5129
"""Natural logarithm of the spectrogram's floor: the value of code 0."""
QUANTIZED_STEP = 0.0632
"""Nats between neighboring codes: 255 of them reach 4.603."""
DIFFERENCE_STEP = 0.25
"""Decibels between neighboring codes of a level difference; code 128 is 0 dB, exactly."""
ANGLE_STEP = math.pi / 255
"""Radians between neighboring codes of a coherence angle; code 0 is 0, exactly."""
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


def quantize_image(image: Tensor) -> np.ndarray:
    """Round a stereo image to 256 levels.

    Args:
        image: (2 N, T) level differences in dB, then coherence angles (rad).

    Returns:
        (2, N, T) uint8; 0 dB and 0 rad, what a mono clip has, are kept exactly.
    """
    difference, angle = image.chunk(2)
    levels = torch.stack([difference / DIFFERENCE_STEP + 128, angle / ANGLE_STEP])
    return levels.round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def dequantize_image(levels: np.ndarray) -> Tensor:
    """(2, N, T) uint8 -> (2 N, T) float32 level differences in dB, then coherence angles (rad)."""
    values = torch.from_numpy(np.array(levels, dtype=np.float32))
    return torch.cat([(values[0] - 128) * DIFFERENCE_STEP, values[1] * ANGLE_STEP])


@functools.cache
def analysis() -> ParametricStereo:
    """This process's analysis (building it takes a matrix inversion)."""
    return ParametricStereo(LogMel(**SPECTROGRAM_PARAMETERS), STEREO_BANDS, FRAMES_PER_TOKEN)


def analyze(padded: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return what is stored of a clip's sound.

    Args:
        padded: (2, (F - 1) * hop_length + n_fft) float32, the samples around the clip included, as
            :meth:`LogMel.of_padded` takes them.

    Returns:
        (1, M, F) uint8 levels of the total power and the (2, N, T) uint8 stereo image,
        T = ceil(F / 4).
    """
    stereo = analysis()
    levels, image = stereo.analyze(stereo.log_mel.stft(padded[None]))
    return quantize_spectrogram(levels[0]), quantize_image(image[0, :, ::FRAMES_PER_TOKEN])


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
        spectrogram: (1, M, F) uint8 levels of the total power, F a multiple of four.
        stereo: (2, N, F / 4) uint8 stereo image.
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
    stereo: np.ndarray
    captions: list[str] = field(default_factory=list)
    labels: str = "{}"
    source: str = ""
    license: str = ""
    attribution: str = ""
    is_end: bool = False
    audio: bytes = b""

    def __post_init__(self) -> None:
        levels, stereo = self.spectrogram, self.stereo
        if levels.dtype != np.uint8 or levels.ndim != 3 or levels.shape[:2] != (1, NUM_MELS):
            raise ValueError(
                f"spectrogram must be (1, {NUM_MELS}, F) uint8, "
                f"got {levels.shape} {levels.dtype} in clip {self.id!r}"
            )
        if self.num_frames == 0 or self.num_frames % FRAMES_PER_TOKEN:
            raise ValueError(
                f"num_frames must be a positive multiple of {FRAMES_PER_TOKEN}, "
                f"got {self.num_frames} in clip {self.id!r}"
            )
        if stereo.dtype != np.uint8 or stereo.shape != image_shape(self.num_frames):
            raise ValueError(
                f"stereo must be {image_shape(self.num_frames)} uint8, "
                f"got {stereo.shape} {stereo.dtype} in clip {self.id!r}"
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
        values["spectrogram"] = shape_levels(row["spectrogram"], row["num_frames"])
        image = np.frombuffer(row["stereo"], dtype=np.uint8)
        values["stereo"] = image.reshape(image_shape(row["num_frames"]))
        return cls(**values)


def image_shape(num_frames: int) -> tuple[int, int, int]:
    """(2, N, T) of the stereo image beside F frames."""
    return 2, STEREO_BANDS, num_frames // FRAMES_PER_TOKEN


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


def read_image(dataset: "Dataset", index: int) -> np.ndarray:
    """The (2, N, T) uint8 stereo image of one clip as a view of the memory-mapped file."""
    row = as_arrow(dataset)[index]
    flat = np.frombuffer(row["stereo"][0].as_buffer(), dtype=np.uint8)
    return flat.reshape(image_shape(row["num_frames"][0].as_py()))


def check_analysis(config: Any) -> None:
    """Raise ValueError unless a ``SpectralCodec``'s config analyzes audio as prepared data were."""
    wanted = {
        **{
            name: SPECTROGRAM_PARAMETERS[name] for name in SPECTROGRAM_PARAMETERS if name != "floor"
        },
        "patch_frames": FRAMES_PER_TOKEN,
    }
    for name, value in wanted.items():
        if config[name] != value:
            raise ValueError(f"{name} must be the {value} of prepared data, got {config[name]}")


def read_crop(rows: "Dataset", row: int, start: int, frames: int, stereo_bands: int = 0) -> Tensor:
    """Part of a stored clip as a codec analyzes audio, padded with silence past the clip's end.

    Args:
        rows: an opened prepared split.
        row: of the clip.
        start: first frame, a multiple of four.
        frames: F, a multiple of four.
        stereo_bands: of the codec: as many as are stored give (1, M + 2 N, F), total power and
            stereo image; 0 gives (2, M, F), left and right as these imply them.

    Returns:
        float32.

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
    levels = torch.nn.functional.pad(levels, (0, missing), value=QUANTIZED_FLOOR)
    image = torch.nn.functional.pad(image, (0, missing // FRAMES_PER_TOKEN))
    image = image.repeat_interleave(FRAMES_PER_TOKEN, dim=-1)
    return torch.cat([levels, image[None]], dim=1) if stereo_bands else left_right(levels, image)


def left_right(levels: Tensor, image: Tensor) -> Tensor:
    """(1, M, F) levels of the total power and (2 N, F) image -> (2, M, F) of left and right."""
    ratio = (image[:STEREO_BANDS] * (math.log(10) / 10)).exp()  # (N, F), left over right
    ratio = ratio.repeat_interleave(NUM_MELS // STEREO_BANDS, dim=0)
    shares = torch.stack([2 * ratio / (1 + ratio), 2 / (1 + ratio)])
    return (levels + shares.log() / 2).clamp(min=QUANTIZED_FLOOR)


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
        "stereo": {
            "num_bands": STEREO_BANDS,
            "difference_step_db": DIFFERENCE_STEP,
            "angle_step": ANGLE_STEP,
        },
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
