"""Recall: bits saved on a segment's repeat, against the gap between both."""

import math
from pathlib import Path

import numpy as np

from pipelines.comparison.arm import Arm
from pipelines.comparison.nats import bits_per_book
from pipelines.comparison.pieces import Piece, cache_info, write_cache
from pipelines.comparison.row import Plot, Row, Series, Table, number
from pipelines.comparison.settings import Budget, Recall
from pipelines.comparison.spread import mean_and_spread, show, verdict
from pipelines.comparison.streams import recall_stream
from pipelines.comparison.study import Study, digest, seconds
from pipelines.training.prior_data import TOKEN_RATE
from prior.model import Prior

HELD_OUT = 16


def arms(study: Study) -> dict[str, list[Arm]]:
    """Every backbone's arms, one per seed, each the last of its stages."""
    return {
        name: [staged(study, name, fields, seed) for seed in study.settings.seeds]
        for name, fields in study.settings.backbones.items()
    }


def staged(study: Study, name: str, fields: dict, seed: int) -> Arm:
    """An arm that goes through all stages."""
    settings = study.settings.recall
    fields = fields | settings.model | {"num_codebooks": 2}
    arm: Arm | None = None
    for stage in settings.stages:
        tokens = [stream_cache(study, stage)]
        label = f"recall, {name}, {stage.crop_frames} positions"
        arm = study.arm(label, fields, tokens, stage, seed, settings.parameters, arm)
    if arm is None:
        raise ValueError("recall.stages must hold at least one budget")
    return arm


def stream_cache(study: Study, stage: Budget) -> str:
    """A stage's training streams as a token cache, as many as it reads."""
    settings, length = study.settings.recall, stage.crop_frames
    counts = {"train": stage.steps * stage.batch_size, "validation": HELD_OUT}
    key = digest([length, settings.segment, settings.alphabet, counts])
    target = study.folder / "data" / f"streams-{length}-{key}"
    splits = {
        split: [stream(settings, split, number, length) for number in range(count)]
        for split, count in (counts.items() if not target.is_dir() else ())
    }
    size = max(settings.alphabet, settings.segment + 1)
    return write_cache(Path(target), splits, cache_info(f"streams {key}", 2, size))


def stream(settings: Recall, split: str, number: int, length: int) -> Piece:
    """One training stream."""
    seed = 0 if split == "train" else 1
    codes = recall_stream(seed, number, length, settings.segment, settings.alphabet)
    return Piece(f"stream-{split}-{number}", codes)


def measure(study: Study) -> Row:
    """The row of the study."""
    settings = study.settings.recall
    longest = max(stage.crop_frames for stage in settings.stages)
    row = Row(
        "recall",
        "Context window: what the state remembers",
        f"Priors of {settings.parameters:,} parameters learn streams of random values in which "
        f"{settings.segment} frames return, after gaps whose logarithm is uniform, in stages "
        f"of {', '.join(str(stage.crop_frames) for stage in settings.stages)} positions. Labels "
        "beside the values say where in the segment one is, so that what must be learnt is to "
        "remember. The test is such a stream with a given gap: nothing but memory can save bits on "
        f"the repeat, and at most {math.log2(settings.alphabet):g} per value. {settings.tests} "
        f"tests per gap; a gap that ends beyond {seconds(longest):g} s is longer than anything "
        "seen in training.",
    )
    saved = {
        name: [[saved_bits(study, study.train(arm).prior, gap) for gap in settings.gaps_s] for arm
               in of_backbone]
        for name, of_backbone in arms(study).items()
    }  # fmt: skip
    columns = ["gap", *(f"{name} (bits per value)" for name in saved)]
    rows = [
        [f"{number(gap)} s", *(show([seed[index] for seed in runs]) for runs in saved.values())]
        for index, gap in enumerate(settings.gaps_s)
    ]
    row.tables = [Table(columns, rows)]
    row.plots = [plot(study, saved)]
    row.reading = [
        verdict(
            f"Bits saved per value after a gap of {number(gap)} s",
            {name: [seed[index] for seed in saved[name]] for name in study.compared},
            "bits",
            lower_is_better=False,
        )
        for index, gap in enumerate(settings.gaps_s)
    ]
    return row


def saved_bits(study: Study, prior: Prior, gap_s: float) -> float:
    """Mean bits per value that the repeat costs less than the first time."""
    settings = study.settings.recall
    gap, segment = round(gap_s * TOKEN_RATE), settings.segment
    length = 2 * segment + gap
    savings = []
    for index in range(settings.tests):
        codes = recall_stream(2, index, length, segment, settings.alphabet, gap)
        bits = bits_per_book(prior.to(study.device), codes)[0]  # of the values
        savings.append(bits[:segment].mean() - bits[-segment:].mean())
    return float(np.mean(savings))


def plot(study: Study, saved: dict[str, list[list[float]]]) -> Plot:
    """Bits saved over the gap."""
    gaps = study.settings.recall.gaps_s
    series = {}
    for name, runs in saved.items():
        stats = [mean_and_spread([run[index] for run in runs]) for index in range(len(gaps))]
        means = [mean for mean, _ in stats]
        series[name] = Series([*gaps], means, [m - s for m, s in stats], [m + s for m, s in stats])
    return Plot("recall", "Bits saved on a repeat", "gap (s)", "bits per value", series, log_x=True)
