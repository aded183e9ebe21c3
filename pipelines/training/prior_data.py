"""What the prior trains on: token clips with one of their captions."""

import json
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from codec.seeds import generator
from pipelines.data.plans import plan_of_labels
from pipelines.data.prepared import FRAME_RATE, FRAMES_PER_TOKEN
from pipelines.data.shards import as_arrow
from pipelines.data.tokens import open_all_tokens, read_codes
from pipelines.inference.text import PRETRAINED
from pipelines.training.codec_data import EpochOrder
from prior.loss import draw_depth_frames
from prior.plan import plan_features

TOKEN_RATE = FRAME_RATE / FRAMES_PER_TOKEN


@dataclass(frozen=True)
class PriorData:
    """Where tokens and text encoder are, and how items are drawn.

    Args:
        tokens: folders of token caches; their clips are one pool.
        text_encoder: folder of a saved pipeline whose tokenizer and text encoder are used.
        codec: folder of the codec that made the tokens; with it, samples are written as audio.
        crop_s: seconds per training item; shorter clips are padded, longer ones cut at random.
        crop_frames: frames per item instead of seconds, for frames that are notes.
        text_dropout: share of items trained without text and plan, for classifier-free guidance.
        plan_dropout: share of the other items trained without their plan, and of those with one
            the share whose plan does not say who plays.
        caption_dropout: share of the items with a whole plan that are trained without their
            caption; where captions name what plays, nobody needs to read it in the plan.
        depth_share: share of frames that train the later books.
        validation_clips: held-out clips for the validation loss.
    """

    tokens: list[str]
    text_encoder: str = str(PRETRAINED)
    codec: str | None = None
    crop_s: float = 20.0
    crop_frames: int | None = None
    text_dropout: float = 0.15
    plan_dropout: float = 0.1
    caption_dropout: float = 0.0
    depth_share: float = 0.25
    validation_clips: int = 32

    def __post_init__(self) -> None:
        if not self.crop_s > 0:
            raise ValueError(f"crop_s must be positive, got {self.crop_s}")
        if self.crop_frames is not None and self.crop_frames < 2:
            raise ValueError(f"crop_frames must be at least 2, got {self.crop_frames}")
        for name in ("text_dropout", "plan_dropout", "caption_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0 < self.depth_share <= 1:
            raise ValueError(f"depth_share must lie in (0, 1], got {self.depth_share}")

    @property
    def crop_tokens(self) -> int:
        """Frames per item."""
        return self.crop_frames or max(2, round(self.crop_s * TOKEN_RATE))


@dataclass
class TokenBatch:
    """Token clips with their captions, before the text is encoded."""

    codes: Tensor  # (B, K, T) int64
    frame_mask: Tensor  # (B, T) bool
    ends: Tensor  # (B,) bool
    depth_frames: Tensor  # (B, N) int64
    captions: list[str]  # "" where the text is dropped
    plan: Tensor | None = None  # (B, T, P) float32, zeros where nothing is planned

    def to(self, device: torch.device) -> "TokenBatch":
        """Move the tensors to a device."""
        return TokenBatch(
            self.codes.to(device),
            self.frame_mask.to(device),
            self.ends.to(device),
            self.depth_frames.to(device),
            self.captions,
            None if self.plan is None else self.plan.to(device),
        )

    @classmethod
    def stack(cls, items: list["TokenBatch"]) -> "TokenBatch":
        """Batches of one -> one batch."""
        return cls(
            torch.cat([item.codes for item in items]),
            torch.cat([item.frame_mask for item in items]),
            torch.cat([item.ends for item in items]),
            torch.cat([item.depth_frames for item in items]),
            [caption for item in items for caption in item.captions],
            torch.cat([item.plan for item in items if item.plan is not None])
            if items[0].plan is not None
            else None,
        )


class TokenClips(Dataset):
    """Endless seeded token clips: item n is a function of (seed, n).

    Args:
        data: see :class:`PriorData`.
        num_codebooks: books that the prior writes, the first of those cached.
        reads_plan: whether items carry plans.
        split: "train" or "validation".
        seed: of order, crops, captions and dropout.
    """

    def __init__(
        self, data: PriorData, num_codebooks: int, reads_plan: bool, split: str, seed: int
    ) -> None:
        self.data = data
        self.reads_plan = reads_plan
        self.num_codebooks = num_codebooks
        self.seed = seed
        rows = open_all_tokens(data.tokens, split)
        self.facts = rows.select_columns(["captions", "is_end", "labels"])
        self.rows = as_arrow(rows)
        self.order = EpochOrder(len(rows), seed)

    def __getitem__(self, item: int) -> TokenBatch:
        draws = generator(self.seed, "clip", item)
        data = self.data
        shares = data.text_dropout, data.plan_dropout, data.caption_dropout
        return self.clip(self.order(item), draws, *shares)

    def clip(
        self,
        row: int,
        draws: torch.Generator,
        text_dropout: float = 0.0,
        plan_dropout: float = 0.0,
        caption_dropout: float = 0.0,
    ) -> TokenBatch:
        """A batch of one clip, its random parts taken from ``draws``."""
        length = self.data.crop_tokens
        draw = torch.rand(5, generator=draws).tolist()
        place, choice, drop, drop_ensemble, drop_caption = draw
        codes = read_codes(self.rows, row)[: self.num_codebooks]
        if codes.shape[0] < self.num_codebooks:
            raise ValueError(
                f"the token cache holds {codes.shape[0]} books, "
                f"num_codebooks={self.num_codebooks} asked for"
            )
        start = int(place * (max(0, codes.shape[-1] - length) + 1))
        crop = codes[:, start : start + length]
        known = crop.shape[-1]
        mask = torch.arange(length)[None] < known  # (1, T)
        facts = self.facts[row]
        captions = facts["captions"] or [""]
        caption = captions[int(choice * len(captions))]
        count = max(1, round(length * self.data.depth_share))
        unplanned = drop < text_dropout or drop > 1 - (1 - text_dropout) * plan_dropout
        plan = None if unplanned else plan_of_labels(json.loads(facts["labels"]))
        is_told = drop >= text_dropout
        if plan is not None and drop_ensemble < plan_dropout:
            plan = replace(plan, instruments=(), drums=None)
        elif plan is not None and drop_caption < caption_dropout:
            is_told = False
        return TokenBatch(
            torch.nn.functional.pad(crop, (0, length - known))[None],
            mask,
            torch.tensor([facts["is_end"] and start + known == codes.shape[-1]]),
            draw_depth_frames(mask, count, draws),
            [caption if is_told else ""],
            plan_features(plan, start + length, TOKEN_RATE)[None, start:]
            if self.reads_plan
            else None,
        )
