"""Pieces out of token caches, and token caches out of pieces: parts of the data, whole tracks."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
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

CLIP_NUMBER = re.compile(r"^(?P<track>.+)[-#](?P<number>\d+)$")
"""How preparation names clips: the track, and the clip's number in it."""


@dataclass(frozen=True)
class Piece:
    """Codes with what is known about them.

    Attributes:
        id: of the clip, or of the track.
        codes: (K, T) int16.
        captions: possibly none.
        labels: a JSON object.
        source: where it comes from.
        is_end: the music ends here.
    """

    id: str
    codes: np.ndarray
    captions: list[str] = field(default_factory=list)
    labels: str = "{}"
    source: str = ""
    is_end: bool = False

    @property
    def ensemble(self) -> str | None:
        """Solo, duo or band, where the labels say it."""
        return json.loads(self.labels or "{}").get("ensemble")


def read_pieces(folders: Iterable[str], split: str) -> list[Piece]:
    """All clips of a split of some caches; caches without the split add nothing."""
    pieces = []
    for folder in folders:
        if split not in read_token_info(folder).clips:
            continue
        rows = open_tokens(folder, split)
        facts = rows.select_columns(["id", "captions", "labels", "source", "is_end"])
        for index, fact in enumerate(facts):
            codes = read_codes(rows, index).numpy().astype(np.int16)
            pieces.append(Piece(codes=codes, **(fact | {"captions": fact["captions"] or []})))
    return pieces


def join_tracks(clips: list[Piece]) -> list[Piece]:
    """Clips put together to the tracks that they were cut from; a gap starts another piece."""
    tracks: dict[str, list[tuple[int, Piece]]] = defaultdict(list)
    for clip in clips:
        name = CLIP_NUMBER.match(clip.id)
        track, number = (name["track"], int(name["number"])) if name else (clip.id, 0)
        tracks[track].append((number, clip))
    pieces = []
    for track, numbered in tracks.items():
        numbered.sort(key=lambda entry: entry[0])
        run: list[Piece] = []
        for position, (number, clip) in enumerate(numbered):
            if position and number != numbered[position - 1][0] + 1:
                pieces.append(_joined(track, run))
                run = []
            run.append(clip)
        pieces.append(_joined(track, run))
    return pieces


def _joined(track: str, run: list[Piece]) -> Piece:
    codes = np.concatenate([clip.codes for clip in run], axis=1)
    return replace(run[0], id=f"{track}@{run[0].id}", codes=codes, is_end=run[-1].is_end)


def part_of(clips: list[Piece], share: float, seed: int) -> list[Piece]:
    """The clips of a share of the tracks; smaller shares are contained in larger ones."""
    names = [CLIP_NUMBER.match(clip.id) for clip in clips]
    tracks = [name["track"] if name else clip.id for name, clip in zip(names, clips, strict=True)]
    different = list(dict.fromkeys(tracks))
    order = np.asarray(different, dtype=object)[_permutation(len(different), seed)]
    kept = set(order[: max(1, round(share * len(different)))])
    return [clip for clip, track in zip(clips, tracks, strict=True) if track in kept]


def _permutation(count: int, seed: int) -> np.ndarray:
    import torch

    return torch.randperm(count, generator=generator(seed, "part")).numpy()


def write_cache(folder: Path, splits: dict[str, list[Piece]], info: TokenInfo) -> str:
    """A finished token cache of some pieces; nothing is done where there is one.

    Runs of a study that want it at once take turns.

    Args:
        folder: of the cache; named after its contents by whoever calls.
        splits: split -> pieces, none of them empty.
        info: of the caches that the pieces come from.

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
                        writer.add_row(_row(piece))
            counts = {split: len(pieces) for split, pieces in splits.items()}
            origin = f"{info.prepared} {folder.name}"  # other pieces are another cache
            write_json(partial / INFO_NAME, asdict(replace(info, clips=counts, prepared=origin)))
    return str(folder)


def _row(piece: Piece) -> dict[str, Any]:
    facts = {name: value for name, value in vars(piece).items() if name != "codes"}
    return token_row(facts, piece.codes.astype("<i2"))


def cache_info(origin: str, num_codebooks: int, codebook_size: int) -> TokenInfo:
    """``tokens.json`` of codes that no codec made."""
    return TokenInfo(TOKENS_VERSION, "", origin, num_codebooks, codebook_size, 25.0, origin, {})
