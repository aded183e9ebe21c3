"""Draw chord progressions of four-chord phrases, from the tonic to a closing cadence."""

import hashlib
import random
from dataclasses import dataclass

from pipelines.data.scores.keys import Chord, Key, chord_of
from pipelines.data.scores.tables import read_table

HELD_OUT_SHARE = 8  # one progression in this many is kept for the validation split
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
    (idiom, mode): Bank(**phrases)
    for idiom, modes in read_table("harmony").items()
    for mode, phrases in modes.items()
}


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
