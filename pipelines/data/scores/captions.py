"""Generate captions: many phrasings of the labels of a clip.

A template holds ``{slots}``. A stretch in ``<...>`` is used whenever its labels are known, one in
``[...]`` about every second time. Held-out templates and words are for evaluation only.
"""

import random
import re
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from codec.seeds import derive_seed

MOODS_FILE = Path(__file__).with_name("moods.yaml")

SHORT = (
    "{mood} {lead}", "{style} {lead}", "{speed} {lead}", "{lead}< in {key}>", "{lead}, {tempo}",
    "{mood} {style}< {key}>", "{speed} {mood} {style}", "{mood} music, {lead}", "{lead} {style}",
    "{style}, {tempo}< {key}>", "{mood} {lead} music", "{speed} {style} with {lead}",
    "{dynamics} {lead}< {key}>", "{lead} music {tempo}", "{style} with {band}", "{lead} and {mood}",
    "a {speed} {mood} {lead} piece", "{lead} in a {mode} key", "{mode}-key {style}",
    "{speed} and {mood} {lead}", "{lead}, {key}, {tempo}",
)  # fmt: skip
MEDIUM = (
    "a [{speed} ][{mood} ]{lead} piece< in {key}>, {tempo}",
    "[{mood} ]{style} for {band}< in {key}>, {tempo}[, {drums}]",
    "{lead}[, {style}]<, {key}>, {tempo}[, {mood}]",
    "{tempo}<, {key}>, {lead}[, {mood}][, {style}][, {drums}]",
    "[{speed} ]{style} music with {lead}< in the key of {key}> at {tempo}",
    "{mood} {lead} music< in {key}> at {tempo}[, {meter}]",
    "{lead} playing a [{mood} ]tune< in {key}>, {tempo}",
    "{band}[, {dynamics}]<, in {key}>, at {tempo}[, {drums}]",
    "{style}, {lead}, {tempo}<, key of {key}>[, {density}]",
    "a {style} tune on {lead}[, {mood} and {dynamics}]<, {key}>, {tempo}",
    "<{key} >{style} at {tempo} with {band}[, {drums}]",
    "[{dynamics}, ]{mood} {style}: {band}<, {key}>, {tempo}",
    "{mood} {style} {tempo}< {key}> {lead}[ {drums}]",
    "{speed} {lead} melody<, {key} key>, {tempo}[, {register} register]",
    "{lead}< in {key}>[, {meter}], {tempo}[, {drums}][, {mood}]",
    "instrumental {style}[, {mood}], {band}<, {key}>, {tempo}",
    "music for {band}[, {speed} and {mood}]<, in {key}>, {tempo}",
    "[{mood} ]{lead}[ with {others}]<, in {key}>, {tempo}",
    "{tempo} {style}< in {key}>, {lead} leads[, {drums}]",
    "<in {key}, >{tempo}: a [{speed} ]{style} piece played by {band}",
)  # fmt: skip
LONG = (
    "A [{speed}, ]{mood} {style} piece for {band}[, {drums}]. It is< in {key},> at {tempo}.",
    "This is [{mood} ]{style} music[ {drums}]. The {lead} plays the melody< in {key}>, "
    "{tempo}[, {meter}].",
    "{lead} carries a [{density} ][{mood} ]melody[ over {others}]. The tempo is {tempo}< and "
    "the key is {key}>.",
    "An instrumental [in {style} style ]with {band}. [It feels {mood}. ]The tempo is "
    "{tempo}<, the key {key}>.",
    "A piece played by {band}< in {key}>. It is {speed}[ and {mood}], at {tempo}[, {drums}].",
    "[{dynamics} ]{style} with a [{register} ]{lead} melody<, written in {key}>. The beat "
    "goes at {tempo}[, {meter}].",
    "The {lead} plays a {mood} theme[ over {others}]. {tempo}<, {key}>[, {style}].",
    "{mood} and {speed}: {lead}[ with {others}]<, {key}>. It runs at {tempo}[, {drums}][, "
    "{dynamics}].",
    "Imagine a {mood} {style} tune. {band} play[ {drums}]<, in the key of {key}>, at {tempo}.",
    "A [{dynamics} ][{density} ]{style} track featuring {lead}[, {drums}]. Key and tempo: "
    "<{key}, >{tempo}.",
    "{tempo}<, {key}>. A {mood} piece[ of {style}] where the {lead} comes first[, then {others}].",
    "[{speed} ]{lead} music that sounds {mood}[, {drums}]. It has a tempo of {tempo}< and is "
    "in {key}>.",
)  # fmt: skip
HELD_OUT_TEMPLATES = (
    "I would like to hear {lead}<, preferably in {key}>, around {tempo}",
    "please make a {mood} song with {band}< in {key}>, speed {tempo}",
    "give me [some {mood} ]{style}: {lead}, {tempo}<, {key}>",
    "something {mood} on the {lead}<, tonality {key}>, pace {tempo}[, {drums}]",
    "write a {style} number[ that feels {mood}] for {band}; {tempo}<; {key}>",
    "{lead} takes the lead in this {mood} {style} recording<, {key}>[, {drums}], {tempo}",
    "genre: {style}. instruments: {band}. tempo: {tempo}.< key: {key}.>[ mood: {mood}.]",
    "background music, {mood}, mainly {lead}<, {key}>, {tempo}[, {meter}]",
    "We hear {lead} and it is {mood}. {tempo}[ {drums}]<, set in {key}>.",
    "{mood} soundtrack cue featuring {band}, {tempo}<, tonal centre {key}>",
)  # fmt: skip


class Words(NamedTuple):
    """Group the synonyms of one label.

    Attributes:
        common: half of the draws for training.
        kept: held out for evaluation.
        rarer: the other half; so many words that the meaning of their text embeddings is learned.
    """

    common: tuple[str, ...]
    kept: tuple[str, ...]
    rarer: tuple[str, ...] = ()

    def draw(self, rng: random.Random, held_out: bool) -> str:
        """Draw a word for training or, held out, for evaluation."""
        if held_out:
            return rng.choice(self.kept)
        return rng.choice(self.rarer if self.rarer and rng.random() < 0.5 else self.common)


def read_moods() -> dict[str, Words]:
    """Read the words for every mood label from ``moods.yaml``."""
    moods = yaml.safe_load(MOODS_FILE.read_text(encoding="utf-8"))
    return {
        mood: Words(*(tuple(words.get(kind, ())) for kind in Words._fields))
        for mood, words in moods.items()
    }


MOODS = read_moods()
# fmt: off
SPEEDS = (  # tempo below which the words fit (beats a minute)
    (66, Words(("very slow", "slow", "largo", "adagio"), ("drawn-out",), (
        "sluggish", "extremely slow", "crawling", "lento", "dragging", "snail-paced"))),
    (84, Words(("slow", "adagio", "unhurried", "slow"), ("leisurely",), (
        "slow-paced", "lingering", "slowish", "rather slow", "unrushed"))),
    (108, Words(("moderate", "andante", "mid-tempo", "walking-pace"), ("easy-paced",), (
        "strolling", "ambling", "medium-paced", "moderately slow"))),
    (132, Words(("medium-fast", "moderato", "mid-tempo", "steady"), ("flowing",), (
        "fairly fast", "moderately fast", "allegretto", "jogging", "trotting"))),
    (160, Words(("fast", "allegro", "lively", "quick"), ("brisk",), (
        "fast-paced", "swift", "hurried", "up-tempo", "vivace", "running"))),
    (1000, Words(("very fast", "presto", "fast", "rapid"), ("speedy",), (
        "extremely fast", "racing", "prestissimo", "breakneck", "hectic", "lightning-fast"))),
)
# fmt: on
STYLE_WORDS = {
    "classical": ("classical", "classical", "classical-style"),
    "baroque": ("baroque",),
    "folk": ("folk", "folk", "traditional folk"),
    "rock": ("rock", "rock"),
    "pop": ("pop",),
    "ballad": ("ballad", "slow ballad"),
    "jazz": ("jazz", "swing", "jazz"),
    "bossa nova": ("bossa nova", "bossa"),
    "ambient": ("ambient", "ambient"),
    "techno": ("techno", "electronic dance", "techno"),
    "electronic": ("electronic", "synthwave"),
    "waltz": ("waltz",),
    "march": ("march", "marching"),
    "lullaby": ("lullaby",),
    "film": ("film", "cinematic", "film score"),
    "epic": ("epic", "epic orchestral"),
    "orchestral": ("orchestral", "orchestra"),
    "chiptune": ("chiptune", "8-bit", "video game"),
    "funk": ("funk",),
    "blues": ("blues",),
    "latin": ("latin", "Latin dance"),
    "hymn": ("hymn", "church"),
    "new age": ("new age",),
    "tango": ("tango",),
    "chorale": ("chorale", "Bach chorale", "baroque chorale"),
}  # fmt: skip
INSTRUMENT_WORDS = {
    "electric piano": ("e-piano", "Rhodes"), "acoustic guitar": ("guitar", "nylon guitar"),
    "distorted guitar": ("overdriven guitar", "distorted electric guitar"), "saxophone": ("sax",),
    "strings": ("string orchestra", "string section"), "brass": ("brass section",),
    "choir": ("voices", "a choir"), "synth lead": ("synth", "synthesizer"),
    "synth pad": ("pads", "synth pads"), "chiptune lead": ("8-bit synth", "square-wave synth"),
    "double bass": ("upright bass",), "pan flute": ("panpipes",), "french horn": ("horn",),
    "organ": ("pipe organ",), "vibraphone": ("vibes",),
}  # fmt: skip
DRUM_WORDS = {
    True: ("with drums", "with drums", "with percussion", "drums"),
    False: ("no drums", "without drums"),
}
DYNAMICS_WORDS = {"soft": ("soft", "quiet", "gentle"), "loud": ("loud", "forte", "strong")}
DENSITY_WORDS = {
    "sparse": ("sparse", "simple"), "medium": ("flowing", "steady"), "busy": ("busy", "dense")
}  # fmt: skip
METER_WORDS = {
    "4/4": ("4/4", "in 4/4 time"), "3/4": ("3/4", "in 3/4 time", "three-four time"),
    "6/8": ("6/8", "in 6/8 time"), "2/4": ("2/4", "in 2/4 time"),
}  # fmt: skip
_TEMPOS = ("{} bpm", "{} bpm", "{} BPM", "{} beats per minute", "{} bpm")
_SPELLED = {"#": " sharp", "b": " flat"}


def captions(
    labels: dict[str, Any],
    seed: int,
    n: int = 6,
    groups: Sequence[tuple[str, ...]] = (MEDIUM, LONG, MEDIUM, SHORT, MEDIUM, LONG),
) -> list[str]:
    """Describe a clip in ``n`` ways, from three words to two sentences.

    By default five of six captions name the instrument, the tempo in numbers and, when it is known,
    the key; the sixth is short and names one or two facts.

    Args:
        labels: from ``score.all_labels``.
        seed: equal seeds give equal captions.
        n: number of captions, at least 1.
        groups: templates to draw from for the first caption, the second and so on, cyclically.

    Raises:
        ValueError: n is below 1.
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
    usable = [t for t in templates if required(t) <= words.keys()]
    template = rng.choice(usable)
    for fact in ("{drums}", "{speed}") if templates is MEDIUM else ():
        if fact not in template and rng.random() < 0.3:
            template += f", {fact}"
    text, _ = fill(rng, template, words)
    return polish(text, capital=template in LONG or rng.random() < 0.3)


def required(template: str) -> set[str]:
    """List the slots outside brackets: a template is usable only where they are known."""
    return set(re.findall(r"\{(\w+)\}", re.sub(r"<[^>]*>|\[[^\]]*\]", "", template)))


def fill(rng: random.Random, template: str, words: dict[str, str]) -> tuple[str, set[str]]:
    """Put words into a template, bracket by bracket; return the text and the slots it used."""

    def keep(match: re.Match[str]) -> str:
        known = set(re.findall(r"\{(\w+)\}", match[2])) <= words.keys()
        return match[2] if known and (match[1] == "<" or rng.random() < 0.5) else ""

    chosen = re.sub(r"([<\[])([^>\]]*)[>\]]", keep, template)
    return chosen.format(**words), set(re.findall(r"\{(\w+)\}", chosen))


def draw_words(rng: random.Random, labels: dict[str, Any], held_out: bool) -> dict[str, str]:
    """Draw a word or phrase for every slot that the labels can fill."""
    words = {
        "drums": rng.choice(DRUM_WORDS[bool(labels["drums"])]),
        "meter": rng.choice(METER_WORDS[labels["meter"]]),
        "tempo": rng.choice(_TEMPOS).format(round(labels["tempo_bpm"])),
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
