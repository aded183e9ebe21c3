"""Training speed against sequence length: forward and backward of each backbone, and the slope."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from codec.process_settings import matmul_precision
from codec.seeds import generator
from pipelines.commands.estimate import count_parameters
from pipelines.comparison.equal_size import fit_width
from pipelines.comparison.row import Plot, Row, Series, Table, number
from pipelines.comparison.spread import bootstrap, fitted_slope
from pipelines.comparison.study import Study
from pipelines.training.precision import PRECISIONS, choose_precision
from prior.condition import Condition
from prior.loss import PriorBatch, prior_loss
from prior.model import Prior

BATCHED = "full batch"
SINGLE = "one sequence"


@dataclass(frozen=True)
class Timing:
    """Timed updates of one backbone at one length: seconds of each, and positions in an update."""

    length: int
    tokens: int
    forward_s: list[float]
    backward_s: list[float]

    @property
    def speeds(self) -> list[float]:
        """Positions per second, run by run."""
        pairs = zip(self.forward_s, self.backward_s, strict=True)
        return [self.tokens / (forward + backward) for forward, backward in pairs]


def measure(study: Study) -> Row:
    """The row of the study."""
    settings = study.settings.throughput
    row = Row(
        "throughput",
        "Data processing: sequential against parallel",
        f"Forward and backward pass of the training loss on random codes, optimizer left out, "
        f"{settings.repeats} timed runs after one that does not count. *{BATCHED.capitalize()}*: "
        f"about {settings.tokens_per_step:,} positions per update at every length; *{SINGLE}*: a "
        "batch of one. The slope is that of positions per second over length on logarithmic axes; "
        "0 means that a position costs the same however long the sequence is.",
    )
    counts, timings = {}, {}
    for name, fields in study.settings.backbones.items():
        config = fit_width(
            study.settings.model | fields, study.settings.parameters, study.settings.tolerance
        )
        counts[name] = count_parameters("prior", config)
        for mode in (BATCHED, SINGLE):
            study.say(f"throughput: {name}, {mode}")
            with matmul_precision("medium"):
                timings[name, mode] = [
                    time_length(study, config, t, mode) for t in settings.lengths
                ]
    row.tables = [speed_table(settings.lengths, timings), slope_table(timings, counts)]
    row.plots = [speed_plot(timings, mode) for mode in (BATCHED, SINGLE)]
    row.reading = [reading(study.compared, timings, mode) for mode in (BATCHED, SINGLE)]
    return row


def time_length(study: Study, config: dict, length: int, mode: str) -> Timing:
    """Time the updates of one backbone at one length."""
    settings = study.settings.throughput
    batch = max(1, settings.tokens_per_step // length) if mode == BATCHED else 1
    torch.manual_seed(0)
    prior = Prior(**config).to(study.device).train()
    share = study.settings.optimization.depth_share
    codes = random_batch(prior, batch, length, share, study.device)
    wanted = study.settings.optimization.mixed_precision
    precision = PRECISIONS[choose_precision(wanted, study.device)]
    runs = [time_update(prior, codes, precision) for _ in range(settings.repeats + 1)][1:]
    return Timing(length, batch * length, [f for f, _ in runs], [b for _, b in runs])


def random_batch(
    prior: Prior, batch: int, length: int, depth_share: float, device: torch.device
) -> PriorBatch:
    """Codes of no meaning, without text."""
    draws = generator(0, "throughput", length)
    shape = (batch, prior.num_codebooks, length)
    count = max(1, round(length * depth_share))
    return PriorBatch(
        codes=torch.randint(prior.codebook_size, shape, generator=draws).to(device),
        frame_mask=torch.ones(batch, length, dtype=torch.bool, device=device),
        ends=torch.zeros(batch, dtype=torch.bool, device=device),
        condition=Condition.empty(batch, prior.config["text_width"], device),
        depth_frames=torch.randint(length, (batch, count), generator=draws).to(device),
    )


def time_update(prior: Prior, batch: PriorBatch, precision: torch.dtype) -> tuple[float, float]:
    """Seconds of a forward and of a backward pass."""
    device = batch.codes.device
    finish(device)
    start = time.perf_counter()
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        loss = prior_loss(prior, batch).loss
    finish(device)
    middle = time.perf_counter()
    loss.backward()
    finish(device)
    end = time.perf_counter()
    prior.zero_grad()
    return middle - start, end - middle


def finish(device: torch.device) -> None:
    """Wait for what an accelerator still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def speed_table(lengths: Sequence[int], timings: dict[tuple[str, str], list[Timing]]) -> Table:
    """Positions per second, with the share of the backward pass."""
    columns = ["positions", *(f"{name}, {mode}" for name, mode in timings)]
    rows = []
    for index, length in enumerate(lengths):
        cells = [speed_cell(line[index]) for line in timings.values()]
        rows.append([f"{length}", *cells])
    return Table(columns, rows)


def speed_cell(timing: Timing) -> str:
    """Median and range of positions per second, and how the time falls on both passes."""
    speeds = sorted(timing.speeds)
    median = speeds[len(speeds) // 2]
    backward, forward = sum(timing.backward_s), sum(timing.forward_s)
    share = backward / (backward + forward)
    spread = f"{number(speeds[0])}-{number(speeds[-1])}"
    return f"{number(median)}/s ({spread}), {share:.0%} backward"


def slope_table(timings: dict[tuple[str, str], list[Timing]], counts: dict[str, int]) -> Table:
    """The exponent of speed over length, with what both passes have on their own."""
    rows = []
    for (name, mode), line in timings.items():
        cells = [slope_text(line, part) for part in ("both", "forward", "backward")]
        rows.append([name, mode, f"{counts[name]:,}", *cells])
    parts = ["slope (95 %)", "forward alone", "backward alone"]
    return Table(["backbone", "batch", "parameters", *parts], rows)


def slope_text(line: Sequence[Timing], part: str) -> str:
    """An exponent with its bootstrap interval over the timed runs."""
    middle, low, high = slope(line, part)
    return f"{middle:+.2f} ({low:+.2f} to {high:+.2f})"


def slope(line: Sequence[Timing], part: str = "both") -> tuple[float, float, float]:
    """The exponent of positions per second over length."""
    lengths = [timing.length for timing in line]
    if len(lengths) < 2:
        return 0.0, 0.0, 0.0
    seconds = {
        "both": lambda t: [f + b for f, b in zip(t.forward_s, t.backward_s, strict=True)],
        "forward": lambda t: t.forward_s,
        "backward": lambda t: t.backward_s,
    }[part]
    speeds = [[timing.tokens / s for s in seconds(timing)] for timing in line]
    return bootstrap(speeds, lambda means: fitted_slope(lengths, means), 500)


def speed_plot(timings: dict[tuple[str, str], list[Timing]], mode: str) -> Plot:
    """Positions per second over length."""
    series = {}
    for (name, found), line in timings.items():
        if found == mode:
            speeds = [sorted(timing.speeds) for timing in line]
            series[name] = Series(
                [float(timing.length) for timing in line],
                [values[len(values) // 2] for values in speeds],
                [values[0] for values in speeds],
                [values[-1] for values in speeds],
            )
    name = "throughput-batched" if mode == BATCHED else "throughput-single"
    title = f"Training speed, {mode}"
    return Plot(name, title, "positions per sequence", "positions per second", series, True, True)


def reading(
    compared: Sequence[str], timings: dict[tuple[str, str], list[Timing]], mode: str
) -> str:
    """Who is faster at the shortest and at the longest length, where the runs do not overlap."""
    first, second = (timings[name, mode] for name in compared)
    parts = []
    for ours, theirs in ((first[0], second[0]), (first[-1], second[-1])):
        low, high = sorted((ours.speeds, theirs.speeds), key=lambda speeds: sum(speeds))
        winner = compared[0] if high is ours.speeds or high == ours.speeds else compared[1]
        ratio = sum(high) / sum(low)
        if min(high) > max(low):
            parts.append(f"at {ours.length} positions **{winner}** is {ratio:.1f} times as fast")
        else:
            parts.append(f"at {ours.length} positions the runs of both overlap")
    return f"With {mode}, " + "; ".join(parts) + "."
