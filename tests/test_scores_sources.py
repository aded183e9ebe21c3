"""Test scores by others: Bach's chorales and MMA's arrangements."""

import random

import pytest

from pipelines.data.scores import arrange as arrangements
from pipelines.data.scores.arrange import GROOVES, arrange, mma_source
from pipelines.data.scores.corpus import bach, chorale_names, for_validation, read_chorale
from pipelines.data.scores.harmony import slots
from pipelines.data.scores.keys import Key, estimate_key
from pipelines.data.scores.score import all_labels, pitch_class_weights
from pipelines.data.scores.styles import STYLES

pytest.importorskip("music21")


def test_chorales_are_equal_twice_and_labeled():
    score = bach(random.Random(4))
    assert score == bach(random.Random(4))
    labels = all_labels(score)
    assert labels["style"] == "chorale"
    assert labels["drums"] is False
    assert 54 <= labels["tempo_bpm"] < 132
    if score.key:
        assert estimate_key(pitch_class_weights(score))[0] == score.key


def test_chorales_do_not_cross_splits():
    held_out = {name for name in chorale_names() if for_validation(name)}
    assert 20 < len(held_out) < 100
    assert len(chorale_names()) > 400


def test_a_damaged_chorale_is_passed_over(tmp_path):
    broken = tmp_path / "broken.mxl"
    broken.write_bytes(b"not a score")
    assert read_chorale(str(broken)) is None


def test_sheet_has_one_bar_a_line():
    sheet = mma_source("Swing", 140, slots(["I", "V7"], Key("Bb", "major"), 4.0), 9)
    assert sheet.splitlines() == ["RndSeed 9", "Tempo 140", "Groove Swing", "1 Bb", "2 F7"]


def test_every_groove_has_a_style_to_borrow_from():
    for _, style, slowest, fastest in GROOVES:
        assert arrangements._BORROWED.get(style, style) in STYLES
        assert 50 <= slowest < fastest <= 200


def test_unknown_groove_raises():
    with pytest.raises(ValueError, match="groove must be one of"):
        arrange(random.Random(0), groove="Macarena")


@pytest.mark.slow
@pytest.mark.parametrize("groove", [row[0] for row in GROOVES])
def test_mma_plays_every_groove(groove):
    score = arrange(random.Random(1), groove=groove)
    assert score == arrange(random.Random(1), groove=groove)
    labels = all_labels(score)
    assert len(score.parts) >= 2
    assert labels["lead"] == score.parts[0].instrument
    assert score.key is not None
