"""The ladder: priors from a plain LSTM over notes to a Transformer over tokens, one budget each."""

from collections.abc import Sequence

import numpy as np

from pipelines.comparison.arm import Arm, TrainedArm
from pipelines.comparison.comparison_row import ComparisonRow, Plot, Series
from pipelines.comparison.comparison_settings import PriorVariant
from pipelines.comparison.equal_size import count_parameters
from pipelines.comparison.piece_bits import held_out_bits
from pipelines.comparison.piece_cache import read_pieces
from pipelines.comparison.spread import show, verdict
from pipelines.comparison.study import Study
from pipelines.data.markdown import table

COLUMNS = ["prior", "parameters", "codes", "bits per position"]


def arms(study: Study) -> list[Arm]:
    """Build the arms of every variant whose data is there."""
    return [arm for variant in study.variants()[0] for arm in study.variant_arms(variant)]


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
    for variant in variants:
        trained = [study.train(arm) for arm in study.variant_arms(variant)]
        pieces = read_pieces(variant.tokens, "validation")
        crop_frames = budget.crop_frames
        bits[variant.name] = [
            held_out_bits(one.prior.to(study.device), pieces, crop_frames) for one in trained
        ]
        curves[variant.name] = mean_curve(trained, [float(s) for s in trained[0].curve.step])
        model = trained[0].arm.model
        codes = f"{model['num_codebooks']} x {model['codebook_size']}"
        totals = [float(per_codebook.sum()) for per_codebook in bits[variant.name]]
        rows.append([variant.name, f"{count_parameters(model):,}", codes, show(totals)])
    if rows:
        row.tables = [table(COLUMNS, rows)]
        row.plots = [Plot("ladder", "Held-out loss in training", "steps", "nats per code", curves)]
    row.reading = comparisons(variants, bits)
    return row


def mean_curve(trained: Sequence[TrainedArm], x: list[float]) -> Series:
    """Held-out nats per code along the training: mean and range over seeds."""
    losses = np.asarray([one.curve.loss for one in trained])
    return Series(x, losses.mean(0).tolist(), losses.min(0).tolist(), losses.max(0).tolist())


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
