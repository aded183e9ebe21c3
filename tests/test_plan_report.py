"""Estimated plans, and what of a plan and of an edit is heard, on sound made for the test."""

import math
from pathlib import Path

import pytest
import torch
from tiny_pipeline import tiny_pipeline

from codec.audio_file import write_audio
from pipelines.evaluation import plan_report
from pipelines.evaluation.clip_checks import UnmeasurableError
from pipelines.evaluation.clips import choose_clips
from pipelines.evaluation.plan_estimation import estimate_plan, find_beats
from pipelines.evaluation.song_report import melody_share, section_similarity
from pipelines.inference.plan_schema import read_plan
from prior import ChordChange, MelodyNote, Plan, Section
from prior.theory import TRIADS

RATE = 22_050
TEMPO = 100.0
QUALITIES = ("major", "minor", "major", "major")
PLAN = Plan(
    TEMPO,
    4,
    chords=tuple(
        ChordChange(4.0 * n, root, quality)
        for n, (root, quality) in enumerate(zip((0, 9, 5, 7), QUALITIES, strict=True))
    ),
)


def played(offset_s: float = 0.0, bars: int = 4) -> torch.Tensor:
    """Plucked triads on every beat of ``PLAN``, after a silence."""
    beat_s = 60 / TEMPO
    sound = torch.zeros(round((offset_s + bars * 4 * beat_s) * RATE))
    times = torch.arange(round(beat_s * RATE)) / RATE
    for beat in range(bars * 4):
        chord = PLAN.chords[beat // 4 % 4]
        start = round((offset_s + beat * beat_s) * RATE)
        for step in TRIADS[chord.quality]:
            hertz = 261.63 * 2 ** ((chord.root + step) % 12 / 12)
            note = 0.2 * torch.sin(2 * math.pi * hertz * times) * torch.exp(-4 * times)
            sound[start : start + len(note)] += note[: len(sound) - start]
    return sound.expand(2, -1).clone()


def test_a_plan_is_estimated_with_beat_chords_and_what_is_known():
    draft = read_plan({"bpm": TEMPO, "drums": False})
    plan = estimate_plan(played(0.3), RATE, draft)
    assert plan.tempo_bpm == TEMPO
    assert plan.drums is False
    first_beat_s = (-plan.first_beat % 1) * 60 / TEMPO
    assert first_beat_s == pytest.approx(0.3, abs=0.04)
    assert plan_report.chord_share(played(), RATE, PLAN) > 0.9
    assert plan_report.chord_share(played(0.3), RATE, plan) > 0.7
    bar_s = (-plan.first_beat % 4) * 60 / TEMPO
    assert bar_s == pytest.approx(0.3, abs=0.04)


def test_chords_that_are_not_there_are_not_heard():
    other = Plan(TEMPO, 4, chords=(ChordChange(0.0, 6, "major"),))
    assert plan_report.chord_share(played(), RATE, other) < 0.1
    assert plan_report.chord_share(played(), RATE, Plan(TEMPO)) is None


def test_a_tempo_is_refined_and_a_sound_without_beat_is_refused():
    envelope = torch.zeros(1000)
    envelope[(torch.arange(20) * 50.5).round().long().clamp(max=999)] = 4.0
    tempo, first_s = find_beats(envelope, 119.5, refine=True)
    assert tempo == pytest.approx(60 / 0.505, rel=2e-3)
    assert first_s < 0.02
    with pytest.raises(UnmeasurableError, match="no beat was found"):
        find_beats(torch.zeros(1000), 120.0, refine=True)


def test_a_seam_with_a_jump_is_found_and_a_smooth_place_is_not():
    sound = played()
    at = sound.shape[1] // 2 + 3000
    smooth = plan_report.measure_seam(sound, RATE, at / RATE)
    broken = sound.clone()
    broken[:, at:] += 0.3
    rough = plan_report.measure_seam(broken, RATE, at / RATE)
    assert not smooth["click"]
    assert rough["roughness_db"] > smooth["roughness_db"] + 10


def test_a_section_that_returns_is_more_alike_than_another():
    """Verse, chorus, verse, chorus of a bar each; only the choruses are equal."""
    one = played(bars=4)
    bar = round(4 * 60 / TEMPO * RATE)
    bars = [one[:, n * bar : (n + 1) * bar] for n in (0, 2, 1, 2)]
    codes = torch.tensor([1, 2, 3, 2]).repeat_interleave(60)
    sections = tuple(Section(name, 1) for name in ("verse", "chorus", "verse", "chorus"))
    plan = Plan(TEMPO, 4, sections=sections)
    found = section_similarity(torch.cat(bars, dim=1), RATE, codes, 25.0, plan)
    assert found["chroma_same"] > 0.99 > found["chroma_other"] + 0.2
    assert found["tokens_same"] > found["tokens_other"]
    alone = section_similarity(
        bars[0], RATE, codes[:60], 25.0, Plan(TEMPO, 4, sections=sections[:1])
    )
    assert all(math.isnan(value) for value in alone.values())


def test_a_tune_is_heard_at_its_time_in_any_octave():
    plan = Plan(60.0, 4, melody=(MelodyNote(0, 1, 60), MelodyNote(1, 1, 64), MelodyNote(99, 1, 65)))
    assert melody_share([(0.05, 72), (1.2, 64)], plan) == 0.5
    assert math.isnan(melody_share([], Plan(60.0)))


def test_recordings_are_edited_and_those_without_a_beat_are_counted(tmp_path: Path):
    pipeline = tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    write_audio(tmp_path / "band.wav", played(bars=5), RATE)
    write_audio(tmp_path / "silence.wav", torch.zeros(1, 12 * RATE), RATE)
    clips = choose_clips([tmp_path], 2, plan_report.PIECE_S)
    rows = [plan_report.measure_recording(pipeline, clip) for clip in clips.clips]
    assert [sorted(row) for row in rows] == [
        [
            *("beat_error_s", "edit_seams", "key_kept", "name"),
            *("places", "plan", "unedited_beat_error_s"),
        ],
        ["name", "unmeasurable"],
    ]
    figures = plan_report.edit_figures(rows[:1])
    assert 0 <= figures["edit_seams_not_found"] <= 1
    assert "loop_seams_not_found" not in figures
    assert figures["unedited_beat_within_30_ms"] == 1.0  # a metronome's, in the source itself


def test_loops_are_compared_with_starts_of_bars():
    smooth = [{"click": False, "roughness_db": float(db)} for db in range(20)]
    row = {"places": smooth, "bar_starts": [{"click": False, "roughness_db": 30.0}] * 20}
    row |= {"edit_seams": smooth[:2], "loop_seams": [{"click": False, "roughness_db": 25.0}]}
    figures = plan_report.edit_figures(
        [row | {"key_kept": True, "beat_error_s": 0.01, "unedited_beat_error_s": 0.0}]
    )
    assert figures["loop_seams_not_found"] == figures["edit_seams_not_found"] == 1.0
    assert figures["places_not_found"] == 1.0
