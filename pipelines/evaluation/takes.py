"""Takes of a pipeline: every prompt with every seed, generated, measured once and remembered."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codec.seeds import derive_seed
from pipelines.data.scores.score_sound import SAMPLE_RATE
from pipelines.evaluation import artifacts
from pipelines.evaluation.detectors import Detected, load_detectors
from pipelines.evaluation.ground_truth import render_wanted
from pipelines.evaluation.loudness import integrated_loudness
from pipelines.evaluation.measurement_cache import MeasurementCache, make_key, module_fingerprint
from pipelines.evaluation.measuring import embed_clip, missing_spaces
from pipelines.evaluation.pair_metrics import Measurements, measure_all, package_versions
from pipelines.evaluation.prompts import Prompt
from pipelines.evaluation.reasons import UnmeasurableError
from pipelines.evaluation.second_opinion import MIN_MUSIC_S, SecondOpinion, get_second_opinion

DEFINITIONS = 2  # raise when something measured here changes its meaning


@dataclass(frozen=True)
class Take:
    """One clip with its measurements.

    Attributes:
        prompt: that it was made for.
        seed: of the take; 0 for ground truth.
        detected: None for a clip that is silent or too short for the detectors.
        second: what published detectors say.
        measurements: numbers by name, or the reason why there is none.
        vectors: (N, D) embeddings by space, or the reason.
        codes: (K, T) of a generated take, else None.
    """

    prompt: Prompt
    seed: int
    detected: Detected | None
    second: SecondOpinion
    measurements: Measurements
    vectors: dict[str, np.ndarray | str]
    codes: np.ndarray | None = None


@dataclass(frozen=True)
class TakeSettings:
    """Set how takes are generated.

    Attributes:
        seeds: takes of every prompt, with the seeds 0, 1, ...
        duration_s: of a take.
        batch_size: prompts at once.
        guidance, steps: None for the pipeline's own.
    """

    seeds: int = 3
    duration_s: float = 10.0
    batch_size: int = 8
    guidance: float | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("seeds", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.duration_s >= MIN_MUSIC_S:
            raise ValueError(f"duration_s must be at least {MIN_MUSIC_S:g}, got {self.duration_s}")


class TakeMeasurer:
    """Measures clips into a cache and reads them back.

    Args:
        cache: results so far.
        spaces: embedding spaces, names of ``EMBEDDINGS``.
    """

    def __init__(self, cache: MeasurementCache, spaces: Sequence[str]) -> None:
        self.cache = cache
        self.spaces = tuple(spaces)
        self.detectors = load_detectors()
        versions = tuple(sorted(package_versions().items()))
        self.versions = (DEFINITIONS, module_fingerprint(self.detectors), versions)

    def key(self, *parts: object) -> str:
        """Make the cache key of a clip that follows from some facts."""
        return make_key(*parts, *self.versions)

    def vector_keys(self, key: str) -> dict[str, str]:
        """Make the cache keys of a clip's embeddings."""
        return {space: make_key(key, space) for space in self.spaces}

    def knows(self, key: str) -> bool:
        """Say whether a clip, all its spaces included, was measured before."""
        entry = self.cache.get(key)
        return entry is not None and not missing_spaces(entry, self.cache, self.vector_keys(key))

    def measure(
        self, key: str, audio: Tensor, sample_rate: int, codes: Tensor | None = None
    ) -> None:
        """Measure a clip: (C, S) float32 audio, (K, T) codes of a generated one."""
        reasons = embed_clip(audio, sample_rate, self.cache, self.vector_keys(key))
        if codes is not None:
            self.cache.add_vectors(make_key(key, "codes"), codes.cpu().numpy().astype(np.int16))
        try:
            detected = asdict(self.detectors.detect(audio, sample_rate))
        except UnmeasurableError:
            detected = None
        entry = {
            "detected": detected,
            "second": asdict(get_second_opinion(audio, sample_rate)),
            "measurements": measure_sound(audio, sample_rate),
            "reasons": reasons,
        }
        self.cache.add(key, entry)

    def fail(self, key: str, reason: str) -> None:
        """Remember that there is no clip, and why."""
        reasons = dict.fromkeys(self.spaces, reason)
        missing = {"detected": None, "second": {}, "measurements": {"clip": reason}}
        self.cache.add(key, missing | {"reasons": reasons})

    def read(self, key: str, prompt: Prompt, seed: int) -> Take:
        """Read a measured take."""
        entry = self.cache.get(key)
        assert entry is not None
        vectors: dict[str, np.ndarray | str] = {}
        for space, vector_key in self.vector_keys(key).items():
            stored = self.cache.get_vectors(vector_key)
            vectors[space] = entry["reasons"].get(space, "") if stored is None else stored
        return Take(
            prompt=prompt,
            seed=seed,
            detected=Detected(**entry["detected"]) if entry["detected"] else None,
            second=SecondOpinion(**entry["second"]),
            measurements=entry["measurements"],
            vectors=vectors,
            codes=self.cache.get_vectors(make_key(key, "codes")),
        )


def measure_sound(audio: Tensor, sample_rate: int) -> Measurements:
    """Measure loudness and faults of a clip; a string says why there is no number."""
    return measure_all(
        {
            ("loudness_lufs",): lambda: integrated_loudness(audio, sample_rate),
            ("peak",): lambda: float(audio.abs().amax()),
            ("clipped_fraction",): lambda: artifacts.clipped_fraction(audio),
            ("dc_offset",): lambda: artifacts.dc_offset(audio),
            ("silent_fraction",): lambda: artifacts.silent_fraction(audio, sample_rate),
            ("longest_silence_s",): lambda: artifacts.longest_silence_s(audio, sample_rate),
            ("clicks_per_minute",): lambda: artifacts.clicks_per_minute(audio, sample_rate),
        }
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
    missing = [(p, seed) for p, seed in wanted if not measurer.knows(keys[p.id, seed])]
    pipeline.set_progress_bar_config(disable=True)
    with tqdm(total=len(missing), desc="takes", unit="take", disable=quiet) as bar:
        for first in range(0, len(missing), settings.batch_size):
            batch = missing[first : first + settings.batch_size]
            song = generate_batch(pipeline, batch, settings)
            for (prompt, seed), audio, codes in zip(batch, song.audio, song.codes, strict=True):
                measurer.measure(keys[prompt.id, seed], audio.cpu(), song.sample_rate, codes)
                bar.update()
    return [
        measurer.read(keys[prompt.id, seed], prompt, seed)
        for prompt in prompts
        for seed in range(settings.seeds)
    ]


def generate_batch(
    pipeline: Any, batch: Sequence[tuple[Prompt, int]], settings: TakeSettings
) -> Any:
    """Call the pipeline once for some prompts and seeds."""
    return pipeline(
        [prompt.text for prompt, _ in batch],
        settings.duration_s,
        [seed for _, seed in batch],
        guidance=settings.guidance,
        num_inference_steps=settings.steps,
    )


def render_ground_truth(
    prompts: Sequence[Prompt], duration_s: float, measurer: TakeMeasurer, quiet: bool = False
) -> list[Take]:
    """Render and measure a piece for every prompt; one that cannot be had says why."""
    takes = []
    for prompt in tqdm(prompts, desc="ground truth", unit="piece", disable=quiet):
        key = measurer.key("ground truth", repr(prompt.wanted), prompt.id, duration_s)
        if not measurer.knows(key):
            seed = derive_seed(0, "ground truth of", prompt.id)
            try:
                measurer.measure(key, render_wanted(prompt.wanted, seed, duration_s), SAMPLE_RATE)
            except UnmeasurableError as reason:
                measurer.fail(key, str(reason))
        takes.append(measurer.read(key, prompt, 0))
    return takes


def time_one_take(pipeline: Any, prompt: Prompt, settings: TakeSettings) -> float:
    """Time one take alone, after a short one to warm up: seconds per second of sound."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline(prompt.text, 1.0, 0, num_inference_steps=settings.steps)
    start = time.perf_counter()
    generate_batch(pipeline, [(prompt, 0)], settings)
    return (time.perf_counter() - start) / settings.duration_s


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
