"""Prompts of an evaluation, with the facts that each of them asks for.

``prompts.jsonl`` beside this file is the list: ``trained`` and ``held-out`` phrasings of composed
pieces, drawn from an earlier caption grammar, and ``free`` ones written by hand. Change
it only together with the numbers measured on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.data.row_files import read_rows
from pipelines.data.scores.instruments import INSTRUMENTS
from pipelines.data.scores.keys import SCALES, Key
from pipelines.evaluation.ground_truth import Wanted

PROMPTS_PATH = Path(__file__).with_name("prompts.jsonl")
GROUPS = ("trained", "held-out", "free")


@dataclass(frozen=True)
class Prompt:
    """A text and the facts that it asks for; None where it does not say.

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
    """Read the committed list, or another one of the same form.

    Raises:
        ValueError: a line is not a prompt, or two have one id; names the line.
    """
    prompts = []
    file = read_rows(path)
    if file.faults:
        raise ValueError(f"{path}, {file.faults[0]}")
    for number, row in file.rows.items():
        try:
            speed = tuple(row["speed"]) if row.get("speed") else None
            prompts.append(Prompt(**row | {"speed": speed}))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a prompt: {error}") from error
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise ValueError(f"{path}: ids must be unique")
    return prompts


def choose_prompts(
    prompts: Sequence[Prompt], groups: Sequence[str] = GROUPS, limit: int | None = None
) -> list[Prompt]:
    """Choose the prompts of some groups, evenly spaced ones where there are more than ``limit``.

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
