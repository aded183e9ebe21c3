"""Measure recall: bits saved on a segment's repeat, against the gap between both."""

import math

import numpy as np

from codec.seeds import derive_seed
from pipelines.comparison.arm import Arm, digest
from pipelines.comparison.comparison_row import ComparisonRow, Plot
from pipelines.comparison.comparison_settings import TOKEN_RATE, Budget
from pipelines.comparison.piece_cache import TrackPiece, cache_info, code_bits, write_cache
from pipelines.comparison.spread import number, show, spread_series, verdict
from pipelines.comparison.study import Study
from pipelines.data.markdown import table
from prior.model import Prior

HELD_OUT = 16


def arms(study: Study) -> dict[str, list[Arm]]:
    """Build every backbone's arms, one per seed, which go through all stages."""
    settings = study.settings.recall
    found: dict[str, list[Arm]] = {}
    for name, backbone in study.settings.backbones.items():
        fields = backbone | settings.model | {"num_codebooks": 2}
        starts: list[Arm] | None = None
        for stage in settings.stages:
            tokens = [stream_cache(study, stage)]
            label = f"recall, {name}, {stage.crop_frames} positions"
            starts = study.arms(label, fields, tokens, stage, settings.parameters, starts)
        assert starts is not None
        found[name] = starts
    return found


def stream_cache(study: Study, stage: Budget) -> str:
    """Write a stage's training streams, as many as it reads, as a token cache."""
    settings, length = study.settings.recall, stage.crop_frames
    counts = {"train": stage.steps * stage.batch_size, "validation": HELD_OUT}
    key = digest([length, settings.segment, settings.alphabet, counts])
    target = study.folder / "data" / f"streams-{length}-{key}"
    splits: dict[str, list[TrackPiece]] = {}
    for seed, (split, count) in enumerate(counts.items() if not target.is_dir() else ()):
        splits[split] = [
            TrackPiece(
                f"stream-{split}-{index}",
                recall_stream(seed, index, length, settings.segment, settings.alphabet),
            )
            for index in range(count)
        ]
    size = max(settings.alphabet, settings.segment + 1)
    return write_cache(target, splits, cache_info(f"streams {key}", 2, size))


def recall_stream(
    seed: int, index: int, length: int, segment: int, alphabet: int, gap: int | None = None
) -> np.ndarray:
    """Draw a stream in which one segment returns after gaps; only memory can predict it then.

    A frame is a value, drawn uniformly, and a label. The frames of the segment are labeled 0 to
    ``segment - 1``, all others ``segment``; in a repeat labels and values are those of the first
    time. As the labels say where in the segment one is, what has to be learned is to remember, not
    to notice that something returns.

    The segment's only repeat stands at the end, ``gap`` frames after it. In training (None) the
    segment stands early and returns again and again, after gaps whose logarithm is uniform up to
    what is left of the stream, whose length is at least twice the segment's.

    Returns:
        (2, length) int16, values and labels.
    """
    draws = np.random.default_rng(derive_seed(seed, "recall", index))
    if gap is None:
        first = int(draws.integers(min(segment, length - 2 * segment) + 1))
        places = [first + segment + draw_gap(draws, length - first - 2 * segment)]
        while (left := length - places[-1] - 2 * segment) >= 0:
            places.append(places[-1] + segment + draw_gap(draws, left))
    else:
        first = length - gap - 2 * segment
        places = [length - segment]
    values = draws.integers(alphabet, size=length)
    labels = np.full(length, segment)
    for place in (first, *places):
        values[place : place + segment] = values[first : first + segment]
        labels[place : place + segment] = np.arange(segment)
    return np.stack([values, labels]).astype(np.int16)


def draw_gap(draws: np.random.Generator, most: int) -> int:
    """Draw 0 to ``most`` frames; the logarithm of one more is uniform."""
    return min(most, int(math.exp(draws.uniform(0, math.log(most + 2)))) - 1)


def measure(study: Study) -> ComparisonRow:
    """Measure bits saved on a repeat after each gap."""
    settings = study.settings.recall
    longest = max(stage.crop_frames for stage in settings.stages)
    row = ComparisonRow(
        "Context window: what the state remembers",
        f"Priors of {settings.parameters:,} parameters learn streams of random values in which "
        f"{settings.segment} frames return, after gaps whose logarithm is uniform, in stages "
        f"of {', '.join(str(stage.crop_frames) for stage in settings.stages)} positions. Labels "
        "beside the values say where in the segment one is, so that what must be learned is to "
        "remember. The test is such a stream with a given gap: nothing but memory can save bits on "
        f"the repeat, and at most {math.log2(settings.alphabet):g} per value. {settings.tests} "
        f"tests per gap; a gap that ends beyond {longest / TOKEN_RATE:g} s is longer than anything "
        "seen in training.",
    )
    saved = {
        name: [
            [saved_bits(study, study.train(arm).prior, gap) for arm in of_backbone]
            for gap in settings.gaps_s
        ]
        for name, of_backbone in arms(study).items()
    }
    rows = [
        [f"{number(gap)} s", *(show(of_backbone[index]) for of_backbone in saved.values())]
        for index, gap in enumerate(settings.gaps_s)
    ]
    row.tables = [table(["gap", *(f"{name} (bits per value)" for name in saved)], rows)]
    series = {name: spread_series(settings.gaps_s, figures) for name, figures in saved.items()}
    row.plots = [
        Plot("recall", "Bits saved on a repeat", "gap (s)", "bits per value", series, log_x=True)
    ]
    row.reading = [
        verdict(
            f"Bits saved per value after a gap of {number(gap)} s",
            {name: saved[name][index] for name in study.compared},
            "bits",
            lower_is_better=False,
        )
        for index, gap in enumerate(settings.gaps_s)
    ]
    return row


def saved_bits(study: Study, prior: Prior, gap_s: float) -> float:
    """Average the bits per value that the repeat costs less than the first time."""
    settings = study.settings.recall
    gap, segment = round(gap_s * TOKEN_RATE), settings.segment
    savings = []
    for index in range(settings.tests):
        codes = recall_stream(2, index, 2 * segment + gap, segment, settings.alphabet, gap)
        bits = code_bits(prior.to(study.device), TrackPiece("test", codes))[0]  # of the values
        savings.append(bits[:segment].mean() - bits[-segment:].mean())
    return float(np.mean(savings))
