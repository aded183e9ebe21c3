"""Clips times systems: every pair measured once, remembered, and averaged into rows."""

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
from pipelines.evaluation.pair_metrics import Measurements, compare, package_versions
from pipelines.evaluation.reasons import UnmeasurableError
from pipelines.evaluation.systems import System

DEFINITIONS = 3  # raise when a metric's definition changes: it is part of every cache key


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
    values: Measurements
    counts: dict[str, int]
    frechet: Measurements
    windows: dict[str, int]


@dataclass(frozen=True)
class Measured:
    """Rows in the order of the systems, and clips that were left out with the reason."""

    rows: list[SystemRow]
    skipped: list[tuple[str, str]]
    num_clips: int
    seconds: float


@dataclass(frozen=True)
class _MeasuringRun:
    """Hold what every measurement of a run depends on beside clip and system."""

    cache: MeasurementCache
    spaces: tuple[str, ...]
    seams_s: tuple[float, ...]
    versions: tuple[Any, ...]


@dataclass
class _Collected:
    """One system's results, clip by clip."""

    bitrates: list[float] = field(default_factory=list)
    measurements: list[Measurements] = field(default_factory=list)
    vectors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    failure: str = "no clip could be measured"


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
        clips: a clip that is unreadable, silent or not mono or stereo is left out and listed.
        systems: the rows.
        cache: results so far.
        spaces: embedding spaces for the Fréchet distance, names of ``EMBEDDINGS``.
        seams_s: where windows of the reconstructions were joined, in seconds.
        quiet: no progress bar.
    """
    versions = (DEFINITIONS, *sorted(package_versions().items()))
    run = _MeasuringRun(cache, tuple(spaces), tuple(seams_s), versions)
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
            _measure_one(audio, sample_rate, system, run, collected[system.name])
    rows = [_summarize(system, collected[system.name], run.spaces) for system in systems]
    return Measured(rows, skipped, len(clips) - len(skipped), seconds)


def embed_clip(
    audio: Tensor, sample_rate: int, cache: MeasurementCache, keys: dict[str, str]
) -> dict[str, str]:
    """Embed a clip into the cache.

    Args:
        audio: (C, S) float32 in [-1, 1] at ``sample_rate`` Hz.
        sample_rate: Hz.
        cache: takes the vectors.
        keys: of the cache, by space.

    Returns:
        Reasons of the spaces in which the clip could not be embedded.
    """
    reasons = {}
    for space, key in keys.items():
        try:
            cache.add_vectors(key, EMBEDDINGS[space](audio, sample_rate))
        except (MissingPackageError, UnmeasurableError) as reason:
            reasons[space] = str(reason)
    return reasons


def missing_spaces(
    entry: dict[str, Any], cache: MeasurementCache, keys: dict[str, str]
) -> dict[str, str]:
    """List the spaces that have neither vectors nor a reason in the cache, with their keys."""
    return {
        space: key
        for space, key in keys.items()
        if space not in entry["reasons"] and cache.get_vectors(key) is None
    }


def _read(clip: EvaluationClip) -> tuple[Tensor, int]:
    sound = clip.read()
    check_clip(sound.audio)
    if sound.audio.shape[0] > 2:
        raise UnmeasurableError(f"{sound.audio.shape[0]} channels, neither mono nor stereo")
    return sound.audio, sound.sample_rate


def _measure_one(
    audio: Tensor, sample_rate: int, system: System, run: _MeasuringRun, collected: _Collected
) -> None:
    """Measure one system on one clip, or take the result from the cache."""
    cache, clip_key = run.cache, (audio_fingerprint(audio), sample_rate)
    key = make_key(*clip_key, system.identity, run.versions, run.seams_s)
    keys = {space: make_key(key, space) for space in run.spaces}
    entry = cache.get(key)
    if entry is None or missing_spaces(entry, cache, keys):
        try:
            result = system.reconstruct(audio, sample_rate)
        except (MissingPackageError, UnmeasurableError) as error:
            collected.failure = str(error)
            return
        reasons = embed_clip(result.audio, sample_rate, cache, keys)
        entry = {
            "bitrate_kbps": result.bitrate_kbps,
            "measurements": compare(audio, result.audio, sample_rate, run.seams_s),
            "reasons": reasons,
        }
        cache.add(key, entry)
    collected.measurements.append(entry["measurements"])
    if entry["bitrate_kbps"] is not None:
        collected.bitrates.append(entry["bitrate_kbps"])
    original_keys = {s: make_key(*clip_key, run.versions, s) for s in run.spaces}
    embed_clip(audio, sample_rate, cache, missing_spaces(entry, cache, original_keys))
    for space in run.spaces:
        original, estimate = (cache.get_vectors(side[space]) for side in (original_keys, keys))
        if original is not None and estimate is not None:
            collected.vectors.setdefault(space, []).append((original, estimate))
        else:
            collected.reasons[space] = entry["reasons"].get(space, "not embedded")


def _summarize(system: System, collected: _Collected, spaces: Sequence[str]) -> SystemRow:
    """Average one system's results."""
    values: Measurements = {}
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
    distances: Measurements = {}
    windows: dict[str, int] = {}
    for space in spaces:
        pairs = collected.vectors.get(space, [])
        windows[space] = sum(len(original) for original, _ in pairs)
        if windows[space] < 2:
            distances[space] = collected.reasons.get(space, collected.failure)
            continue
        original, estimate = (np.concatenate(side) for side in zip(*pairs, strict=True))
        distances[space] = frechet_distance(original, estimate)
    return SystemRow(
        name=system.name,
        group=system.group,
        bitrate_kbps=float(np.mean(collected.bitrates)) if collected.bitrates else None,
        num_clips=len(collected.measurements),
        values=values,
        counts=counts,
        frechet=distances,
        windows=windows,
    )
