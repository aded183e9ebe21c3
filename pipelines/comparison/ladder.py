"""Train the ladder, priors from a plain LSTM over notes to a Transformer over tokens.

Two rows measure them: held-out bits after an equal budget, and the time to a given loss.
"""

import numpy as np

from pipelines.comparison.arm import Arm
from pipelines.comparison.comparison_row import ComparisonRow, Plot, Series
from pipelines.comparison.comparison_settings import PriorVariant
from pipelines.comparison.equal_size import count_parameters
from pipelines.comparison.piece_cache import held_out_bits, read_pieces
from pipelines.comparison.spread import show, verdict
from pipelines.comparison.study import Study
from pipelines.data.markdown import table

COLUMNS = ["prior", "parameters", "codes", "bits per position"]
TIME_COLUMNS = ["prior", "target (nats per code)", "steps", "seconds", "processor seconds"]


def arms(study: Study) -> dict[str, list[Arm]]:
    """Build the arms of every variant whose data is there, one per seed."""
    budget = study.settings.ladder_budget
    return {
        variant.name: study.arms(variant.name, variant.model, variant.tokens, budget)
        for variant in study.variants()[0]
    }


def measure(study: Study) -> ComparisonRow:
    """Measure held-out bits of every variant."""
    budget = study.settings.ladder_budget
    row = ComparisonRow(
        "The ladder",
        "The ladder is a list of priors, each changing one thing of the one that it is compared "
        f"with. Each has about {study.settings.parameters:,} parameters and trains for "
        f"{budget.steps} steps of {budget.batch_size} crops of up to {budget.crop_frames} "
        "positions. Held-out bits are given per position: a note, or a frame of audio tokens. Bits "
        "compare priors that generate the same codes; notes and audio "
        "tokens do not carry the same things, so their bits compare no quality.",
    )
    variants, row.missing = study.variants()
    rows = []
    bits: dict[str, list[np.ndarray]] = {}
    curves: dict[str, Series] = {}
    built = arms(study)
    for variant in variants:
        trained = [study.train(arm) for arm in built[variant.name]]
        pieces = read_pieces(variant.tokens, "validation")
        crop_frames = budget.crop_frames
        bits[variant.name] = [
            held_out_bits(one.prior.to(study.device), pieces, crop_frames) for one in trained
        ]
        losses = np.stack([one.curve["loss"] for one in trained])
        curves[variant.name] = Series(
            trained[0].curve["step"], losses.mean(0), losses.min(0), losses.max(0)
        )
        model = trained[0].arm.model
        codes = f"{model['num_codebooks']} x {model['codebook_size']}"
        totals = [float(per_codebook.sum()) for per_codebook in bits[variant.name]]
        rows.append([variant.name, f"{count_parameters(model):,}", codes, show(totals)])
    if rows:
        row.tables = [table(COLUMNS, rows)]
        row.plots = [Plot("ladder", "Held-out loss in training", "steps", "nats per code", curves)]
    row.reading = comparisons(variants, bits)
    return row


def comparisons(variants: list[PriorVariant], bits: dict[str, list[np.ndarray]]) -> list[str]:
    """Compare every variant with another, on the codebooks that both generate."""
    by_name = {variant.name: variant for variant in variants}
    sentences = []
    for after in variants:
        before = by_name.get(after.against or "")
        if before is None:
            continue
        if before.tokens != after.tokens:
            sentences.append(
                f"{after.name} generates other codes than {before.name}: their bits do not compare."
            )
            continue
        count = min(len(bits[variant.name][0]) for variant in (before, after))
        shared = {
            variant.name: [float(seed[:count].sum()) for seed in bits[variant.name]]
            for variant in (before, after)
        }
        what = f"Held-out loss on {count} codebook{'s' if count > 1 else ''}"
        sentences.append(verdict(what, shared, "bits per position"))
    return sentences


def pairs(study: Study) -> list[tuple[PriorVariant, PriorVariant]]:
    """List the compared variants that generate the same codebooks of the same codes."""

    def generated(variant: PriorVariant) -> tuple[list[str], int]:
        model = study.model(variant.model, variant.tokens)
        return variant.tokens, model["num_codebooks"]

    variants = {variant.name: variant for variant in study.variants()[0]}
    compared = [(variants.get(after.against or ""), after) for after in variants.values()]
    return [
        (before, after)
        for before, after in compared
        if before is not None and generated(before) == generated(after)
    ]


def measure_time(study: Study) -> ComparisonRow:
    """Measure the time to the lowest loss that both of two compared priors reach."""
    row = ComparisonRow(
        "Training speed: seconds to a given loss",
        "For two priors that generate the same codes the target is the lowest loss that all their "
        "arms reach. Seconds are those of training alone, without validation; between validations "
        "the curve is taken to be straight.",
    )
    rows = []
    built = arms(study)
    for pair in pairs(study):
        trained = {v.name: [study.train(arm) for arm in built[v.name]] for v in pair}
        target = max(
            min(arm.curve["loss"]) for of_variant in trained.values() for arm in of_variant
        )
        times = {
            name: [to_loss(arm.curve, target) for arm in found] for name, found in trained.items()
        }
        for name, found in times.items():
            columns = [show(values) for values in zip(*found, strict=True)]
            rows.append([name, f"{target:.3f}", *columns])
        row.reading += [
            verdict(
                f"{what} to {target:.3f} nats per code",
                {name: [time[place] for time in found] for name, found in times.items()},
                "s",
            )
            for place, what in ((1, "Seconds"), (2, "Processor seconds"))
        ]
    if rows:
        row.tables = [table(TIME_COLUMNS, rows)]
    else:
        row.missing = ["no two priors that are compared generate the same codes"]
    return row


def to_loss(curve: dict[str, np.ndarray], target: float) -> list[float]:
    """Interpolate steps, seconds and processor seconds until the held-out loss is at the target."""
    loss = curve["loss"]
    after = int(np.argmax(loss <= target))
    around = slice(max(0, after - 1), after + 1)
    names = ("step", "wall_s", "cpu_s")
    return [float(np.interp(-target, -loss[around], curve[name][around])) for name in names]
