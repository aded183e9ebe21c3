"""The prompts that a pipeline is tried on, with the facts that each of them asks for.

``prompts.jsonl`` beside this file is the list that evaluations use. ``python -m
pipelines.evaluation.prompts`` writes it again from the caption grammar; change it only together
with the numbers that were measured on it.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codec.seeds import derive_seed
from pipelines.data.scores.captions import (
    HELD_OUT_TEMPLATES,
    LONG,
    MEDIUM,
    MOODS,
    SHORT,
    SPEEDS,
    draw_words,
    fill,
    polish,
    required,
)
from pipelines.data.scores.instruments import INSTRUMENTS
from pipelines.data.scores.score import all_labels
from pipelines.data.scores.theory import SCALES, Key, key_of
from pipelines.evaluation.ground_truth import Wanted, compose_wanted
from pipelines.evaluation.instrument_tagger import LEADS

PROMPTS_PATH = Path(__file__).with_name("prompts.jsonl")
GROUPS = ("trained", "held-out", "free")
NUM_TRAINED = 216  # nine times each of the 24 keys, at least six times each instrument
HELD_OUT_EVERY = 3
KEYLESS_EVERY = 5  # has no common factor with the templates' turn of six
TEMPO_SPAN = (50.0, 200.0)
TEMPLATES = (MEDIUM, LONG, MEDIUM, SHORT, MEDIUM, LONG)  # in the proportion of the training

SLOWEST, FASTEST = 40.0, 210.0  # that a speed word may stand for, beats a minute
MODES_OF_MOODS = {
    **dict.fromkeys(("peaceful", "tender", "warm", "happy", "joyful", "energetic"), "major"),
    **dict.fromkeys(("sad", "melancholic", "serious", "wistful", "tense", "dramatic"), "minor"),
}
NEUTRAL = ("energetic", "lively")


def speed_words() -> dict[str, tuple[float, float]]:
    """What an evaluation takes words to mean: the tempos that the training says them of."""
    ranges: dict[str, tuple[float, float]] = {}
    slowest = SLOWEST
    for limit, words in SPEEDS:
        fastest = min(limit, FASTEST)
        for word in (*words.common, *words.rarer, *words.kept):
            ranges[word] = (ranges.get(word, (slowest, 0.0))[0], fastest)
        slowest = fastest
    return ranges


def mode_words() -> dict[str, str]:
    """Moods that go with one mode only in the training; "gentle" and "intense" say nothing."""
    modes: dict[str, set[str]] = {}
    for mood, words in MOODS.items():
        for word in {*words.common, *words.rarer, *words.kept} - {*NEUTRAL}:
            modes.setdefault(word, set()).add(MODES_OF_MOODS.get(mood, "either"))
    return {word: min(found) for word, found in modes.items() if found in ({"major"}, {"minor"})}


SPEED_WORDS = speed_words()
MODE_WORDS = mode_words()


@dataclass(frozen=True)
class Prompt:
    """A text and what it asks for; None where it does not say.

    Attributes:
        id: unique, for example "trained-017"; the held-out phrasing of the same facts is
            "held-out-017".
        group: one of ``GROUPS``.
        text: of at most 64 tokens.
        tempo_bpm: said in numbers.
        speed: range of tempos that a speed word stands for, beats a minute.
        key: for example "Bb minor".
        mode: "major" or "minor", said in the key, alone or by a mood.
        mode_word: the mode is only said alone or by a mood.
        instrument: that plays the tune, a name of ``instruments.INSTRUMENTS``.
        drums: whether there shall be any.
        style: of the piece that the facts come from; words for styles are not measured.
    """

    id: str
    group: str
    text: str
    tempo_bpm: float | None = None
    speed: tuple[float, float] | None = None
    key: str | None = None
    mode: str | None = None
    mode_word: bool = False
    instrument: str | None = None
    drums: bool | None = None
    style: str | None = None

    def __post_init__(self) -> None:
        if self.group not in GROUPS:
            raise ValueError(f"group must be one of {GROUPS}, got {self.group!r}")
        if self.instrument is not None and self.instrument not in INSTRUMENTS:
            raise ValueError(f"instrument must be one of ours, got {self.instrument!r}")
        if self.mode not in (None, *SCALES):
            raise ValueError(f"mode must be major or minor, got {self.mode!r}")
        if self.key is not None:
            Key(*self.key.split())

    @property
    def wanted(self) -> Wanted:
        """The facts for a ground-truth piece."""
        key = Key(*self.key.split()) if self.key else None
        speed = None if self.tempo_bpm else self.speed
        return Wanted(
            self.tempo_bpm, speed, key, self.mode, self.instrument, self.drums, self.style
        )


def read_prompts(path: Path = PROMPTS_PATH) -> list[Prompt]:
    """The committed list, or another one of the same form.

    Raises:
        ValueError: a line is not a prompt, or two have one id; names the line.
    """
    prompts = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            values = json.loads(line)
            values["speed"] = tuple(values["speed"]) if values.get("speed") else None
            prompts.append(Prompt(**values))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: not a prompt: {error}") from error
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise ValueError(f"{path}: ids must be unique")
    return prompts


def choose_prompts(
    prompts: Sequence[Prompt], groups: Sequence[str] = GROUPS, limit: int | None = None
) -> list[Prompt]:
    """Some groups, and evenly spaced ones of them where there are more than ``limit``.

    Raises:
        ValueError: an unknown group, a limit below 1, or nothing left.
    """
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"groups must be among {', '.join(GROUPS)}, got {group!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    chosen = [prompt for prompt in prompts if prompt.group in groups]
    if not chosen:
        raise ValueError(f"there is no prompt in {', '.join(groups) or 'no group'}")
    count = min(limit or len(chosen), len(chosen))
    return [chosen[index * len(chosen) // count] for index in range(count)]


def make_prompts(seed: int = 0) -> list[Prompt]:
    """The list: every label in the training's phrasings, a third again in held-out ones, free ones.

    Facts come from composed pieces, so that a text never contradicts itself.
    """
    rng = random.Random(derive_seed(seed, "prompts"))
    count = NUM_TRAINED
    low, high = TEMPO_SPAN
    tempos = [round(low + (high - low) * index / (count - 1)) for index in range(count)]
    keys = [key_of(index % 12, ("major", "minor")[index // 12 % 2]) for index in range(count)]
    leads = [LEADS[index % len(LEADS)] for index in range(count)]
    drums = [index % 2 == 0 for index in range(count)]
    for column in (tempos, keys, leads, drums):
        rng.shuffle(column)
    trained, held_out = [], []
    for index, facts in enumerate(zip(tempos, keys, leads, drums, strict=True)):
        wanted = Wanted(tempo_bpm=facts[0], key=facts[1], instrument=facts[2], drums=facts[3])
        labels = all_labels(compose_wanted(wanted, derive_seed(seed, "prompt", index)))
        keyless = index % KEYLESS_EVERY == 0
        number, templates = f"{index:03d}", TEMPLATES[index % len(TEMPLATES)]
        trained.append(phrase(rng, number, "trained", labels, templates, keyless))
        if index % HELD_OUT_EVERY == 0:
            held_out.append(phrase(rng, number, "held-out", labels, HELD_OUT_TEMPLATES, keyless))
    return [*trained, *held_out, *free_prompts()]


def phrase(
    rng: random.Random,
    number: str,
    group: str,
    labels: dict[str, Any],
    templates: tuple[str, ...],
    keyless: bool,
) -> Prompt:
    """Say a piece's labels with a template, and note which of them were said.

    Args:
        rng: source of all draws.
        number: of the piece, for the id.
        group: "trained" or "held-out".
        labels: as made by ``score.all_labels``.
        templates: of ``captions``, one is drawn.
        keyless: say the mode by a mood instead of the key.
    """
    words = draw_words(rng, labels, held_out=group == "held-out")
    if keyless:
        while MODE_WORDS.get(words["mood"]) is None:
            words = draw_words(rng, labels, held_out=group == "held-out")
        del words["key"]
    usable = [
        template
        for template in templates
        if required(template) <= words.keys() and (not keyless or "mood" in required(template))
    ]
    template = rng.choice(usable)
    text, said = fill(rng, add_facts(rng, template), words)
    capital = template in LONG or rng.random() < 0.3
    mode_word = MODE_WORDS.get(words["mood"]) if "mood" in said else None
    if "mode" in said:
        mode_word = labels["mode"]
    return Prompt(
        id=f"{group}-{number}",
        group=group,
        text=polish(text, capital),
        tempo_bpm=labels["tempo_bpm"] if "tempo" in said else None,
        speed=SPEED_WORDS.get(words["speed"]) if "speed" in said else None,
        key=f"{labels['key']} {labels['mode']}" if "key" in said else None,
        mode=labels["mode"] if "key" in said else mode_word,
        mode_word=mode_word is not None and "key" not in said,
        instrument=labels["lead"] if said & {"lead", "band"} else None,
        drums=labels["drums"] if "drums" in said else None,
        style=labels["style"],
    )


def add_facts(rng: random.Random, template: str) -> str:
    """Add drums and speed to some of the templates that do not speak of them."""
    for fact, share in (("{drums}", 0.5), ("{speed}", 0.25)):
        if fact not in template and not template.endswith((".", "]")) and rng.random() < share:
            template += f", {fact}"
    return template


def free_prompts() -> list[Prompt]:
    """What people type: written by hand, in nobody's grammar."""
    prompts = []
    for index, (text, asked) in enumerate(FREE):
        key = asked.get("key")
        facts = dict(asked)
        if key:
            facts["mode"] = key.split()[1]
        elif "mode" in facts:
            facts["mode_word"] = True
        if "speed" in facts:
            facts["speed"] = SPEED_WORDS[facts["speed"]]
        prompts.append(Prompt(f"free-{index:03d}", "free", text, **facts))
    return prompts


# fmt: off
FREE: tuple[tuple[str, dict[str, Any]], ...] = (
    ("a slow sad piano piece in D minor, 70 bpm",
     {"tempo_bpm": 70.0, "speed": "slow", "key": "D minor", "instrument": "piano"}),
    ("happy ukulele-style guitar tune, C major, around 120 bpm",
     {"tempo_bpm": 120.0, "key": "C major", "instrument": "acoustic guitar"}),
    ("energetic rock with distorted guitar and drums at 150 bpm in E minor",
     {"tempo_bpm": 150.0, "key": "E minor", "instrument": "distorted guitar", "drums": True}),
    ("relaxing harp music without drums",
     {"instrument": "harp", "drums": False}),
    ("fast techno, 140 bpm, synth lead, A minor",
     {"tempo_bpm": 140.0, "speed": "fast", "key": "A minor", "instrument": "synth lead"}),
    ("jazz saxophone with a drummer, 110 bpm",
     {"tempo_bpm": 110.0, "instrument": "saxophone", "drums": True}),
    ("church organ, G major, slow and solemn, no drums",
     {"speed": "slow", "key": "G major", "instrument": "organ", "drums": False}),
    ("a lullaby on a music box in F major, 60 bpm, no percussion",
     {"tempo_bpm": 60.0, "key": "F major", "instrument": "music box", "drums": False}),
    ("old video game music, 8-bit square wave, 160 bpm, with drums",
     {"tempo_bpm": 160.0, "instrument": "chiptune lead", "drums": True}),
    ("solo violin, mournful, B minor, 66 bpm",
     {"tempo_bpm": 66.0, "key": "B minor", "instrument": "violin"}),
    ("cheerful flute melody in D major at 132 bpm",
     {"tempo_bpm": 132.0, "key": "D major", "instrument": "flute"}),
    ("dark ambient pads, very slow, no beat",
     {"speed": "very slow", "mode": "minor", "instrument": "synth pad", "drums": False}),
    ("a trumpet fanfare, Bb major, 112 bpm",
     {"tempo_bpm": 112.0, "key": "Bb major", "instrument": "trumpet"}),
    ("bossa nova guitar in A minor, 125 bpm",
     {"tempo_bpm": 125.0, "key": "A minor", "instrument": "acoustic guitar"}),
    ("sad cello over soft chords, C minor, 58 bpm",
     {"tempo_bpm": 58.0, "key": "C minor", "instrument": "cello"}),
    ("funky electric piano groove with drums, 100 bpm",
     {"tempo_bpm": 100.0, "instrument": "electric piano", "drums": True}),
    ("banjo bluegrass, really fast, 180 bpm, G major",
     {"tempo_bpm": 180.0, "speed": "fast", "key": "G major", "instrument": "banjo"}),
    ("French accordion waltz in A minor, 150 bpm",
     {"tempo_bpm": 150.0, "key": "A minor", "instrument": "accordion"}),
    ("choir singing slowly in a major key, no instruments but voices, no drums",
     {"speed": "slow", "mode": "major", "instrument": "choir", "drums": False}),
    ("epic strings with big drums, D minor, 120 bpm",
     {"tempo_bpm": 120.0, "key": "D minor", "instrument": "strings", "drums": True}),
    ("harpsichord, baroque, F minor, 96 bpm",
     {"tempo_bpm": 96.0, "key": "F minor", "instrument": "harpsichord"}),
    ("marimba and percussion, lively, latin, 128 bpm",
     {"tempo_bpm": 128.0, "instrument": "marimba", "drums": True}),
    ("blues harmonica in E major, 90 bpm",
     {"tempo_bpm": 90.0, "key": "E major", "instrument": "harmonica"}),
    ("sorrowful oboe, slow, minor key",
     {"speed": "slow", "mode": "minor", "instrument": "oboe"}),
    ("clarinet solo, playful, Eb major, 126 bpm",
     {"tempo_bpm": 126.0, "key": "Eb major", "instrument": "clarinet"}),
    ("noble french horn theme, Ab major, 76 bpm",
     {"tempo_bpm": 76.0, "key": "Ab major", "instrument": "french horn"}),
    ("vibraphone late at night, mellow, 80 bpm, no drums please",
     {"tempo_bpm": 80.0, "instrument": "vibraphone", "drums": False}),
    ("pan flute, peaceful mountain mood, G major, 72 bpm",
     {"tempo_bpm": 72.0, "key": "G major", "instrument": "pan flute"}),
    ("brass band march with snare drum, 116 bpm, Bb major",
     {"tempo_bpm": 116.0, "key": "Bb major", "instrument": "brass", "drums": True}),
    ("clean electric guitar, pop, 104 bpm, F# minor",
     {"tempo_bpm": 104.0, "key": "F# minor", "instrument": "electric guitar"}),
)
# fmt: on


def write_prompts(path: Path = PROMPTS_PATH, seed: int = 0) -> None:
    """Write the list, one prompt a line, without what it does not ask for."""
    lines = []
    for prompt in make_prompts(seed):
        facts = {name: value for name, value in asdict(prompt).items() if value not in (None, "")}
        if not facts["mode_word"]:
            del facts["mode_word"]
        lines.append(json.dumps(facts, ensure_ascii=False) + "\n")
    path.write_text("".join(lines))


if __name__ == "__main__":
    write_prompts()
