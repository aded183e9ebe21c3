"""Test that MIDI files read back as the scores that they were written from."""

import itertools
import random
from typing import Any

import pytest
import symusic

from pipelines.data.midi_file import read_midi
from pipelines.data.scores.compose import compose
from pipelines.data.scores.score import Note, Part, Score
from pipelines.data.scores.score_midi import read_tracks, write_midi
from prior.theory import METERS


def piece(meter: str = "4/4", parts: int = 1) -> Score:
    notes = [Note(0, 1, 60, 90), Note(1, 0.5, 64, 80), Note(1.5, 2.5, 67, 70)]
    return Score(97.0, METERS[meter], None, [Part("piano", 5, list(notes)) for _ in range(parts)])


@pytest.mark.parametrize(("meter", "quarters"), [("4/4", 1.0), ("6/8", 1.5)])
def test_a_score_survives_a_round_trip(meter, quarters):
    score = piece(meter)
    midi: Any = symusic.Score.from_midi(write_midi(score, tail_s=2.0))
    assert [(t.numerator, t.denominator) for t in midi.time_signatures] == [
        tuple(map(int, meter.split("/")))
    ]
    assert midi.tempos[0].qpm == pytest.approx(97.0 * quarters, rel=1e-5)
    ((program, drums, notes),) = read_tracks(midi)
    assert (program, drums) == (5, False)
    assert [(n.pitch, n.velocity) for n in notes] == [(60, 90), (64, 80), (67, 70)]
    for attribute in ("start", "duration"):
        times = [getattr(note, attribute) for note in notes]
        expected = [getattr(note, attribute) * quarters for note in score.parts[0].notes]
        assert times == pytest.approx(expected)
    controls = {control.number: control.value for control in midi.tracks[0].controls}
    assert controls == {7: 100, 10: 64, 91: 40, 93: 0}
    seconds = midi.end() / midi.ticks_per_quarter * 60 / midi.tempos[0].qpm
    assert seconds == pytest.approx(score.duration_s + 2.0, abs=0.01)


def test_parts_have_tracks_of_their_own_up_to_fifteen_pitched_ones():
    score = piece(parts=15)
    score.parts.append(Part("drums", 0, [Note(0, 1, 36, 100)]))
    drums = [is_drums for _, is_drums, _ in read_tracks(read_midi(write_midi(score)))]
    assert (len(drums), sum(drums)) == (16, 1)
    with pytest.raises(ValueError, match="at most 15 pitched parts"):
        write_midi(piece(parts=16))


def test_onsets_in_the_file_give_the_labeled_tempo():
    for seed in range(10):
        score = compose(random.Random(seed), style_name="techno")
        midi = read_midi(write_midi(score))
        (drums,) = (notes for _, is_drums, notes in read_tracks(midi) if is_drums)
        kicks = sorted(note.start for note in drums if note.pitch == 36)
        gaps = [b - a for a, b in itertools.pairwise(kicks) if 0.9 < b - a < 1.1]
        beat_s = sum(gaps) / len(gaps) * 60 / midi.tempos[0].qpm
        assert 60 / beat_s == pytest.approx(score.tempo_bpm, rel=0.01)


def test_every_truncation_is_a_value_error_or_loses_only_notes():
    data = write_midi(piece())
    for length in range(0, len(data) - 1, 7):
        try:
            midi = read_midi(data[:length])
        except ValueError:
            continue
        assert midi.note_num() <= 3
