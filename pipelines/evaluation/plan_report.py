"""Report what is heard of a plan and of edits: chords, loops, seams, key and beat.

Chords are recognized by the triad that covers most of each beat's chroma, which was not fitted to
anything, on the model's pieces and on true renders of the same scores. A seam counts as found where
a click lies within 10 ms of it, or where its roughness exceeds that of 19 of 20 places without a
seam: places chosen at random for an edit, starts of the loop's other bars for a loop, whose seam is
one too.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from codec.resampling import resample
from codec.whole_file import write_json
from pipelines.data.markdown import table, write_page
from pipelines.data.plans import plan_of_labels
from pipelines.data.scores.captions import held_out_captions
from pipelines.data.scores.compose import compose
from pipelines.data.scores.score import Score
from pipelines.data.scores.score_sound import SAMPLE_RATE, clip_labels, render
from pipelines.evaluation.artifacts import find_clicks, seam_excess
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.clips import EvaluationClip
from pipelines.evaluation.detectors import load_detectors
from pipelines.evaluation.measurement_cache import MeasurementCache, make_key
from pipelines.evaluation.plan_estimation import (
    estimate_plan,
    find_beats,
    mean_onsets,
    triads_at_beats,
)
from pipelines.evaluation.song_report import measure_song
from pipelines.evaluation.systems import fit_channels
from pipelines.evaluation.takes import pipeline_fingerprint
from pipelines.inference.edit_source import open_audio_to_edit
from pipelines.inference.music_generator import MusicGenerator
from prior.plan import ChordChange, Plan

PIECE_S = 12.0
SPAN_S = (4.0, 8.0)
CONTROLS = 8
LOOP_BARS = 4
FOUND_QUANTILE = 0.95
NEAR_S = 0.01


@dataclass(frozen=True)
class PlanReport:
    """Sets what is measured of plans and edits."""

    folder: Path  # of the report and its measurements, where a stopped report goes on
    pieces: int = 12  # composed pieces of 12 s
    songs: int = 0  # composed songs of minutes, for what returns in them
    seed: int = 0  # of the first piece and song
    recordings: tuple[EvaluationClip, ...] = ()  # clips of real music to edit too


def report_plans(pipeline: MusicGenerator, report: PlanReport) -> dict[str, Any]:
    """Generate, edit and measure, write the report and return its figures."""
    cache, identity = MeasurementCache(report.folder), pipeline_fingerprint(pipeline)

    def measured(name: str, measure: Callable[..., dict[str, Any]], items: Sequence[Any]) -> list:
        keys = [make_key(name, identity, getattr(item, "name", item)) for item in items]
        pairs = tqdm(zip(keys, items, strict=True), total=len(keys), unit=name)
        return [cache.recall(key, measure, pipeline, item) for key, item in pairs]

    rows = measured("piece", measure_piece, range(report.seed, report.seed + report.pieces))
    songs = measured("song", measure_song, range(report.seed, report.seed + report.songs))
    recordings = measured("recording", measure_recording, report.recordings)
    figures: dict[str, Any] = {"pieces": report.pieces, **edit_figures(rows)}
    chords = ("chords", "chords_ceiling", "chords_codec", "chords_floor")
    for name in (*chords, "loop_error_samples"):
        figures[name] = mean([row[name] for row in rows])
    for name in sorted({name for row in songs for name in row} - {"seed"}):
        figures[f"song_{name}"] = mean([row[name] for row in songs if not math.isnan(row[name])])
    edited = [row for row in recordings if "unmeasurable" not in row]
    if recordings:
        figures["recordings_unmeasurable"] = len(recordings) - len(edited)
    if edited:
        figures |= {f"recorded_{name}": value for name, value in edit_figures(edited).items()}
    everything = {"rows": rows, "songs": songs, "recordings": recordings}
    write_json(report.folder / "plans.json", {"figures": figures, **everything})
    page = table(("figure", "value"), [[name, f"{value:.3g}"] for name, value in figures.items()])
    write_page(report.folder / "plans.md", ["# Plans and edits", page])
    return figures


def edit_figures(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Summarize seams, key and beat of edits, and the seams of loops."""
    figures: dict[str, float] = {}
    for name, places in (("edit_seams", "places"), ("loop_seams", "bar_starts")):
        smooth = [seam for row in rows for seam in row.get(places, ())]
        if not smooth:
            continue
        roughness = sorted(seam["roughness_db"] for seam in smooth)
        limit_db = roughness[min(len(roughness) - 1, int(FOUND_QUANTILE * len(roughness)))]
        for kind in (name, places):
            seams = [seam for row in rows for seam in row[kind]]
            missed = [not seam["click"] and seam["roughness_db"] <= limit_db for seam in seams]
            figures[f"{kind}_not_found"] = mean(missed)
    figures["key_kept"] = mean([row["key_kept"] for row in rows])
    for sound in ("", "unedited_"):
        errors_s = [row[f"{sound}beat_error_s"] for row in rows]
        figures[f"{sound}beat_error_s"] = mean(errors_s)
        figures[f"{sound}beat_within_30_ms"] = mean([error_s <= 0.03 for error_s in errors_s])
    return figures


def composed(seed: int) -> tuple[Score, Plan, str]:
    """Compose the score of a seed, its plan, and a caption that no prior was trained on."""
    score = compose(random.Random(seed), held_out=True)
    labels = clip_labels(score, 0.0, PIECE_S)
    plan = plan_of_labels(labels)
    assert plan is not None
    bare = replace(plan, sections=(), melody=(), end_beat=None)
    return score, bare, held_out_captions(labels, seed, 1)[0]


def measure_piece(pipeline: MusicGenerator, seed: int) -> dict[str, Any]:
    """Generate a piece, an edit and a loop for a composed score, and measure them."""
    rate, (score, plan, prompt) = pipeline.sample_rate, composed(seed)
    song = pipeline(prompt, PIECE_S, seed, plan=plan, ending="cut")
    audio = song.audio[0].cpu()
    true = torch.from_numpy(render(score))[:, : round(PIECE_S * SAMPLE_RATE)]
    edited = pipeline.inpaint(song, [SPAN_S], seed=seed + 1).audio[0].cpu()
    codes = pipeline.encode(true[None])[:, : pipeline.prior.num_codebooks]
    coded = pipeline.decode(codes, preview=True)[0].cpu()
    loop = pipeline.loop(prompt, LOOP_BARS, seed=seed, plan=plan).audio[0].cpu()
    bar_s, twice = plan.beats_per_bar * 60 / plan.tempo_bpm, loop.repeat(1, 2)
    return {
        "seed": seed,
        "plan": str(plan),
        "chords": chord_share(audio, rate, plan),
        "chords_ceiling": chord_share(true, SAMPLE_RATE, plan),
        "chords_codec": chord_share(coded, rate, plan),
        "chords_floor": chord_share(audio, rate, composed(seed + 1)[1]),
        "bar_starts": [measure_seam(twice, rate, bar * bar_s) for bar in range(1, LOOP_BARS)],
        "loop_seams": [measure_seam(twice, rate, loop.shape[1] / rate)],
        "loop_error_samples": abs(loop.shape[1] - LOOP_BARS * bar_s * rate),
        **measure_edit(audio, edited, rate, plan.tempo_bpm, seed),
    }


def measure_recording(pipeline: MusicGenerator, clip: EvaluationClip) -> dict[str, Any]:
    """Fill in a stretch of recorded music under the plan that is estimated of it."""
    read, rate = clip.read(), pipeline.sample_rate
    audio = resample(fit_channels(read.audio, pipeline.channels), read.sample_rate, rate)
    try:
        plan = estimate_plan(audio, rate)
        source = open_audio_to_edit(pipeline, audio, plan)
        edited = pipeline.inpaint(source, [SPAN_S], seed=0).audio[0].cpu()
        rest = measure_edit(audio, edited, rate, plan.tempo_bpm, 0)
    except UnmeasurableError as error:
        return {"name": clip.name, "unmeasurable": str(error)}
    return {"name": clip.name, "plan": str(plan), **rest}


def measure_edit(
    audio: Tensor, edited: Tensor, rate: int, tempo_bpm: float, seed: int
) -> dict[str, Any]:
    """Measure an edit's seams, key and beat, and the roughness and beat of its source."""
    rng, detect = random.Random(seed), load_detectors().detect
    controls_s = [rng.uniform(1, PIECE_S - 1) for _ in range(CONTROLS)]
    return {
        "places": [measure_seam(audio, rate, at) for at in controls_s],
        "edit_seams": [measure_seam(edited, rate, at) for at in SPAN_S],
        "key_kept": detect(edited, rate).key == detect(audio, rate).key,
        "beat_error_s": beat_error(edited, rate, tempo_bpm),
        "unedited_beat_error_s": beat_error(audio, rate, tempo_bpm),
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
    """Measure how far (s) the middle stretch's beat lies from the rest's, at a known tempo."""
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
