"""What the trainers read: item number n of an endless, seeded stream over a prepared dataset."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from codec.seeds import generator
from pipelines.augmentation import Augmentation, augment
from pipelines.prepared import (
    FRAME_RATE,
    FRAMES_PER_TOKEN,
    NUM_MELS,
    QUANTISED_FLOOR,
    STEREO_BANDS,
    dequantise_image,
    dequantise_spectrogram,
    open_prepared,
    read_image,
    read_info,
    read_levels,
)
from pipelines.shards import as_arrow

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class SpectrogramData:
    """Where the spectrograms are and how long a training crop is.

    Args:
        prepared: folders of prepared datasets; their clips are one pool.
        crop_s: seconds of sound per training item.
        validation_clips: held-out clips used for the validation loss.
    """

    prepared: list[str]
    crop_s: float = 2.56
    validation_clips: int = 32

    def __post_init__(self) -> None:
        if not self.crop_s > 0:
            raise ValueError(f"crop_s must be positive, got {self.crop_s}")
        if self.validation_clips < 1:
            raise ValueError(f"validation_clips must be at least 1, got {self.validation_clips}")

    @property
    def crop_frames(self) -> int:
        """Spectrogram frames per crop, a whole number of token frames."""
        tokens = max(1, round(self.crop_s * FRAME_RATE / FRAMES_PER_TOKEN))
        return tokens * FRAMES_PER_TOKEN


def open_all(folders: list[str], split: str) -> "datasets.Dataset":
    """One split of several prepared datasets as one; those that lack the split are left out.

    Raises:
        ValueError: none of them has it.
    """
    from datasets import concatenate_datasets

    if not folders:
        raise ValueError("prepared must name at least one folder")
    having = [folder for folder in folders if split in read_info(folder)["splits"]]
    if not having:
        raise ValueError(f"none of the prepared datasets {folders} has a split {split!r}")
    return concatenate_datasets([open_prepared(folder, split) for folder in having])


class EpochOrder:
    """Row of item ``n``: every epoch is its own seeded permutation of all rows."""

    def __init__(self, num_rows: int, seed: int) -> None:
        self.num_rows = num_rows
        self.seed = seed
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def __call__(self, item: int) -> int:
        """The row that item ``item`` of the stream comes from."""
        epoch, position = divmod(item, self.num_rows)
        if epoch != self._epoch:
            draws = generator(self.seed, "epoch", epoch)
            self._order = torch.randperm(self.num_rows, generator=draws)
            self._epoch = epoch
        return int(self._order[position])


class SpectrogramCrops(Dataset):
    """Endless random crops: item n is (C, R, F) float32, as a codec analyzes audio.

    Args:
        rows: an opened prepared split.
        crop_frames: F, a multiple of four.
        seed: item n is a function of (seed, n).
        stereo_bands: of the codec; see :func:`read_crop`.
        augmentation: changes that each crop may undergo; None leaves them as they are.
    """

    def __init__(
        self,
        rows: "datasets.Dataset",
        crop_frames: int,
        seed: int,
        stereo_bands: int = 0,
        augmentation: Augmentation | None = None,
    ) -> None:
        if augmentation is None or augmentation.is_off:
            augmentation = None
        elif not stereo_bands:
            raise ValueError("augmentation needs a codec with stereo_bands, got stereo_bands=0")
        self.rows = as_arrow(rows)
        self.crop_frames = crop_frames
        self.seed = seed
        self.stereo_bands = stereo_bands
        self.augmentation = augmentation
        self.order = EpochOrder(len(rows), seed)

    def __getitem__(self, item: int) -> Tensor:
        crop = self._crop(self.order(item), item)
        if self.augmentation is None:
            return crop
        draws = generator(self.seed, "augmentation", item)
        mix, row = torch.rand(2, generator=draws, dtype=torch.float64).tolist()
        other = None
        if mix < self.augmentation.mix_share:
            other = self._crop(int(row * len(self.rows)), item)
        return augment(crop, other, self.augmentation, draws)

    def _crop(self, row: int, item: int) -> Tensor:
        num_frames = read_levels(self.rows, row).shape[-1]  # a view: nothing is read yet
        start = crop_start(num_frames, self.crop_frames, self.seed, item)
        return read_crop(self.rows, row, start, self.crop_frames, self.stereo_bands)


def crop_start(num_frames: int, crop_frames: int, seed: int, item: int) -> int:
    """A random start on the token grid, keyed by the item's number."""
    last = max(0, num_frames - crop_frames) // FRAMES_PER_TOKEN
    draw = torch.randint(last + 1, (), generator=generator(seed, "crop", item))
    return int(draw) * FRAMES_PER_TOKEN


def read_crop(
    rows: "datasets.Dataset", row: int, start: int, frames: int, stereo_bands: int = 0
) -> Tensor:
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
    levels = dequantise_spectrogram(read_levels(rows, row)[..., start : start + frames])
    image = dequantise_image(read_image(rows, row)[..., first : first + tokens])
    missing = frames - levels.shape[-1]
    levels = torch.nn.functional.pad(levels, (0, missing), value=QUANTISED_FLOOR)
    image = torch.nn.functional.pad(image, (0, missing // FRAMES_PER_TOKEN))
    image = image.repeat_interleave(FRAMES_PER_TOKEN, dim=-1)
    return torch.cat([levels, image[None]], dim=1) if stereo_bands else left_right(levels, image)


def left_right(levels: Tensor, image: Tensor) -> Tensor:
    """(1, M, F) levels of the total power and (2 N, F) image -> (2, M, F) of left and right."""
    ratio = (image[:STEREO_BANDS] * (math.log(10) / 10)).exp()  # (N, F), left over right
    ratio = ratio.repeat_interleave(NUM_MELS // STEREO_BANDS, dim=0)
    shares = torch.stack([2 * ratio / (1 + ratio), 2 / (1 + ratio)])
    return (levels + shares.log() / 2).clamp(min=QUANTISED_FLOOR)


def validation_crops(data: SpectrogramData, seconds: float, stereo_bands: int = 0) -> Tensor:
    """(N, C, R, F): the start of evenly spaced held-out clips, as :func:`read_crop` reads them."""
    rows = open_all(data.prepared, "validation")
    frames = SpectrogramData(data.prepared, seconds).crop_frames
    return torch.stack(
        [
            read_crop(rows, row, 0, frames, stereo_bands)
            for row in evenly_spaced(rows, data.validation_clips)
        ]
    )


def evenly_spaced(rows: "datasets.Dataset", most: int) -> list[int]:
    """Up to ``most`` row numbers spread over a split."""
    count = min(most, len(rows))
    return [index * len(rows) // count for index in range(count)]
