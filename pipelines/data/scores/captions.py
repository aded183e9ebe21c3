"""Generate captions: many phrasings of the labels of a clip.

A template holds ``{slots}``. A stretch in ``<...>`` is used whenever its labels are known, one in
``[...]`` about every second time. Held-out templates and words are for evaluation only.
"""

import random
import re
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any, NamedTuple

from codec.seeds import derive_seed
from pipelines.data.scores.tables import read_table


class Words(NamedTuple):
    """Group the synonyms of one label."""

    common: tuple[str, ...]  # half of the draws for training
    kept: tuple[str, ...]  # held out for evaluation
    # the other half; so many words that the meaning of their text embeddings is learned
    rarer: tuple[str, ...] = ()

    def draw(self, rng: random.Random, held_out: bool) -> str:
        """Draw a word for training or, held out, for evaluation."""
        if held_out:
            return rng.choice(self.kept)
        return rng.choice(self.rarer if self.rarer and rng.random() < 0.5 else self.common)


_TABLE = read_table("captions")
SHORT, MEDIUM, LONG, HELD_OUT_TEMPLATES = _TABLE["templates"].values()
MOODS = {mood: Words(**words) for mood, words in read_table("moods").items()}
SPEEDS = [(limit, Words(**words)) for limit, words in _TABLE["speeds"].items()]
"""Tempo (beats a minute) below which the words fit, and the words."""
STYLE_WORDS, INSTRUMENT_WORDS = _TABLE["styles"], _TABLE["instruments"]
DRUM_WORDS, METER_WORDS = _TABLE["drums"], _TABLE["meter"]
DYNAMICS_WORDS, DENSITY_WORDS = _TABLE["dynamics"], _TABLE["density"]
SLOT = re.compile(r"\{(\w+)\}")
_SPELLED = {"#": " sharp", "b": " flat"}


def captions(
    labels: dict[str, Any],
    seed: int,
    n: int = 6,
    groups: Sequence[tuple[str, ...]] = (MEDIUM, LONG, MEDIUM, SHORT, MEDIUM, LONG),
) -> list[str]:
    """Describe a clip in ``n`` ways, from three words to two sentences.

    By default five of six captions name the instrument, the tempo in numbers and, when it is
    known, the key; the sixth is short and names one or two facts. ``labels`` are those of
    ``score.all_labels``; captions draw their templates from the ``groups``, one after the other.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rng = random.Random(derive_seed(seed, "captions"))
    chosen = islice(cycle(groups), n)
    return [_fill_one(rng, group, labels, held_out=False) for group in chosen]


def held_out_captions(labels: dict[str, Any], seed: int, n: int = 6) -> list[str]:
    """Describe a clip in templates and words that ``captions`` never uses."""
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rng = random.Random(derive_seed(seed, "held-out captions"))
    return [_fill_one(rng, HELD_OUT_TEMPLATES, labels, held_out=True) for _ in range(n)]


def _fill_one(
    rng: random.Random, templates: tuple[str, ...], labels: dict[str, Any], held_out: bool
) -> str:
    words = draw_words(rng, labels, held_out)
    # a template is usable only where the slots outside its brackets are known
    bare = {t: re.sub(r"<[^>]*>|\[[^\]]*\]", "", t) for t in templates}
    usable = [t for t in templates if set(SLOT.findall(bare[t])) <= words.keys()]
    template = rng.choice(usable)
    for fact in ("{drums}", "{speed}") if templates is MEDIUM else ():
        if fact not in template and rng.random() < 0.3:
            template += f", {fact}"
    text, _ = fill(rng, template, words)
    return polish(text, capital=template in LONG or rng.random() < 0.3)


def fill(rng: random.Random, template: str, words: dict[str, str]) -> tuple[str, set[str]]:
    """Put words into a template, bracket by bracket; return the text and the slots it used."""

    def keep(match: re.Match[str]) -> str:
        known = set(SLOT.findall(match[2])) <= words.keys()
        return match[2] if known and (match[1] == "<" or rng.random() < 0.5) else ""

    chosen = re.sub(r"([<\[])([^>\]]*)[>\]]", keep, template)
    return chosen.format(**words), set(SLOT.findall(chosen))


def draw_words(rng: random.Random, labels: dict[str, Any], held_out: bool) -> dict[str, str]:
    """Draw a word or phrase for every slot that the labels can fill."""
    words = {
        "drums": rng.choice(DRUM_WORDS[bool(labels["drums"])]),
        "meter": rng.choice(METER_WORDS[labels["meter"]]),
        "tempo": rng.choice(_TABLE["tempos"]).format(round(labels["tempo_bpm"])),
        "speed": next(w for limit, w in SPEEDS if labels["tempo_bpm"] < limit).draw(rng, held_out),
    }
    if labels.get("key"):
        tonic = labels["key"]
        if len(tonic) == 2 and rng.random() < 0.35:
            tonic = tonic[0] + _SPELLED[tonic[1]]
        words["key"] = f"{tonic} {labels['mode']}"
        words["mode"] = labels["mode"]
    if labels.get("mood"):
        words["mood"] = MOODS[rng.choice(labels["mood"])].draw(rng, held_out)
    if labels.get("style"):
        words["style"] = rng.choice(STYLE_WORDS.get(labels["style"], (labels["style"],)))
    for fact, table in (("dynamics", DYNAMICS_WORDS), ("density", DENSITY_WORDS)):
        if labels.get(fact) in table:
            words[fact] = rng.choice(table[labels[fact]])
    if labels.get("register") in ("low", "high"):
        words["register"] = labels["register"]
    return words | _instrument_words(rng, labels)


def _instrument_words(rng: random.Random, labels: dict[str, Any]) -> dict[str, str]:
    names = [_instrument(rng, name) for name in labels["instruments"]]
    if not names:
        band = rng.choice(("drums only", "drums alone", "solo drums")) if labels["drums"] else ""
        return {"lead": "drums", "band": band} if band else {}
    lead, others = names[0], names[1:3]
    alone = not others and not labels["drums"]
    words = {"lead": f"solo {lead}" if alone and rng.random() < 0.5 else lead}
    *rest, last = [lead, *others]
    words["band"] = f"{', '.join(rest)} and {last}" if rest else last
    if alone:
        words["band"] = rng.choice((f"solo {lead}", f"{lead} alone", lead))
    if others:
        words["others"] = " and ".join(others)
    return words


def _instrument(rng: random.Random, name: str) -> str:
    """Return an instrument's name or, now and then, a synonym."""
    words = INSTRUMENT_WORDS.get(name)
    return rng.choice(words) if words and rng.random() < 0.25 else name


def polish(text: str, capital: bool) -> str:
    """Fix spaces, commas and articles; with ``capital``, start sentences with capital letters."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\s+([,.;:])", r"\1", text)
    text = re.sub(r"([,;:])(?:\s*[,;:])+", r"\1", text)
    text = re.sub(r"[,;:]\.", ".", text)
    text = re.sub(r"\b([Tt]he|[Aa]n?) a ", r"\1 ", text)
    text = re.sub(r"\b([Aa])n? (?=[aeio]|up|un|[AEF] |[AE][b#]? )", r"\1n ", text)
    text = re.sub(r"\b([Aa])n (?![aeio8]|up|un|[AEF] |[AE][b#]? )", r"\1 ", text)
    text = re.sub(r"\b([Aa]) (?=8-bit)", r"\1n ", text).strip(" ,;:")
    if capital:
        text = re.sub(r"(^|\. )([a-z])", lambda m: m[1] + m[2].upper(), text)
    return text
