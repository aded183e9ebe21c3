"""Read what the decoder trains on: spectrogram crops with the tokens of the same frames."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from codec.seeds import generator
from decoder.painting import Conditioning
from pipelines.data.clip_levels import FRAME_RATE, FRAMES_PER_TOKEN, NUM_MELS
from pipelines.data.prepared import read_crop, read_levels
from pipelines.data.shards import as_arrow
from pipelines.data.tokens import (
    TokenInfo,
    hash_prepared,
    open_all_tokens,
    read_codes,
    read_token_infos,
)
from pipelines.errors import check_fields
from pipelines.training.codec_data import crop_start, open_all
from pipelines.training.item_order import EpochOrder


@dataclass(frozen=True)
class DecoderData:
    """Name the spectrograms and tokens, and set how they are drawn.

    Args:
        prepared: folders of prepared datasets.
        tokens: their token caches, in the same order.
        codec: folder of the codec that made the tokens.
        crop_s: seconds of sound per training item.
        focus_books: number of codebooks that the prior will write.
        focus_share: share of items decoded from exactly that many; the others draw 1 to K.
        one_step_share: share of the rows of a batch that train the solver's single step by the
            energy score of its samples, where the others train the flow.
        features: weight of the same score in the layers of ``recognizer``.
        recognizer: folder of a recognizer of music (partita train recognizer).
        validation_clips: held-out clips for the validation figures.
    """

    prepared: list[str]
    tokens: list[str]
    codec: str
    crop_s: float = 5.12
    focus_books: int = 2
    focus_share: float = 0.5
    one_step_share: float = 0.0
    features: float = 0.0
    recognizer: str | None = None
    validation_clips: int = 16

    def __post_init__(self) -> None:
        check_fields(self, "crop_s", lambda seconds: seconds > 0, "be positive")
        shares = "focus_share one_step_share"
        check_fields(self, shares, lambda share: 0 <= share <= 1, "lie in [0, 1]")
        check_fields(self, "validation_clips", lambda count: count >= 1, "be at least 1")
        if self.features > 0 and not self.one_step_share:
            raise ValueError("features needs one_step_share above 0: it scores single steps")

    @property
    def crop_patches(self) -> int:
        """Return the decoder's patches per crop."""
        return max(1, round(self.crop_s * FRAME_RATE / FRAMES_PER_TOKEN))


def check_origins(data: DecoderData) -> TokenInfo:
    """Return the facts of the token caches.

    Raises:
        ValueError: a token cache was not made from the prepared dataset in its place.
    """
    infos = read_token_infos(data.tokens)
    if len(infos) != len(data.prepared):
        raise ValueError(
            f"tokens must be one folder for each of prepared, got {len(infos)} for "
            f"{len(data.prepared)}"
        )
    for tokens, info, prepared in zip(data.tokens, infos, data.prepared, strict=True):
        if info.prepared != hash_prepared(prepared):
            raise ValueError(f"the token cache {tokens} was not made from {prepared} as it is now")
    return infos[0]


class DecoderBatch(NamedTuple):
    """Hold crops with the tokens of the same frames and the noise to start from.

    Attributes:
        spectrogram: (B, C, R, F) float32, as the codec analyzes audio.
        codes: (B, K, T) int64 in [0, V); T = F / 4 of a ``SpectralCodec``.
        positions: (B, N) float32, where the patches read other codes, in tokens; else N = 0.
        num_books: (B,) int64, how many codebooks each row is decoded from.
        noise: (B, C, M, F) float32, standard normal.
        time: (B,) float32, standard normal, to be mapped to angles of the flow's path.
        other_noise: (B, C, M, F) float32, standard normal, for a second sample of a row.
    """

    spectrogram: Tensor
    codes: Tensor
    positions: Tensor
    num_books: Tensor
    noise: Tensor
    time: Tensor
    other_noise: Tensor


class DecoderCrops(Dataset):
    """Draw endless seeded crops: item n is a function of (seed, n), its noise included.

    Its ``conditioning`` says which codes belong to a crop, and which channels are painted.

    Raises:
        ValueError: the token caches do not belong to the prepared datasets.
    """

    def __init__(
        self, data: DecoderData, split: str, seed: int, conditioning: Conditioning
    ) -> None:
        self.data = data
        self.seed = seed
        self.conditioning = conditioning
        rows, tokens = open_all(data.prepared, split), open_all_tokens(data.tokens, split)
        if rows["id"][:] != tokens["id"][:]:
            raise ValueError(
                f"the token caches {data.tokens} were not made from {data.prepared} in this order"
            )
        self.rows, self.tokens = as_arrow(rows), as_arrow(tokens)
        self.order = EpochOrder(len(rows), seed)

    def __getitem__(self, item: int) -> DecoderBatch:
        row = self.order(item)
        frames = self.data.crop_patches * FRAMES_PER_TOKEN
        start = crop_start(read_levels(self.rows, row).shape[-1], frames, self.seed, item)
        return self.item(row, start, generator(self.seed, "flow", item))

    def item(self, row: int, start: int, draws: torch.Generator) -> DecoderBatch:
        """Read one item, without the batch dimension; its random parts come from ``draws``."""
        frames = self.data.crop_patches * FRAMES_PER_TOKEN
        spectrogram = read_crop(self.rows, row, start, frames, self.conditioning.stereo_bands)
        codes, positions = self.conditioning.crop(
            read_codes(self.tokens, row), start // FRAMES_PER_TOKEN, self.data.crop_patches
        )
        num_books = self._num_books(codes.shape[0], draws)
        shape = spectrogram[:, :NUM_MELS].shape
        noise, time, other = (torch.randn(size, generator=draws) for size in (shape, (), shape))
        return DecoderBatch(spectrogram, codes, positions, num_books, noise, time, other)

    def _num_books(self, most: int, draws: torch.Generator) -> Tensor:
        share, uniform = torch.rand(2, generator=draws).tolist()
        if share < self.data.focus_share:
            return torch.tensor(min(self.data.focus_books, most))
        return torch.tensor(1 + int(uniform * most))
