"""Test the composer: every style and instrument, exact tempo, a clear key, one seed."""

import random
import re
from itertools import pairwise

import pytest

from pipelines.data.plans import plan_of_labels
from pipelines.data.scores.captions import MEDIUM, captions
from pipelines.data.scores.compose import ENSEMBLES, compose, swung, without_overlap
from pipelines.data.scores.drums import PATTERNS, play_drums
from pipelines.data.scores.harmony import slots
from pipelines.data.scores.instruments import BASSES, INSTRUMENTS, name_of_program
from pipelines.data.scores.keys import Key, estimate_key
from pipelines.data.scores.melody import compose_melody
from pipelines.data.scores.score import (
    Note,
    all_labels,
    is_key_clear,
    pitch_class_weights,
    top_voice,
)
from pipelines.data.scores.score_sound import clip_labels
from pipelines.data.scores.songs import compose_song
from pipelines.data.scores.styles import DYNAMICS, STYLES, moods
from prior.theory import METERS

LEADS = [name for name in INSTRUMENTS if name not in BASSES]


def test_equal_seeds_give_equal_scores():
    first, again, other = (compose(random.Random(seed)) for seed in (7, 7, 8))
    assert first == again
    assert first != other


@pytest.mark.parametrize("style", STYLES)
def test_every_style_composes_in_every_ensemble(style):
    for number, ensemble in enumerate(ENSEMBLES):
        score = compose(random.Random(number), False, style, ensemble)
        labels = all_labels(score)
        assert labels["style"] == style
        assert STYLES[style].tempo[0] <= score.tempo_bpm <= STYLES[style].tempo[1]
        assert 8 < score.duration_s < 75
        assert labels["dynamics"] in DYNAMICS
        assert labels["mood"]


@pytest.mark.parametrize("lead", LEADS)
def test_every_instrument_leads(lead):
    for ensemble in ENSEMBLES:
        score = compose(random.Random(3), ensemble=ensemble, lead=lead)
        labels = all_labels(score)
        assert labels["lead"] == labels["instruments"][0] == lead
        assert score.parts[0].program in INSTRUMENTS[lead].programs


def test_notes_fit_midi_and_the_lead_its_range():
    for seed in range(60):
        score = compose(random.Random(seed))
        for part in score.parts:
            for note in part.notes:
                assert 0 <= note.pitch <= 127
                assert 1 <= note.velocity <= 127
                assert note.start >= 0
                assert note.duration > 0
            assert all(0 <= value <= 127 for value in (part.volume, part.pan))
        top = max(note.pitch for note in score.parts[0].notes)
        assert top <= INSTRUMENTS[score.parts[0].instrument].high + 12


def test_the_key_label_is_the_estimate_from_the_notes():
    scores = [compose(random.Random(seed), held_out=seed % 5 == 0) for seed in range(80)]
    assert sum(is_key_clear(score) for score in scores) >= 78
    for score in scores:
        assert score.key is not None
        found, _ = estimate_key(pitch_class_weights(score))
        assert found == score.key or not is_key_clear(score)


def test_onsets_lie_on_the_grid_of_the_tempo():
    for seed in range(30):
        score = compose(random.Random(seed), style_name="march")
        beat_s = 60 / score.tempo_bpm
        unit = 0.25 if score.meter.division == 2 else 1 / 6
        errors = [
            abs(note.start / unit - round(note.start / unit)) * unit * beat_s
            for part in score.parts
            for note in part.notes
        ]
        assert max(errors) < 0.02


def test_labels_count_solo_duo_and_drums():
    seen = set()
    for seed in range(120):
        labels = all_labels(compose(random.Random(seed)))
        seen.add(labels["ensemble"])
        if labels["ensemble"] == "solo":
            assert len(labels["instruments"]) == 1
            assert not labels["drums"]
        if labels["ensemble"] == "duo":
            assert len(labels["instruments"]) <= 2
    assert seen == set(ENSEMBLES)


def test_drums_may_be_fixed_where_the_style_has_some():
    for drums in (None, True, False):
        for seed in range(6):
            score = compose(random.Random(seed), style_name="techno", drums=drums)
            assert all_labels(score)["drums"] is (drums is not False)
    score = compose(random.Random(0), style_name="hymn", ensemble="band", drums=True)
    assert not all_labels(score)["drums"]


@pytest.mark.parametrize(
    "arguments", [{"style_name": "polka-punk"}, {"ensemble": "octet"}, {"lead": "theremin"}]
)
def test_unknown_names_raise(arguments):
    with pytest.raises(ValueError, match="must be one of"):
        compose(random.Random(0), **arguments)


@pytest.mark.parametrize("density", ["sparse", "medium", "busy"])
@pytest.mark.parametrize("meter", ["4/4", "3/4", "6/8"])
def test_melody_fills_the_harmony_and_ends_on_the_tonic(meter, density):
    key = Key("D", "minor")
    harmony = slots(["i", "iv", "V", "i", "VI", "iv", "V7", "i"], key, float(METERS[meter].beats))
    for seed in range(10):
        rng = random.Random(seed)
        notes = compose_melody(rng, harmony, key, METERS[meter], (60, 76), density)
        assert notes[-1].pitch % 12 == key.root
        assert all(60 <= note.pitch <= 76 for note in notes)
        ends = [note.start + note.duration for note in notes]
        assert [note.start for note in notes[1:]] == pytest.approx(ends[:-1])
        assert ends[-1] == pytest.approx(harmony[-1].start + harmony[-1].length)


@pytest.mark.parametrize("meter", ["4/4", "3/4", "6/8"])
def test_every_drum_pattern_fills_its_bar(meter):
    for name, lines in PATTERNS[meter].items():
        assert len({len(line) for line in lines.values()}) == 1, name
        beats = METERS[meter].beats
        notes = play_drums(random.Random(0), name, METERS[meter], 8.0 * beats, 4.0 * beats)
        assert {int(note.start // beats) for note in notes} == set(range(8))


def test_swing_moves_only_off_beats_and_repeated_pitches_do_not_overlap():
    notes = [Note(0, 0.5, 60, 90), Note(0.5, 0.5, 62, 90), Note(1.0, 1, 64, 90)]
    assert [note.start for note in swung(notes)] == pytest.approx([0, 2 / 3, 1])

    notes = without_overlap([Note(0, 4, 60, 90), Note(1, 1, 60, 90), Note(1, 1, 64, 90)])
    assert [(n.start, n.duration) for n in notes if n.pitch == 60] == [(0, 1), (1, 1)]


def test_moods_follow_mode_and_speed():
    assert "sad" in moods("pop", "minor", 60, "moderate")
    assert "joyful" in moods("pop", "major", 160, "moderate")
    assert "calm" in moods("pop", "major", 70, "soft")


def test_every_program_has_a_name_or_is_a_noise():
    assert all(name_of_program(p) in {*INSTRUMENTS, None} for p in range(128))
    assert name_of_program(0) == "piano"


def test_a_song_returns_to_its_sections_and_ends():
    for seed in range(4):
        song = compose_song(random.Random(seed))
        assert 60 <= song.duration_s <= 250
        assert song.complete
        assert song.labels["source"] == "songs"
        bar = song.meter.beats
        lengths = [section.bars * bar for section in song.sections]
        starts = [sum(lengths[:n]) for n in range(len(lengths))]
        chorus = [
            (start, length)
            for start, length, section in zip(starts, lengths, song.sections, strict=True)
            if section.name == "chorus"
        ]
        assert len(chorus) >= 2
        played = []
        for start, length in chorus:
            inside = [
                (n.pitch, n.start - start)
                for part in song.parts
                for n in part.notes
                if start - 0.1 <= n.start < start + length - 0.1
            ]
            played.append(sorted(inside))
        assert [pitch for pitch, _ in played[0]] == [pitch for pitch, _ in played[1]]
        times = [[time for _, time in notes] for notes in played]
        assert times[0] == pytest.approx(times[1], abs=1e-6)
        assert len(played[0]) > 20
        assert song.num_beats <= sum(lengths) + 0.2
        assert song.chords[-1].root == (song.key.root if song.key else None)
        plan = plan_of_labels(clip_labels(song, 0.0, 20.0))
        assert plan is not None
        assert plan.sections == tuple(song.sections)
        assert plan.end_beat == pytest.approx(song.num_beats, abs=1e-3)
        assert all(a.beat + a.beats <= b.beat + 1e-3 for a, b in pairwise(plan.melody))


def test_the_top_voice_is_one_note_at_a_time():
    chord = [Note(0.0, 1.0005, 60, 90), Note(0.01, 1.0, 72, 90), Note(0.5, 1.0, 55, 90)]
    notes = [*chord, Note(1.0, 1.0, 71, 90), Note(1.5, 2.0, 74, 90)]
    assert [(n.start, n.pitch) for n in top_voice(notes)] == [(0.0, 60), (1.0, 71), (1.5, 74)]
    for seed in range(10):
        plan = plan_of_labels(clip_labels(compose(random.Random(seed)), 0.0, 15.0))
        assert plan is not None  # whose notes may not overlap
        assert all(note.beats > 0 for note in plan.melody)


def test_drums_may_play_alone():
    score = compose(random.Random(3), ensemble="drums")
    labels = clip_labels(score, 0.0, 20.0)
    assert [part.instrument for part in score.parts] == ["drums"]
    assert (labels["key"], labels["instruments"], labels["drums"]) == (None, [], True)
    plan = plan_of_labels(labels)
    assert plan is not None
    assert (plan.chords, plan.instruments, plan.drums) == ((), (), True)
    for text in captions(labels, 1, 12, (MEDIUM,)):
        assert re.search("drums|percussion", text, re.I)
