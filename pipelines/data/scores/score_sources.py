"""List the sources of composed pieces (without imports, so that ``--help`` is instant)."""

SOURCES = {"generated": 0.66, "mma": 0.16, "bach": 0.12, "songs": 0.3}
"""Weights of the sources; those that are wanted are scaled to one."""
DEFAULT_SOURCES = ("generated", "mma", "bach")
