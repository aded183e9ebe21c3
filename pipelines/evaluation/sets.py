"""Sets of takes: Fréchet distance to ground truth, and how much the takes of a prompt differ."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from pipelines.evaluation.frechet import equal_windows, frechet_distance
from pipelines.evaluation.takes import Take

Value = float | str


def frechet_between(
    takes: Sequence[Take], references: Sequence[Take], space: str
) -> tuple[Value, int]:
    """Compute the distance between two sets of takes at equal N, or the reason for none; and N.

    Only the first take of every prompt is used, so that the sets hold the same prompts.
    """
    estimate, reference = (
        stacked([take for take in side if take.seed == 0], space) for side in (takes, references)
    )
    if isinstance(estimate, str):
        return estimate, 0
    if isinstance(reference, str):
        return reference, 0
    estimate, reference = equal_windows(estimate, reference)
    if len(estimate) < 2:
        return "fewer than two windows", len(estimate)
    return frechet_distance(reference, estimate), len(estimate)


def frechet_within(takes: Sequence[Take], space: str) -> tuple[Value, int]:
    """Compute the distance between the two halves of a set: what equal sets of this size read."""
    firsts = [take for take in takes if take.seed == 0]
    return frechet_between(firsts[::2], firsts[1::2], space)


def stacked(takes: Sequence[Take], space: str) -> np.ndarray | str:
    """Stack the (N, D) vectors of all takes that have them, or say why none has."""
    vectors = [take.vectors[space] for take in takes]
    found = [part for part in vectors if not isinstance(part, str)]
    if found:
        return np.concatenate(found)
    reasons = [part for part in vectors if isinstance(part, str)]
    return reasons[0] if reasons else "no takes"


def seed_diversity(takes: Sequence[Take], space: str) -> Value:
    """Divide the distance between takes of one prompt by that between takes of different prompts.

    Distances are Euclidean, between the mean vectors of takes, each dimension scaled to a standard
    deviation of 1 over all takes. 0: every seed gives the same; 1: the prompt does not matter.
    """
    means: dict[str, list[np.ndarray]] = {}
    for take in takes:
        vectors = take.vectors[space]
        if not isinstance(vectors, str):
            means.setdefault(take.prompt.id, []).append(vectors.mean(0))
    if max((len(group) for group in means.values()), default=0) < 2:
        return "needs at least two seeds"
    if len(means) < 2:
        return "needs at least two prompts"
    spread = np.concatenate([np.stack(group) for group in means.values()]).std(0) + 1e-9
    scaled = [np.stack(group) / spread for group in means.values()]
    own = [np.linalg.norm(a - b) for group in scaled for a, b in combinations(group, 2)]
    firsts = [group[0] for group in scaled]
    others = [np.linalg.norm(a - b) for a, b in combinations(firsts, 2)]
    return float(np.mean(own) / max(float(np.mean(others)), 1e-9))
