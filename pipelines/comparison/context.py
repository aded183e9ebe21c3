"""Measure what the past is worth on whole pieces: loss per position, and returning themes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from pipelines.comparison.arm import Arm, digest
from pipelines.comparison.comparison_row import ComparisonRow, Plot
from pipelines.comparison.comparison_settings import TOKEN_RATE
from pipelines.comparison.piece_cache import TrackPiece, code_bits, join_tracks, read_pieces
from pipelines.comparison.spread import number, show, spread_series, verdict
from pipelines.comparison.study import Study
from pipelines.data.markdown import table
from pipelines.data.tokens import read_token_infos
from prior.model import Prior

NOTHING = "passages that match nothing earlier"
Costs = dict[str, list[list[float]]]
"""Backbone -> seed -> a figure per place."""
Places = list[tuple[int, "Passage"]]
"""Numbers of pieces, and passages in them."""


def arms(study: Study) -> dict[str, list[Arm]]:
    """Build every backbone's arms, trained on clips and then on whole pieces."""
    settings = study.settings.context
    if not settings.tokens:
        return {}
    whole = [joined_cache(study)]
    found: dict[str, list[Arm]] = {}
    for name, fields in study.settings.backbones.items():
        clips = study.arms(f"clips, {name}", fields, settings.tokens, settings.clips)
        found[name] = study.arms(f"pieces, {name}", fields, whole, settings.budget, starts=clips)
    return found


def measure(study: Study) -> ComparisonRow:
    """Measure bits per position of held-out pieces, and bits saved on returning passages."""
    settings = study.settings.context
    row = ComparisonRow(
        "Global context: whole pieces and themes that return",
        f"Priors trained on clips and then on whole pieces (crops of "
        f"{settings.budget.crop_frames} frames). A passage of "
        f"{settings.window_frames / TOKEN_RATE:g} s counts as returning when its first codes equal "
        "those of an earlier passage five standard deviations more often than chance. It is read "
        f"twice, after the whole past and after its last {settings.near_frames / TOKEN_RATE:g} s, "
        "which never hold the earlier passage; the difference is what the far past is worth.",
    )
    trained = arms(study)
    if not trained:
        row.missing.append("no token cache is named in context.tokens")
        return row
    pieces = held_out_pieces(study)
    passages = choose_passages(study, pieces)
    limits = edges(max((piece.codes.shape[1] for piece in pieces), default=0))
    curves: Costs = defaultdict(list)
    savings: dict[str, Costs] = defaultdict(lambda: defaultdict(list))
    for name, of_backbone in trained.items():
        for arm in of_backbone:
            study.say(f"context: {arm.name}")
            prior = study.train(arm).prior.to(study.device)
            whole = [code_bits(prior, piece).sum(0) for piece in pieces]
            curves[name].append(by_position(whole, limits))
            for kind, places in passages.items():
                saved = [saving(study, prior, pieces[i], whole[i], place) for i, place in places]
                savings[kind][name].append(saved)
    describe_positions(study, row, curves, pieces, limits)
    describe_returns(study, row, savings, passages)
    return row


def joined_cache(study: Study) -> str:
    """Write a cache of whole tracks, without captions, from the caches of clips."""
    infos = read_token_infos(study.settings.context.tokens)
    name = f"tracks-{digest([asdict(info) for info in infos])}"
    return study.derived_cache(name, lambda split, clips: join_tracks(clips))


def held_out_pieces(study: Study) -> list[TrackPiece]:
    """Read the last ``longest_frames`` of the held-out pieces that are long enough to return."""
    settings = study.settings.context
    pieces = read_pieces([joined_cache(study)], "validation")
    shortest = settings.near_frames + 2 * settings.window_frames
    return [
        TrackPiece(piece.id, piece.codes[:, -settings.longest_frames :])
        for piece in pieces
        if piece.codes.shape[1] >= shortest
    ]


def choose_passages(study: Study, pieces: Sequence[TrackPiece]) -> dict[str, Places]:
    """Choose passages of every kind."""
    settings = study.settings.context
    window, near = settings.window_frames, settings.near_frames
    found: dict[str, Places] = {}
    for low_s, high_s in pairwise(settings.bands_s):
        # the near past must not hold the earlier passage
        lags = range(max(round(low_s * TOKEN_RATE), near + window), round(high_s * TOKEN_RATE))
        found[f"returns after {number(low_s)} to {number(high_s)} s"] = [
            (index, place)
            for index, piece in enumerate(pieces)
            for place in find_returning(piece.codes[0], window, lags, settings.passages)
        ]
    found[NOTHING] = [
        (index, place)
        for index, piece in enumerate(pieces)
        for place in find_new(piece.codes[0], window, near + window)
    ]
    return {kind: places for kind, places in found.items() if places}


def saving(
    study: Study, prior: Prior, piece: TrackPiece, whole: np.ndarray, place: "Passage"
) -> float:
    """Return the bits per second that the whole past saves on a passage over the near past."""
    settings = study.settings.context
    start, stop = place.start, place.start + settings.window_frames
    first = max(0, start - settings.near_frames)
    near = code_bits(prior, piece, first, stop).sum(0)[start - first :]
    return float((near - whole[start:stop]).mean()) * TOKEN_RATE


def edges(longest: int) -> list[int]:
    """List the limits of the position bins: doubling from 16 to the longest piece."""
    limits = [0, 16]
    while limits[-1] < longest:
        limits.append(min(2 * limits[-1], longest))
    return limits


def by_position(whole: Sequence[np.ndarray], limits: Sequence[int]) -> list[float]:
    """Average bits per second in every bin, over the frames of all pieces that reach it."""
    means = []
    for low, high in pairwise(limits):
        found = np.concatenate([bits[low:high] for bits in whole])
        means.append(float(found.mean()) * TOKEN_RATE if len(found) else float("nan"))
    return means


def describe_positions(
    study: Study,
    row: ComparisonRow,
    curves: Costs,
    pieces: Sequence[TrackPiece],
    limits: Sequence[int],
) -> None:
    """Add table, plot and reading of the loss per position."""
    bins = [*pairwise(limits)]
    rows = []
    for index, (low, high) in enumerate(bins):
        reaching = sum(piece.codes.shape[1] > low for piece in pieces)
        costs = [show([seed[index] for seed in runs]) for runs in curves.values()]
        rows.append([f"{low} to {high - 1}", f"{reaching}", *costs])
    columns = ["position (frames)", "pieces", *(f"{name} (bits/s)" for name in curves)]
    row.tables.append(table(columns, rows))
    centers = [(low + high) / 2 for low, high in bins]
    series = {
        name: spread_series(centers, [*zip(*runs, strict=True)]) for name, runs in curves.items()
    }
    title, x = "Held-out loss per position", "position (frames)"
    row.plots.append(Plot("position-loss", title, x, "bits per second", series, log_x=True))
    if len(bins) > 1:
        what = (
            f"Held-out bits per second less at positions {bins[-1][0]} and later than at the "
            "first 16"
        )
        gains = {name: [seed[0] - seed[-1] for seed in curves[name]] for name in study.compared}
        row.reading.append(verdict(what, gains, "bits/s", lower_is_better=False))


def describe_returns(
    study: Study, row: ComparisonRow, savings: dict[str, Costs], passages: dict[str, Places]
) -> None:
    """Add table, plot and reading of what the far past saves."""
    means = {
        kind: {name: [float(np.mean(seed)) for seed in runs] for name, runs in costs.items()}
        for kind, costs in savings.items()
    }
    rows = []
    for kind, places in passages.items():
        match = float(np.mean([place.match for _, place in places]))
        cells = [show(figures) for figures in means[kind].values()]
        rows.append([kind, f"{len(places)}", f"{match:.0%}", *cells])
    names = [*study.settings.backbones]
    columns = ["passage", "passages", "equal codes", *(f"{n} (bits/s saved)" for n in names)]
    row.tables.append(table(columns, rows))
    returning = [kind for kind in means if kind != NOTHING]
    if returning:
        lags_s = [
            float(np.mean([place.lag for _, place in passages[kind]])) / TOKEN_RATE
            for kind in returning
        ]
        series = {
            name: spread_series(lags_s, [means[kind][name] for kind in returning]) for name in names
        }
        title, x = "Bits saved by the far past", "distance (s)"
        row.plots.append(Plot("returns", title, x, "bits per second", series, log_x=True))
    else:
        row.missing.append("no held-out piece is long enough and returns to a passage")
    for kind, figures in means.items():
        what = f"Bits per second saved by the far past, {kind}"
        compared = {name: figures[name] for name in study.compared}
        row.reading.append(verdict(what, compared, "bits/s", lower_is_better=False))


@dataclass(frozen=True)
class Passage:
    """Pairs a stretch of a piece with the earlier stretch that is most like it."""

    start: int  # its first frame
    lag: int  # how many frames earlier the other one starts
    match: float  # share of its frames whose first code is the same there


def best_matches(codes: np.ndarray, window: int, lags: range) -> tuple[np.ndarray, np.ndarray]:
    """Find the best earlier match of every window of (T,) codes, at distances of ``lags``.

    Returns:
        (T - window + 1,) share of equal codes at the best distance, and that distance; 0 and 0
        where the piece has not gone on for long enough.
    """
    count = max(0, len(codes) - window + 1)
    match, lag = np.zeros(count), np.zeros(count, dtype=int)
    for distance in lags:
        if distance + window > len(codes):
            break
        equal = np.concatenate(([0], np.cumsum(codes[distance:] == codes[:-distance])))
        shares = (equal[window:] - equal[:-window]) / window
        better = shares > match[distance:]
        match[distance:][better] = shares[better]
        lag[distance:][better] = distance
    return match, lag


def chance_limit(codes: np.ndarray, window: int) -> float:
    """Give the share of equal codes that chance hardly reaches, even at the best of many distances.

    Five standard deviations above the share that two random frames of the piece agree.
    """
    chance = float(np.square(np.bincount(codes) / len(codes)).sum())
    return chance + 5 * float(np.sqrt(chance * (1 - chance) / window))


def find_returning(codes: np.ndarray, window: int, lags: range, most: int) -> list[Passage]:
    """Find up to ``most`` passages that match best what stands a distance of ``lags`` before them.

    They do not overlap, the best comes first, and only matches beyond ``chance_limit`` count.
    """
    match, lag = best_matches(codes, window, lags)
    starts = choose_apart(match, match > chance_limit(codes, window), window, most)
    return [Passage(start, int(lag[start]), float(match[start])) for start in starts]


def find_new(codes: np.ndarray, window: int, earliest: int) -> list[Passage]:
    """Find the passage that matches least anything before it: none, or one from ``earliest`` on.

    The past should be of least use for it.
    """
    match, lag = best_matches(codes, window, range(window, len(codes)))
    starts = choose_apart(-match, np.arange(len(match)) >= earliest, window, 1)
    return [Passage(start, int(lag[start]), float(match[start])) for start in starts]


def choose_apart(scores: np.ndarray, free: np.ndarray, window: int, most: int) -> list[int]:
    """Choose up to ``most`` places of the highest scores, at least a window apart."""
    found: list[int] = []
    free = free.copy()
    while len(found) < most and free.any():
        found.append(int(np.argmax(np.where(free, scores, -np.inf))))
        free[max(0, found[-1] - window + 1) : found[-1] + window] = False
    return found
