"""Files of a report: JSON for programs, a Markdown page for people, and a plot."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from codec.whole_file import whole_file, write_json
from pipelines.data.markdown import write_page
from pipelines.errors import MissingPackageError, import_package

MISSING = "—"


def write_report_files(
    folder: Path,
    name: str,
    content: dict[str, Any],
    build_blocks: Callable[[dict[str, Any]], Iterable[str]],
    draw: Callable[[Any, dict[str, Any]], None],
) -> None:
    """Write ``NAME.json``, ``NAME.md`` and, with matplotlib, ``NAME.png``.

    Args:
        folder: exists.
        name: of the files, without suffix.
        content: what the JSON file holds, with ``title`` and ``versions``; ``plot`` is added, the
            picture's name or the reason that there is none.
        build_blocks: content -> Markdown blocks of the page.
        draw: (matplotlib figure, content) -> None.
    """
    try:
        write_plot(folder / f"{name}.png", content, draw)
        content["plot"] = f"{name}.png"
    except MissingPackageError as reason:
        content["plot"] = f"no plot: {reason}"
    write_json(folder / f"{name}.json", content)
    plot = content["plot"]
    versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    write_page(
        folder / f"{name}.md",
        [
            f"# {content['title']}",
            *build_blocks(content),
            f"![plot]({plot})" if plot.endswith(".png") else plot,
            f"Measured with {versions}.",
        ],
    )


def write_plot(
    path: Path, content: dict[str, Any], draw: Callable[[Any, dict[str, Any]], None]
) -> None:
    """Draw a figure under the report's title into a PNG file.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    import_package("matplotlib", "the plot", "pip install partita[plot]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(content["title"])
    draw(figure, content)
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=110)


def format_number(value: Any, decimals: int) -> str:
    """Format a number; anything else, such as the reason that there is none, becomes a dash."""
    return f"{value:.{decimals}f}" if isinstance(value, float | int) else MISSING


def format_share(share: float | None, decimals: int = 0) -> str:
    """Format a share as a percentage; None becomes a dash."""
    return MISSING if share is None else f"{share:.{decimals}%}"
