"""A plan out again as a lead sheet, and plans that close."""

import random

import pytest
import symusic

from pipelines.cli import main
from pipelines.data.scores.melody_file import read_melody_file
from pipelines.inference.plan_schema import save_plan
from prior import ChordChange, MelodyNote, Plan, Section

CHORDS = (ChordChange(0.0, 2, "minor"), ChordChange(4.0, 10, "major"), ChordChange(8.0, 9, "major"))
PLAN = Plan(
    120.0,
    4,
    2,
    "minor",
    CHORDS,
    sections=(Section("verse", 2.0), Section("chorus", 1.0)),
    melody=(MelodyNote(0.5, 1.0, 62), MelodyNote(4.0, 2.0, 65)),
    end_beat=12.0,
)


def test_a_plan_becomes_midi(tmp_path):
    save_plan(tmp_path / "plan.json", PLAN)
    assert main(["score", str(tmp_path / "plan.json"), "--output", str(tmp_path / "s.mid")]) == 0
    midi = symusic.Score(tmp_path / "s.mid")
    assert midi.tempos[0].qpm == pytest.approx(120)
    tune, chords = midi.tracks
    assert [(n.start / 480, n.duration / 480, n.pitch) for n in tune.notes] == [
        (0.5, 1.0, 62),
        (4.0, 2.0, 65),
    ]
    assert sorted(n.pitch % 12 for n in chords.notes if n.start == 4 * 480) == [2, 5, 10]
    assert [(mark.time / 480, mark.text) for mark in midi.markers] == [(0, "verse"), (8, "chorus")]


def test_a_plan_becomes_musicxml(tmp_path):
    music21 = pytest.importorskip("music21")
    state = random.getstate()  # which music21 changes
    save_plan(tmp_path / "plan.json", PLAN)
    assert main(["score", str(tmp_path / "plan.json"), "--output", str(tmp_path / "s.xml")]) == 0
    sheet = music21.converter.parse(tmp_path / "s.xml")
    symbols = list(sheet.recurse().getElementsByClass("ChordSymbol"))
    roots = [[p.pitchClass for p in symbol.pitches] for symbol in symbols]
    assert [sorted(found) for found in roots] == [[2, 5, 9], [2, 5, 10], [1, 4, 9]]
    notes = [n.pitch.midi for n in sheet.recurse().notes if n.isNote]
    assert notes == [62, 65]
    random.setstate(state)


def test_a_tune_is_read_from_what_was_written(tmp_path):
    pytest.importorskip("music21")
    save_plan(tmp_path / "plan.json", PLAN)
    state = random.getstate()
    for name in ("s.mid", "s.musicxml"):
        assert main(["score", str(tmp_path / "plan.json"), "--output", str(tmp_path / name)]) == 0
        assert read_melody_file(tmp_path / name) == PLAN.melody
    (tmp_path / "t.abc").write_text("X:1\nM:4/4\nL:1/4\nK:C\nC D E2|[CG]4|\n")
    assert [note.pitch for note in read_melody_file(tmp_path / "t.abc")] == [60, 62, 64, 67]
    random.setstate(state)


@pytest.mark.parametrize("name", ["a.mid", "a.musicxml", "a.txt", "none.mid"])
def test_a_damaged_tune_is_refused(name, tmp_path):
    if name.endswith("xml"):
        pytest.importorskip("music21")
    if name[0] == "a":
        (tmp_path / name).write_bytes(b"MThd no tune")
    with pytest.raises((ValueError, FileNotFoundError), match=name):
        read_melody_file(tmp_path / name)
