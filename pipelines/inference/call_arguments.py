"""Check the arguments of a call, and spread those that may be one for all items or one each.

Nothing here needs a model, so that a command finds a mistake before it loads one.
"""

import math
import operator
import secrets
from numbers import Real
from pathlib import Path
from typing import Any

from codec.whole_file import read_json_object
from pipelines.data.caption_length import MAX_TOKENS, count_tokens

LARGEST_SEED = 2**63 - 1


def spread_seeds(seed: Any, count: int, name: str) -> list[int]:
    """Give every item a seed: as listed, counted up from one, or drawn.

    Raises:
        ValueError: they are not integers in [0, 2**63 - 1], or not one per item.
    """
    if seed is None:
        seed = secrets.randbelow(2**31)
    try:
        many = [operator.index(item) for item in seed] if sized(seed) else None
        seeds = [operator.index(seed) + n for n in range(count)] if many is None else many
    except TypeError as error:
        raise ValueError(f"{name} must be an integer or one per item, got {seed!r:.80}") from error
    if len(seeds) != count:
        raise ValueError(f"{name} must be one per item, got {len(seeds)} for {count} items")
    for value in seeds:
        if not 0 <= value <= LARGEST_SEED:
            raise ValueError(f"{name} must lie in [0, {LARGEST_SEED}], got {value}")
    return seeds


def sized(value: Any) -> bool:
    """Return whether a value holds several: a list, or a tensor or an array with a dimension."""
    return (
        not isinstance(value, str) and hasattr(value, "__len__") and getattr(value, "ndim", 1) > 0
    )


def spread_texts(text: Any, count: int) -> list[str | None]:
    """Give every item its negative prompt.

    Raises:
        ValueError: it is neither a text, nor None, nor a list of one for each item.
    """
    texts = list(text) if isinstance(text, list | tuple) else [text] * count
    if len(texts) != count:
        raise ValueError(f"negative_prompt must be one per item, got {len(texts)} for {count}")
    for item in texts:
        if not isinstance(item, str | None):
            raise ValueError(f"negative_prompt must be a text, got {item!r:.80}")
    return texts


def check_prompt(prompt: Any, place: str = "") -> str:
    """Return a text that is not empty; ``place`` says in the error which one it was."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"prompt must be a text that is not empty, got {prompt!r}{place}")
    return prompt


def check_prompts(prompt: Any) -> list[str]:
    """Return one or several texts as a list; none may be empty."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise ValueError("prompt is an empty list")
    return [check_prompt(text, f" (item {index})") for index, text in enumerate(prompts)]


def check_duration(duration_s: Any, longest_s: float) -> None:
    """Raise ValueError unless a duration is one number in (0, ``longest_s``]."""
    if not isinstance(duration_s, Real):
        raise ValueError(f"duration_s must be one number for all items, got {duration_s!r:.80}")
    if not 0 < float(duration_s) <= longest_s:  # also refuses NaN
        raise ValueError(f"duration_s must lie in (0, {longest_s:g}], got {duration_s}")


def check_num_steps(steps: int | None) -> None:
    """Raise ValueError unless the decoder can take so many steps."""
    if steps is not None and not 1 <= steps <= 16:
        raise ValueError(f"num_inference_steps must lie in [1, 16], got {steps}")


def check_before_loading(
    folder: str | Path,
    texts: list[str | None],
    duration_s: float | None = None,
    steps: int | None = None,
    seeds: tuple[int | None, ...] = (),
    sampling: dict[str, float | None] | None = None,
) -> None:
    """Check a command's arguments as the pipeline will, from its small files alone.

    Args:
        folder: of the pipeline; a hub id's files are not looked at.
        texts: prompts and negative prompts; None for those not given.
        duration_s, steps, seeds: None where they are not given.
        sampling: fields of ``Sampling``.

    Raises:
        ValueError: an argument is out of its range, named with its rule.
    """
    index = Path(folder) / "model_index.json"
    longest_s = read_json_object(index).get("max_duration_s", math.inf) if index.is_file() else 0
    if duration_s is not None:
        check_duration(duration_s, longest_s or math.inf)
    check_num_steps(steps)
    for seed in seeds:
        if seed is not None:
            spread_seeds(seed, 1, "seed")
    given = {name: value for name, value in (sampling or {}).items() if value is not None}
    if given:
        from prior.sampling import Sampling

        Sampling(**given)  # type: ignore[arg-type]
    vocabulary = Path(folder) / "tokenizer" / "tokenizer.json"
    for text in filter(None, texts):
        if vocabulary.is_file() and (tokens := count_tokens(text, vocabulary)) > MAX_TOKENS:
            raise ValueError(f"a prompt may have at most {MAX_TOKENS} tokens, got {tokens}")
