"""The arguments of a call that diffusers' audio pipelines have under other names."""

from typing import Any

import torch

OUTPUT_TYPES = ("pt", "np", "latent")


def choose(name: str, value: Any, other_name: str, other: Any, default: Any = None) -> Any:
    """Take the one of two spellings of an argument that is given.

    Raises:
        ValueError: both are given and differ.
    """
    if other is None:
        return value
    if value != default and value != other:
        raise ValueError(f"{name} and {other_name} are the same: got {value} and {other}")
    return other


def draw_seeds(
    generator: torch.Generator | list[torch.Generator] | None, seed: Any, count: int
) -> Any:
    """Draw a seed per item from a generator, or one from each of a list.

    Returns:
        ``seed`` as it is where there is no generator.

    Raises:
        ValueError: both are given, or not one generator per item.
    """
    if generator is None:
        return seed
    if seed is not None:
        raise ValueError("seed and generator exclude each other: got both")
    generators = generator if isinstance(generator, list) else [generator] * count
    if len(generators) != count:
        raise ValueError(f"generator must be one per item, got {len(generators)} for {count} items")
    return [int(torch.randint(2**31, (), generator=g, device=g.device)) for g in generators]


def onload(*parts: Any) -> None:
    """Bring parts that diffusers has offloaded to the device that computes.

    Its hooks only see ``forward``; generation and decoding go through other methods.
    """
    for part in parts:
        hook = getattr(part, "_hf_hook", None)
        if hook is not None:
            hook.pre_forward(part)
