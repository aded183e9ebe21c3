"""Backbones of equal size: the width that gives a Prior a wanted number of parameters."""

from typing import Any

from pipelines.commands.estimate import count_parameters
from prior.model import Prior


def complete(model: dict[str, Any]) -> dict[str, Any]:
    """Every field of a Prior, from those that are given and the defaults."""
    import inspect

    known = inspect.signature(Prior.__init__).parameters
    unknown = [name for name in model if name not in known]
    if unknown:
        raise ValueError(f"a Prior has no field {unknown[0]!r}")
    defaults = {name: field.default for name, field in known.items() if name != "self"}
    return defaults | model


def fit_width(model: dict[str, Any], parameters: int, tolerance: float) -> dict[str, Any]:
    """The Prior's config with the width whose parameter count is nearest to a target.

    Args:
        model: fields of ``Prior``; its width is ignored.
        parameters: wanted.
        tolerance: share by which the count may differ.

    Returns:
        All fields. Widths are multiples of twice the number of heads, so that every head is even.

    Raises:
        ValueError: no width comes near enough.
    """
    config = complete(model)
    step = 2 * config["num_heads"]

    def count(units: int) -> int:
        return count_parameters("prior", config | {"width": units * step})

    units = 1
    while count(units) < parameters:
        units += 1
    best = min((u for u in (units - 1, units) if u > 0), key=lambda u: abs(count(u) - parameters))
    if abs(count(best) / parameters - 1) > tolerance:
        raise ValueError(
            f"no width gives a {config['backbone']} of {config['num_layers']} layers "
            f"{parameters:,} parameters within {tolerance:.0%}: width {best * step} gives "
            f"{count(best):,}; change parameters, num_heads or tolerance"
        )
    return config | {"width": best * step}
