"""The report on a prior on paper: JSON, Markdown and a plot."""

from pathlib import Path
from typing import Any

from codec.whole_file import sync_and_rename, write_json
from pipelines.errors import MissingPackageError, import_package

OWN, OTHER, NONE = "own caption", "another clip's", "no caption"


def write_prior_page(folder: Path, content: dict[str, Any]) -> None:
    """Write ``prior.json``, ``prior.md`` and, with matplotlib, ``prior.png``."""
    try:
        plot_positions(content, folder / "prior.png")
        content["plot"] = "prior.png"
    except MissingPackageError as reason:
        content["plot"] = f"no plot: {reason}"
    write_json(folder / "prior.json", content)
    partial = folder / "prior.md.partial"
    partial.write_text(markdown(content))
    sync_and_rename(partial, folder / "prior.md")


def markdown(content: dict[str, Any]) -> str:
    """The page."""
    lines = [
        f"# {content['title']}",
        "",
        f"{content['num_clips']} held-out clips, {content['seconds']:.0f} s in all; every clip "
        "weighs the same. *Codes alone*: cross-entropy for who knows only how often each code "
        "occurs in the training split.",
        "",
        *book_lines(content),
        "",
        *worth_lines(content["caption_worth"]),
        "",
        *source_lines(content["sources"]),
        "",
        *position_lines(content["positions"]),
    ]
    plot = content["plot"]
    lines += ["", f"![bits by position]({plot})" if plot.endswith(".png") else plot]
    versions = ", ".join(f"{key} {value}" for key, value in content["versions"].items())
    return "\n".join([*lines, "", f"Measured with {versions}.", ""])


def book_lines(content: dict[str, Any]) -> list[str]:
    """Bits of every book and of a whole frame."""
    lines = _header(["bits", OWN, OTHER, NONE, "codes alone", "all codes alike"])
    unigram = content["unigram_bits"]
    for index, book in enumerate(content["books"]):
        alone = "—" if isinstance(unigram, str) else f"{unigram[index]:.3f}"
        cells = [f"{book[text]:.3f}" for text in (OWN, OTHER, NONE)]
        lines.append(_line([f"book {index}", *cells, alone, f"{content['uniform_bits']:.3f}"]))
    frame, count = content["frame"], len(content["books"])
    cells = [
        f"{frame[text]['mean']:.3f} [{frame[text]['low']:.3f}, {frame[text]['high']:.3f}]"
        for text in (OWN, OTHER, NONE)
    ]
    alone = "—" if isinstance(unigram, str) else f"{sum(unigram):.3f}"
    lines.append(_line(["a frame", *cells, alone, f"{count * content['uniform_bits']:.3f}"]))
    rate = f"{frame[OWN]['kbps']:.3f} kbps at {content['frame_rate']:g} frames a second."
    note = f" No codes alone: {unigram}." if isinstance(unigram, str) else ""
    return [*lines, "", rate + note]


def worth_lines(worth: dict[str, Any]) -> list[str]:
    """What a wrong caption, or none, costs."""
    heading = ["instead of the own caption", "bits a frame", "nats in 10 s", "clips where it costs"]
    lines = _header(heading)
    for text, row in worth.items():
        cost = f"{row['bits_per_frame']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
        share = f"{row['clips_where_it_costs']:.0%}"
        lines.append(_line([text, cost, f"{row['nats_per_10_s']:+.1f}", share]))
    return lines


def source_lines(sources: dict[str, Any]) -> list[str]:
    """Bits a frame by source."""
    lines = _header(["bits a frame, by source", "clips", OWN, OTHER, NONE])
    for source, row in sources.items():
        cells = [f"{row[text]:.3f}" for text in (OWN, OTHER, NONE)]
        lines.append(_line([source or "unknown", str(row["clips"]), *cells]))
    return lines


def position_lines(positions: list[dict[str, Any]]) -> list[str]:
    """Bits a frame in the first seconds, then every fifth."""
    shown = [row for row in positions if row["second"] < 3 or row["second"] % 5 == 0]
    lines = _header(["second", "clips", OWN, OTHER, NONE])
    for row in shown:
        cells = [f"{row['frame'][text]:.3f}" for text in (OWN, OTHER, NONE)]
        lines.append(_line([str(row["second"]), str(row["clips"]), *cells]))
    return lines


def plot_positions(content: dict[str, Any], path: Path) -> None:
    """Bits a frame by second under each text, and bits of every book.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    import_package("matplotlib", "the plot", "pip install partita[plot]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(content["title"])
    frames, books = figure.subplots(1, 2)
    seconds = [row["second"] + 0.5 for row in content["positions"]]
    for text in (OWN, OTHER, NONE):
        frames.plot(seconds, [row["frame"][text] for row in content["positions"]], label=text)
    for index in range(len(content["books"])):
        bits = [row["books"][index] for row in content["positions"]]
        books.plot(seconds, bits, label=f"book {index}")
    books.axhline(content["uniform_bits"], ls=":", color="gray", lw=1)
    frames.set(xlabel="s", ylabel="bits a frame")
    books.set(xlabel="s", ylabel="bits a code, own caption")
    for axes in (frames, books):
        axes.legend()
        axes.grid(alpha=0.3)
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=110)
    sync_and_rename(partial, path)


def _header(cells: list[str]) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
