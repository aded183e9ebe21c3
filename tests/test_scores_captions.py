"""Test that captions hold the facts, vary, and keep held-out phrasings out of training."""

import random
import re

import pytest

from pipelines.data.scores import captions as module
from pipelines.data.scores.captions import (
    HELD_OUT_TEMPLATES,
    LONG,
    MEDIUM,
    MOODS,
    SHORT,
    SPEEDS,
    captions,
    polish,
)
from pipelines.data.scores.captions import held_out_captions as held_out
from pipelines.data.scores.compose import compose
from pipelines.data.scores.score import all_labels

SPEED_TABLE = [words for _, words in SPEEDS]
LABELS = [all_labels(compose(random.Random(seed))) for seed in range(120)]


def names(instrument: str) -> str:
    """Build a pattern that finds an instrument or one of its synonyms."""
    words = [instrument, *module.INSTRUMENT_WORDS.get(instrument, ())]
    return "|".join(re.escape(word.removeprefix("a ")) for word in words)


@pytest.mark.parametrize("write", [captions, held_out])
def test_instrument_tempo_and_key_are_in_a_majority(write):
    for seed, labels in enumerate(LABELS):
        texts = write(labels, seed)
        assert len(texts) == 6
        tempo = rf"\b{labels['tempo_bpm']:.0f} (bpm|BPM|beats per minute)"
        tonic = labels["key"].replace("#", "(#| sharp)").replace("b", "(b| flat)")
        for pattern in (names(labels["lead"]), tempo, rf"\b{tonic} {labels['mode']}\b"):
            assert sum(bool(re.search(pattern, t, re.IGNORECASE)) for t in texts) >= 4, texts


def test_captions_are_clean_true_of_drums_and_of_many_lengths():
    lengths = set()
    for seed, labels in enumerate(LABELS):
        for text in captions(labels, seed) + held_out(labels, seed):
            assert not re.search(r"[{}<>\[\]]|  | [,.]|,,|\bNone\b", text), text
            assert text == text.strip(" ,;:"), text
            lengths.add(len(text.split()))
            claim = re.search(r"(no|without|with)? ?(drums|percussion)", text)
            assert not claim or (claim[1] in ("no", "without")) != labels["drums"], text
    assert min(lengths) <= 3
    assert max(lengths) >= 20


def test_equal_seeds_give_equal_captions_and_others_differ():
    assert captions(LABELS[0], 5) == captions(LABELS[0], 5)
    assert captions(LABELS[0], 5) != captions(LABELS[0], 6)
    assert len({text for seed in range(50) for text in captions(LABELS[0], seed)}) > 200


def test_drums_mood_style_and_speed_are_said_but_not_always():
    texts = [text for seed, labels in enumerate(LABELS) for text in captions(labels, seed)]
    drums = sum(bool(re.search(r"drums|percussion", text)) for text in texts) / len(texts)
    assert 0.15 < drums < 0.8
    for table in (MOODS.values(), SPEED_TABLE):
        said = [word for words in table for word in words.common + words.rarer]
        share = sum(any(word in text.lower() for word in said) for text in texts) / len(texts)
        assert 0.2 < share < 0.95


def test_missing_facts_are_left_out():
    labels = LABELS[0] | {"key": None, "mode": None, "style": None, "mood": []}
    for seed in range(60):
        for text in captions(labels, seed) + held_out(labels, seed):
            assert not re.search(r"None|\bkey\b|major|minor", text), text


def test_held_out_templates_and_words_are_disjoint_from_training():
    def bare(template: str) -> str:
        return re.sub(r"[<>\[\]]", "", template).lower()

    assert not {*map(bare, HELD_OUT_TEMPLATES)} & {*map(bare, SHORT + MEDIUM + LONG)}
    every = [*MOODS.values(), *SPEED_TABLE]
    trained = {word for words in every for word in words.common + words.rarer}
    assert not trained & {word for words in every for word in words.kept}
    texts = {text.lower() for seed in range(200) for text in captions(LABELS[1], seed)}
    assert not texts & {t.lower() for seed in range(200) for t in held_out(LABELS[1], seed)}


def test_half_of_the_words_that_are_drawn_are_common():
    rng = random.Random(0)
    words = MOODS["happy"]
    drawn = [words.draw(rng, held_out=False) for _ in range(2000)]
    assert {*drawn} == {*words.common, *words.rarer}
    assert 900 < sum(word in words.common for word in drawn) < 1100
    assert words.draw(rng, held_out=True) in words.kept


@pytest.mark.parametrize("write", [captions, held_out])
def test_a_count_below_one_raises(write):
    with pytest.raises(ValueError, match="n must be at least 1"):
        write(LABELS[0], 0, 0)


def test_articles_and_commas_are_mended():
    assert polish("a electric piano , , in a A minor", capital=False) == (
        "an electric piano, in an A minor"
    )
    assert polish("an happy tune. it ends", capital=True) == "A happy tune. It ends"
