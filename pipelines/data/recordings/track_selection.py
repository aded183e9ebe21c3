"""Select the tracks to keep, and draw their splits."""

import hashlib
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from codec.whole_file import whole_file
from pipelines.data.recordings.cutting import TrackRecord
from pipelines.data.recordings.duplicates import Match, choose_duplicates, find_matches
from pipelines.data.recordings.prepare_config import PrepareConfig

FINGERPRINTS_NAME = "fingerprints.npz"


@dataclass
class Selection:
    """Hold the tracks to keep."""

    kept: list[int]  # indices into the records, in order
    duplicates: dict[int, int]  # dropped index -> kept index
    matches: list[Match] = field(default_factory=list)  # pairs of tracks that share sound


def select(records: list[TrackRecord], config: PrepareConfig) -> Selection:
    """Drop tracks without a clip, then equal files, then equal recordings.

    Of equal files the first stays that metadata describes, or else the first.
    """
    usable = [index for index, record in enumerate(records) if not record.reason]
    first: dict[str, int] = {}
    duplicates: dict[int, int] = {}
    for index in sorted(usable, key=lambda index: not records[index].captioned):
        original = first.setdefault(records[index].content, index)
        if original != index:
            duplicates[index] = original
    distinct = [index for index in usable if index not in duplicates]
    matches = find_matches([records[index].fingerprint for index in distinct])
    durations_s = [records[index].duration_s for index in distinct]
    near = choose_duplicates(matches, durations_s, config.duplicate_fraction)
    duplicates |= {distinct[index]: distinct[kept] for index, kept in near.items()}
    matches = [replace(m, first=distinct[m.first], second=distinct[m.second]) for m in matches]
    return Selection([i for i in distinct if i not in duplicates], duplicates, matches)


def draw_splits(records: list[TrackRecord], config: PrepareConfig) -> None:
    """Give each kept record its split: the metadata's, by source, or by hash of its name."""
    free = [record for record in records if not record.split]
    if config.validation_source:
        chosen = {record.name for record in free if record.source in config.validation_source}
    else:
        count = math.ceil(config.validation_fraction * len(free)) if len(free) > 1 else 0
        chosen = set(sorted((record.name for record in free), key=name_hash)[:count])
    for record in free:
        record.split = "validation" if record.name in chosen else "train"


def name_hash(name: str) -> str:
    """Hash a track's name, so that its split hardly depends on the other tracks."""
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def write_fingerprints(folder: Path, records: list[TrackRecord]) -> None:
    """Store the fingerprints, with which datasets can be compared."""
    lengths = [len(record.fingerprint) for record in records]
    with whole_file(folder / FINGERPRINTS_NAME) as partial:
        np.savez_compressed(
            partial,
            tracks=np.array([record.name for record in records]),
            splits=np.array([record.split for record in records]),
            lengths=np.array(lengths),
            words=np.concatenate([record.fingerprint for record in records]),
        )
