"""What a plan decided about drums, said in words: there the prior reads it."""

from prior.plan import Plan

CLAUSES = {True: ", with drums", False: ", no drums"}
CLAUSE_TOKENS = max(map(len, CLAUSES.values()))
"""No tokenizer makes more of one."""


def with_drum_clause(prompt: str, plan: Plan | None, negative_prompt: str | None = None) -> str:
    """A prompt, and after it ", with drums" or ", no drums".

    A prior reads harmony and tempo in the plan, but whether there are drums in the text, even where
    a prompt does not say it (docs/experiments.md). A prompt is left as it is where nothing is known
    of drums, and beside a negative prompt, which the plan does not know of.
    """
    if plan is None or plan.drums is None or negative_prompt:
        return prompt
    return prompt + CLAUSES[plan.drums]


def words_to_move_away_from(plan: Plan | None, negative_prompt: str | None = None) -> str:
    """What guidance moves away from: the negative prompt, else "no drums" where a plan has drums.

    So nearly all drums that are planned are heard. Not the other way round: away from drums is away
    from a beat too, and the tempo is lost (docs/experiments.md).

    Returns:
        A text; empty for the unconditional prior.
    """
    if negative_prompt or plan is None or not plan.drums:
        return negative_prompt or ""
    return "no drums"
