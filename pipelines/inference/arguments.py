"""What a call of the pipeline may be given."""

import secrets


def check_prompt(prompt: str | None, place: str = "") -> str:
    """A text that is not empty; ``place`` says in the error which one it was."""
    if not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(f"prompt must be a text that is not empty, got {prompt!r}{place}")
    return prompt


def check_prompts(prompt: str | list[str]) -> list[str]:
    """One or several texts as a list; none may be empty."""
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if not prompts:
        raise ValueError("prompt is an empty list")
    return [check_prompt(text, f" (item {index})") for index, text in enumerate(prompts)]


def spread_seeds(seed: int | list[int] | None, count: int, name: str) -> list[int]:
    """A seed per item: given, counted up from one, or drawn."""
    if seed is None:
        seed = secrets.randbelow(2**31)
    if isinstance(seed, int):
        return [seed + index for index in range(count)]
    if len(seed) != count:
        raise ValueError(f"{name} must be one per item, got {len(seed)} for {count} items")
    return list(seed)
