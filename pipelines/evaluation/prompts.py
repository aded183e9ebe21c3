"""Read the prompts of an evaluation, with the facts that each of them asks for.

``prompts.jsonl`` beside this file is the list: ``trained`` and ``held-out`` phrasings of composed
pieces, drawn from an earlier caption grammar, and ``free`` ones written by hand. Change
it only together with the numbers measured on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.data.row_files import read_rows
from pipelines.data.scores.keys import Key
from pipelines.data.shards import evenly_spaced
from pipelines.errors import check_name, check_names
from pipelines.evaluation.ground_truth import Wanted

PROMPTS_PATH = Path(__file__).with_name("prompts.jsonl")
GROUPS = ("trained", "held-out", "free")


@dataclass(frozen=True)
class Prompt:
    """Holds a text and the facts that it asks for."""

    # unique, for example "trained-017"; the held-out phrasing of the same facts is "held-out-017"
    id: str
    group: str  # one of ``GROUPS``
    text: str  # of at most 64 tokens
    wanted: Wanted = field(default_factory=Wanted)  # the facts; words for styles are not measured

    def __post_init__(self) -> None:
        check_name("group", self.group, GROUPS)


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
            prompts.append(_read_prompt(row))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a prompt: {error}") from error
    if len({prompt.id for prompt in prompts}) < len(prompts):
        raise ValueError(f"{path}: ids must be unique")
    return prompts


def _read_prompt(row: dict[str, Any]) -> Prompt:
    about = {name: row[name] for name in ("id", "group", "text") if name in row}
    facts = {name: value for name, value in row.items() if name not in about}
    if facts.get("speed"):
        facts["speed"] = tuple(facts["speed"])
    if facts.get("key"):
        facts["key"] = Key(*facts["key"].split())
    return Prompt(**about, wanted=Wanted(**facts))


def choose_prompts(
    prompts: Sequence[Prompt], groups: Sequence[str] = GROUPS, limit: int | None = None
) -> list[Prompt]:
    """Choose the prompts of some groups, evenly spaced ones where there are more than ``limit``.

    Raises:
        ValueError: an unknown group, a limit below 1, or nothing left.
    """
    check_names("groups", groups, GROUPS)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    chosen = [prompt for prompt in prompts if prompt.group in groups]
    if not chosen:
        raise ValueError(f"there is no prompt in {', '.join(groups) or 'no group'}")
    return [chosen[index] for index in evenly_spaced(chosen, limit or len(chosen))]
