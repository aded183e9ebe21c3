"""Clips times systems: every pair measured once, remembered, and averaged into rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from pipelines.errors import MissingPackageError
from pipelines.evaluation.clip_checks import check_clip
from pipelines.evaluation.clips import EvaluationClip
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.frechet import frechet_distance
from pipelines.evaluation.measurement_cache import MeasurementCache, audio_fingerprint, make_key
from pipelines.evaluation.pair_metrics import compare, package_versions
from pipelines.evaluation.reasons import UnmeasurableError
from pipelines.evaluation.systems import System

DEFINITIONS = 2  # raise when a metric's definition changes: it is part of every cache key
Value = float | str


@dataclass(frozen=True)
class SystemRow:
    """One system's averages; a string says why there is no number.

    Attributes:
        name: of the system.
        group: of the system.
        bitrate_kbps: mean over the clips, None where a rate makes no sense.
        num_clips: clips that were reconstructed.
        values: mean of each metric over the clips that have it.
        counts: clips behind each of ``values``.
        frechet: distance to the originals in each embedding space.
        windows: embeddings a side behind each of ``frechet``.
    """

    name: str
    group: str
    bitrate_kbps: float | None
    num_clips: int
    values: dict[str, Value]
    counts: dict[str, int]
    frechet: dict[str, Value]
    windows: dict[str, int]


@dataclass
class _Collected:
    """What one system gave, clip by clip."""

    bitrates: list[float] = field(default_factory=list)
    measurements: list[dict[str, Value]] = field(default_factory=list)
    vectors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    failure: str = "no clip could be measured"


@dataclass(frozen=True)
class Measured:
    """Rows in the order of the systems, and clips that were left out with the reason."""

    rows: list[SystemRow]
    skipped: list[tuple[str, str]]
    num_clips: int
    seconds: float


def measure(
    clips: Sequence[EvaluationClip],
    systems: Sequence[System],
    cache: MeasurementCache,
    spaces: Sequence[str] = tuple(EMBEDDINGS),
    seams_s: Sequence[float] = (),
    quiet: bool = False,
) -> Measured:
    """Measure every system on every clip; what the cache knows is not computed again.

    Args:
        clips: what to listen to; a clip that is unreadable, silent or not mono or stereo is left
            out and listed.
        systems: the rows.
        cache: results so far.
        spaces: embedding spaces for the Fréchet distance, names of ``EMBEDDINGS``.
        seams_s: where windows of the reconstructions were joined, in seconds.
        quiet: no progress bar.
    """
    versions = tuple(sorted(package_versions().items()))
    collected = {system.name: _Collected() for system in systems}
    skipped: list[tuple[str, str]] = []
    seconds = 0.0
    for clip in tqdm(clips, unit="clip", disable=quiet):
        try:
            audio, sample_rate = _read(clip)
        except ValueError as reason:
            skipped.append((clip.name, str(reason)))
            continue
        seconds += audio.shape[-1] / sample_rate
        for system in systems:
            salt = (versions, DEFINITIONS, tuple(seams_s))
            _measure_one(audio, sample_rate, system, cache, salt, spaces, collected[system.name])
    rows = [summarize(system, collected[system.name], spaces) for system in systems]
    return Measured(rows, skipped, len(clips) - len(skipped), seconds)


def _read(clip: EvaluationClip) -> tuple[Tensor, int]:
    sound = clip.read()
    check_clip(sound.audio)
    if sound.audio.shape[0] > 2:
        raise UnmeasurableError(f"{sound.audio.shape[0]} channels, neither mono nor stereo")
    return sound.audio, sound.sample_rate


def _measure_one(
    audio: Tensor,
    sample_rate: int,
    system: System,
    cache: MeasurementCache,
    salt: tuple[Any, ...],
    spaces: Sequence[str],
    collected: _Collected,
) -> None:
    """Measure one system on one clip, or take the result from the cache."""
    clip_key = (audio_fingerprint(audio), sample_rate)
    key = make_key(*clip_key, system.identity, *salt)
    vector_keys = {space: make_key(key, space) for space in spaces}
    entry = cache.get(key)
    missing = entry is None or any(
        space not in entry["reasons"] and cache.get_vectors(vector_keys[space]) is None
        for space in spaces
    )
    if missing:
        try:
            heard = system.reconstruct(audio, sample_rate)
        except (MissingPackageError, UnmeasurableError) as error:
            collected.failure = str(error)
            return
        reasons = _embed(heard.audio, sample_rate, cache, vector_keys)
        entry = {
            "bitrate_kbps": heard.bitrate_kbps,
            "measurements": compare(audio, heard.audio, sample_rate, salt[-1]),
            "reasons": reasons,
        }
        cache.add(key, entry)
    assert entry is not None
    collected.measurements.append(entry["measurements"])
    if entry["bitrate_kbps"] is not None:
        collected.bitrates.append(entry["bitrate_kbps"])
    original_keys = {space: make_key(*clip_key, salt[:2], space) for space in spaces}
    unembedded = {
        space: original_keys[space]
        for space in spaces
        if space not in entry["reasons"] and cache.get_vectors(original_keys[space]) is None
    }
    _embed(audio, sample_rate, cache, unembedded)
    for space in spaces:
        original = cache.get_vectors(original_keys[space])
        estimate = cache.get_vectors(vector_keys[space])
        if original is not None and estimate is not None:
            collected.vectors.setdefault(space, []).append((original, estimate))
        else:
            collected.reasons[space] = entry["reasons"].get(space, "not embedded")


def _embed(
    audio: Tensor, sample_rate: int, cache: MeasurementCache, keys: dict[str, str]
) -> dict[str, str]:
    """Embed a clip in some spaces into the cache; returns the reasons of those that failed."""
    reasons = {}
    for space, key in keys.items():
        try:
            cache.add_vectors(key, EMBEDDINGS[space](audio, sample_rate))
        except (MissingPackageError, UnmeasurableError) as reason:
            reasons[space] = str(reason)
    return reasons


def summarize(system: System, collected: _Collected, spaces: Sequence[str]) -> SystemRow:
    """Average one system's results."""
    values: dict[str, Value] = {}
    counts: dict[str, int] = {}
    names = dict.fromkeys(name for entry in collected.measurements for name in entry)
    for name in names:
        found = [entry[name] for entry in collected.measurements]
        numbers = [value for value in found if not isinstance(value, str)]
        reasons = Counter(value for value in found if isinstance(value, str))
        counts[name] = len(numbers)
        values[name] = float(np.mean(numbers)) if numbers else reasons.most_common(1)[0][0]
    if not collected.measurements:
        values["visqol"] = collected.failure
    frechet, windows = _frechet_distances(collected, spaces)
    return SystemRow(
        name=system.name,
        group=system.group,
        bitrate_kbps=float(np.mean(collected.bitrates)) if collected.bitrates else None,
        num_clips=len(collected.measurements),
        values=values,
        counts=counts,
        frechet=frechet,
        windows=windows,
    )


def _frechet_distances(
    collected: _Collected, spaces: Sequence[str]
) -> tuple[dict[str, Value], dict[str, int]]:
    distances: dict[str, Value] = {}
    windows: dict[str, int] = {}
    for space in spaces:
        pairs = collected.vectors.get(space, [])
        windows[space] = sum(len(original) for original, _ in pairs)
        if windows[space] < 2:
            distances[space] = collected.reasons.get(space, collected.failure)
            continue
        original, estimate = (np.concatenate(side) for side in zip(*pairs, strict=True))
        distances[space] = frechet_distance(original, estimate)
    return distances, windows
