"""Measure scaling: sizes times data amounts at equal compute, and the exponents."""

from pipelines.comparison.arm import Arm, digest
from pipelines.comparison.comparison_row import ComparisonRow, Plot
from pipelines.comparison.comparison_settings import Budget
from pipelines.comparison.equal_size import count_parameters
from pipelines.comparison.piece_cache import TrackPiece, held_out_bits, part_of, read_pieces
from pipelines.comparison.spread import show, show_exponent, spread_series, verdict
from pipelines.comparison.study import Study
from pipelines.data.markdown import table
from pipelines.data.tokens import read_token_infos
from pipelines.training.cost import forward_flops

Cell = tuple[str, int, float]  # backbone, parameters, share of the data
Bits = dict[Cell, list[float]]  # held-out bits per frame, a figure per seed


def arms(study: Study) -> dict[Cell, list[Arm]]:
    """Build the arms of every cell, one per seed."""
    settings = study.settings
    if not settings.context.tokens:
        return {}
    found: dict[Cell, list[Arm]] = {}
    for share in settings.scaling.data_shares:
        part = [part_cache(study, share)]
        for size in settings.scaling.parameters:
            for name in study.compared:
                fields = settings.backbones[name]
                budget = equal_compute(study, study.model(fields, part, size))
                label = f"scaling, {name}, {size:,} parameters, {share:g} of the data"
                found[name, size, share] = study.arms(label, fields, part, budget, size)
    return found


def equal_compute(study: Study, model: dict) -> Budget:
    """Give a model as many steps as the compute of an arm buys."""
    settings = study.settings.scaling
    share = study.settings.optimization.depth_share
    per_frame = 3 * forward_flops("prior", model, settings.crop_frames, share)
    per_step = per_frame * settings.crop_frames * settings.batch_size
    steps = max(1, round(settings.compute / per_step))
    return Budget(steps, settings.batch_size, settings.crop_frames)


def part_cache(study: Study, share: float) -> str:
    """Write a share of the training tracks, without captions, and all held-out clips as a cache."""
    infos = read_token_infos(study.settings.context.tokens)

    def keep(split: str, clips: list[TrackPiece]) -> list[TrackPiece]:
        return part_of(clips, share, seed=0) if split == "train" else clips

    name = f"part-{share:g}-{digest([str(info) for info in infos])}"
    return study.derived_cache(name, keep)


def measure(study: Study) -> ComparisonRow:
    """Measure held-out bits of every cell of the grid."""
    settings = study.settings.scaling
    row = ComparisonRow(
        "Scalability: sizes and data at equal compute",
        f"Every arm spends {settings.compute:.1e} operations of training (counted by "
        "`partita info`), so a larger model sees fewer crops. Exponents are fitted to "
        "held-out bits per frame by least squares on logarithms; intervals are 95 % of a bootstrap "
        f"over seeds ({settings.draws} draws), so they hold the noise of training and not the "
        "error of calling a curve a power law.",
    )
    cells = arms(study)
    if not cells:
        row.missing.append("no token cache is named in context.tokens")
        return row
    held_out = read_pieces(study.settings.context.tokens, "validation")
    bits: Bits = {}
    for cell, of_cell in cells.items():
        priors = [study.train(arm).prior.to(study.device) for arm in of_cell]
        bits[cell] = [
            float(held_out_bits(prior, held_out, settings.crop_frames).sum()) for prior in priors
        ]
    row.tables = [loss_table(cells, bits), exponent_table(study, bits)]
    row.plots = plots(study, bits)
    most = max(settings.data_shares)
    row.reading = [
        verdict(
            f"Held-out loss at about {size:,} parameters",
            {name: bits[name, size, most] for name in study.compared},
            "bits per frame",
        )
        for size in settings.parameters
    ]
    return row


def loss_table(cells: dict[Cell, list[Arm]], bits: Bits) -> str:
    """Print the held-out bits of every cell."""
    rows = []
    for (name, size, share), found in bits.items():
        arm = cells[name, size, share][0]
        count = f"{count_parameters(arm.model):,}"
        rows.append([name, count, f"{share:g}", f"{arm.budget.steps}", show(found, 4)])
    return table(["backbone", "parameters", "data", "steps", "bits per frame"], rows)


def exponent_table(study: Study, bits: Bits) -> str:
    """Print exponents over size at every data amount, and over data at every size."""
    settings = study.settings.scaling
    sizes, shares = settings.parameters, settings.data_shares
    rows = []
    for name in study.compared:
        for share in shares:
            figures = [bits[name, size, share] for size in sizes]
            slope = show_exponent(sizes, figures, settings.draws, 4)
            rows.append([name, f"size, {share:g} of the data", slope])
        for size in sizes:
            figures = [bits[name, size, share] for share in shares]
            slope = show_exponent(shares, figures, settings.draws, 4)
            rows.append([name, f"data, {size:,} parameters", slope])
    return table(["backbone", "held-out bits over", "exponent (95 %)"], rows)


def plots(study: Study, bits: Bits) -> list[Plot]:
    """Plot bits over size, a line per data amount, and over data, a line per size."""
    sizes, shares = study.settings.scaling.parameters, study.settings.scaling.data_shares
    over_size = {
        f"{name}, {share:g} of the data": spread_series(
            sizes, [bits[name, s, share] for s in sizes]
        )
        for name in study.compared
        for share in shares
    }
    over_data = {
        f"{name}, {size:,}": spread_series(shares, [bits[name, size, share] for share in shares])
        for name in study.compared
        for size in sizes
    }
    title, y = "Held-out loss over {} at equal compute", "bits per frame"
    return [
        Plot("scaling-size", title.format("size"), "parameters", y, over_size, True, True),
        Plot("scaling-data", title.format("data"), "share of the data", y, over_data, True, True),
    ]
