"""Read pieces from token caches, join, share and write them, and measure their bits."""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock

from codec.seeds import generator
from codec.whole_file import new_folder, write_json
from pipelines.data.shards import ShardWriter
from pipelines.data.token_cache import SHARD_CLIPS, token_row
from pipelines.data.tokens import (
    INFO_NAME,
    SCHEMA,
    TOKENS_VERSION,
    TokenInfo,
    open_tokens,
    read_codes,
    read_token_info,
)
from pipelines.evaluation.held_out import labeled_plan, nats_per_code
from prior.condition import Condition
from prior.model import Prior

CLIP_NUMBER = re.compile(r"^(?P<track>.+)[-#](?P<number>\d+)$")
"""How preparation names clips: the track, and the clip's number in it."""


@dataclass(frozen=True)
class TrackPiece:
    """Holds the codes of a clip or of a whole track, with what is known about them."""

    id: str  # of the clip, or of the track
    codes: np.ndarray  # (K, T) int16
    captions: list[str] = field(default_factory=list)
    labels: str = "{}"  # a JSON object
    source: str = ""
    is_end: bool = False  # the music ends here


def read_pieces(folders: Iterable[str], split: str) -> list[TrackPiece]:
    """Read all clips of a split of some caches; caches without the split add nothing."""
    pieces = []
    for folder in folders:
        if split not in read_token_info(folder).clips:
            continue
        rows = open_tokens(folder, split)
        facts = rows.select_columns(["id", "captions", "labels", "source", "is_end"])
        for index, fact in enumerate(facts):
            codes = read_codes(rows, index).numpy().astype(np.int16)
            pieces.append(TrackPiece(codes=codes, **(fact | {"captions": fact["captions"] or []})))
    return pieces


def join_tracks(clips: list[TrackPiece]) -> list[TrackPiece]:
    """Join clips to the tracks that they were cut from; a gap starts another piece."""
    tracks: dict[str, list[tuple[int, TrackPiece]]] = defaultdict(list)
    for clip in clips:
        track, number = _track_and_number(clip)
        tracks[track].append((number, clip))
    pieces = []
    for track, numbered in tracks.items():
        numbered.sort(key=lambda entry: entry[0])
        # consecutive numbers keep their distance to their places in the list
        for _, group in groupby(enumerate(numbered), key=lambda entry: entry[1][0] - entry[0]):
            run = [clip for _, (_, clip) in group]
            codes = np.concatenate([clip.codes for clip in run], axis=1)
            name, is_end = f"{track}@{run[0].id}", run[-1].is_end
            # the first clip's plan does not go on after that clip
            pieces.append(replace(run[0], id=name, codes=codes, labels="{}", is_end=is_end))
    return pieces


def part_of(clips: list[TrackPiece], share: float, seed: int) -> list[TrackPiece]:
    """Keep the clips of a share of the tracks; smaller shares are contained in larger ones."""
    tracks = [_track_and_number(clip)[0] for clip in clips]
    different = list(dict.fromkeys(tracks))
    order = torch.randperm(len(different), generator=generator(seed, "part")).tolist()
    kept = {different[index] for index in order[: max(1, round(share * len(different)))]}
    return [clip for clip, track in zip(clips, tracks, strict=True) if track in kept]


def _track_and_number(clip: TrackPiece) -> tuple[str, int]:
    name = CLIP_NUMBER.match(clip.id)
    return (name["track"], int(name["number"])) if name else (clip.id, 0)


def write_cache(folder: Path, splits: dict[str, list[TrackPiece]], info: TokenInfo) -> str:
    """Write pieces as a finished token cache, unless there is one.

    Runs of a study that want it at once take turns. The caller names the folder after its contents
    and gives the ``info`` of the caches that the pieces come from.

    Returns:
        The folder's name, as ``PriorData.tokens`` takes it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if (folder / INFO_NAME).is_file():
            return str(folder)
        with new_folder(folder) as partial:
            for split, pieces in splits.items():
                with ShardWriter(partial / split, SCHEMA, SHARD_CLIPS) as writer:
                    for piece in pieces:
                        facts = {name: v for name, v in vars(piece).items() if name != "codes"}
                        writer.add_row(token_row(facts, piece.codes.astype("<i2")))
            counts = {split: len(pieces) for split, pieces in splits.items()}
            origin = f"{info.prepared} {folder.name}"  # other pieces are another cache
            write_json(partial / INFO_NAME, asdict(replace(info, clips=counts, prepared=origin)))
    return str(folder)


def cache_info(origin: str, num_codebooks: int, codebook_size: int) -> TokenInfo:
    """Fill in ``tokens.json`` for codes that no codec made."""
    return TokenInfo(TOKENS_VERSION, "", origin, num_codebooks, codebook_size, 25.0, origin, {})


def code_bits(
    prior: Prior, piece: TrackPiece, start: int = 0, stop: int | None = None
) -> np.ndarray:
    """Measure the bits of a piece's frames, (K, T) float32, under its plan and without text.

    The prior, in evaluation mode, reads frames ``start`` to ``stop - 1`` alone.
    """
    codes = piece.codes[None, : prior.num_codebooks, start:stop].astype(np.int64)
    condition = Condition.empty(1, prior.config.text_width)
    plan = labeled_plan(prior, piece.labels, start + codes.shape[-1])
    if plan is not None:
        condition = replace(condition, plan=plan[None, start:])
    return nats_per_code(prior, torch.from_numpy(codes), condition)[0].numpy() / math.log(2)


def held_out_bits(prior: Prior, pieces: Sequence[TrackPiece], crop_frames: int) -> np.ndarray:
    """Average bits per frame over the starts of pieces: (K,), every frame weighing the same.

    No more than ``crop_frames`` are read of a piece, so that no arm reads further than it learned.
    """
    costs = [code_bits(prior, piece, 0, crop_frames) for piece in pieces]
    return np.concatenate(costs, axis=1).mean(axis=1)
