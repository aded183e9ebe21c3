"""The plan as JSON: exact round trips, errors that name bar and field, what goes before what."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cli import main
from pipelines.inference.chord_symbols import read_chord
from pipelines.inference.plan_schema import (
    draft_json,
    draft_plan,
    load_plan,
    plan_json,
    read_plan,
    save_plan,
)
from pipelines.inference.prompt_words import compare_prompt
from prior import ChordChange, MelodyNote, Plan, Section
from prior.plan import INSTRUMENTS, QUALITIES, SECTIONS
from prior.plan_draft import PlanDraft
from prior.theory import MODES

PLAN = Plan(
    92.5,
    3,
    2,
    "minor",
    (ChordChange(0.0, 2, "minor"), ChordChange(3.5, 10, "major")),
    0.25,
    ("piano", "cello"),
    False,
    (Section("verse", 4.0), Section("chorus", 8.0)),
    (MelodyNote(0.0, 1.5, 62), MelodyNote(1.5, 0.5, 69)),
    36.0,
)

beats_of = st.integers(1, 4000).map(lambda n: n / 16)


@settings(max_examples=60, deadline=None)
@given(
    tempo=st.floats(20, 400),
    meter=st.integers(1, 16),
    key=st.none() | st.tuples(st.integers(0, 11), st.sampled_from(MODES)),
    places=st.lists(st.integers(0, 3_000_000), unique=True, max_size=12).map(sorted),
    quality=st.sampled_from(QUALITIES),
    first=st.floats(0, 1e4),
    players=st.lists(st.sampled_from(INSTRUMENTS), unique=True),
    drums=st.sampled_from((None, False, True)),
    form=st.lists(st.tuples(st.sampled_from(SECTIONS), beats_of.filter(lambda b: b >= 0.25))),
    pitches=st.lists(st.integers(0, 127), max_size=5),
    end=st.none() | st.floats(600, 1e5),
)
def test_a_plan_written_and_read_is_the_plan(
    tempo, meter, key, places, quality, first, players, drums, form, pitches, end
):
    chords = tuple(ChordChange(n / 1000, n % 12, quality) for n in places)
    notes = tuple(MelodyNote(n * 1.25, 1.125, pitch) for n, pitch in enumerate(pitches))
    form = tuple(Section(*item) for item in form)
    tonic, mode = key or (None, None)
    plan = Plan(tempo, meter, tonic, mode, chords, first, tuple(players), drums, form, notes, end)
    written = json.dumps(plan_json(plan))
    draft = read_plan(json.loads(written))
    assert draft.is_complete
    assert draft.completed(None, 0.0) == plan
    assert json.dumps(plan_json(draft.completed(None, 0.0))) == written


def test_a_file_holds_a_plan_and_a_line_for_every_chord(tmp_path: Path):
    save_plan(tmp_path / "plan.json", PLAN)
    assert draft_plan(tmp_path / "plan.json").completed(None, 0.0) == PLAN
    assert '    {"bar": 2, "beat": 1.5, "chord": "Bb"}' in (tmp_path / "plan.json").read_text()
    assert load_plan(tmp_path / "plan.json") == plan_json(PLAN)


def test_a_draft_written_and_read_fixes_the_same():
    draft = draft_plan({"meter": "4/4"}, {"chords": "Dm A:2", "drums": True})
    assert read_plan(draft_json(draft)) == draft
    assert read_plan(draft_json(PlanDraft.of(PLAN))).completed(None, 0.0) == PLAN
    assert draft_json(PlanDraft()) == {"version": 1}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bmp": 90}, "a plan has no 'bmp': choose from bpm, "),
        ({"version": 2}, "version must be 1, got 2"),
        ({"bpm": 401}, r"bpm must be a number in \[20, 400\], got 401"),
        ({"bpm": True}, "bpm must be a number"),
        ({"key": "H minor"}, "key must be like D minor, Bb major or F#m, got 'H minor'"),
        ({"meter": "0/4"}, "meter must be like 4/4, 3/4 or 6/8, got '0/4'"),
        ({"instruments": "flut"}, "instruments: 'flut' is not known: did you mean 'flute'?"),
        ({"instruments": [3]}, r"instruments must be names, got \[3\]"),
        ({"drums": "maybe"}, "drums must be true, false or null, got 'maybe'"),
        ({"sections": "verse:0"}, r"sections, entry 1 \(verse\): bars must be a number in"),
        ({"sections": "verse:4 refrain:8"}, "sections, entry 2: must be among intro, verse"),
        ({"chords": "Dm Xyz"}, "chords, symbol 2: chord must be a symbol such as .* got 'Xyz'"),
        ({"chords": "Dm:0"}, r"chords, symbol 1: beats must be a number in"),
        ({"chords": ""}, "chords must hold a symbol, got ''"),
        ({"chords": [{"bar": 1, "chord": "C"}]}, "meter must be given where chords have bars"),
    ],
)
def test_a_wrong_field_is_named_with_its_rule_and_value(values: dict, message: str):
    with pytest.raises(ValueError, match=message):
        read_plan(values)


@pytest.mark.parametrize(
    ("chords", "message"),
    [
        ([{"bar": 2, "beat": 5, "chord": "C"}], r"chords, bar 2: beat must lie in \[1, 5\), got 5"),
        ([{"bar": 0, "chord": "C"}], "chords, entry 1: bar must be a number in"),
        ([{"bar": 1.5, "chord": "C"}], "chords, entry 1: bar must be whole, got 1.5"),
        ([{"bar": 3, "chord": "Q"}], "chords, bar 3, beat 1: chord must be a symbol"),
        ([{"bar": 1, "symbol": "C"}], "chords, entry 1 must hold bar, beat, chord"),
        (
            [{"bar": 2, "chord": "C"}, {"bar": 1, "beat": 4, "chord": "G"}],
            "chords, bar 1, beat 4: must come after the entry before it",
        ),
    ],
)
def test_a_wrong_chord_is_named_with_its_bar(chords: list, message: str):
    with pytest.raises(ValueError, match=message):
        read_plan({"meter": "4/4", "chords": chords})


def test_a_melody_that_overlaps_itself_or_leaves_the_piece_is_refused():
    notes = [{"bar": 1, "beats": 2, "pitch": "D4"}, {"bar": 1, "beat": 2, "beats": 1, "pitch": 64}]
    with pytest.raises(ValueError, match="melody, bar 1, beat 2: the note before it still sounds"):
        read_plan({"meter": "4/4", "melody": notes})
    with pytest.raises(ValueError, match="end_beat must lie behind the whole tune"):
        read_plan({"meter": "4/4", "melody": notes[:1], "end_beat": 1})


@pytest.mark.parametrize(
    ("symbol", "root", "quality", "whole"),
    [
        ("C", 0, "major", True),
        ("Bb", 10, "major", True),
        ("Bb7", 10, "major", False),
        ("F#m7b5", 6, "diminished", False),
        ("B♭m", 10, "minor", True),
        ("C-7", 0, "minor", False),
        ("AbΔ7", 8, "major", False),
        ("C°", 0, "diminished", True),
        ("Gsus4", 7, "major", False),
        ("C/E", 0, "major", False),
        ("E7#9", 4, "major", False),
        ("C6/9", 0, "major", False),
    ],
)
def test_chord_symbols_are_read_as_musicians_write_them(symbol, root, quality, whole):
    chord = read_chord(symbol)
    assert (chord.root, chord.quality, chord.note == "") == (root, quality, whole)


@pytest.mark.parametrize("symbol", ["", "H", "dm", "C/1", "N.C.", "Cxyz", "m7"])
def test_a_symbol_that_nobody_can_read_is_refused(symbol: str):
    with pytest.raises(ValueError, match="chord must be a symbol such as"):
        read_chord(symbol)


def test_what_a_plan_cannot_hold_of_a_chord_is_said():
    with pytest.warns(UserWarning, match="Dm7 is played as Dm"):
        draft_plan(None, {"chords": "Dm7"})


def test_fields_go_before_the_plan_and_that_is_said():
    with pytest.warns(UserWarning, match="bpm of the plan gives way to 120"):
        draft = draft_plan(PLAN, {"bpm": 120})
    assert draft.completed(None, 0.0) == replace(PLAN, tempo_bpm=120.0)
    with pytest.raises(TypeError, match="unexpected argument 'tempo'"):
        draft_plan(None, {"tempo": 120})


def test_chords_keep_their_bars_where_the_meter_is_changed():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = draft_plan(PLAN, {"meter": "4/4"}).completed(None, 0.0)
    assert [chord.beat for chord in plan.chords] == [0.0, 4.5]


def test_what_of_a_prompt_its_plan_does_not_follow_is_said():
    plan = Plan(120.0, tonic=0, mode="major", instruments=("saxophone",), drums=False)
    said = compare_prompt("orchestral battle in D minor with timpani, drums, flute, 90 bpm", plan)
    assert said == [
        "the prompt says 90 bpm, the plan 120 bpm: the plan counts",
        "the prompt says D minor, the plan C major: the plan counts",
        "the prompt says drums, the plan no drums: the plan counts",
        "the prompt says flute, the plan saxophone: the plan counts",
        "no training text had: battle, timpani (see partita vocabulary)",
    ]
    assert compare_prompt("a calm sax tune in C major, 120 bpm, no drums", plan) == []


def test_the_vocabulary_is_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["vocabulary"]) == 0
    assert "chiptune lead" in capsys.readouterr().out
    assert main(["vocabulary", "--json"]) == 0
    assert "F# minor" in json.loads(capsys.readouterr().out)["keys"]
