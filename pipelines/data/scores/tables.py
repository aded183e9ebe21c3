"""Read the tables that composers and captions draw from: the YAML files of this folder."""

import functools
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent


@functools.cache
def read_table(name: str) -> Any:
    """Read ``NAME.yaml``, its lists as tuples."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster where built
    return with_tuples(yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"), loader))


def with_tuples(value: Any) -> Any:
    """Turn the lists in nested lists and dicts into tuples."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list) else value
