"""Time every part of a pipeline on this machine, and measure the memory that it takes.

The real-time factor is seconds of audio per second of work: above 1 is faster than it plays.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from codec.seeds import generator
from decoder.sampler import FlowSampler
from pipelines.benchmarks.machine import peak_memory, processor_name
from pipelines.benchmarks.turn_worker import own_config
from pipelines.benchmarks.turns import spread, take_turns
from pipelines.inference.music_generator import MusicGenerator
from prior.frame_generator import FrameGenerator
from prior.model import Prior
from prior.sampling import Sampling

PROMPT = "a slow sad piano piece in D minor, 70 bpm"


@dataclass(frozen=True)
class PartSpeed:
    """Prints one line of the table."""

    name: str
    seconds: float  # median of the runs
    fastest: float
    slowest: float
    real_time_factor: float  # by the median
    note: str  # what else there is to say, such as frames per second
    peak_memory: int  # of the process up to then (bytes)

    def __str__(self) -> str:
        seconds = f"{self.seconds:.3f} ({self.fastest:.3f}-{self.slowest:.3f})"
        memory = f"{self.peak_memory / 1e6:.0f} MB"
        text = f"{self.name:22}{seconds:>24}{self.real_time_factor:>10.1f}x{memory:>10}"
        return f"{text}  {self.note}".rstrip()


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Name what the figures depend on besides the pipeline."""
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "torch": torch.__version__,
    }


def measure_parts(pipeline: MusicGenerator, duration_s: float, repeats: int) -> Iterator[PartSpeed]:
    """Time every part, in the order in which audio becomes tokens and tokens become audio."""
    codec, prior = pipeline.codec, pipeline.prior
    shape = (1, codec.channels, round(duration_s * codec.sample_rate))
    audio = random_tensor(shape, "audio").mul(0.1).to(codec.device)
    codes = codec.encode(audio)
    frames = codes.shape[-1]
    written = codes[:, : prior.num_codebooks]

    def time_it(name: str, work: Callable[[], object]) -> PartSpeed:
        return measure(name, work, repeats, duration_s, codec.device)

    yield time_it("encode", lambda: codec.encode(audio))
    yield time_it("decode, preview", lambda: pipeline.decode(written, preview=True))
    for backbone in ("transformer", "lstm"):
        model = with_backbone(prior, backbone)
        row = time_it(f"prior, {backbone}", lambda m=model: generate_frames(pipeline, m, frames))  # type: ignore[misc]
        origin = "" if model is prior else ", random weights"
        yield replace(row, note=f"{frames / row.seconds:.0f} frames/s{origin}")
    if pipeline.decoder is not None:
        sampler = FlowSampler(codec, pipeline.decoder, pipeline.scheduler)
        yield from measure_decoder(sampler, written, time_it)
    yield time_it("prompt to audio", lambda: pipeline(PROMPT, duration_s, 0))


def measure_decoder(
    sampler: FlowSampler, codes: Tensor, time_it: Callable[..., PartSpeed]
) -> Iterator[PartSpeed]:
    """Time the decoder's spectrogram in one step and in its default number, and the vocoder."""
    for steps in sorted({1, sampler.decoder.config.default_steps}):
        row = time_it(
            f"decoder, {steps} step{'s' if steps > 1 else ''}",
            lambda n=steps: sampler.decode_spectrogram(codes, [0], n),
        )
        yield replace(row, note=f"{1000 * row.seconds / steps:.0f} ms per step")
    spectrogram = sampler.decode_spectrogram(codes, [0], 1)
    yield time_it("vocoder", lambda: sampler.vocoder(spectrogram))


def measure(
    name: str,
    work: Callable[[], object],
    repeats: int,
    duration_s: float,
    device: torch.device | str = "cpu",
) -> PartSpeed:
    """Time ``work``, ``repeats`` times after one call that is not counted."""
    device = torch.device(device)

    def finished() -> None:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    ((walls, _),) = take_turns([finished], repeats)
    found = spread(walls)
    speed = duration_s / found.median
    return PartSpeed(name, found.median, found.smallest, found.largest, speed, "", peak_memory())


def random_tensor(shape: tuple[int, ...], name: str) -> Tensor:
    """Draw normal numbers, the same in every run; no part's speed depends on what it reads."""
    return torch.randn(shape, generator=generator(0, "bench", name))


def with_backbone(prior: Prior, backbone: str) -> Prior:
    """Return the prior itself, or one of random weights that differs in the backbone alone."""
    if prior.config.backbone == backbone:
        return prior
    return type(prior)(**(own_config(prior) | {"backbone": backbone})).eval().to(prior.device)


def generate_frames(pipeline: MusicGenerator, prior: Prior, num_frames: int) -> None:
    """Generate frames with the pipeline's default guidance."""
    defaults = pipeline.config
    sampling = Sampling(defaults.temperature, defaults.top_k, guidance=defaults.guidance)
    text = pipeline.conditioner.encode([PROMPT])
    for _ in FrameGenerator(prior, text, None, num_frames, sampling, [0]):
        pass
