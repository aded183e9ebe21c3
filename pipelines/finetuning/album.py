"""The tracks of an album, with captions that were given or are made from what can be measured."""

import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from codec.audio_file import read_audio
from codec.whole_file import write_whole
from pipelines.data.recordings.track import Track
from pipelines.data.recordings.track_metadata import describe, read_metadata, same_name
from pipelines.data.recordings.tracks import find_tracks
from pipelines.evaluation.detectors import LEADS, Detected, load_detectors

CAPTIONS_NAME = "metadata.jsonl"
FEWEST_TRACKS = 3
TRACKS_PER_HELD_OUT = 6
MEASURED_S = 30.0


def describe_album(album: Path, style: str, captions: Path) -> list[Track]:
    """List an album's tracks with captions, writing those that were not there to be edited.

    Captions made here begin with the words of ``style``; where ``captions`` exists, a
    ``metadata.jsonl`` of captions, tempo, key and split, it wins.

    Raises:
        ValueError: fewer than three tracks, or a track cannot be read.
    """
    tracks = find_tracks(album).tracks
    if len(tracks) < FEWEST_TRACKS:
        raise ValueError(f"{album} must hold {FEWEST_TRACKS} tracks or more, got {len(tracks)}")
    known = read_metadata(captions) if captions.is_file() else {}
    held_out = {
        index * len(tracks) // count + len(tracks) // (2 * count)
        for count in [max(1, len(tracks) // TRACKS_PER_HELD_OUT)]
        for index in range(count)
    }
    described = []
    for index, track in enumerate(tracks):
        row = known.get(same_name(track.name)) or make_row(track, style, index in held_out)
        described.append(describe(replace(track, labels={}), row))
    splits = {track.split for track in described}
    if splits != {"train", "validation"}:
        raise ValueError(
            f"{captions}: split must be train for some tracks and validation for others, "
            f"got {', '.join(sorted(splits))}"
        )
    write_captions(captions, described)
    return described


def make_row(track: Track, style: str, held_out: bool) -> dict[str, Any]:
    """Describe a track as a row of ``metadata.jsonl``, without its name."""
    try:
        measured = load_detectors().detect(*read_middle(track))
    except (OSError, ValueError) as error:
        raise ValueError(f"{track.name} cannot be used: {error}") from error
    facts = {"bpm": round(measured.tempo_bpm), "key": measured.key, "drums": measured.drums}
    return {
        **track.metadata,
        **facts,
        **track.labels,
        "captions": track.metadata.get("captions") or write_words(track, style, measured),
        "split": track.split or ("validation" if held_out else "train"),
    }


def write_words(track: Track, style: str, measured: Detected) -> list[str]:
    """Write a caption with the facts that were measured, and one with the name of the track."""
    name = PurePosixPath(track.name).stem.replace("_", " ").replace("-", " ")
    title = track.metadata.get("title") or " ".join(name.split())
    words = [style, *filter(None, [track.metadata.get("genre")])]
    facts = [measured.lead_among(LEADS), f"{measured.tempo_bpm:.0f} bpm", measured.key]
    drums = "with drums" if measured.drums else "no drums"
    return [", ".join([*words, *facts, drums]), ", ".join([*words, title])]


def read_middle(track: Track) -> tuple[Tensor, int]:
    """Read up to half a minute from the middle of a track: audio (C, S) and its rate (Hz)."""
    clip = read_audio(track.open())
    length = round(MEASURED_S * clip.sample_rate)
    start = max(0, (clip.audio.shape[-1] - length) // 2)
    return clip.audio[:, start : start + length], clip.sample_rate


def write_captions(path: Path, tracks: list[Track]) -> None:
    """Write tracks as rows of an AudioFolder ``metadata.jsonl``."""
    rows = [
        {"file_name": track.name, "split": track.split, **track.metadata, **track.labels}
        for track in tracks
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
