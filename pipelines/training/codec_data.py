"""Read what the codec trains on: an endless, seeded stream of spectrogram crops."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.data import Dataset

from codec.seeds import generator
from pipelines.data.clip_levels import FRAME_RATE, FRAMES_PER_TOKEN
from pipelines.data.prepared import open_prepared, read_crop, read_info, read_levels
from pipelines.data.shards import as_arrow, evenly_spaced
from pipelines.errors import check_fields
from pipelines.training.augmentation import Augmentation, augment
from pipelines.training.item_order import EpochOrder

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class SpectrogramData:
    """Name the spectrograms and set the length of a training crop.

    Args:
        prepared: folders of prepared datasets; their clips are one pool.
        crop_s: seconds of sound per training item.
        validation_clips: held-out clips used for the validation loss.
    """

    prepared: list[str]
    crop_s: float = 2.56
    validation_clips: int = 32

    def __post_init__(self) -> None:
        check_fields(self, "crop_s", lambda seconds: seconds > 0, "be positive")
        check_fields(self, "validation_clips", lambda count: count >= 1, "be at least 1")

    @property
    def crop_frames(self) -> int:
        """Return the spectrogram frames per crop, a whole number of token frames."""
        tokens = max(1, round(self.crop_s * FRAME_RATE / FRAMES_PER_TOKEN))
        return tokens * FRAMES_PER_TOKEN


def open_all(folders: list[str], split: str) -> "datasets.Dataset":
    """Open one split of several prepared datasets as one; those that lack the split are left out.

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


class SpectrogramCrops(Dataset):
    """Draw endless random crops: item n is (C, R, F) float32, as a codec analyzes audio.

    Args:
        rows: an opened prepared split.
        crop_frames: F, a multiple of four.
        seed: item n is a function of (seed, n).
        stereo_bands: of the codec; see :func:`read_crop`.
        augmentation: changes that each crop may undergo.
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
    """Draw a start on the token grid, keyed by the item's number."""
    last = max(0, num_frames - crop_frames) // FRAMES_PER_TOKEN
    draw = torch.randint(last + 1, (), generator=generator(seed, "crop", item))
    return int(draw) * FRAMES_PER_TOKEN


def validation_crops(data: SpectrogramData, seconds: float, stereo_bands: int = 0) -> Tensor:
    """Read the start of evenly spaced held-out clips, (N, C, R, F), by :func:`read_crop`."""
    rows = open_all(data.prepared, "validation")
    frames = SpectrogramData(data.prepared, seconds).crop_frames
    return torch.stack(
        [
            read_crop(rows, row, 0, frames, stereo_bands)
            for row in evenly_spaced(rows, data.validation_clips)
        ]
    )
