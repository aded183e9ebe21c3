"""Write a report: JSON for programs, a Markdown page for people, and a plot."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from codec.whole_file import write_json
from pipelines.data.markdown import write_page
from pipelines.errors import MissingPackageError
from pipelines.inference.plot import check_plotting, save_picture

MISSING = "—"
Draw = Callable[[Any, dict[str, Any]], None]  # draws a report's content into a matplotlib figure


def write_report_files(
    folder: Path, name: str, content: dict[str, Any], blocks: Iterable[str], draw: Draw
) -> None:
    """Write the blocks of a page to ``NAME.md``, ``NAME.json`` and, with matplotlib, ``NAME.png``.

    The JSON holds ``content``, with ``title`` and ``versions``; ``plot`` is added to it, the
    picture's name or the reason that there is none.
    """
    plot = content["plot"] = write_plot(folder / f"{name}.png", content, draw)
    write_json(folder / f"{name}.json", content)
    versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    picture = f"![plot]({plot})" if plot.endswith(".png") else plot
    page = [f"# {content['title']}", *blocks, picture, f"Measured with {versions}."]
    write_page(folder / f"{name}.md", page)


def write_plot(path: Path, content: dict[str, Any], draw: Draw) -> str:
    """Draw a PNG under the report's title; return its name, or why there is none."""
    try:
        check_plotting()
    except MissingPackageError as reason:
        return f"no plot: {reason}"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    figure.suptitle(content["title"])
    draw(figure, content)
    return save_picture(figure, path).name


def format_number(value: Any, decimals: int) -> str:
    """Format a number; anything else, such as the reason that there is none, becomes a dash."""
    return f"{value:.{decimals}f}" if isinstance(value, float | int) else MISSING


def format_share(share: float | None, decimals: int = 0) -> str:
    """Format a share as a percentage; None becomes a dash."""
    return MISSING if share is None else f"{share:.{decimals}%}"


def format_interval(row: dict[str, Any], number: str) -> str:
    """Format ``mean``, ``low`` and ``high`` of a row by a format such as ``".0%"``."""
    if row["mean"] is None:
        return MISSING
    return f"{row['mean']:{number}} [{row['low']:{number}}, {row['high']:{number}}]"
