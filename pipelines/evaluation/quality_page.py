"""An evaluation on paper: JSON for machines, Markdown for people, and a rate-quality plot."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from codec.whole_file import sync_and_rename, write_json
from pipelines.errors import MissingPackageError, import_package
from pipelines.evaluation.frechet import MIN_WINDOWS
from pipelines.evaluation.measuring import Measured, SystemRow

# name, heading, decimals, better
COLUMNS = (
    ("visqol", "ViSQOL ↑", 2),
    ("zimtohrli", "zimtohrli ↓", 4),
    ("zimtohrli_stereo", "… each channel ↓", 4),
    ("mel_distance", "mel ↓", 3),
    ("stft_distance", "STFT ↓", 3),
    ("si_sdr_db", "SI-SDR dB ↑", 1),
    ("movement_ratio", "movement → 1", 3),
    ("filled_hz", "filled to Hz ↑", 0),
    ("occupied_hz", "of Hz", 0),
    ("level_difference_error_db", "ILD error dB ↓", 2),
    ("coherence_error", "coherence error ↓", 3),
    ("mono_level_db", "mono sum dB → 0", 2),
    ("mono_worst_band_db", "worst band dB → 0", 1),
    ("loudness_change_lu", "loudness LU → 0", 2),
    ("rest_noise_dbfs", "in rests dBFS ↓", 1),
    ("rest_original_dbfs", "original's", 1),
    ("clicks_per_minute", "clicks/min ↓", 2),
    ("clipped_fraction", "clipped ↓", 5),
    ("dc_offset", "DC ↓", 4),
    ("silent_fraction", "silent", 3),
    ("seam_difference_db", "seam dB → 0", 2),
    ("seam_movement_ratio", "seam movement → 1", 2),
)
Reasons = dict[tuple[str, str], list[str]]
"""(metric, reason) -> names of the rows concerned."""
PLOTTED = (("visqol", "ViSQOL (higher is better)"), ("zimtohrli", "zimtohrli (lower is better)"))


def write_report(
    folder: Path,
    name: str,
    title: str,
    measured: Measured,
    details: dict[str, Any],
    skipped: Sequence[tuple[str, str]] = (),
) -> dict[str, Any]:
    """Write ``NAME.json``, ``NAME.md`` and, with matplotlib, ``NAME.png`` into a folder.

    Args:
        folder: exists.
        name: of the files.
        title: of the Markdown page.
        measured: rows and left-out clips.
        details: settings, versions and other tables, kept in the JSON as they are.
        skipped: files that were never considered, with the reason.

    Returns:
        The JSON's content.
    """
    content = {
        "title": title,
        "num_clips": measured.num_clips,
        "seconds": round(measured.seconds, 2),
        "skipped": [list(pair) for pair in [*skipped, *measured.skipped]],
        "rows": [asdict(row) for row in measured.rows],
        **details,
    }
    try:
        plot_rate_quality(measured.rows, folder / f"{name}.png", title)
        content["plot"] = f"{name}.png"
    except MissingPackageError as reason:
        content["plot"] = f"no plot: {reason}"
    write_json(folder / f"{name}.json", content)
    partial = folder / f"{name}.md.partial"
    partial.write_text(markdown(title, measured, content))
    sync_and_rename(partial, folder / f"{name}.md")
    return content


def markdown(title: str, measured: Measured, content: dict[str, Any]) -> str:
    """The page: one table of metrics, one of Fréchet distances, then what is missing and why."""
    reasons: Reasons = {}
    lines = [
        f"# {title}",
        "",
        f"{measured.num_clips} clips, {measured.seconds:.0f} s in all. Every number is a mean "
        "over the clips that have it; definitions are in `pipelines/evaluation`.",
        "",
        *metric_table(measured.rows, reasons),
        "",
        *frechet_table(measured.rows, reasons),
    ]
    if "codebooks" in content:
        lines += ["", *codebook_table(content["codebooks"])]
    if content["skipped"]:
        lines += ["", "Left out:", ""]
        lines += [f"- {clip}: {reason}" for clip, reason in content["skipped"]]
    if reasons:
        lines += ["", "No number (—):", "", *reason_lines(reasons, len(measured.rows))]
    if content["plot"].endswith(".png"):
        lines += ["", f"![quality against bit rate]({content['plot']})"]
    else:
        lines += ["", content["plot"]]
    versions = ", ".join(f"{key} {value}" for key, value in content.get("versions", {}).items())
    return "\n".join([*lines, "", f"Measured with {versions}." if versions else "", ""])


def metric_table(rows: Sequence[SystemRow], reasons: Reasons) -> list[str]:
    """Markdown lines; columns that no row has are dropped, reasons are collected."""
    present = [column for column in COLUMNS if any(column[0] in row.values for row in rows)]
    lines = _header(["", "kbps", "clips", *(heading for _, heading, _ in present)])
    for row in rows:
        rate = "" if row.bitrate_kbps is None else f"{row.bitrate_kbps:.2f}"
        cells = [row.name, rate, str(row.num_clips)]
        for name, _, decimals in present:
            cells.append(_cell(row.values.get(name, ""), decimals, row.name, name, reasons))
        lines.append(_line(cells))
    return lines


def frechet_table(rows: Sequence[SystemRow], reasons: Reasons) -> list[str]:
    """Markdown lines: distance to the originals and N in each space."""
    spaces = list(rows[0].frechet) if rows else []
    if not spaces:
        return []
    lines = _header(["Fréchet distance to the originals ↓", *(f"{name} (N)" for name in spaces)])
    for row in rows:
        cells = [row.name]
        for space in spaces:
            cell = _cell(row.frechet[space], 3, row.name, f"Fréchet {space}", reasons)
            cells.append(cell if cell == "—" else f"{cell} ({row.windows[space]})")
        lines.append(_line(cells))
    smallest = min((count for row in rows for count in row.windows.values() if count), default=0)
    if 0 < smallest < MIN_WINDOWS:
        lines += ["", f"N is small: sets are ordered sensibly from about {MIN_WINDOWS} windows on."]
    return lines


def reason_lines(reasons: Reasons, num_rows: int) -> list[str]:
    """Markdown list of what has no number and why."""
    return [
        f"- {name}: {reason} ({'all rows' if len(rows) == num_rows else ', '.join(rows)})"
        for (name, reason), rows in reasons.items()
    ]


def codebook_table(codebooks: dict[str, Any]) -> list[str]:
    """Markdown lines: use and entropy of each book, and what the tokens cost."""
    lines = _header(["codebook", "entries used", "entropy, bits", "perplexity"])
    for index, used in enumerate(codebooks["used"]):
        entropy, perplexity = codebooks["entropy_bits"][index], codebooks["perplexity"][index]
        lines.append(_line([str(index), f"{used:.1%}", f"{entropy:.2f}", f"{perplexity:.0f}"]))
    rate, coded = codebooks["bitrate_kbps"], codebooks["entropy_bitrate_kbps"]
    frames = codebooks["num_frames"]
    text = f"{frames} frames; {rate:.3f} kbps as they are, {coded:.3f} kbps by their entropies."
    if frames < 10 * codebooks["size"]:
        text += " Few frames for the size of the books: use and entropy are underestimated."
    return [*lines, "", text]


def plot_rate_quality(rows: Sequence[SystemRow], path: Path, title: str) -> None:
    """ViSQOL and zimtohrli against bit rate, a line for each group of rows.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    import_package("matplotlib", "the plot", "pip install partita[plot]")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    for axes, (metric, label) in zip(figure.subplots(1, 2), PLOTTED, strict=True):
        for group in dict.fromkeys(row.group for row in rows):
            points = [
                (row.bitrate_kbps, row.values[metric])
                for row in rows
                if row.group == group
                and row.bitrate_kbps
                and isinstance(row.values.get(metric), float)
            ]
            if points:
                axes.plot(*zip(*sorted(points), strict=True), marker="o", label=group)
        for row in rows:
            if row.bitrate_kbps is None and isinstance(row.values.get(metric), float):
                axes.axhline(row.values[metric], ls=":", color="gray", lw=1)
        axes.set(xscale="log", xlabel="kbps", ylabel=label)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
    partial = path.with_suffix(".partial")
    figure.savefig(partial, format="png", dpi=110)
    sync_and_rename(partial, path)


def _cell(value: float | str, decimals: int, row: str, name: str, reasons: Reasons) -> str:
    if isinstance(value, float | int):
        return f"{value:.{decimals}f}"
    if value:
        reasons.setdefault((name, value), []).append(row)
        return "—"
    return ""


def _header(cells: list[str]) -> list[str]:
    return [_line(cells), _line(["---"] * len(cells))]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
