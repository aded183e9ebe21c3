"""Measure every system on every clip once, remember it, and average it into rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from pipelines.errors import MissingPackageError, check_names
from pipelines.evaluation.averages import average
from pipelines.evaluation.clip_checks import UnmeasurableError, check_clip
from pipelines.evaluation.clips import ClipChoice, EvaluationClip
from pipelines.evaluation.embeddings import EMBEDDINGS, embed_clip
from pipelines.evaluation.frechet import distance_of_clips
from pipelines.evaluation.measurement_cache import MeasurementCache, audio_fingerprint, make_key
from pipelines.evaluation.pair_metrics import compare, package_versions
from pipelines.evaluation.systems import System

DEFINITIONS = 4  # raise when a metric's definition changes: it is part of every cache key


@dataclass(frozen=True)
class ReportSettings:
    """Says where the reports on codecs and decoders go, and what they compute."""

    output: Path  # folder of the report and of the cache; made if it does not exist
    spaces: tuple[str, ...] = tuple(EMBEDDINGS)  # of the Fréchet distance
    quiet: bool = False  # no progress bar

    def __post_init__(self) -> None:
        check_names("spaces", self.spaces, EMBEDDINGS)


def measure(
    choice: ClipChoice,
    systems: Sequence[System],
    settings: ReportSettings,
    seams_s: Sequence[float] = (),
) -> dict[str, Any]:
    """Measure every system on every clip; what the cache knows is not computed again.

    A clip that is unreadable, silent or not mono or stereo is left out and listed. ``seams_s`` says
    where windows of the reconstructions were joined, in seconds.

    Returns:
        ``rows`` (:func:`summarize`), ``clips`` by name, ``skipped`` ones with the reason,
        ``num_clips`` and ``seconds`` measured, and ``versions`` of packages.
    """
    cache, versions = MeasurementCache(settings.output), package_versions()
    pairs: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {s.name: [] for s in systems}
    failures: dict[str, str] = {}
    skipped, seconds = [list(pair) for pair in choice.skipped], 0.0
    for clip in tqdm(choice.clips, unit="clip", disable=settings.quiet):
        try:
            audio, sample_rate = read_clip(clip)
        except ValueError as reason:
            skipped.append([clip.name, str(reason)])
            continue
        seconds += audio.shape[-1] / sample_rate
        clip_key = (audio_fingerprint(audio), sample_rate, DEFINITIONS, sorted(versions.items()))
        original = cache.recall(make_key(clip_key), embed_clip, audio, sample_rate)
        for system in systems:
            key = make_key(clip_key, system.identity, tuple(seams_s))
            try:
                found = cache.recall(key, measure_one, audio, sample_rate, system, seams_s)
                pairs[system.name].append((original, found))
            except (MissingPackageError, UnmeasurableError) as reason:
                failures[system.name] = str(reason)
    return {
        "rows": [
            summarize(system, pairs[system.name], settings.spaces, failures.get(system.name, ""))
            for system in systems
        ],
        "clips": [clip.name for clip in choice.clips],
        "skipped": skipped,
        "num_clips": len(choice.clips) + len(choice.skipped) - len(skipped),
        "seconds": round(seconds, 2),
        "versions": versions,
    }


def read_clip(clip: EvaluationClip) -> tuple[Tensor, int]:
    """Read and check a clip: (C, S) audio, C 1 or 2, and its sample rate."""
    sound = clip.read()
    check_clip(sound.audio)
    if sound.audio.shape[0] > 2:
        raise UnmeasurableError(f"{sound.audio.shape[0]} channels, neither mono nor stereo")
    return sound.audio, sound.sample_rate


def measure_one(
    audio: Tensor, sample_rate: int, system: System, seams_s: Sequence[float]
) -> dict[str, Any]:
    """Reconstruct a clip and measure it: ``bitrate_kbps``, ``measurements``, vectors by space."""
    found, bitrate_kbps = system.reconstruct(audio, sample_rate)
    measurements = compare(audio, found, sample_rate, seams_s)
    entry = {"bitrate_kbps": bitrate_kbps, "measurements": measurements}
    return entry | embed_clip(found, sample_rate)


def summarize(
    system: System,
    pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]],
    spaces: Sequence[str],
    failure: str,
) -> dict[str, Any]:
    """Average one system's results to a row.

    Pairs are the vectors of an original, and what :func:`measure_one` found of its reconstruction.

    Returns:
        The row: ``values`` is the mean of each metric over the clips that have it, ``counts`` how
        many those are, ``frechet`` the distance to the originals by space and ``windows`` its N; a
        string says why there is no number.
    """
    values, counts = average([found["measurements"] for _, found in pairs])
    failure = failure or "no clip could be measured"
    if not pairs:
        values["visqol"] = failure
    rates = [found["bitrate_kbps"] for _, found in pairs if found["bitrate_kbps"] is not None]
    distances: dict[str, tuple[float | str, int]] = dict.fromkeys(spaces, (failure, 0))
    for space in spaces if pairs else ():
        sides = [(original[space], found[space]) for original, found in pairs]
        both = [side for side in sides if not any(isinstance(vectors, str) for vectors in side)]
        distances[space] = distance_of_clips(*zip(*(both or sides[:1]), strict=True))
    return {
        "name": system.name,
        "group": system.group,
        "bitrate_kbps": float(np.mean(rates)) if rates else None,
        "num_clips": len(pairs),
        "values": values,
        "counts": counts,
        "frechet": {space: distance for space, (distance, _) in distances.items()},
        "windows": {space: count for space, (_, count) in distances.items()},
    }
