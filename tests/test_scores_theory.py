"""Test keys and chords, and the phrases that chord progressions consist of."""

import random

import pytest

from pipelines.data.scores.arrange import chord_name
from pipelines.data.scores.harmony import BANKS, is_held_out, progression, slots
from pipelines.data.scores.keys import Key, chord_of, estimate_key, key_of, scale_over
from prior.theory import SCALES, TONICS

KEYS = [Key(tonic, mode) for mode, tonics in TONICS.items() for tonic in tonics]


def test_triads_of_c_major_and_a_minor():
    in_c = {"ii": (2, 5, 9), "V7": (7, 11, 2, 5), "bVII": (10, 2, 5), "V7/ii": (9, 1, 4, 7)}
    in_a = {"VI": (5, 9, 0), "iih7": (11, 2, 5, 9)}
    for key, chords in ((Key("C", "major"), in_c), (Key("A", "minor"), in_a)):
        assert {numeral: chord_of(numeral, key).pitch_classes for numeral in chords} == chords


def test_scale_bends_where_the_chord_does():
    a_minor, c_major = Key("A", "minor"), Key("C", "major")
    assert scale_over(chord_of("V7", a_minor), a_minor)[6] == 8  # G sharp
    assert scale_over(chord_of("i", a_minor), a_minor) == a_minor.scale
    assert scale_over(chord_of("bVII", c_major), c_major)[6] == 10  # B flat


@pytest.mark.parametrize("numeral", ["", "H", "Vx", "V13"])
def test_unreadable_numerals_raise(numeral):
    with pytest.raises(ValueError, match="chord"):
        chord_of(numeral, Key("C", "major"))


@pytest.mark.parametrize(("tonic", "mode"), [("H", "major"), ("C", "dorian")])
def test_unknown_keys_raise(tonic, mode):
    with pytest.raises(ValueError, match="must be"):
        Key(tonic, mode)


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key.tonic}-{key.mode}")
def test_scale_with_strong_triad_is_found(key):
    weights = [0.0] * 12
    for step in SCALES[key.mode]:
        weights[(key.root + step) % 12] += 1.0
    for tone in chord_of("I" if key.mode == "major" else "i", key).pitch_classes:
        weights[tone] += 2.0
    found, margin = estimate_key(weights)
    assert (found.root, found.mode) == (key.root, key.mode)
    assert margin > 0
    assert estimate_key([0.0] * 12)[1] == 0.0


@pytest.mark.parametrize("bank", sorted({name for name, _ in BANKS}))
@pytest.mark.parametrize("mode", ["major", "minor"])
def test_progressions_close_on_the_tonic_and_never_cross_splits(bank, mode):
    for seed in range(24):
        key = key_of(seed, mode)
        for held_out in (False, True):
            numerals = progression(random.Random(seed), bank, key, 1 + seed % 3, held_out)
            assert len(numerals) % 4 == 0
            assert is_held_out(key, numerals) == held_out
            chords = [slot.chord for slot in slots(numerals, key, 4.0)]
            assert chords[-1].root == key.root


def test_every_phrase_of_every_bank_can_be_read_and_played_by_mma():
    for (_, mode), bank in BANKS.items():
        for phrase in (*bank.opening, *bank.middle, *bank.closing):
            assert len(phrase.split()) == 4
            for numeral in phrase.split():
                assert chord_name(chord_of(numeral, Key("E", mode)))
    assert chord_name(chord_of("ii7", Key("C", "major"))) == "Dm7"
