"""Plots of series with their spread, as PNG with the numbers as CSV beside them."""

from pathlib import Path

from pipelines.comparison.row import Plot


def draw(plot: Plot, folder: Path) -> Path | None:
    """Write ``NAME.csv`` and, where matplotlib is installed, ``NAME.png``.

    Returns:
        The picture, or None without matplotlib.
    """
    from pipelines.errors import MissingPackageError
    from pipelines.inference.plot import check_plotting, save_picture

    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{plot.name}.csv").write_text(plot.csv())
    try:
        check_plotting()
    except MissingPackageError:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, line in plot.series.items():
        (drawn,) = axes.plot(line.x, line.y, marker="o", markersize=4, label=name)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, alpha=0.2, color=drawn.get_color())
    axes.set(xlabel=plot.x, ylabel=plot.y, title=plot.title)
    if plot.log_x:
        axes.set_xscale("log")
    if plot.log_y:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return save_picture(figure, folder / f"{plot.name}.png")
