"""Make backbones of equal size: find the width that gives a Prior as many parameters as asked."""

import inspect
from bisect import bisect_left
from functools import cache
from typing import Any

import torch

from prior.model import Prior

WIDEST = 1000  # twice the heads times this is more than any width that is tried


def complete(model: dict[str, Any]) -> dict[str, Any]:
    """Fill in every field of a Prior that is not given with its default."""
    known = inspect.signature(Prior.__init__).parameters
    unknown = [name for name in model if name not in known]
    if unknown:
        raise ValueError(f"a Prior has no field {unknown[0]!r}")
    defaults = {name: field.default for name, field in known.items() if name != "self"}
    return defaults | model


def count_parameters(model: dict[str, Any]) -> int:
    """Count the parameters of a Prior, which is built without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in Prior(**model).parameters())


def fit_width(model: dict[str, Any], parameters: int, tolerance: float) -> dict[str, Any]:
    """Find the Prior's config with the width whose parameter count is nearest to a target.

    Widths are multiples of twice the number of heads, so that every head is even.

    Raises:
        ValueError: no width comes within the ``tolerance``, a share.
    """
    config = complete(model)
    step = 2 * config["num_heads"]

    @cache
    def count(units: int) -> int:
        return count_parameters(config | {"width": units * step})

    units = 1 + bisect_left(range(1, WIDEST), parameters, key=count)
    best = min((u for u in (units - 1, units) if u > 0), key=lambda u: abs(count(u) - parameters))
    if abs(count(best) / parameters - 1) > tolerance:
        raise ValueError(
            f"no width gives a {config['backbone']} of {config['num_layers']} layers "
            f"{parameters:,} parameters within {tolerance:.0%}: width {best * step} gives "
            f"{count(best):,}; change parameters, num_heads or tolerance"
        )
    return config | {"width": best * step}
