"""Takes of a pipeline: every prompt with every seed, generated, measured once and remembered."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codec.seeds import derive_seed
from pipelines.data.scores.score_sound import SAMPLE_RATE
from pipelines.errors import check_fields
from pipelines.evaluation.averages import Measurements
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.detectors import Detected, load_detectors
from pipelines.evaluation.embeddings import EMBEDDINGS, embed_clip
from pipelines.evaluation.frechet import Vectors
from pipelines.evaluation.ground_truth import compose_wanted, render_score
from pipelines.evaluation.measurement_cache import MeasurementCache, make_key, module_fingerprint
from pipelines.evaluation.pair_metrics import measure_sound, package_versions
from pipelines.evaluation.prompts import Prompt
from pipelines.evaluation.second_opinion import MIN_MUSIC_S, SecondOpinion, get_second_opinion

DEFINITIONS = 3  # raise when something measured here changes its meaning


@dataclass(frozen=True)
class Take:
    """Holds one clip's measurements."""

    prompt: Prompt  # that it was made for
    seed: int  # 0 for ground truth
    detected: Detected | None  # None: silent, or too short for the detectors
    second: SecondOpinion
    measurements: Measurements  # of loudness and faults
    vectors: dict[str, Vectors]  # by embedding space
    codes: np.ndarray | None = None  # (K, T) of a generated take


@dataclass(frozen=True)
class TakeSettings:
    """Sets how takes are generated."""

    seeds: int = 3  # takes of every prompt, with the seeds 0, 1, ...
    duration_s: float = 10.0
    batch_size: int = 8  # takes at once
    guidance: float | None = None  # None for the pipeline's own
    steps: int | None = None

    def __post_init__(self) -> None:
        check_fields(self, "seeds batch_size", lambda count: count >= 1, "be at least 1")
        least = f"be at least {MIN_MUSIC_S:g}"
        check_fields(self, "duration_s", lambda seconds: seconds >= MIN_MUSIC_S, least)


class TakeMeasurer:
    """Measures clips into a cache."""

    def __init__(self, cache: MeasurementCache) -> None:
        self.cache = cache
        self.detectors = load_detectors()
        versions = tuple(sorted(package_versions().items()))
        self.versions = (DEFINITIONS, module_fingerprint(self.detectors), versions)

    def key(self, *parts: object) -> str:
        """Make the cache key of a clip that follows from some facts."""
        return make_key(*parts, *self.versions)

    def measure(self, audio: Tensor, sample_rate: int, codes: Tensor | None) -> dict[str, Any]:
        """Measure (C, S) audio; the (K, T) codes of a generated clip are kept beside it."""
        try:
            detected = asdict(self.detectors.detect(audio, sample_rate))
        except UnmeasurableError:
            detected = None
        return {
            "detected": detected,
            "second": asdict(get_second_opinion(audio, sample_rate)),
            "measurements": measure_sound(audio, sample_rate),
            "codes": None if codes is None else codes.cpu().numpy().astype(np.int16),
            **embed_clip(audio, sample_rate),
        }

    def measure_truth(self, prompt: Prompt, duration_s: float) -> dict[str, Any]:
        """Render and measure a piece with the facts of a prompt, or note why there is none."""
        seed = derive_seed(0, "ground truth of", prompt.id)
        try:
            audio = render_score(compose_wanted(prompt.wanted, seed), duration_s)
        except UnmeasurableError as reason:
            missing = {"detected": None, "second": {}, "measurements": {"clip": str(reason)}}
            return {**missing, "codes": None, **dict.fromkeys(EMBEDDINGS, str(reason))}
        return self.measure(audio, SAMPLE_RATE, None)


def make_take(prompt: Prompt, seed: int, entry: dict[str, Any]) -> Take:
    """Read what :class:`TakeMeasurer` wrote."""
    return Take(
        prompt=prompt,
        seed=seed,
        detected=Detected(**entry["detected"]) if entry["detected"] else None,
        second=SecondOpinion(**entry["second"]),
        measurements=entry["measurements"],
        vectors={space: entry[space] for space in EMBEDDINGS},
        codes=entry["codes"],
    )


def generate_takes(
    pipeline: Any,
    prompts: Sequence[Prompt],
    settings: TakeSettings,
    measurer: TakeMeasurer,
    quiet: bool = False,
) -> list[Take]:
    """Generate and measure what the cache does not know; return every take of every prompt.

    A take follows from its prompt, its seed and the pipeline, not from its batch.
    """
    identity = pipeline_fingerprint(pipeline)
    how = (settings.duration_s, settings.guidance, settings.steps)
    wanted = [(prompt, seed) for seed in range(settings.seeds) for prompt in prompts]
    keys = {
        (prompt.id, seed): measurer.key("generated", identity, prompt.text, seed, how)
        for prompt, seed in wanted
    }
    found = {pair: measurer.cache.get(key) for pair, key in keys.items()}
    missing = [(prompt, seed) for prompt, seed in wanted if found[prompt.id, seed] is None]
    pipeline.set_progress_bar_config(disable=True)
    with tqdm(total=len(missing), desc="takes", unit="take", disable=quiet) as bar:
        for first in range(0, len(missing), settings.batch_size):
            batch = missing[first : first + settings.batch_size]
            song = pipeline(
                [prompt.text for prompt, _ in batch],
                settings.duration_s,
                [seed for _, seed in batch],
                guidance=settings.guidance,
                num_inference_steps=settings.steps,
                ending="cut",
            )
            for (prompt, seed), audio, codes in zip(batch, song.audio, song.codes, strict=True):
                entry = measurer.measure(audio.cpu(), song.sample_rate, codes)
                found[prompt.id, seed] = measurer.cache.add(keys[prompt.id, seed], entry)
                bar.update()
    return [
        make_take(prompt, seed, found[prompt.id, seed] or {})
        for prompt in prompts
        for seed in range(settings.seeds)
    ]


def render_ground_truth(
    prompts: Sequence[Prompt], duration_s: float, measurer: TakeMeasurer, quiet: bool = False
) -> list[Take]:
    """Render and measure a piece for every prompt; one that cannot be had says why."""
    takes = []
    for prompt in tqdm(prompts, desc="ground truth", unit="piece", disable=quiet):
        key = measurer.key("ground truth", prompt.wanted, prompt.id, duration_s)
        entry = measurer.cache.recall(key, measurer.measure_truth, prompt, duration_s)
        takes.append(make_take(prompt, 0, entry))
    return takes


def pipeline_fingerprint(pipeline: Any) -> str:
    """Hash every part's weights and the defaults of the call."""
    parts = ("text_encoder", "codec", "prior", "decoder", "planner")
    modules = [getattr(pipeline, name, None) for name in parts]
    prints = [
        module_fingerprint(module) if isinstance(module, torch.nn.Module) else ""
        for module in modules
    ]
    names = ("guidance", "temperature", "top_k")
    return make_key(*prints, *(str(pipeline.config[name]) for name in names))
