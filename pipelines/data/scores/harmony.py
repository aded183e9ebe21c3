"""Draw chord progressions of four-chord phrases, from the tonic to a closing cadence."""

import hashlib
import random
from dataclasses import dataclass

from pipelines.data.scores.keys import Chord, Key, chord_of

HELD_OUT_SHARE = 8
"""One progression in this many is kept for the validation split."""
_ATTEMPTS = 100


@dataclass(frozen=True)
class Bank:
    """Hold the four-chord phrases of one idiom and mode by their function."""

    opening: tuple[str, ...]
    middle: tuple[str, ...]
    closing: tuple[str, ...]


@dataclass(frozen=True)
class Slot:
    """Place one chord: start and length (beats), phrase, and position in the phrase."""

    start: float
    length: float
    chord: Chord
    phrase: int
    position: int
    is_last: bool


BANKS = {
    ("functional", "major"): Bank(
        ("I IV V I", "I V I V", "I vi IV V", "I IV I V", "I ii V I", "I V vi IV", "I iii IV V",
         "I I IV V", "I vi ii V", "I IV ii V"),
        ("vi iii IV V", "IV I ii V", "vi ii V I", "ii V I vi", "IV V iii vi", "V7/vi vi ii V",
         "IV I V I", "vi V7/V V V7", "iii vi ii V"),
        ("IV ii V7 I", "vi ii V7 I", "IV I V7 I", "I IV V7 I", "ii V V7 I", "I vi V7 I",
         "IV V V7 I", "V7/V V V7 I"),
    ),
    ("functional", "minor"): Bank(
        ("i iv V i", "i V i V", "i VI iv V", "i iv i V", "i VII VI V", "i i iv V", "i VI iio V",
         "i III iv V", "i V VI iv"),
        ("VI III iv V", "iv i iv V", "III VII i V", "VI iv i V", "iv VII III VI", "III VI iio V",
         "VI VII i V"),
        ("iv iio V7 i", "VI iv V7 i", "i iv V7 i", "iv i V7 i", "VI iio V7 i", "iv V V7 i",
         "i VI V7 i"),
    ),
    ("pop", "major"): Bank(
        ("I V vi IV", "I vi IV V", "I IV vi V", "I iii vi IV", "I IV I V", "I bVII IV I",
         "I V IV V", "I ii IV V", "Iadd9 V vi IV"),
        ("vi IV I V", "IV V vi I", "ii IV I V", "vi V IV V", "IV I V vi", "IV vi I V",
         "vi iii IV V"),
        ("vi IV V I", "IV V I I", "ii IV V I", "I V IV I", "IV V V I", "vi V IV I",
         "IV V7sus4 V I"),
    ),
    ("pop", "minor"): Bank(
        ("i VI III VII", "i VII VI VII", "i iv VI V", "i VI VII i", "i III VII iv", "i v VI iv",
         "i VII i VI", "i iv VII i"),
        ("VI III VII i", "iv i VII VI", "VI VII i iv", "III VII iv VI", "iv VI i V",
         "VI i VII V"),
        ("VI VII i i", "iv VII V i", "VI iv V i", "VI V i i", "iv V V i", "III VII V i",
         "iv VI V i"),
    ),
    ("jazz", "major"): Bank(
        ("Imaj7 vi7 ii7 V7", "Imaj7 V7/ii ii7 V7", "Imaj7 IVmaj7 ii7 V7", "I6 iii7 ii7 V7",
         "Imaj7 Imaj7 ii7 V7", "Imaj9 #io7 ii7 V9", "Imaj7 II7 ii7 V7"),
        ("iii7 V7/ii ii7 V7", "IVmaj7 iv6 iii7 V7/ii", "v7 I7 IVmaj7 V7", "vi7 II7 ii7 V7",
         "IVmaj7 iii7 ii7 V7", "ii7 V7 iii7 vi7"),
        ("ii7 V7 Imaj7 I6", "vi7 ii7 V7 I6", "iii7 ii7 V7 Imaj7", "ii9 V9 Imaj9 I6",
         "IVmaj7 ii7 V7 I6", "II7 ii7 V7 I6"),
    ),
    ("jazz", "minor"): Bank(
        ("i7 iv7 iih7 V7", "i6 VImaj7 iih7 V7", "i7 VImaj7 iv7 V7", "i6 i6 iih7 V7",
         "i7 VII7 VImaj7 V7", "i6 iv6 i6 V7"),
        ("iv7 VII7 IIImaj7 VImaj7", "IIImaj7 VImaj7 iih7 V7", "iv7 i7 iih7 V7",
         "VImaj7 iv7 iih7 V7", "iv7 iv6 i6 V7"),
        ("iih7 V7 i6 i6", "iv7 iih7 V7 i6", "VImaj7 iih7 V7 i6", "iv6 V7 i6 i6", "VI7 V7 i6 i6"),
    ),
    ("blues", "major"): Bank(
        ("I7 I7 I7 I7", "I7 IV7 I7 I7", "I7 IV7 I7 V7", "I7 I7 IV7 I7", "I7 IV7 I7 IV7"),
        ("IV7 IV7 I7 I7", "IV7 #ivo7 I7 I7", "IV7 IV7 I7 V7/ii", "IV7 IV9 I7 V7"),
        ("V7 IV7 I7 I7", "ii7 V7 I7 I7", "V7 V7 I7 I7", "V7 IV9 I7 I7", "V7/V V7 I7 I7"),
    ),
    ("blues", "minor"): Bank(
        ("i7 i7 i7 i7", "i7 iv7 i7 i7", "i7 iv7 i7 V7", "i7 i7 iv7 i7"),
        ("iv7 iv7 i7 i7", "iv7 iv7 i7 V7", "iv7 VII7 i7 i7", "iv7 iv9 i7 i7"),
        ("VI7 V7 i7 i7", "V7 iv7 i7 i7", "iih7 V7 i7 i7", "iv7 V7 i7 i7"),
    ),
    ("modal", "major"): Bank(
        ("Iadd9 IV Iadd9 IV", "I IVadd9 vi IV", "Iadd9 vi7 IVmaj7 V", "I IV I V7sus4",
         "Imaj7 IVmaj7 Imaj7 V", "I V IV I", "I iii7 IV I", "Iadd9 IVmaj7 ii7 V"),
        ("vi7 IV I V", "IVmaj7 I vi7 V", "IV vi7 I V", "ii7 IV vi7 V", "vi IV ii7 V",
         "IVadd9 V vi7 IV"),
        ("IV V7sus4 I Iadd9", "ii7 V I I", "IV V I Iadd9", "vi7 V I I", "IVmaj7 V I I",
         "ii7 V7sus4 V I"),
    ),
    ("modal", "minor"): Bank(
        ("i VI III VII", "i VII iv VI", "i VI iv VII", "i iv i VII", "i III VI VII",
         "iadd9 VI iadd9 VII", "i iv VI VII", "i VI i v"),
        ("VI VII i iv", "iv VI III VII", "III VII iv i", "VI III iv V", "iv i VI VII",
         "VI iv i VII"),
        ("VI VII i i", "iv VII i i", "iv V i i", "VI V i i", "iv VI V i", "III VII i i",
         "iv v i i"),
    ),
}  # fmt: skip


def is_held_out(key: Key, numerals: list[str]) -> bool:
    """Return whether a progression in its key belongs to the validation split.

    The split follows from a hash of the chords, so that no progression is in both splits, however
    many pieces are composed.
    """
    text = f"{key.root} {key.mode} {' '.join(numerals)}".encode()
    return hashlib.blake2b(text, digest_size=4).digest()[0] % HELD_OUT_SHARE == 0


def progression(
    rng: random.Random, bank: str, key: Key, num_phrases: int, held_out: bool
) -> list[str]:
    """Draw ``4 * num_phrases`` numerals of the training split or, held out, of validation.

    A single phrase has few variants in some keys; where none fits the split, two are drawn.
    """
    for _ in range(_ATTEMPTS):
        numerals = _draw(rng, BANKS[bank, key.mode], num_phrases)
        if is_held_out(key, numerals) == held_out:
            return numerals
    return progression(rng, bank, key, num_phrases + 1, held_out)


def _draw(rng: random.Random, bank: Bank, num_phrases: int) -> list[str]:
    opening, answer = rng.choice(bank.opening), rng.choice(bank.opening)
    middle, second = rng.choice(bank.middle), rng.choice(bank.middle)
    inner, last = rng.choice(bank.closing), rng.choice(bank.closing)
    verse, bridge = [opening, answer, opening, inner], [middle, second, opening, inner]
    if num_phrases in (2, 3):
        verse = [opening, middle]
    phrases = [(bridge if i % 8 >= 4 else verse)[i % len(verse)] for i in range(num_phrases)]
    phrases[-1] = last
    if num_phrases == 1:  # half of an opening, half of a cadence
        phrases = [" ".join((*opening.split()[:2], *last.split()[2:]))]
    return [_vary(rng, numeral) for phrase in phrases for numeral in phrase.split()]


def _vary(rng: random.Random, numeral: str) -> str:
    """Replace V by V7, or IV by ii, now and then."""
    if numeral == "V" and rng.random() < 0.25:
        return "V7"
    return "ii" if numeral == "IV" and rng.random() < 0.08 else numeral


def slots(numerals: list[str], key: Key, length: float, chords_per_phrase: int = 4) -> list[Slot]:
    """Lay chords of equal length (beats) one after the other."""
    return [
        Slot(
            start=index * length,
            length=length,
            chord=chord_of(numeral, key),
            phrase=index // chords_per_phrase,
            position=index % chords_per_phrase,
            is_last=index == len(numerals) - 1,
        )
        for index, numeral in enumerate(numerals)
    ]
