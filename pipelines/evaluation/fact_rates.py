"""How often what was asked for is heard: beside what the detectors can hear, and beside chance."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.evaluation.facts import FACTS, asked_facts, judge
from pipelines.evaluation.takes import Take

RESAMPLES = 1000


@dataclass(frozen=True)
class Rate:
    """A share of prompts with a 95 % interval (bootstrap over prompts).

    Attributes:
        share: None where nothing was asked or heard.
        low, high: the interval.
        num_prompts: behind the share.
    """

    share: float | None
    low: float | None
    high: float | None
    num_prompts: int


@dataclass(frozen=True)
class FactRates:
    """One fact's row: the model, ground truth with the same labels, and shuffled prompts."""

    model: Rate
    ceiling: Rate
    floor: Rate
    of_ceiling: float | None


def fact_rates(
    takes: Sequence[Take], truth: Sequence[Take], ids: Collection[str] | None = None
) -> dict[str, FactRates]:
    """A row for every fact.

    Args:
        takes: of the model, every seed.
        truth: ground-truth takes; may be empty.
        ids: of prompts; None for all.

    Returns:
        Rates by the names of ``FACTS``. A take that the detectors could not listen to (silence)
        has none of the asked facts. The floor judges every take by the other prompts' labels.
    """
    chosen = [take for take in takes if ids is None or take.prompt.id in ids]
    true = [take for take in truth if ids is None or take.prompt.id in ids]
    true = [take for take in true if take.heard is not None]
    model, ceiling, floor = judged_alone(chosen), judged_alone(true), judged_shuffled(chosen)
    rates = {}
    for fact in FACTS:
        row = [rate_of(judged.get(fact, {})) for judged in (model, ceiling, floor)]
        share, best = row[0].share, row[1].share
        ratio = share / best if share is not None and best else None
        rates[fact] = FactRates(row[0], row[1], row[2], ratio)
    return rates


Judged = dict[str, dict[str, list[bool]]]
"""fact -> prompt -> right or wrong, take by take"""


def judged_alone(takes: Sequence[Take]) -> Judged:
    """Every take by its own prompt."""
    judged: Judged = {}
    for take in takes:
        for fact, right in judge_take(take, take).items():
            judged.setdefault(fact, {}).setdefault(take.prompt.id, []).append(right)
    return judged


def judged_shuffled(takes: Sequence[Take]) -> Judged:
    """Every take by the prompts of all other takes of its seed."""
    judged: Judged = {}
    for take in takes:
        for other in takes:
            if other.seed != take.seed or other.prompt.id == take.prompt.id:
                continue
            for fact, right in judge_take(take, other).items():
                judged.setdefault(fact, {}).setdefault(other.prompt.id, []).append(right)
    return judged


def judge_take(take: Take, asking: Take) -> dict[str, bool]:
    """One take's sound by another's prompt."""
    if take.heard is None:
        return dict.fromkeys(asked_facts(asking.prompt), False)
    return judge(asking.prompt, take.heard, take.second)


def rate_of(judged: dict[str, list[bool]]) -> Rate:
    """Mean over prompts of the mean over takes."""
    means = np.array([np.mean(right) for right in judged.values()])
    if not len(means):
        return Rate(None, None, None, 0)
    low, high = bootstrap_interval(means)
    return Rate(float(means.mean()), low, high, len(means))


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """2.5 % and 97.5 % of the means of ``RESAMPLES`` samples drawn with replacement."""
    draws = np.random.default_rng(seed)
    picks = draws.integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return float(low), float(high)
