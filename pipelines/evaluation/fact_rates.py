"""How often takes have the facts that were asked for, beside a ceiling and a floor."""

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
        share: None where no prompt asks for the fact.
        low, high: the interval.
        num_prompts: behind the share.
    """

    share: float | None
    low: float | None
    high: float | None
    num_prompts: int


@dataclass(frozen=True)
class FactRates:
    """Rates of one fact: the model, ground truth with the same labels, and shuffled prompts."""

    model: Rate
    ceiling: Rate
    floor: Rate
    of_ceiling: float | None


def fact_rates(
    takes: Sequence[Take], truth: Sequence[Take], ids: Collection[str] | None = None
) -> dict[str, FactRates]:
    """Compute the rates of every fact.

    Args:
        takes: of the model, every seed.
        truth: ground-truth takes; may be empty.
        ids: of prompts; None for all.

    Returns:
        Rates by the names of ``FACTS``. A take that is too silent for the detectors has none of
        the asked facts. The floor judges every take by the labels of its seed's other takes.
    """
    chosen = [take for take in takes if ids is None or take.prompt.id in ids]
    true = [take for take in truth if ids is None or take.prompt.id in ids]
    true = [take for take in true if take.detected is not None]
    shuffled = [
        (take, other)
        for take in chosen
        for other in chosen
        if other.seed == take.seed and other.prompt.id != take.prompt.id
    ]
    judged = [
        judge_pairs(pairs)
        for pairs in ([(take, take) for take in chosen], [(take, take) for take in true], shuffled)
    ]
    rates = {}
    for fact in FACTS:
        model, ceiling, floor = (average(side.get(fact, {})) for side in judged)
        ratio = model.share / ceiling.share if model.share is not None and ceiling.share else None
        rates[fact] = FactRates(model, ceiling, floor, ratio)
    return rates


def judge_pairs(pairs: Sequence[tuple[Take, Take]]) -> dict[str, dict[str, list[bool]]]:
    """Judge the sound of each first take by the prompt of the second.

    Returns:
        fact -> id of the prompt -> right or wrong, take by take.
    """
    judged: dict[str, dict[str, list[bool]]] = {}
    for take, asking in pairs:
        if take.detected is None:
            facts = dict.fromkeys(asked_facts(asking.prompt), False)
        else:
            facts = judge(asking.prompt, take.detected, take.second)
        for fact, right in facts.items():
            judged.setdefault(fact, {}).setdefault(asking.prompt.id, []).append(right)
    return judged


def average(judged: dict[str, list[bool]]) -> Rate:
    """Average over prompts the averages over takes."""
    means = np.array([np.mean(right) for right in judged.values()])
    if not len(means):
        return Rate(None, None, None, 0)
    low, high = bootstrap_interval(means)
    return Rate(float(means.mean()), low, high, len(means))


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """Compute 2.5 % and 97.5 % of the means of 1,000 samples drawn with replacement."""
    draws = np.random.default_rng(seed)
    picks = draws.integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    return float(low), float(high)
