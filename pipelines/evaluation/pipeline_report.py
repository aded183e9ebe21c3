"""``partita evaluate pipeline``: is what was asked for heard, and how does it sound?"""

import argparse
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.data.tokens import read_token_info
from pipelines.errors import MissingPackageError
from pipelines.evaluation.copying import measure_copying
from pipelines.evaluation.drift import LONG_S, NUM_PIECES, measure_drift
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.fact_rates import bootstrap_interval, fact_rates
from pipelines.evaluation.measurement_cache import MeasurementCache
from pipelines.evaluation.pair_metrics import package_versions
from pipelines.evaluation.pipeline_page import write_pipeline_page
from pipelines.evaluation.prompts import (
    GROUPS,
    PROMPTS_PATH,
    Prompt,
    choose_prompts,
    read_prompts,
)
from pipelines.evaluation.sets import frechet_between, frechet_within, seed_diversity
from pipelines.evaluation.takes import (
    Take,
    TakeMeasurer,
    TakeSettings,
    generated_takes,
    ground_truth_takes,
    pipeline_fingerprint,
    time_one_take,
)
from pipelines.inference.loading import add_pipeline_arguments, load_pipeline


@dataclass(frozen=True)
class PipelineSettings:
    """What a report on a pipeline needs beside it.

    Attributes:
        output: folder of the report and of the cache; made if it does not exist.
        generation: how takes are generated.
        spaces: embedding spaces, names of ``EMBEDDINGS``.
        long_s: durations of the pieces that drift is measured on; none by default.
        train_data: token caches to look for copies in; may be empty.
        quiet: no progress bars.
    """

    output: Path
    generation: TakeSettings
    spaces: tuple[str, ...] = tuple(EMBEDDINGS)
    long_s: tuple[float, ...] = ()
    train_data: Sequence[str] = ()
    quiet: bool = False

    def __post_init__(self) -> None:
        for space in self.spaces:
            if space not in EMBEDDINGS:
                raise ValueError(f"spaces must be among {list(EMBEDDINGS)}, got {space!r}")


def report_pipeline(
    pipeline: Any, prompts: Sequence[Prompt], settings: PipelineSettings, name: str = "pipeline"
) -> dict[str, Any]:
    """Generate, measure, compare with ground truth and write ``pipeline.json``, ``.md``, ``.png``.

    Args:
        pipeline: a ``Pipeline``.
        prompts: from ``choose_prompts``.
        settings: see :class:`PipelineSettings`.
        name: of the pipeline in the report.

    Returns:
        What was written to ``pipeline.json``.
    """
    for folder in settings.train_data:
        read_token_info(folder)  # refuse it before anything is generated
    measurer = TakeMeasurer(MeasurementCache(settings.output), settings.spaces)
    generation, quiet = settings.generation, settings.quiet
    takes = generated_takes(pipeline, prompts, generation, measurer, quiet)
    truth: list[Take] = []
    no_truth = ""
    try:
        truth = ground_truth_takes(prompts, generation.duration_s, measurer, quiet)
    except MissingPackageError as reason:
        no_truth = str(reason)
    content: dict[str, Any] = {
        "title": f"{name}: what was asked for and what is heard",
        "pipeline": {"name": name, "fingerprint": pipeline_fingerprint(pipeline)},
        "num_prompts": len(prompts),
        "settings": asdict(generation),
        "no_ground_truth": no_truth,
        "facts": {
            label: {fact: asdict(row) for fact, row in fact_rates(takes, truth, chosen).items()}
            for label, chosen in prompt_groups(prompts).items()
        },
        "sound": {"takes": sound_of(takes), "ground truth": sound_of(truth)},
        "spaces": {space: space_of(takes, truth, space) for space in settings.spaces},
        "seconds_per_second": time_one_take(pipeline, prompts[0], generation),
        "takes": [describe(take) for take in takes],
        "ground_truth": [describe(take) for take in truth],
        "versions": package_versions(),
    }
    if settings.train_data:
        codes = [take.codes for take in takes if take.codes is not None]
        content["copying"] = measure_copying(codes, pipeline.codec, settings.train_data)
    if settings.long_s:
        long = long_prompts(prompts)
        content["drift"] = measure_drift(pipeline, long, settings.long_s, measurer, quiet)
    write_pipeline_page(settings.output, content)
    return content


def prompt_groups(prompts: Sequence[Prompt]) -> dict[str, set[str] | None]:
    """Ids by group; None for all.

    Held-out phrasings stand beside the trained ones of the same pieces too: what is hard about a
    piece is then hard in both columns.
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


def sound_of(takes: Sequence[Take]) -> dict[str, Any]:
    """Mean, 95 % interval and number of takes of every measurement."""
    names = dict.fromkeys(name for take in takes for name in take.measurements)
    result: dict[str, Any] = {}
    for name in names:
        found = [take.measurements[name] for take in takes if name in take.measurements]
        numbers = np.array([value for value in found if not isinstance(value, str)])
        if len(numbers):
            low, high = bootstrap_interval(numbers)
            mean = float(numbers.mean())
            result[name] = {"mean": mean, "low": low, "high": high, "takes": len(numbers)}
    result["unheard_takes"] = sum(take.heard is None for take in takes)
    return result


def space_of(takes: Sequence[Take], truth: Sequence[Take], space: str) -> dict[str, Any]:
    """Fréchet distance to ground truth, what equal sets read, and diversity in one space."""
    distance, windows = frechet_between(takes, truth, space)
    within, half = frechet_within(truth, space)
    return {
        "frechet": distance,
        "windows": windows,
        "frechet_of_truth_halves": within,
        "windows_of_halves": half,
        "seed_diversity": seed_diversity(takes, space),
    }


def long_prompts(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompts that ask for a key, or else the first ones."""
    keyed = [prompt for prompt in prompts if prompt.key]
    return (keyed or list(prompts))[:NUM_PIECES]


def describe(take: Take) -> dict[str, Any]:
    """A take's line in the JSON."""
    heard: dict[str, Any] = {}
    if take.heard is not None:
        top = sorted(take.heard.probabilities.items(), key=lambda item: -item[1])[:4]
        heard = {
            "tempo_bpm": round(take.heard.tempo_bpm, 2),
            "key": str(take.heard.key),
            "drums": take.heard.drums,
            "instruments": {name: round(share, 3) for name, share in top},
        }
    asked = {key: value for key, value in asdict(take.prompt).items() if value is not None}
    return {"asked": asked, "seed": take.seed, "heard": heard, "measured": take.measurements}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita evaluate pipeline``."""
    add_pipeline_arguments(parser)
    parser.add_argument("--output", required=True, type=Path, help="folder of the report")
    parser.add_argument(
        "--prompts", type=Path, default=PROMPTS_PATH, help="list of prompts (default: ours)"
    )
    parser.add_argument(
        "--groups", nargs="+", choices=GROUPS, default=list(GROUPS), help="of prompts"
    )
    parser.add_argument("--limit", type=int, help="prompts, evenly spaced (default: all)")
    parser.add_argument("--seeds", type=int, default=3, help="takes of a prompt (default: 3)")
    parser.add_argument("--duration", type=float, default=10.0, help="of a take, s (default: 10)")
    parser.add_argument("--batch-size", type=int, default=8, help="takes at once (default: 8)")
    parser.add_argument("--guidance", type=float, help="default: the pipeline's")
    parser.add_argument("--steps", type=int, help="of the decoder (default: the pipeline's)")
    parser.add_argument(
        "--spaces",
        nargs="*",
        choices=list(EMBEDDINGS),
        default=list(EMBEDDINGS),
        help="embedding spaces (default: all)",
    )
    parser.add_argument(
        "--long",
        action="store_true",
        help=f"drift over pieces of {LONG_S[0]:g} and {LONG_S[1]:g} s",
    )
    parser.add_argument(
        "--train-data", nargs="+", default=[], help="token caches to look for copies in"
    )


def run(args: argparse.Namespace) -> int:
    """Run ``partita evaluate pipeline`` and print the page."""
    if not args.prompts.is_file():
        raise FileNotFoundError(f"{args.prompts} does not exist")
    prompts = choose_prompts(read_prompts(args.prompts), args.groups, args.limit)
    settings = PipelineSettings(
        args.output,
        TakeSettings(args.seeds, args.duration, args.batch_size, args.guidance, args.steps),
        tuple(args.spaces),
        LONG_S if args.long else (),
        args.train_data,
        args.quiet,
    )
    pipeline = load_pipeline(args.pipeline, args.quiet)
    warnings.filterwarnings("ignore", message="Fréchet distance from")  # the page says so itself
    report_pipeline(pipeline, prompts, settings, Path(args.pipeline).resolve().name)
    print((args.output / "pipeline.md").read_text())
    return 0
