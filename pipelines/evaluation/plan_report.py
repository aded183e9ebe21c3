"""Report what is heard of a plan and of edits: chords, loops, seams, key and beat.

Chords are recognized by the triad that covers most of each beat's chroma, which was not fitted to
anything, on the model's pieces and on true renders of the same scores. A seam counts as found where
a click lies within 10 ms of it, or where its roughness exceeds 19 of 20 places chosen at random in
pieces without a seam.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from codec.whole_file import write_json
from pipelines.data.markdown import table, write_page
from pipelines.data.plans import plan_of_labels
from pipelines.data.scores.captions import held_out_captions
from pipelines.data.scores.compose import compose
from pipelines.data.scores.score import Score
from pipelines.data.scores.score_sound import SAMPLE_RATE, clip_labels, render
from pipelines.evaluation.artifacts import find_clicks, seam_excess
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.detectors import load_detectors
from pipelines.evaluation.measurement_cache import MeasurementCache, make_key
from pipelines.evaluation.plan_estimation import find_beats, mean_onsets, triads_at_beats
from pipelines.evaluation.song_report import measure_song
from pipelines.evaluation.takes import pipeline_fingerprint
from prior.plan import ChordChange, Plan

if TYPE_CHECKING:
    from pipelines.inference.music_generator import MusicGenerator

PIECE_S = 12.0
SPAN_S = (4.0, 8.0)
CONTROLS = 8
FOUND_QUANTILE = 0.95
NEAR_S = 0.01


def report_plans(
    pipeline: "MusicGenerator", pieces: int, songs: int, seed: int, folder: Path
) -> dict[str, Any]:
    """Generate and measure pieces; write ``plans.json`` and ``plans.md``; a stopped run goes on."""
    cache, identity = MeasurementCache(folder), pipeline_fingerprint(pipeline)
    rows = [
        cache.recall(make_key("plans", identity, number), measure_piece, pipeline, number)
        for number in tqdm(range(seed, seed + pieces), unit="piece")
    ]
    roughness = sorted(value for row in rows for value in row["controls_db"])
    limit_db = roughness[min(len(roughness) - 1, int(FOUND_QUANTILE * len(roughness)))]
    figures: dict[str, Any] = {"pieces": pieces, "seam_limit_db": limit_db}
    for name in ("chords", "chords_ceiling", "chords_floor", "loop_error_samples"):
        figures[name] = mean([row[name] for row in rows])
    for name in ("edit_seams", "loop_seams"):
        seams = [seam for row in rows for seam in row[name]]
        missed = [not seam["click"] and seam["roughness_db"] <= limit_db for seam in seams]
        figures[f"{name}_not_found"] = mean(missed)
    for name in ("key_kept", "beat_error_s"):
        figures[name] = mean([row[name] for row in rows])
    figures["beat_within_30_ms"] = mean([row["beat_error_s"] <= 0.03 for row in rows])
    long_rows = [
        cache.recall(make_key("song", identity, number), measure_song, pipeline, number)
        for number in tqdm(range(seed, seed + songs), unit="song")
    ]
    for name in sorted({name for row in long_rows for name in row} - {"seed"}):
        known = [row[name] for row in long_rows if not math.isnan(row[name])]
        figures[f"song_{name}"] = mean(known)
    write_json(folder / "plans.json", {"figures": figures, "rows": rows, "songs": long_rows})
    page = table(("figure", "value"), [[name, f"{value:.3g}"] for name, value in figures.items()])
    write_page(folder / "plans.md", ["# Plans and edits", page])
    return figures


def composed(seed: int) -> tuple[Score, Plan, str]:
    """Compose the score of a seed, its plan, and a caption that no prior was trained on."""
    score = compose(random.Random(seed), held_out=True)
    labels = clip_labels(score, 0.0, PIECE_S)
    plan = plan_of_labels(labels)
    assert plan is not None
    bare = replace(plan, sections=(), melody=(), end_beat=None)
    return score, bare, held_out_captions(labels, seed, 1)[0]


def measure_piece(pipeline: "MusicGenerator", seed: int) -> dict[str, Any]:
    """Generate a piece, an edit and a loop for a composed score, and measure them."""
    rate, (score, plan, prompt) = pipeline.codec.sample_rate, composed(seed)
    rng = random.Random(seed)
    controls_s = [rng.uniform(1, PIECE_S - 1) for _ in range(CONTROLS)]
    song = pipeline(prompt, PIECE_S, seed, plan=plan, ending="cut")
    audio = song.audio[0].cpu()
    true = torch.from_numpy(render(score))[:, : round(PIECE_S * SAMPLE_RATE)]
    edited = pipeline.inpaint(song, [SPAN_S], seed=seed + 1).audio[0].cpu()
    loop = pipeline.loop(prompt, 2, seed=seed, plan=plan).audio[0].cpu()
    detect = load_detectors().detect
    bars_s = 2 * plan.beats_per_bar * 60 / plan.tempo_bpm
    return {
        "seed": seed,
        "plan": str(plan),
        "chords": chord_share(audio, rate, plan),
        "chords_ceiling": chord_share(true, SAMPLE_RATE, plan),
        "chords_floor": chord_share(audio, rate, composed(seed + 1)[1]),
        "controls_db": [measure_seam(audio, rate, at)["roughness_db"] for at in controls_s],
        "edit_seams": [measure_seam(edited, rate, at) for at in SPAN_S],
        "loop_seams": [measure_seam(loop.repeat(1, 2), rate, loop.shape[1] / rate)],
        "loop_error_samples": abs(loop.shape[1] - bars_s * rate),
        "key_kept": detect(edited, rate).key == detect(audio, rate).key,
        "beat_error_s": beat_error(edited, rate, plan.tempo_bpm),
    }


def measure_seam(audio: Tensor, rate: int, at_s: float) -> dict[str, Any]:
    """Measure how rough the sound is at a place, and whether a click lies there."""
    reach = 1.0
    first = max(0, round((at_s - reach) * rate))
    part, at = audio[:, first : round((at_s + reach) * rate)], at_s - first / rate
    try:
        clicks = find_clicks(part, rate)
        excess_db = seam_excess(part, rate, [at])[0]
    except UnmeasurableError:
        return {"click": False, "roughness_db": 0.0}
    return {"click": any(abs(t - at) < NEAR_S for t in clicks), "roughness_db": excess_db}


def chord_share(audio: Tensor, rate: int, plan: Plan) -> float | None:
    """Compute the share of beats whose triad is the plan's; None for a plan without chords."""
    if not plan.chords:
        return None
    hits = []
    beats = int(audio.shape[1] / rate * plan.tempo_bpm / 60)
    for beat, triad in enumerate(triads_at_beats(audio, rate, plan.tempo_bpm)[:beats]):
        wanted = chord_at(plan.chords, plan.first_beat + beat)
        if wanted is not None and triad is not None:
            hits.append(triad == (wanted.root, wanted.quality))
    return mean(hits)


def chord_at(chords: Sequence[ChordChange], beat: float) -> ChordChange | None:
    """Find the chord that sounds at a beat."""
    return next((chord for chord in reversed(chords) if chord.beat <= beat + 1e-6), None)


def beat_error(audio: Tensor, rate: int, tempo_bpm: float) -> float:
    """Measure how far (s) the edited stretch's beat lies from the rest's, at a known tempo."""
    places = []
    for start_s, end_s in ((0.0, SPAN_S[0]), SPAN_S):
        part = audio[:, round(start_s * rate) : round(end_s * rate)]
        try:
            _, first_s = find_beats(mean_onsets(part, rate), tempo_bpm, refine=False)
        except UnmeasurableError:
            return float("inf")
        places.append(start_s + first_s)
    period = 60 / tempo_bpm
    distance = (places[1] - places[0]) % period
    return min(distance, period - distance)


def mean(values: Sequence[float | bool | None]) -> float:
    """Average the values that there are; NaN for none, the median where some are infinite."""
    known = sorted(float(value) for value in values if value is not None)
    if not known:
        return float("nan")
    return known[len(known) // 2] if known[-1] == float("inf") else sum(known) / len(known)
