"""What the past is worth: loss per position, themes that return, and the last chorus."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from pipelines.comparison.arm import Arm
from pipelines.comparison.nats import bits_per_frame
from pipelines.comparison.pieces import Piece
from pipelines.comparison.returns import Passage, last_return, returning, strangest
from pipelines.comparison.row import Plot, Row, Series, Table, number
from pipelines.comparison.spread import mean_and_spread, show, verdict
from pipelines.comparison.study import Study, seconds
from pipelines.training.prior_data import TOKEN_RATE
from prior.model import Prior

NOTHING = "passages that match nothing earlier"
CHORUS = "last chorus"
Costs = dict[str, list[list[float]]]
"""Backbone -> seed -> a figure per place."""


def arms(study: Study) -> dict[str, list[Arm]]:
    """Every backbone's arms, trained on clips and then on whole pieces."""
    settings = study.settings.context
    if not settings.tokens:
        return {}
    whole = [study.joined(settings.tokens)]
    found: dict[str, list[Arm]] = {}
    for name, fields in study.settings.backbones.items():
        found[name] = []
        for seed in study.settings.seeds:
            clips = study.arm(f"clips, {name}", fields, settings.tokens, settings.clips, seed)
            found[name].append(
                study.arm(f"pieces, {name}", fields, whole, settings.budget, seed, start=clips)
            )
    return found


def measure(study: Study) -> Row:
    """The row of the study."""
    settings = study.settings.context
    row = Row(
        "context",
        "Global context: whole pieces, themes that return, the last chorus",
        f"Priors trained on clips and then on whole pieces (crops of "
        f"{settings.budget.crop_frames} frames). A passage of {seconds(settings.window_frames):g} "
        "s counts as returning when its first codes equal those of an earlier passage five "
        "standard deviations more often than chance. It is read twice, after the whole past and "
        f"after its last {seconds(settings.near_frames):g} s, which never hold the earlier "
        "passage; the difference is what the far past is worth. The last chorus is the passage of "
        "a piece's last quarter that returns best.",
    )
    trained = arms(study)
    if not trained:
        row.missing.append("no token cache is named in context.tokens")
        return row
    pieces = held_out(study)
    passages = choose(study, pieces)
    curves: Costs = defaultdict(list)
    savings: dict[str, Costs] = defaultdict(lambda: defaultdict(list))
    for name, of_backbone in trained.items():
        for arm in of_backbone:
            study.say(f"context: {arm.name}")
            prior = study.train(arm).prior.to(study.device)
            whole = [bits_per_frame(prior, piece.codes) for piece in pieces]
            curves[name].append(by_position(whole, edges(max(map(len, whole)))))
            for kind, places in passages.items():
                saved = [saving(study, prior, pieces[i], whole[i], place) for i, place in places]
                savings[kind][name].append(saved)
    describe_positions(study, row, curves, pieces)
    describe_returns(study, row, savings, passages)
    return row


def held_out(study: Study) -> list[Piece]:
    """Held-out pieces, the last ``longest_frames`` of each, those too short to return left out."""
    settings = study.settings.context
    pieces = study.validation([study.joined(settings.tokens)])
    shortest = settings.near_frames + 2 * settings.window_frames
    return [
        Piece(piece.id, piece.codes[:, -settings.longest_frames :], source=piece.source)
        for piece in pieces
        if piece.codes.shape[1] >= shortest
    ]


def choose(study: Study, pieces: Sequence[Piece]) -> dict[str, list[tuple[int, Passage]]]:
    """Passages of every kind: the number of the piece, and the place in it."""
    settings = study.settings.context
    window, near = settings.window_frames, settings.near_frames
    bands = [(round(a * TOKEN_RATE), round(b * TOKEN_RATE)) for a, b in pairwise(settings.bands_s)]
    found: dict[str, list[tuple[int, Passage]]] = {}
    for (low, high), (low_s, high_s) in zip(bands, pairwise(settings.bands_s), strict=True):
        low = max(low, near + window)  # the near past must not hold the earlier passage
        kind = f"returns after {number(low_s)} to {number(high_s)} s"
        found[kind] = [
            (index, place)
            for index, piece in enumerate(pieces)
            for place in returning(piece.codes[0], window, range(low, high), settings.passages)
        ]
    found[NOTHING] = [
        (index, place)
        for index, piece in enumerate(pieces)
        for place in strangest(piece.codes[0], window, near + window, 1)
    ]
    choruses = [(i, last_return(piece.codes[0], window, near + window)) for i, piece in
                enumerate(pieces)]  # fmt: skip
    found[CHORUS] = [(index, place) for index, place in choruses if place is not None]
    return {kind: places for kind, places in found.items() if places}


def saving(
    study: Study,
    prior: Prior,
    piece: Piece,
    whole: np.ndarray,
    place: Passage,
) -> float:
    """Bits per second that a passage costs less after the whole past than after the near one."""
    settings = study.settings.context
    start, stop = place.start, place.start + settings.window_frames
    first = max(0, start - settings.near_frames)
    near = bits_per_frame(prior, piece.codes[:, first:stop])[start - first :]
    return float((near - whole[start:stop]).mean()) * TOKEN_RATE


def edges(longest: int) -> list[int]:
    """Limits of the position bins: doubling from 16 to the longest piece."""
    limits = [0, 16]
    while limits[-1] < longest:
        limits.append(min(2 * limits[-1], longest))
    return limits


def by_position(whole: Sequence[np.ndarray], limits: Sequence[int]) -> list[float]:
    """Mean bits per second in every bin, over the frames of all pieces that reach it."""
    means = []
    for low, high in pairwise(limits):
        found = np.concatenate([bits[low:high] for bits in whole])
        means.append(float(found.mean()) * TOKEN_RATE if len(found) else float("nan"))
    return means


def describe_positions(study: Study, row: Row, curves: Costs, pieces: Sequence[Piece]) -> None:
    """Table, plot and reading of the loss per position."""
    longest = max((piece.codes.shape[1] for piece in pieces), default=0)
    limits = edges(longest)
    bins = [*pairwise(limits)]
    rows = []
    for index, (low, high) in enumerate(bins):
        reaching = sum(piece.codes.shape[1] > low for piece in pieces)
        costs = [show([seed[index] for seed in runs]) for runs in curves.values()]
        rows.append([f"{low} to {high - 1}", f"{reaching}", *costs])
    columns = ["position (frames)", "pieces", *(f"{name} (bits/s)" for name in curves)]
    row.tables.append(Table(columns, rows))
    centers = [(low + high) / 2 for low, high in bins]
    row.plots.append(
        line_plot("position-loss", "Held-out loss per position", centers, curves, log_x=True)
    )
    if len(bins) > 1:
        gains = {name: [seed[0] - seed[-1] for seed in curves[name]] for name in study.compared}
        row.reading.append(
            verdict(
                f"Held-out bits per second less at positions {bins[-1][0]} and later than at the "
                "first 16",
                gains,
                "bits/s",
                lower_is_better=False,
            )
        )


def describe_returns(
    study: Study,
    row: Row,
    savings: dict[str, Costs],
    passages: dict[str, list[tuple[int, Passage]]],
) -> None:
    """Table, plot and reading of what the far past saves."""
    rows = []
    means: dict[str, dict[str, list[float]]] = {}
    for kind, costs in savings.items():
        means[kind] = {name: [float(np.mean(seed)) for seed in runs] for name, runs in
                       costs.items()}  # fmt: skip
        match = float(np.mean([place.match for _, place in passages[kind]]))
        cells = [show(figures) for figures in means[kind].values()]
        rows.append([kind, f"{len(passages[kind])}", f"{match:.0%}", *cells])
    names = [*study.settings.backbones]
    columns = ["passage", "passages", "equal codes", *(f"{n} (bits/s saved)" for n in names)]
    row.tables.append(Table(columns, rows))
    banded = [kind for kind in means if kind.startswith("returns")]
    if banded:
        lags = [
            float(np.mean([place.lag for _, place in passages[k]])) / TOKEN_RATE for k in banded
        ]
        curves = {
            name: [[means[kind][name][seed] for kind in banded] for seed in
                   range(len(study.settings.seeds))]
            for name in names
        }  # fmt: skip
        row.plots.append(line_plot("returns", "Bits saved by the far past", lags, curves, True))
    for kind in means:
        row.reading.append(
            verdict(
                f"Bits per second saved by the far past, {kind}",
                {name: means[kind][name] for name in study.compared},
                "bits/s",
                lower_is_better=False,
            )
        )
    absent = [kind for kind in (CHORUS,) if kind not in means]
    row.missing += [f"{kind}: no held-out piece is long enough and has one" for kind in absent]


def line_plot(
    name: str, title: str, x: Sequence[float], curves: Costs, log_x: bool = False
) -> Plot:
    """Mean over seeds with the spread."""
    series = {}
    for backbone, runs in curves.items():
        stats = [mean_and_spread([run[index] for run in runs]) for index in range(len(x))]
        means = [mean for mean, _ in stats]
        series[backbone] = Series([*x], means, [m - s for m, s in stats], [m + s for m, s in stats])
    labels = ("distance (s)" if name == "returns" else "position (frames)", "bits per second")
    return Plot(name, title, *labels, series, log_x)
