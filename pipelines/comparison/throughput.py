"""Time forward and backward of each backbone against the sequence length, and fit the slope."""

import time
from collections.abc import Sequence
from statistics import median_high

import torch

from codec.process_settings import matmul_precision
from codec.seeds import generator
from pipelines.comparison.comparison_row import ComparisonRow, Plot, Series
from pipelines.comparison.equal_size import count_parameters
from pipelines.comparison.spread import number, show_exponent
from pipelines.comparison.study import Study
from pipelines.data.markdown import table
from pipelines.training.acceleration import PRECISIONS, choose_precision
from prior.condition import Condition
from prior.loss import PriorBatch, prior_loss
from prior.model import Prior

BATCHED = "full batch"
SINGLE = "one sequence"
DRAWS = 500  # draws of the bootstrap over timed runs


Timings = dict[tuple[str, str], list[list[float]]]
"""Backbone and mode -> by length the positions per second of the timed steps, slowest first."""


def measure(study: Study) -> ComparisonRow:
    """Time training steps of every backbone at every length."""
    settings = study.settings.throughput
    row = ComparisonRow(
        "Data processing: sequential against parallel",
        f"Forward and backward pass of the training loss on random codes, optimizer left out, "
        f"{settings.repeats} timed runs after one that does not count. *{BATCHED.capitalize()}*: "
        f"about {settings.tokens_per_step:,} positions per step at every length; *{SINGLE}*: a "
        "batch of one. Positions per second: the median run, and in brackets the slowest and the "
        "fastest. The slope is that of positions per second over length on logarithmic axes; "
        "0 means that a position costs the same however long the sequence is.",
    )
    counts: dict[str, int] = {}
    timings: Timings = {}
    for name, config in study.sized_backbones().items():
        counts[name] = count_parameters(config)
        for mode in (BATCHED, SINGLE):
            study.say(f"throughput: {name}, {mode}")
            with matmul_precision("medium"):
                timings[name, mode] = [
                    time_length(study, config, t, mode) for t in settings.lengths
                ]
    lengths = settings.lengths
    row.tables = [speed_table(lengths, timings), slope_table(lengths, timings, counts)]
    row.plots = [speed_plot(lengths, timings, mode) for mode in (BATCHED, SINGLE)]
    return row


def time_length(study: Study, config: dict, length: int, mode: str) -> list[float]:
    """Time the steps of one backbone at one length."""
    settings, optimization = study.settings.throughput, study.settings.optimization
    batch_size = max(1, settings.tokens_per_step // length) if mode == BATCHED else 1
    torch.manual_seed(0)
    prior = Prior(**config).to(study.device).train()
    batch = random_batch(prior, batch_size, length, optimization.depth_share, study.device)
    precision = PRECISIONS[choose_precision(optimization.mixed_precision, study.device)]
    seconds = [time_step(prior, batch, precision) for _ in range(settings.repeats + 1)][1:]
    return sorted(batch_size * length / s for s in seconds)


def random_batch(
    prior: Prior, batch_size: int, length: int, depth_share: float, device: torch.device
) -> PriorBatch:
    """Draw random codes without text."""
    draws = generator(0, "throughput", length)
    shape = (batch_size, prior.num_codebooks, length)
    count = max(1, round(length * depth_share))
    return PriorBatch(
        codes=torch.randint(prior.codebook_size, shape, generator=draws).to(device),
        frame_mask=torch.ones(batch_size, length, dtype=torch.bool, device=device),
        ends=torch.zeros(batch_size, dtype=torch.bool, device=device),
        condition=Condition.empty(batch_size, prior.config.text_width, device),
        depth_frames=torch.randint(length, (batch_size, count), generator=draws).to(device),
    )


def time_step(prior: Prior, batch: PriorBatch, precision: torch.dtype) -> float:
    """Time a forward and a backward pass (s)."""
    device = batch.codes.device
    start = time.perf_counter()
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        loss = prior_loss(prior, batch).loss
    loss.backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - start
    prior.zero_grad()
    return seconds


def speed_table(lengths: Sequence[int], timings: Timings) -> str:
    """Print ``median (slowest-fastest)`` of positions per second."""

    def cell(speeds: list[float]) -> str:
        return f"{number(median_high(speeds))} ({number(speeds[0])}-{number(speeds[-1])})"

    rows = [
        [f"{length}", *(cell(line[index]) for line in timings.values())]
        for index, length in enumerate(lengths)
    ]
    return table(["positions", *(f"{name}, {mode}" for name, mode in timings)], rows)


def slope_table(lengths: Sequence[int], timings: Timings, counts: dict[str, int]) -> str:
    """Print the exponent of speed over length."""
    rows = [
        [name, mode, f"{counts[name]:,}", show_exponent(lengths, line, DRAWS, 2)]
        for (name, mode), line in timings.items()
    ]
    return table(["backbone", "batch", "parameters", "slope (95 %)"], rows)


def speed_plot(lengths: Sequence[int], timings: Timings, mode: str) -> Plot:
    """Plot positions per second over length: median and range."""
    series = {
        name: Series(
            lengths,
            [median_high(speeds) for speeds in line],
            [speeds[0] for speeds in line],
            [speeds[-1] for speeds in line],
        )
        for (name, found), line in timings.items()
        if found == mode
    }
    name = "throughput-batched" if mode == BATCHED else "throughput-single"
    x, y = "positions per sequence", "positions per second"
    return Plot(name, f"Training speed, {mode}", x, y, series, True, True)
