"""Takes of a pipeline: every prompt with every seed, generated, measured once and remembered."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from codec.seeds import derive_seed
from pipelines.data.scores.score_sound import SAMPLE_RATE
from pipelines.errors import MissingPackageError
from pipelines.evaluation import artifacts, music
from pipelines.evaluation.comparison import package_versions
from pipelines.evaluation.detectors import Detectors, Heard, load_detectors
from pipelines.evaluation.embeddings import EMBEDDINGS
from pipelines.evaluation.facts import SecondOpinion
from pipelines.evaluation.ground_truth import render_wanted
from pipelines.evaluation.loudness import integrated_loudness
from pipelines.evaluation.measurement_cache import MeasurementCache, make_key, module_fingerprint
from pipelines.evaluation.music import Key, estimate_key, estimate_tempo
from pipelines.evaluation.prompts import Prompt
from pipelines.evaluation.reasons import UnmeasurableError

DEFINITIONS = 1  # raise when something measured here changes its meaning
Value = float | str


@dataclass(frozen=True)
class Take:
    """One clip with what was measured on it.

    Attributes:
        prompt: that it was made for.
        seed: of the take; 0 for ground truth.
        heard: None where the detectors could not listen.
        second: published detectors' opinion.
        measurements: numbers by name, or the reason why there is none.
        vectors: (N, D) embeddings by space, or the reason.
        codes: (K, T) of a generated take, else None.
    """

    prompt: Prompt
    seed: int
    heard: Heard | None
    second: SecondOpinion
    measurements: dict[str, Value]
    vectors: dict[str, np.ndarray | str]
    codes: np.ndarray | None = None


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
        self.salt = (DEFINITIONS, module_fingerprint(self.detectors), versions)

    def key(self, *parts: object) -> str:
        """The cache key of a clip that follows from some facts."""
        return make_key(*parts, *self.salt)

    def knows(self, key: str) -> bool:
        """Whether a clip, all its spaces included, was measured before."""
        entry = self.cache.get(key)
        return entry is not None and all(
            space in entry["reasons"] or self.cache.get_vectors(make_key(key, space)) is not None
            for space in self.spaces
        )

    def measure(
        self, key: str, audio: Tensor, sample_rate: int, codes: Tensor | None = None
    ) -> None:
        """Measure a clip: (C, S) float32 audio, (K, T) codes of a generated one."""
        reasons: dict[str, str] = {}
        for space in self.spaces:
            try:
                vectors = EMBEDDINGS[space](audio, sample_rate)
                self.cache.add_vectors(make_key(key, space), vectors)
            except (MissingPackageError, UnmeasurableError) as reason:
                reasons[space] = str(reason)
        if codes is not None:
            self.cache.add_vectors(make_key(key, "codes"), codes.cpu().numpy().astype(np.int16))
        entry = {
            "heard": listen(self.detectors, audio, sample_rate),
            "second": asdict(second_opinion(audio, sample_rate)),
            "measurements": measure_sound(audio, sample_rate),
            "reasons": reasons,
        }
        self.cache.add(key, entry)

    def fail(self, key: str, reason: str) -> None:
        """Remember that there is no clip, and why."""
        missing = {"heard": None, "second": {"tempo_bpm": None, "key": None}}
        reasons = dict.fromkeys(self.spaces, reason)
        self.cache.add(key, missing | {"measurements": {"clip": reason}, "reasons": reasons})

    def read(self, key: str, prompt: Prompt, seed: int) -> Take:
        """A measured take."""
        entry = self.cache.get(key)
        assert entry is not None
        vectors: dict[str, np.ndarray | str] = {}
        for space in self.spaces:
            stored = self.cache.get_vectors(make_key(key, space))
            vectors[space] = entry["reasons"].get(space, "") if stored is None else stored
        heard = entry["heard"]
        return Take(
            prompt=prompt,
            seed=seed,
            heard=Heard(**(heard | {"key": Key(*heard["key"])})) if heard else None,
            second=SecondOpinion(**entry["second"]),
            measurements=entry["measurements"],
            vectors=vectors,
            codes=self.cache.get_vectors(make_key(key, "codes")),
        )


def listen(detectors: Detectors, audio: Tensor, sample_rate: int) -> dict[str, Any] | None:
    """The detectors' answer as JSON, None for a clip that is silent or too short."""
    try:
        return asdict(detectors.hear(audio, sample_rate))
    except UnmeasurableError:
        return None


def second_opinion(audio: Tensor, sample_rate: int) -> SecondOpinion:
    """librosa's tempo and the Krumhansl-Kessler key, where they can be had."""
    try:
        tempo_bpm = estimate_tempo(audio, sample_rate)
        return SecondOpinion(tempo_bpm, str(estimate_key(audio, sample_rate)))
    except (MissingPackageError, UnmeasurableError):
        return SecondOpinion(None, None)


def measure_sound(audio: Tensor, sample_rate: int) -> dict[str, Value]:
    """Loudness and faults of a clip; a string says why there is no number."""
    measures: dict[str, Callable[[], float]] = {
        "loudness_lufs": lambda: integrated_loudness(audio, sample_rate),
        "peak": lambda: float(audio.abs().amax()),
        "clipped_fraction": lambda: artifacts.clipped_fraction(audio),
        "dc_offset": lambda: artifacts.dc_offset(audio),
        "silent_fraction": lambda: artifacts.silent_fraction(audio, sample_rate),
        "longest_silence_s": lambda: artifacts.longest_silence_s(audio, sample_rate),
        "clicks_per_minute": lambda: (
            len(artifacts.find_clicks(audio, sample_rate)) * 60 * sample_rate / audio.shape[-1]
        ),
    }
    measured: dict[str, Value] = {}
    for name, measure in measures.items():
        try:
            measured[name] = measure()
        except UnmeasurableError as reason:
            measured[name] = str(reason)
    return measured


@dataclass(frozen=True)
class Generation:
    """How takes are generated.

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
        if not self.duration_s >= music.MIN_MUSIC_S:
            raise ValueError(
                f"duration_s must be at least {music.MIN_MUSIC_S:g}, got {self.duration_s}"
            )


def generated_takes(
    pipeline: Any,
    prompts: Sequence[Prompt],
    generation: Generation,
    measurer: TakeMeasurer,
    quiet: bool = False,
) -> list[Take]:
    """Generate and measure what the cache does not know; return every prompt's every take.

    A take follows from its prompt, its seed and the pipeline, not from its batch.
    """
    identity = pipeline_fingerprint(pipeline)
    settings = (generation.duration_s, generation.guidance, generation.steps)
    keys = {
        (prompt.id, seed): measurer.key("generated", identity, prompt.text, seed, settings)
        for seed in range(generation.seeds)
        for prompt in prompts
    }
    missing = [
        (prompt, seed)
        for seed in range(generation.seeds)
        for prompt in prompts
        if not measurer.knows(keys[prompt.id, seed])
    ]
    pipeline.set_progress_bar_config(disable=True)
    with tqdm(total=len(missing), desc="takes", unit="take", disable=quiet) as bar:
        for batch in batches(missing, generation.batch_size):
            song = generate(pipeline, batch, generation)
            for (prompt, seed), audio, codes in zip(batch, song.audio, song.codes, strict=True):
                measurer.measure(keys[prompt.id, seed], audio.cpu(), song.sample_rate, codes)
                bar.update()
    return [
        measurer.read(keys[prompt.id, seed], prompt, seed)
        for prompt in prompts
        for seed in range(generation.seeds)
    ]


def generate(pipeline: Any, batch: Sequence[tuple[Prompt, int]], generation: Generation) -> Any:
    """One call of the pipeline for some prompts and seeds."""
    return pipeline(
        [prompt.text for prompt, _ in batch],
        generation.duration_s,
        [seed for _, seed in batch],
        guidance=generation.guidance,
        num_inference_steps=generation.steps,
    )


def batches(
    items: Sequence[tuple[Prompt, int]], size: int
) -> Iterator[Sequence[tuple[Prompt, int]]]:
    """Consecutive pieces of a list."""
    for first in range(0, len(items), size):
        yield items[first : first + size]


def ground_truth_takes(
    prompts: Sequence[Prompt], duration_s: float, measurer: TakeMeasurer, quiet: bool = False
) -> list[Take]:
    """A rendered piece for every prompt, measured alike; a piece that cannot be had says why."""
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


def time_one_take(pipeline: Any, prompt: Prompt, generation: Generation) -> float:
    """Seconds of computing per second of sound, one take alone, after a short one to warm up."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline(prompt.text, 1.0, 0, num_inference_steps=generation.steps)
    start = time.perf_counter()
    generate(pipeline, [(prompt, 0)], generation)
    return (time.perf_counter() - start) / generation.duration_s


def pipeline_fingerprint(pipeline: Any) -> str:
    """A hash of every part's weights and of the defaults of the call."""
    parts = ("text_encoder", "codec", "prior", "decoder", "planner")
    modules = [getattr(pipeline, name, None) for name in parts]
    prints = [
        module_fingerprint(module) if isinstance(module, torch.nn.Module) else ""
        for module in modules
    ]
    names = ("guidance", "temperature", "top_k")
    return make_key(*prints, *(str(pipeline.config[name]) for name in names))
