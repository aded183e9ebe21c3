"""Scaling: sizes times data amounts at equal compute, and the exponents."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from pipelines.commands.estimate import count_parameters, forward_flops
from pipelines.comparison.arm import Arm, TrainedArm
from pipelines.comparison.held_out import held_out_bits
from pipelines.comparison.pieces import Piece, part_of, read_pieces, write_cache
from pipelines.comparison.row import Plot, Row, Series, Table, number
from pipelines.comparison.settings import Budget
from pipelines.comparison.spread import bootstrap, fitted_slope, mean_and_spread, show, verdict
from pipelines.comparison.study import Study, digest
from pipelines.data.tokens import read_token_infos

Cell = tuple[str, int, float]
"""Backbone, parameters, share of the data."""


def arms(study: Study) -> dict[Cell, list[Arm]]:
    """All arms of the grid."""
    settings = study.settings
    tokens = settings.context.tokens
    if not tokens:
        return {}
    found: dict[Cell, list[Arm]] = defaultdict(list)
    for share in settings.scaling.data_shares:
        part = [part_cache(study, share)]
        for size in settings.scaling.parameters:
            for name in study.compared:
                fields = settings.backbones[name]
                budget = equal_compute(study, study.model(fields, part, size))
                for seed in settings.seeds:
                    label = f"scaling, {name}, {size:,} parameters, {share:g} of the data"
                    arm = study.arm(label, fields, part, budget, seed, size)
                    found[name, size, share].append(arm)
    return dict(found)


def equal_compute(study: Study, model: dict) -> Budget:
    """As many updates as the compute of an arm buys for a model."""
    settings = study.settings.scaling
    share = study.settings.optimization.depth_share
    per_frame = 3 * forward_flops("prior", model, settings.crop_frames, share)
    per_update = per_frame * settings.crop_frames * settings.batch_size
    steps = max(1, round(settings.compute / per_update))
    return Budget(steps, settings.batch_size, settings.crop_frames)


def part_cache(study: Study, share: float) -> str:
    """A share of the training tracks as a cache, without captions; all held-out clips."""
    folders = study.settings.context.tokens
    infos = read_token_infos(folders)
    target = study.folder / "data" / f"part-{share:g}-{digest([str(info) for info in infos])}"
    splits = {}
    if not target.is_dir():
        clips = {split: read_pieces(folders, split) for split in ("train", "validation")}
        clips["train"] = part_of(clips["train"], share, seed=0)
        splits = {s: [replace(p, captions=[]) for p in found] for s, found in clips.items()}
    return write_cache(target, splits, infos[0])


def measure(study: Study) -> Row:
    """The row of the study."""
    settings = study.settings.scaling
    row = Row(
        "scaling",
        "Scalability: sizes and data at equal compute",
        f"Every arm spends {settings.compute:.1e} operations of training (counted by "
        "`partita info`), so a larger model sees fewer crops. Exponents are fitted to "
        "held-out bits per frame by least squares on logarithms; intervals are 95 % of a bootstrap "
        f"over seeds ({settings.draws} draws), so they hold the noise of training and not the "
        "error of calling a curve a power law.",
    )
    grid = arms(study)
    if not grid:
        row.missing.append("no token cache is named in context.tokens")
        return row
    held_out = study.validation(study.settings.context.tokens)
    bits = {
        cell: [bits_of(study, study.train(arm), held_out) for arm in of_cell]
        for cell, of_cell in grid.items()
    }
    row.tables = [loss_table(grid, bits), exponent_table(study, bits)]
    row.plots = [size_plot(study, bits), data_plot(study, bits)]
    row.reading = readings(study, bits)
    return row


def bits_of(study: Study, trained: TrainedArm, held_out: Sequence[Piece]) -> float:
    """Held-out bits per frame of an arm."""
    crop_frames = study.settings.scaling.crop_frames
    return float(held_out_bits(trained.prior.to(study.device), held_out, crop_frames).sum())


def loss_table(grid: dict[Cell, list[Arm]], bits: dict[Cell, list[float]]) -> Table:
    """Held-out bits of every cell."""
    columns = ["backbone", "parameters", "data", "updates", "bits per frame"]
    rows = []
    for (name, size, share), found in bits.items():
        arm = grid[name, size, share][0]
        count = count_parameters("prior", arm.model)
        rows.append([name, f"{count:,}", f"{share:g}", f"{arm.budget.steps}", show(found, 4)])
    return Table(columns, rows)


def exponent_table(study: Study, bits: dict[Cell, list[float]]) -> Table:
    """Exponents over size at all data, and over data at every size."""
    settings = study.settings.scaling
    rows = []
    for name in study.compared:
        for share in settings.data_shares:
            cells = [bits[name, size, share] for size in settings.parameters]
            text = exponent(settings.parameters, cells, settings.draws)
            rows.append([name, f"size, {share:g} of the data", text])
        for size in settings.parameters:
            cells = [bits[name, size, share] for share in settings.data_shares]
            text = exponent(settings.data_shares, cells, settings.draws)
            rows.append([name, f"data, {size:,} parameters", text])
    return Table(["backbone", "held-out bits over", "exponent (95 %)"], rows)


def exponent(x: Sequence[float], cells: Sequence[Sequence[float]], draws: int) -> str:
    """A fitted exponent with its interval."""
    if len(x) < 2:
        return "one point, no exponent"
    middle, low, high = bootstrap(cells, lambda means: fitted_slope(x, means), draws)
    return f"{middle:+.4f} ({low:+.4f} to {high:+.4f})"


def size_plot(study: Study, bits: dict[Cell, list[float]]) -> Plot:
    """Bits over size, a line per backbone and data amount."""
    settings = study.settings.scaling
    series = {
        f"{name}, {share:g} of the data": spread_series(
            settings.parameters, [bits[name, size, share] for size in settings.parameters]
        )
        for name in study.compared
        for share in settings.data_shares
    }
    title = "Held-out loss over size at equal compute"
    return Plot("scaling-size", title, "parameters", "bits per frame", series, True, True)


def data_plot(study: Study, bits: dict[Cell, list[float]]) -> Plot:
    """Bits over data, a line per backbone and size."""
    settings = study.settings.scaling
    series = {
        f"{name}, {size:,}": spread_series(
            settings.data_shares, [bits[name, size, share] for share in settings.data_shares]
        )
        for name in study.compared
        for size in settings.parameters
    }
    title = "Held-out loss over data at equal compute"
    return Plot("scaling-data", title, "share of the data", "bits per frame", series, True, True)


def spread_series(x: Sequence[float], cells: Sequence[Sequence[float]]) -> Series:
    """Means with one standard deviation either side."""
    stats = [mean_and_spread(cell) for cell in cells]
    low, high = [m - s for m, s in stats], [m + s for m, s in stats]
    return Series([float(value) for value in x], [m for m, _ in stats], low, high)


def readings(study: Study, bits: dict[Cell, list[float]]) -> list[str]:
    """Who is ahead at every size with all the data, and which size is best."""
    settings = study.settings.scaling
    most = max(settings.data_shares)
    sentences = [
        verdict(
            f"Held-out bits per frame at about {size:,} parameters",
            {name: bits[name, size, most] for name in study.compared},
            "bits per frame",
        )
        for size in settings.parameters
    ]
    for name in study.compared:
        means = {size: math.fsum(bits[name, size, most]) for size in settings.parameters}
        best = min(means, key=lambda size: means[size])
        edge = best in (min(means), max(means)) and len(means) > 1
        note = ", the edge of the grid" if edge else ""
        sentences.append(
            f"At this compute the best {name} has about {number(best / 1e6)} million parameters"
            f"{note}."
        )
    return sentences
