"""A pipeline's report: how much of what prompts ask for is in its music, and how that sounds."""

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.tokens import read_token_info
from pipelines.errors import MissingPackageError
from pipelines.evaluation.copying import measure_copying
from pipelines.evaluation.drift import NUM_PIECES, measure_drift
from pipelines.evaluation.embeddings import EMBEDDINGS, choose_spaces
from pipelines.evaluation.fact_rates import bootstrap_interval, fact_rates
from pipelines.evaluation.measurement_cache import MeasurementCache
from pipelines.evaluation.pair_metrics import package_versions
from pipelines.evaluation.pipeline_page import write_pipeline_page
from pipelines.evaluation.prompts import GROUPS, Prompt
from pipelines.evaluation.sets import frechet_between, frechet_within, seed_diversity
from pipelines.evaluation.takes import (
    Take,
    TakeMeasurer,
    TakeSettings,
    generate_takes,
    pipeline_fingerprint,
    render_ground_truth,
    time_one_take,
)


@dataclass(frozen=True)
class PipelineReportSettings:
    """Settings of a report on a pipeline.

    Attributes:
        output: folder of the report and of the cache; made if it does not exist.
        takes: how takes are generated.
        spaces: embedding spaces, names of ``EMBEDDINGS``.
        long_s: durations of the pieces that drift is measured on; none by default.
        train_data: token caches to look for copies in; may be empty.
        quiet: no progress bars.
    """

    output: Path
    takes: TakeSettings
    spaces: tuple[str, ...] = tuple(EMBEDDINGS)
    long_s: tuple[float, ...] = ()
    train_data: Sequence[str] = ()
    quiet: bool = False

    def __post_init__(self) -> None:
        choose_spaces(self.spaces)


def report_pipeline(
    pipeline: Any,
    prompts: Sequence[Prompt],
    settings: PipelineReportSettings,
    name: str = "pipeline",
) -> dict[str, Any]:
    """Generate, measure, compare with ground truth and write ``pipeline.json``, ``.md``, ``.png``.

    Args:
        pipeline: a ``Pipeline``.
        prompts: from ``choose_prompts``.
        settings: see :class:`PipelineReportSettings`.
        name: of the pipeline in the report.

    Returns:
        The content of ``pipeline.json``.
    """
    for folder in settings.train_data:
        read_token_info(folder)  # refuse it before anything is generated
    measurer = TakeMeasurer(MeasurementCache(settings.output), settings.spaces)
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
            label: {fact: asdict(row) for fact, row in fact_rates(takes, truth, chosen).items()}
            for label, chosen in prompt_groups(prompts).items()
        },
        "sound": {"takes": summarize_sound(takes), "ground truth": summarize_sound(truth)},
        "spaces": spaces,
        "seconds_per_second": time_one_take(pipeline, prompts[0], settings.takes),
        "takes": [describe(take) for take in takes],
        "ground_truth": [describe(take) for take in truth],
        "versions": package_versions(),
    }
    if settings.train_data:
        codes = [take.codes for take in takes if take.codes is not None]
        content["copying"] = measure_copying(codes, pipeline.codec, settings.train_data)
    if settings.long_s:
        keyed = [prompt for prompt in prompts if prompt.key] or list(prompts)
        drift = measure_drift(pipeline, keyed[:NUM_PIECES], settings.long_s, measurer, quiet)
        content["drift"] = drift
    write_pipeline_page(settings.output, content)
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
        numbers = np.array([value for value in found if isinstance(value, float | int)])
        if len(numbers):
            low, high = bootstrap_interval(numbers)
            mean = float(numbers.mean())
            result[name] = {"mean": mean, "low": low, "high": high, "takes": len(numbers)}
    result["silent_takes"] = sum(take.detected is None for take in takes)
    return result


def compare_sets(takes: Sequence[Take], truth: Sequence[Take], space: str) -> dict[str, Any]:
    """Compute Fréchet distances, to ground truth and within it, and diversity in one space."""
    distance, windows = frechet_between(takes, truth, space)
    within, half = frechet_within(truth, space)
    return {
        "frechet": distance,
        "windows": windows,
        "frechet_of_truth_halves": within,
        "windows_of_halves": half,
        "seed_diversity": seed_diversity(takes, space),
    }


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
    asked = {key: value for key, value in asdict(take.prompt).items() if value is not None}
    return {"asked": asked, "seed": take.seed, "detected": detected, "measured": take.measurements}
