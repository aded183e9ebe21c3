"""Collect what one measurement says: tables, plots, sentences, and what is missing."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pipelines.data.markdown import bullets
from pipelines.errors import MissingPackageError
from pipelines.inference.plot import check_plotting, save_picture


@dataclass(frozen=True)
class Series:
    """Holds a line of a plot, with its spread where there is one."""

    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None
    high: Sequence[float] | np.ndarray | None = None


@dataclass(frozen=True)
class Plot:
    """Writes a picture and the numbers in it."""

    name: str  # of the PNG and of the CSV beside it
    title: str
    x: str  # what the horizontal axis shows
    y: str
    series: dict[str, Series]
    log_x: bool = False  # logarithmic axis
    log_y: bool = False

    def write(self, folder: Path) -> str:
        """Write the numbers and, where matplotlib is installed, the picture; link both."""
        with (folder / f"{self.name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["series", self.x, self.y, "low", "high"])
            for name, line in self.series.items():
                lows = line.y if line.low is None else line.low
                highs = line.y if line.high is None else line.high
                for values in zip(line.x, line.y, lows, highs, strict=True):
                    writer.writerow([name, *(f"{value:.6g}" for value in values)])
        link = f"[numbers]({folder.name}/{self.name}.csv)"
        try:
            check_plotting()
        except MissingPackageError:
            return link
        self._draw(folder / f"{self.name}.png")
        return f"![{self.title}]({folder.name}/{self.name}.png)\n\n{link}"

    def _draw(self, path: Path) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for name, line in self.series.items():
            (drawn,) = axes.plot(line.x, line.y, marker="o", markersize=4, label=name)
            if line.low is not None and line.high is not None:
                axes.fill_between(line.x, line.low, line.high, alpha=0.2, color=drawn.get_color())
        axes.set(xlabel=self.x, ylabel=self.y, title=self.title)
        axes.set_xscale("log" if self.log_x else "linear")
        axes.set_yscale("log" if self.log_y else "linear")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        save_picture(figure, path)


@dataclass
class ComparisonRow:
    """Writes one measurement of the study as a section of the document."""

    title: str
    method: str  # how it was measured, in a sentence or two
    tables: list[str] = field(default_factory=list)  # the figures, in Markdown
    plots: list[Plot] = field(default_factory=list)
    reading: list[str] = field(default_factory=list)  # what the figures say
    missing: list[str] = field(default_factory=list)  # what was not measured, with the reason

    def write(self, figures: Path) -> str:
        """Write the plots into a folder beside the document; give the section in Markdown."""
        figures.mkdir(parents=True, exist_ok=True)
        parts = [f"## {self.title}", self.method, *self.tables]
        parts += [plot.write(figures) for plot in self.plots]
        parts.append(bullets(self.reading))
        if self.missing:
            parts += ["Not measured:", bullets(self.missing)]
        return "\n\n".join(filter(None, parts))
