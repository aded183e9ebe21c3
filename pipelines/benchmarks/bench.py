"""``partita bench``: how fast every part runs on this machine, and how much memory it takes.

Real-time factor is seconds of audio per second of work: above 1 is faster than it plays. Every row
is the median of several runs after one that does not count. With ``--peers`` a part takes turns
with models of other projects instead.
"""

import argparse
import json
import math
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.inference.loading import (
    add_pipeline_arguments,
    add_speed_arguments,
    load_pipeline,
)

if TYPE_CHECKING:
    from torch import Tensor

    from decoder.sampler import FlowSampler
    from pipelines.benchmarks.contest import Result, Spread
    from pipelines.pipeline import Pipeline
    from prior.model import Prior

PROMPT = "a slow sad piano piece in D minor, 70 bpm"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: what ran.
        seconds: median of the runs.
        fastest: of them (s).
        slowest: of them (s).
        real_time_factor: seconds of audio per second, by the median.
        note: what else there is to say, such as frames per second.
        peak_memory: of the process up to then (bytes).
    """

    name: str
    seconds: float
    fastest: float
    slowest: float
    real_time_factor: float
    note: str
    peak_memory: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line of ``partita bench``."""
    parser.add_argument("--duration", type=float, default=10.0, help="of the audio, s (default 10)")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs per row (default: 5)")
    parser.add_argument(
        "--threads", type=int, help="of PyTorch (default: its own choice; with --peers one and two)"
    )
    parser.add_argument(
        "--peers", action="store_true", help="beside models of other projects of the same size"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    add_speed_arguments(parser)
    add_pipeline_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.repeats < 1:
        raise ValueError(f"--repeats must be at least 1, got {args.repeats}")
    if not 0.1 <= args.duration < math.inf:
        raise ValueError(f"--duration must be at least 0.1 s, got {args.duration}")
    from codec.process_settings import cpu_threads

    with cpu_threads(args.threads):
        return run_benchmark(args)


def run_benchmark(args: argparse.Namespace) -> int:
    """Measure and print, on the threads that are set."""
    pipeline = load_pipeline(args.pipeline, args.quiet or args.json, args.quantize, args.compile)
    pipeline.set_progress_bar_config(disable=True)
    machine = describe_machine(pipeline)
    if args.peers:
        return run_peers(args, pipeline, machine)
    if not args.json:
        print(
            f"{machine['processor']}, {machine['threads']} threads, {machine['device']}, "
            f"torch {machine['torch']}; {args.duration:g} s of audio, {args.repeats} runs"
        )
        print(f"{'':22}{'seconds (min-max)':>24}{'real time':>11}{'peak':>10}")
    rows = []
    for row in measure_all(pipeline, args.duration, args.repeats):
        rows.append(row)
        if not args.json:
            print(render(row), flush=True)
    if args.json:
        settings = {"duration_s": args.duration, "repeats": args.repeats}
        print(json.dumps({**machine, **settings, "rows": [asdict(row) for row in rows]}, indent=2))
    return 0


def run_peers(args: argparse.Namespace, pipeline: "Pipeline", machine: dict[str, Any]) -> int:
    """Measure every part beside its peers, with one and two threads unless told otherwise."""
    from codec.process_settings import cpu_threads
    from pipelines.benchmarks.contest import hold
    from pipelines.benchmarks.peers import contests

    counts = [args.threads] if args.threads else [1, 2]
    if not args.json:
        print(
            f"{machine['processor']}, torch {machine['torch']}; {args.duration:g} s of audio, "
            f"{args.repeats} rounds; medians (smallest-largest), ratios are theirs over ours"
        )
        print(PEER_HEAD)
    results = []
    for contest in contests(pipeline, args.duration):
        for threads in counts:
            with cpu_threads(threads):
                for result in hold(contest, args.repeats):
                    results.append(result)
                    if not args.json:
                        print(render_result(result), flush=True)
    if args.json:
        settings = {"duration_s": args.duration, "repeats": args.repeats}
        rows = [asdict(result) for result in results]
        print(json.dumps({**machine, **settings, "rows": rows}, indent=2))
    return 0


PEER_HEAD = (
    f"{'task':22}{'peer':30}{'threads':>8}{'ours':>17}{'theirs':>10}"
    f"{'wall time':>24}{'CPU time':>24}{'parameters':>16}"
)


def render_result(result: "Result") -> str:
    """Ours and a peer's milliseconds per unit, and how many times the peer's are ours."""

    def times(spread: "Spread") -> str:
        return f"{spread.median:.2f}x ({spread.smallest:.2f}-{spread.largest:.2f})"

    ours, theirs = (
        f"{1000 * seconds.median:.1f}" for seconds in (result.our_seconds, result.peer_seconds)
    )
    sizes = f"{result.our_parameters / 1e6:.1f}M/{result.peer_parameters / 1e6:.1f}M"
    return (
        f"{result.task:22}{result.peer:30}{result.threads:>8}"
        f"{ours + ' ms/' + result.unit:>17}{theirs:>10}"
        f"{times(result.wall_ratio):>24}{times(result.cpu_ratio):>24}{sizes:>16}"
    )


def describe_machine(pipeline: "Pipeline") -> dict[str, Any]:
    """What the numbers depend on besides the pipeline."""
    import torch

    device = str(pipeline.device)
    if device.startswith("cuda"):
        device = torch.cuda.get_device_name(pipeline.device)
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "device": device,
        "torch": torch.__version__,
    }


def processor_name() -> str:
    """As the kernel tells it; Python knows only the architecture on most Linux systems."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def measure_all(pipeline: "Pipeline", duration_s: float, repeats: int) -> Iterator[Row]:
    """Every row of the table, in the order in which audio becomes tokens and tokens audio."""
    from decoder.sampler import FlowSampler

    codec, prior = pipeline.codec, pipeline.prior
    audio = noise(codec, duration_s)
    codes = codec.encode(audio)
    frames = codes.shape[-1]
    written = codes[:, : prior.num_codebooks]

    def time_it(name: str, work: Callable[[], object], note: str = "") -> Row:
        return measure(name, work, repeats, duration_s, note, codec.device)

    yield time_it("encode", lambda: codec.encode(audio))
    yield time_it("decode, preview", lambda: pipeline.decode(written, preview=True))
    for backbone in ("transformer", "lstm"):
        model = with_backbone(prior, backbone)
        row = time_it(f"prior, {backbone}", lambda m=model: write(pipeline, m, frames))  # type: ignore[misc]
        origin = "" if model is prior else ", random weights"
        memory = memory_note(pipeline, model, frames, row.seconds)
        yield with_note(row, f"{frames / row.seconds:.0f} frames/s{origin}{memory}")
    if pipeline.decoder is not None:
        sampler = FlowSampler(codec, pipeline.decoder, pipeline.scheduler)
        yield from measure_decoder(sampler, written, time_it)
    yield time_it("prompt to audio", lambda: pipeline(PROMPT, duration_s, 0))


def memory_note(pipeline: "Pipeline", prior: "Prior", frames: int, seconds: float) -> str:
    """What a frame reads per second, beside the speed at which this machine copies as much."""
    if prior.device.type != "cpu":
        return ""
    from pipelines.benchmarks.bandwidth import bytes_per_frame, copy_bandwidth

    tokens = pipeline.encode_prompts([PROMPT]).text_mask.shape[1] + 1  # the null token
    num_rows = 1 if pipeline.config.guidance == 1 else 2
    read = bytes_per_frame(prior, num_rows, frames, tokens)
    speed, copied = read * frames / seconds, copy_bandwidth(read)
    share = f"{100 * speed / copied:.0f} % of a copy"
    return f", {read / 1e6:.1f} MB each: {speed / 1e9:.1f} GB/s, {share}"


def measure_decoder(
    sampler: "FlowSampler", codes: "Tensor", time_it: Callable[..., Row]
) -> Iterator[Row]:
    """The decoder's spectrogram in one step and in its default number, and the vocoder."""
    for steps in sorted({1, sampler.decoder.config.default_steps}):
        row = time_it(
            f"decoder, {steps} step{'s' if steps > 1 else ''}",
            lambda n=steps: sampler.decode_spectrogram(codes, [0], n),
        )
        yield with_note(row, f"{1000 * row.seconds / steps:.0f} ms per step")
    spectrogram = sampler.codec.decode_spectrogram(codes)
    yield time_it("vocoder", lambda: sampler.codec.vocoder(spectrogram))


def noise(codec: Any, duration_s: float) -> "Tensor":
    """(1, C, S) audio; no part's speed depends on what it hears."""
    import torch

    from codec.seeds import generator

    shape = (1, codec.channels, round(duration_s * codec.sample_rate))
    return (0.1 * torch.randn(shape, generator=generator(0, "bench"))).to(codec.device)


def with_backbone(prior: "Prior", backbone: str) -> "Prior":
    """The prior itself, or one of random weights that differs from it in the backbone alone."""
    if prior.config.backbone == backbone:
        return prior
    values = {name: value for name, value in prior.config.items() if not name.startswith("_")}
    return type(prior)(**(values | {"backbone": backbone})).eval().to(prior.device)


def write(pipeline: "Pipeline", prior: "Prior", num_frames: int) -> None:
    """Write frames with the pipeline's default guidance."""
    from prior.generate import generate
    from prior.sampling import Sampling

    defaults = pipeline.config
    sampling = Sampling(defaults.temperature, defaults.top_k, guidance=defaults.guidance)
    text = pipeline.encode_prompts([PROMPT])
    for _ in generate(prior, text, None, num_frames, sampling, [0]):
        pass


def measure(
    name: str,
    work: Callable[[], object],
    repeats: int,
    duration_s: float,
    note: str = "",
    device: Any = None,
) -> Row:
    """Time ``work`` after one call that does not count."""
    import torch

    def finish() -> None:
        if device is not None and torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)

    work()
    finish()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        finish()
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    return Row(name, median, min(seconds), max(seconds), duration_s / median, note, peak_memory())


def peak_memory() -> int:
    """The most main memory that this process has held (bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def with_note(row: Row, note: str) -> Row:
    """The same row with a note that its own numbers give."""
    return Row(**{**asdict(row), "note": note})


def render(row: Row) -> str:
    """A row as text."""
    seconds = f"{row.seconds:.3f} ({row.fastest:.3f}-{row.slowest:.3f})"
    memory = f"{row.peak_memory / 1e6:.0f} MB"
    text = f"{row.name:22}{seconds:>24}{row.real_time_factor:>10.1f}x{memory:>10}"
    return f"{text}  {row.note}".rstrip()
