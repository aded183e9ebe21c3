"""What a plan decided about drums, said in the prompt: there the prior reads it."""

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
