"""Report on a pipeline: how much of what prompts ask for is in its music, and how that sounds."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.tokens import read_token_info
from pipelines.errors import MissingPackageError, check_names
from pipelines.evaluation.averages import mean_with_interval
from pipelines.evaluation.copying import measure_copying
from pipelines.evaluation.drift import NUM_PIECES, measure_drift
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.facts import fact_rates
from pipelines.evaluation.frechet import distance_of_clips
from pipelines.evaluation.measurement_cache import MeasurementCache
from pipelines.evaluation.pair_metrics import package_versions
from pipelines.evaluation.pipeline_page import page_blocks, plot_pipeline
from pipelines.evaluation.prompts import GROUPS, Prompt
from pipelines.evaluation.report_files import write_report_files
from pipelines.evaluation.takes import (
    Take,
    TakeMeasurer,
    TakeSettings,
    generate_takes,
    pipeline_fingerprint,
    render_ground_truth,
)


@dataclass(frozen=True)
class PipelineReportSettings:
    """Says where a report on a pipeline goes, and what it computes."""

    output: Path  # folder of the report and of the cache; made if it does not exist
    takes: TakeSettings
    spaces: tuple[str, ...] = tuple(EMBEDDINGS)  # of the Fréchet distance
    long_s: tuple[float, ...] = ()  # durations of the pieces that drift is measured on
    train_data: Sequence[str] = ()  # token caches to look for copies in
    quiet: bool = False  # no progress bars

    def __post_init__(self) -> None:
        check_names("spaces", self.spaces, EMBEDDINGS)


def report_pipeline(
    pipeline: Any,
    prompts: Sequence[Prompt],
    settings: PipelineReportSettings,
    name: str = "pipeline",
) -> dict[str, Any]:
    """Generate, measure, compare with ground truth and write ``pipeline.json``, ``.md``, ``.png``.

    Returns:
        The content of ``pipeline.json``.
    """
    for folder in settings.train_data:
        read_token_info(folder)  # refuse it before anything is generated
    measurer = TakeMeasurer(MeasurementCache(settings.output))
    quiet = settings.quiet
    takes = generate_takes(pipeline, prompts, settings.takes, measurer, quiet)
    truth: list[Take] = []
    no_truth = ""
    try:
        truth = render_ground_truth(prompts, settings.takes.duration_s, measurer, quiet)
    except MissingPackageError as reason:
        no_truth = str(reason)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Fréchet distance from")  # the page says so
        spaces = {space: compare_sets(takes, truth, space) for space in settings.spaces}
    content: dict[str, Any] = {
        "title": f"{name}: what was asked for and what was detected",
        "pipeline": {"name": name, "fingerprint": pipeline_fingerprint(pipeline)},
        "num_prompts": len(prompts),
        "settings": asdict(settings.takes),
        "no_ground_truth": no_truth,
        "facts": {
            label: fact_rates(takes, truth, chosen)
            for label, chosen in prompt_groups(prompts).items()
        },
        "sound": {"takes": summarize_sound(takes), "ground truth": summarize_sound(truth)},
        "spaces": spaces,
        "takes": [describe(take) for take in takes],
        "ground_truth": [describe(take) for take in truth],
        "versions": package_versions(),
    }
    if settings.train_data:
        codes = [take.codes for take in takes if take.codes is not None]
        content["copying"] = measure_copying(codes, pipeline.codec, settings.train_data)
    if settings.long_s:
        keyed = [prompt for prompt in prompts if prompt.wanted.key] or list(prompts)
        drift = measure_drift(pipeline, keyed[:NUM_PIECES], settings.long_s, measurer, quiet)
        content["drift"] = drift
    write_report_files(settings.output, "pipeline", content, page_blocks(content), plot_pipeline)
    return content


def prompt_groups(prompts: Sequence[Prompt]) -> dict[str, set[str] | None]:
    """Group the ids of prompts; None stands for all.

    The trained phrasings of the pieces that have held-out phrasings are a group too, because a
    piece that is hard is hard in both.
    """
    groups: dict[str, set[str] | None] = {"all": None}
    for group in GROUPS:
        if ids := {prompt.id for prompt in prompts if prompt.group == group}:
            groups[group] = ids
    pieces = {id.split("-")[-1] for id in groups.get("held-out") or ()}
    twins = {id for id in groups.get("trained") or () if id.split("-")[-1] in pieces}
    if twins:
        groups["trained, pieces of held-out"] = twins
    return groups


def summarize_sound(takes: Sequence[Take]) -> dict[str, Any]:
    """Compute mean, 95 % interval and number of takes of every measurement."""
    names = dict.fromkeys(name for take in takes for name in take.measurements)
    result: dict[str, Any] = {}
    for name in names:
        found = [take.measurements.get(name) for take in takes]
        numbers = [value for value in found if isinstance(value, float | int)]
        if numbers:
            result[name] = mean_with_interval(numbers) | {"takes": len(numbers)}
    result["silent_takes"] = sum(take.detected is None for take in takes)
    return result


def compare_sets(takes: Sequence[Take], truth: Sequence[Take], space: str) -> dict[str, Any]:
    """Compute Fréchet distances, to ground truth and within it, and diversity in one space."""
    firsts, true = (  # one take of every prompt, so that both sets hold the same prompts
        [take.vectors[space] for take in side if take.seed == 0] for side in (takes, truth)
    )
    distance, windows = distance_of_clips(true, firsts)
    within, half = distance_of_clips(true[1::2], true[::2])
    return {
        "frechet": distance,
        "windows": windows,
        "frechet_of_truth_halves": within,
        "windows_of_halves": half,
        "seed_diversity": seed_diversity(takes, space),
    }


def seed_diversity(takes: Sequence[Take], space: str) -> float | str:
    """Divide the distance between takes of one prompt by that between takes of different prompts.

    Distances are Euclidean, between the mean vectors of takes, each dimension scaled to a standard
    deviation of 1 over all takes. 0: every seed gives the same; 1: the prompt does not matter.
    """
    means: dict[str, list[np.ndarray]] = {}
    for take in takes:
        vectors = take.vectors[space]
        if not isinstance(vectors, str):
            means.setdefault(take.prompt.id, []).append(vectors.mean(0))
    if max((len(group) for group in means.values()), default=0) < 2:
        return "needs at least two seeds"
    if len(means) < 2:
        return "needs at least two prompts"
    spread = np.concatenate([np.stack(group) for group in means.values()]).std(0) + 1e-9
    scaled = [np.stack(group) / spread for group in means.values()]
    own = [np.linalg.norm(a - b) for group in scaled for a, b in combinations(group, 2)]
    firsts = [group[0] for group in scaled]
    others = [np.linalg.norm(a - b) for a, b in combinations(firsts, 2)]
    return float(np.mean(own) / max(float(np.mean(others)), 1e-9))


def describe(take: Take) -> dict[str, Any]:
    """Describe a take in the JSON."""
    detected: dict[str, Any] = {}
    if take.detected is not None:
        top = sorted(take.detected.probabilities.items(), key=lambda item: -item[1])[:4]
        detected = {
            "tempo_bpm": round(take.detected.tempo_bpm, 2),
            "key": take.detected.key,
            "drums": take.detected.drums,
            "instruments": {name: round(share, 3) for name, share in top},
        }
    prompt, wanted = take.prompt, vars(take.prompt.wanted)
    asked = {"id": prompt.id, "group": prompt.group, "text": prompt.text}
    asked |= {name: value for name, value in wanted.items() if value is not None}
    if prompt.wanted.key:
        asked["key"] = str(prompt.wanted.key)
    return {"asked": asked, "seed": take.seed, "detected": detected, "measured": take.measurements}
