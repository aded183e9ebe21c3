"""What one measurement says: tables, plots, sentences, and what could not be measured."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from codec.whole_file import write_json


@dataclass(frozen=True)
class Series:
    """One line of a plot, with its spread where there is one."""

    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None


@dataclass(frozen=True)
class Plot:
    """A picture and the numbers in it.

    Attributes:
        name: of the PNG and of the CSV beside it.
        title: above the picture.
        x: what the horizontal axis shows.
        y: what the vertical axis shows.
        series: by name.
        log_x: logarithmic axis.
        log_y: logarithmic axis.
    """

    name: str
    title: str
    x: str
    y: str
    series: dict[str, Series]
    log_x: bool = False
    log_y: bool = False

    def csv(self) -> str:
        """A row per point."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["series", self.x, self.y, "low", "high"])
        for name, line in self.series.items():
            lows, highs = line.low or line.y, line.high or line.y
            for values in zip(line.x, line.y, lows, highs, strict=True):
                writer.writerow([name, *(f"{value:.6g}" for value in values)])
        return text.getvalue()


@dataclass(frozen=True)
class Table:
    """Cells as they are printed."""

    columns: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """A Markdown table."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)


@dataclass
class Row:
    """One row of the study.

    Attributes:
        name: of the measurement.
        title: its heading.
        method: how it was measured, in a sentence or two.
        tables: the figures.
        plots: pictures of them.
        reading: what they say.
        missing: what was not measured, with the reason.
        examples: sound files, relative to the document: path and what is heard.
    """

    name: str
    title: str
    method: str
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    reading: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    examples: list[tuple[str, str]] = field(default_factory=list)


def save_row(row: Row, path: Path, key: str) -> None:
    """Keep a measured row with the hash of what it was measured with."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"key": key, "row": asdict(row)})


def load_row(path: Path, key: str | None = None) -> Row | None:
    """A kept row; None where there is none, or one that was measured with other settings."""
    if not path.is_file():
        return None
    values: dict[str, Any] = json.loads(path.read_text())
    if key is not None and values["key"] != key:
        return None
    row = values["row"]
    plots = [
        Plot(**(plot | {"series": {n: Series(**s) for n, s in plot["series"].items()}}))
        for plot in row["plots"]
    ]
    tables = [Table(**table) for table in row["tables"]]
    examples = [(path, text) for path, text in row["examples"]]
    return Row(**(row | {"plots": plots, "tables": tables, "examples": examples}))


def number(value: float, digits: int = 3) -> str:
    """A figure with as many digits as mean something; no exponent below a billion."""
    if value == 0 or not abs(value) < 1e9:
        return f"{value:g}"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def bulleted(lines: Sequence[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)
