"""What a plan decided, said to the prior in a few words: beside the prompt, and to move away from.

A prior follows a short text more closely than a long one (docs/experiments.md), so who plays the
tune, the key and whether there are drums is said once more in a text of its own.
"""

from prior.plan import INSTRUMENTS, PITCH_NAMES, Plan

DRUMS = {True: "with drums", False: "no drums"}
BRIEF_TOKENS = max(map(len, INSTRUMENTS)) + len(", F# minor, with drums") + 2
"""No tokenizer makes more of a brief, its marks of beginning and end included."""


def brief_of(plan: Plan | None, negative_prompt: str | None = None) -> str:
    """Lead, key and drums of a plan, as "violin, D minor, no drums"; what is not known is not said.

    Empty beside a negative prompt, which the plan does not know of.
    """
    if plan is None or negative_prompt:
        return ""
    words = [*plan.instruments[:1]]
    if plan.tonic is not None and plan.mode is not None:
        words.append(f"{PITCH_NAMES[plan.tonic]} {plan.mode}")
    if plan.drums is not None:
        words.append(DRUMS[plan.drums])
    return ", ".join(words)


def words_to_move_away_from(plan: Plan | None, negative_prompt: str | None = None) -> str:
    """What guidance moves away from: the negative prompt, else "no drums" where a plan has drums.

    So nearly all drums that are planned are heard. Not the other way round: away from drums is away
    from a beat too, and the tempo is lost (docs/experiments.md).

    Returns:
        A text; empty for the unconditional prior.
    """
    if negative_prompt or plan is None or not plan.drums:
        return negative_prompt or ""
    return DRUMS[False]
