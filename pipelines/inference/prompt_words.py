"""What a prompt says that its plan does not: other facts, and words that no training text had."""

import itertools
import re
from collections.abc import Iterable
from functools import lru_cache

from pipelines.data.scores import captions
from pipelines.inference.conditioning import STATED_TEMPO
from prior.plan import INSTRUMENTS, PITCH_NAMES, Plan
from prior.theory import PITCH_CLASSES, TONICS

_KEY = re.compile(r"(?<![\w#])([A-G](?:[#b♯♭]| sharp| flat)?)[\s-]+(major|minor)\b")
_METER = re.compile(r"\b([2346])/([48])\b")
_SMALL = "a an the in of for with and or at on to by its is it key music piece song no without"


def compare_prompt(prompt: str, plan: Plan) -> list[str]:
    """Say where a plan departs from its prompt, and which words of it no training text had."""
    lines = []
    for said, planned in contradictions(prompt, plan):
        lines.append(f"the prompt says {said}, the plan {planned}: the plan counts")
    unknown = unknown_words(prompt)
    if unknown:
        lines.append(f"no training text had: {', '.join(unknown)} (see partita vocabulary)")
    return lines


def contradictions(prompt: str, plan: Plan) -> Iterable[tuple[str, str]]:
    """Find pairs of what a prompt says and what its plan has in its place."""
    tempo, key, meter = STATED_TEMPO.search(prompt), _KEY.search(prompt), _METER.search(prompt)
    if tempo and abs(float(tempo[1]) / plan.tempo_bpm - 1) > 0.02:
        yield tempo[0], f"{plan.tempo_bpm:.0f} bpm"
    if key and plan.tonic is not None:
        spelled = key[1].replace(" sharp", "#").replace(" flat", "b")
        tonic = PITCH_CLASSES.get(spelled.replace("♯", "#").replace("♭", "b"))
        if (tonic, key[2]) != (plan.tonic, plan.mode):
            yield key[0], f"{PITCH_NAMES[plan.tonic]} {plan.mode}"
    if meter:
        beats = int(meter[1]) // (3 if meter[2] == "8" and int(meter[1]) % 3 == 0 else 1)
        if beats != plan.beats_per_bar:
            yield meter[0], f"{plan.beats_per_bar} beats a bar"
    drums = asked_drums(prompt)
    if drums is not None and plan.drums is not None and drums != plan.drums:
        yield ("drums" if drums else "no drums"), ("drums" if plan.drums else "no drums")
    for word, name in instruments_named(prompt):
        if plan.instruments and name not in plan.instruments:
            yield word, ", ".join(plan.instruments)


def asked_drums(prompt: str) -> bool | None:
    """Tell whether a prompt asks for drums; None where it says nothing of them."""
    if re.search(r"\b(no|without) (drums?|percussion)\b", prompt, re.I):
        return False
    return True if re.search(r"\b(drums?|percussion)\b", prompt, re.I) else None


def instruments_named(prompt: str) -> list[tuple[str, str]]:
    """Find instruments in a prompt, as written and by name; the longest at a place counts."""
    words = {name: name for name in INSTRUMENTS}
    words |= {word: name for name, more in captions.INSTRUMENT_WORDS.items() for word in more}
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    names = {word.lower(): name for word, name in words.items()}
    found = re.findall(rf"\b(?:{pattern})\b", prompt, re.I)
    return [(word, names[word.lower()]) for word in dict.fromkeys(found)]


def unknown_words(prompt: str) -> list[str]:
    """Find the words that occur in no caption, in their order."""
    rest = prompt
    for pattern in (STATED_TEMPO, _KEY, _METER):
        rest = pattern.sub(" ", rest)
    known = caption_words()
    words = dict.fromkeys(re.findall(r"[^\W\d_]\w*", rest))
    return [word for word in words if not {word.lower(), word.lower().rstrip("s")} & known]


def vocabulary() -> dict[str, list[str]]:
    """Return the words of the training captions, by what they name."""
    moods = [word for words in captions.MOODS.values() for word in (*words.common, *words.rarer)]
    speeds = [word for _, words in captions.SPEEDS for word in (*words.common, *words.rarer)]
    instruments = [*INSTRUMENTS, *itertools.chain(*captions.INSTRUMENT_WORDS.values())]
    tables = {
        "instruments": instruments,
        "styles": [*captions.STYLE_WORDS, *itertools.chain(*captions.STYLE_WORDS.values())],
        "moods": moods,
        "speeds": speeds,
        "drums": [*itertools.chain(*captions.DRUM_WORDS.values())],
        "dynamics": [*itertools.chain(*captions.DYNAMICS_WORDS.values())],
        "density": [*itertools.chain(*captions.DENSITY_WORDS.values())],
        "meters": [*itertools.chain(*captions.METER_WORDS.values())],
        "keys": [f"{tonic} {mode}" for mode, tonics in TONICS.items() for tonic in tonics],
    }
    return {name: [*dict.fromkeys(words)] for name, words in tables.items()}


@lru_cache(maxsize=1)
def caption_words() -> frozenset[str]:
    """Return all single words of the captions, in small letters."""
    known = (*vocabulary().values(), captions.SHORT, captions.MEDIUM, captions.LONG)
    phrases = [*itertools.chain(*known), _SMALL]
    texts = re.sub(r"\{\w+\}", " ", " ".join(phrases)).lower()
    return frozenset(re.findall(r"[^\W\d_]\w*", texts))
