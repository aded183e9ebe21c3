"""Build Markdown tables, lists and pages."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from codec.whole_file import write_whole


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Build a Markdown table; a ``|`` or a line break inside a cell is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_escape(cell) for cell in line)} |" for line in lines)


def bullets(items: Iterable[object]) -> str:
    """Build a Markdown list."""
    return "\n".join(f"- {item}" for item in items)


def write_page(path: str | Path, blocks: Iterable[str]) -> None:
    """Write blocks of Markdown, a blank line between them, but for empty ones, to a whole file."""
    write_whole(path, "\n\n".join(block for block in blocks if block) + "\n")


def _escape(cell: object) -> str:
    return " ".join(str(cell).split("\n")).replace("|", "\\|")
