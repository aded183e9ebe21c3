"""Where composed pieces come from (without imports, so that ``--help`` is instant)."""

SOURCES = {"generated": 0.66, "mma": 0.16, "bach": 0.12, "openttd": 0.1}
"""Shares of the sources; those asked for are scaled to one."""
DEFAULT_SOURCES = ("generated", "mma", "bach")
"""openttd-openmsx is GPL-2: fit for experiments, not for weights under another license."""
