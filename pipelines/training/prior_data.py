"""Read what the prior trains on: token clips with one of their captions and their plan."""

import json
import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from codec.seeds import generator
from pipelines.data.caption_length import MAX_TOKENS, shorten
from pipelines.data.plans import plan_of_labels
from pipelines.data.remote_tokens import ShardOrder, ShardStore
from pipelines.data.shards import is_remote
from pipelines.data.tokens import (
    TokenInfo,
    TokenRows,
    open_all_tokens,
    read_codes,
    read_token_infos,
)
from pipelines.errors import check_fields
from pipelines.inference.text import PRETRAINED, encode_text
from pipelines.training.item_order import EpochOrder
from prior.form import frame_features
from prior.loss import PriorBatch, draw_depth_frames
from prior.model import DEFAULT_FRAME_RATE, Prior
from prior.plan import Plan


@dataclass(frozen=True)
class PriorData:
    """Name the tokens and the text encoder, and set how items are drawn.

    Args:
        tokens: folders of token caches, or URLs of caches that are streamed (docs/scaling.md);
            their clips are one pool.
        text_encoder: folder of a saved pipeline whose tokenizer and text encoder are used.
        codec: folder of the codec that made the tokens; with it, samples are written as audio.
        crop_s: seconds per training item; shorter clips are padded, longer ones cut at random.
        crop_frames: frames per item instead of seconds; frames that are notes need it.
        text_dropout: share of items trained without text and plan, for classifier-free guidance.
        whole_plan_dropout: share of the other items trained without their plan.
        players_dropout: share of the items with a plan whose plan does not say who plays.
        caption_dropout: share of the items with a whole plan that are trained without their
            caption, so that the prior learns to read instruments in the plan too.
        sections_dropout: share of the items with a plan whose plan has no sections.
        melody_dropout: share of the items with a plan whose plan has no melody.
        end_dropout: share of the items with a plan whose plan does not say where the piece ends.
        end_share: share of the items from a clip that ends its piece that are cut from its end, so
            that the prior learns the end token.
        fill_share: share of the steps in which the frames before known ones are predicted, of a
            prior with ``fills``.
        depth_share: share of frames that train the later codebooks.
        validation_clips: held-out clips for the validation loss.
    """

    tokens: list[str]
    text_encoder: str = str(PRETRAINED)
    codec: str | None = None
    crop_s: float = 20.0
    crop_frames: int | None = None
    text_dropout: float = 0.15
    whole_plan_dropout: float = 0.1
    players_dropout: float = 0.1
    caption_dropout: float = 0.0
    sections_dropout: float = 0.3
    melody_dropout: float = 0.5
    end_dropout: float = 0.3
    end_share: float = 0.1
    fill_share: float = 0.0
    depth_share: float = 0.25
    validation_clips: int = 32

    def __post_init__(self) -> None:
        check_fields(self, "crop_s", lambda seconds: seconds > 0, "be positive")
        check_fields(self, "crop_frames", lambda n: n is None or n >= 2, "be at least 2")
        shares = "text_dropout whole_plan_dropout players_dropout caption_dropout"
        more = "sections_dropout melody_dropout end_dropout end_share fill_share"
        check_fields(self, f"{shares} {more}", lambda share: 0 <= share < 1, "lie in [0, 1)")
        check_fields(self, "depth_share", lambda share: 0 < share <= 1, "lie in (0, 1]")
        check_fields(self, "validation_clips", lambda count: count >= 1, "be at least 1")

    def crop_tokens(self, frame_rate: float | None) -> int:
        """Count the frames of an item, of tokens with so many frames a second."""
        if frame_rate is None and self.crop_frames is None:
            raise ValueError("crop_frames must be given for frames that are notes")
        return self.crop_frames or max(2, round(self.crop_s * (frame_rate or 0.0)))


class TokenClip(NamedTuple):
    """Hold one item: a clip's codes with what they are to follow from.

    Attributes:
        codes: (K, T) int64 in [0, V), zeros after the clip's frames.
        frame_mask: (T,) bool, true at the clip's frames.
        ends: whether the piece ends with the clip.
        depth_frames: (N,) int64, the frames that train the later codebooks.
        caption: "" where the text is dropped.
        plan: (T, P) float32, zeros where it is dropped or not known; None for a prior that reads
            no plans.
    """

    codes: Tensor
    frame_mask: Tensor
    ends: bool
    depth_frames: Tensor
    caption: str
    plan: Tensor | None


class TokenClips(Dataset):
    """Draw endless seeded token clips: item n is a function of (seed, n).

    Args:
        data: see :class:`PriorData`.
        num_codebooks: codebooks that the prior writes, the first of those cached.
        reads_plan: whether items carry plans.
        split: "train" or "validation".
        seed: of order, crops, captions and dropout.
        reads_form: whether the plans have sections, melody and end.
    """

    def __init__(
        self,
        data: PriorData,
        num_codebooks: int,
        reads_plan: bool,
        split: str,
        seed: int,
        reads_form: bool = False,
    ) -> None:
        self.data = data
        self.reads_plan = reads_plan
        self.reads_form = reads_form
        self.num_codebooks = num_codebooks
        self.seed = seed
        self.frame_rate = read_token_infos(data.tokens)[0].frame_rate
        self.crop_tokens = data.crop_tokens(self.frame_rate)
        self.order: EpochOrder | ShardOrder
        self.rows: TokenRows | ShardStore
        if any(map(is_remote, data.tokens)):
            self.rows = ShardStore(data.tokens, split)
            self.order = ShardOrder([shard.rows for shard in self.rows.shards], seed)
        else:
            self.rows = TokenRows(open_all_tokens(data.tokens, split))
            self.order = EpochOrder(len(self.rows), seed)

    def __getitem__(self, item: int) -> TokenClip:
        draws = generator(self.seed, "clip", item)
        return self.clip(self.order(item), draws, dropout=True)

    def clip(self, place: Any, draws: torch.Generator, dropout: bool) -> TokenClip:
        """Read one clip, its random parts taken from ``draws``; drop text and plan at random."""
        data, length = self.data, self.crop_tokens
        start_at, choice, *uniform = torch.rand(6, generator=draws).tolist()
        drop_all = dropout and uniform[0] < data.text_dropout
        drop_plan = drop_all or (dropout and uniform[1] < data.whole_plan_dropout)
        drop_players = dropout and uniform[2] < data.players_dropout
        drop_caption = dropout and uniform[3] < data.caption_dropout

        table, row = self.rows.find(place)
        codes = read_codes(table, row)[: self.num_codebooks]
        entry = table[row]
        facts = {name: entry[name][0].as_py() for name in ("captions", "labels", "is_end")}
        last_start = max(0, codes.shape[-1] - length)
        if dropout and facts["is_end"]:
            start_at = min(start_at / (1 - data.end_share), 1.0)
        start = min(int(start_at * (last_start + 1)), last_start)
        crop = codes[:, start : start + length]
        known = crop.shape[-1]
        mask = torch.arange(length) < known
        count = max(1, round(length * data.depth_share))
        captions = facts["captions"] or [""]
        caption = captions[int(choice * len(captions))]
        plan = None if drop_plan else plan_of_labels(json.loads(facts["labels"]))
        if plan is not None and drop_players:
            plan = replace(plan, instruments=(), drums=None)
        if plan is not None and self.reads_form and dropout:
            plan = self.drop_form(plan, draws)
        says_all = plan is not None and not drop_players  # the plan replaces the caption
        return TokenClip(
            torch.nn.functional.pad(crop, (0, length - known)),
            mask,
            facts["is_end"] and start + known == codes.shape[-1],
            draw_depth_frames(mask[None], count, draws)[0],
            "" if drop_all or (drop_caption and says_all) else caption,
            self.features(plan, start, start + length),
        )

    def features(self, plan: Plan | None, start: int, stop: int) -> Tensor | None:
        """Return a plan's numbers from frame to frame; None for a prior that reads none."""
        if not self.reads_plan:
            return None
        assert self.frame_rate is not None
        return frame_features(plan, stop, self.frame_rate, self.reads_form)[start:]

    def drop_form(self, plan: Plan, draws: torch.Generator) -> Plan:
        """Leave sections, melody and end out of a plan, each by itself at random."""
        sections, melody, end = torch.rand(3, generator=draws).tolist()
        return replace(
            plan,
            sections=() if sections < self.data.sections_dropout else plan.sections,
            melody=() if melody < self.data.melody_dropout else plan.melody,
            end_beat=None if end < self.data.end_dropout else plan.end_beat,
        )


def check_tokens_fit(folders: list[str], prior: Prior) -> TokenInfo:
    """Give a prior the frame rate of the tokens that it is trained on, and return their facts.

    Raises:
        ValueError: the prior's sizes, or a frame rate that was set for it, are not the tokens'.
    """
    info, config = read_token_infos(folders)[0], prior.config
    if config.num_codebooks > info.num_codebooks:
        raise ValueError(
            f"num_codebooks must be at most the {info.num_codebooks} of the tokens {folders[0]}, "
            f"got {config.num_codebooks}"
        )
    if config.codebook_size != info.codebook_size:
        raise ValueError(
            f"codebook_size must be the {info.codebook_size} of the tokens {folders[0]}, "
            f"got {config.codebook_size}"
        )
    if config.frame_rate not in (info.frame_rate, DEFAULT_FRAME_RATE):
        raise ValueError(
            f"frame_rate must be the {info.frame_rate} of the tokens {folders[0]}, "
            f"got {config.frame_rate}"
        )
    if config.reads_plan and info.frame_rate is None:
        raise ValueError(
            f"reads_plan needs frames of equal length, the tokens {folders[0]} are notes"
        )
    prior.register_to_config(frame_rate=info.frame_rate, _codec_hash=info.codec_hash)
    return info


def fitting_caption(tokenizer: Any, caption: str) -> str:
    """Return a caption of at most ``MAX_TOKENS`` tokens; warn where it had to be cut."""

    def offsets(text: str) -> list[tuple[int, int]]:
        return tokenizer(text, return_offsets_mapping=True)["offset_mapping"]

    short = shorten(caption, offsets)
    if short != caption:
        warnings.warn(
            f"the caption {caption[:60]!r}... has over {MAX_TOKENS} tokens: its end is left out",
            stacklevel=2,
        )
    return short


def make_batch(clips: list[TokenClip], tokenizer: Any, text_encoder: nn.Module) -> PriorBatch:
    """Encode the captions of clips, cut where they are too long, and stack them."""
    captions = [fitting_caption(tokenizer, clip.caption) for clip in clips]
    text = encode_text(tokenizer, text_encoder, captions)
    plans = [clip.plan for clip in clips if clip.plan is not None]
    return PriorBatch(
        torch.stack([clip.codes for clip in clips]),
        torch.stack([clip.frame_mask for clip in clips]),
        torch.tensor([clip.ends for clip in clips]),
        replace(text, plan=torch.stack(plans) if plans else None),
        torch.stack([clip.depth_frames for clip in clips]),
    )
